import math
from collections import Counter

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import numpy_helper

from models import NETWORKS
from models.bert import bert
from models.inverted_residual import mobilenet_v2
from models.lenet import lenet_5, lenet_300_100
from models.mlp import mlp
from models.mobilenet import mobilenet_v1
from models.resnet import resnet50
from scalpel_graph.pruning import WeightLayer, prune_magnitude, weight_layers


@pytest.fixture(scope="module", params=NETWORKS)
def built(request):
    network = NETWORKS[request.param]
    return request.param, network, network.build()


def parameters(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def layers_of(model: onnx.ModelProto) -> list[WeightLayer]:
    return [layer for layer in weight_layers(model) if isinstance(layer, WeightLayer)]


def test_is_valid(built):
    _, _, model = built
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert model.ir_version == 8
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    for value in (*model.graph.input, *model.graph.output):
        assert value.type.tensor_type.shape.dim[0].dim_param == "batch"
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names)


def test_runs_and_depends_on_its_input(built):
    _, network, model = built
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (declared,) = session.get_inputs()
    x = network.sample_input(batch=2)
    assert declared.shape == ["batch", *network.input_shape[1:]]
    assert x.dtype == (np.int64 if declared.type == "tensor(int64)" else np.float32)
    one, two = session.run(None, {declared.name: x[:1]}), session.run(None, {declared.name: x})
    for of_one, of_two in zip(one, two, strict=True):
        assert np.isfinite(of_two).all()
        assert 0.1 < of_two.std() < 10
        assert np.abs(of_two[0] - of_two[1]).max() > 0.05
        np.testing.assert_allclose(of_one[0], of_two[0], rtol=1e-3, atol=1e-3)


def test_usual_pruning_selects_the_right_layers(built):
    name, network, model = built
    selected = {
        layer.name
        for layer in prune_magnitude(model, 0.0, (1, 8), layers=network.pruned_layers).layers
        if layer.pruned
    }
    left = {layer.name for layer in layers_of(model)} - selected
    depthwise = {layer.name for layer in layers_of(model) if layer.group > 1}
    squeezes = {layer.name for layer in layers_of(model) if layer.name.endswith((".squeeze", ".excite"))}
    assert (
        left
        == {
            "lenet-300-100": set(),
            "lenet-5": {"conv1"},
            "convnet": {"conv1"},
            "nin": {"conv1"},
            "alexnet": {"conv1", "conv2", "conv3", "conv4", "conv5"},
            "alexnet-fc": set(),
            "resnet-50": {"conv1", "fc"},
            "mobilenet-v1": {"conv1", "fc"} | depthwise,
            "mobilenet-v2": {"conv1", "fc"} | depthwise,
            "mobilenet-v3": {"conv1", "fc"} | depthwise | squeezes,
            "efficientnet-b0": {"conv1", "fc"} | depthwise | squeezes,
            "shufflenet-v1": {"conv1", "fc"} | {name for name in depthwise if name.endswith("depthwise")},
            "shufflenet-v2": {"conv1", "fc"} | depthwise,
            "densenet-121": {"conv0", "fc"},
            "unet": {"down0.conv1", "down0.conv2", "head"},
            "yolo": {"stem", "head.near", "head.far"},
            "vit-tiny": {"patches", "fc"},
            "lstm-tagger": {"tags"},
            "bert-base": {"pooler.dense"},
            "minilm": {"pooler.dense"},
            "mlp": set(),
        }[name]
    )


# What the Scalpel paper, torchvision, Keras and the BERT paper give, each counting in its own way.
PUBLISHED_SIZE = {
    "lenet-300-100": 266_200,
    "lenet-5": 430_500,
    "convnet": 89_440,
    "nin": 965_568,
    "alexnet": 60_954_656,
    "alexnet-fc": 9216 * 4096 + 4096 * 4096 + 4096 * 1000,
    "resnet-50": 25_557_032,
    "mobilenet-v1": 4_231_976,
    "mobilenet-v2": 3_504_872,
    "mobilenet-v3": 5_483_032,
    "efficientnet-b0": 5_288_548,
    "shufflenet-v1": 1_865_728,
    "shufflenet-v2": 2_278_604,
    "densenet-121": 7_978_856,
    "unet": 31_037_698,
    "vit-tiny": 5_717_416,
    "bert-base": 12 * 7_087_872,
    "minilm": 6 * 1_774_464,
    "mlp": 6 * 2048**2,
}


#: Of these, weights are counted without biases.
WEIGHTS_PUBLISHED = ("lenet-300-100", "lenet-5", "convnet", "nin", "alexnet", "alexnet-fc", "mlp")


@pytest.mark.parametrize("built", PUBLISHED_SIZE, indirect=True)
def test_is_as_large_as_published(built):
    name, _, model = built
    sizes = {tensor.name: int(np.prod(tensor.dims)) for tensor in model.graph.initializer}
    if name in ("bert-base", "minilm"):  # parameters of the encoder
        counted = {key for key in sizes if key.startswith("encoder") and key.endswith(("weight", "bias"))}
    elif name in WEIGHTS_PUBLISHED:
        counted = {tensor.name for tensor in model.graph.initializer if len(tensor.dims) > 1}
    else:  # trainable parameters
        counted = {key for key in sizes if key.endswith(("weight", "bias", "class_token"))}
    assert sum(sizes[key] for key in counted) == PUBLISHED_SIZE[name]


def test_layers_are_separate_nodes_as_exporters_write_them():
    count = Counter(node.op_type for node in resnet50().graph.node)
    assert (count["Conv"], count["BatchNormalization"], count["Relu"], count["Add"]) == (53, 53, 49, 16)
    count = Counter(node.op_type for node in mobilenet_v1().graph.node)
    assert (count["Conv"], count["BatchNormalization"], count["Clip"]) == (27, 27, 27)
    model = bert(layers=2, hidden=32, intermediate=64, heads=4, tokens=8)
    count = Counter(node.op_type for node in model.graph.node)
    assert (count["MatMul"], count["Gemm"], count["LayerNormalization"], count["Erf"]) == (16, 1, 5, 2)


def test_normalisation_differs_from_channel_to_channel():
    arrays = parameters(resnet50())
    for part in ("weight", "bias", "running_mean", "running_var"):
        values = arrays[f"layer3.2.bn2.{part}"]
        assert values.std() > 0.05
    assert (arrays["layer3.2.bn2.running_var"] > 0).all()


def test_groups(built):
    name, _, model = built
    grouped = {layer.name: (layer.shape, layer.group) for layer in layers_of(model) if layer.group > 1}
    if name == "alexnet":
        assert grouped == {
            "conv2": ((256, 48 * 25), 2),
            "conv4": ((384, 192 * 9), 2),
            "conv5": ((256, 192 * 9), 2),
        }
    elif name == "mobilenet-v1":
        channels = [32, 64, 128, 128, 256, 256, 512, 512, 512, 512, 512, 512, 1024]
        assert grouped == {f"block{i}.depthwise": ((n, 9), n) for i, n in enumerate(channels, start=1)}
    elif name == "shufflenet-v1":
        groups = {layer: group for layer, (_, group) in grouped.items() if not layer.endswith("depthwise")}
        assert set(groups.values()) == {3} and len(groups) == 31
    else:
        depthwise = {layer.name for layer in layers_of(model) if layer.name.endswith("depthwise")}
        assert grouped.keys() == depthwise
        assert all(shape[0] == group for shape, group in grouped.values())


@pytest.mark.parametrize("build", [lenet_5, mobilenet_v1])
def test_seed_decides_the_weights(build):
    once, again, other = build(seed=3), build(seed=3), build(seed=4)
    assert once.SerializeToString() == again.SerializeToString()
    assert once.SerializeToString() != other.SerializeToString()


def test_weights_of_each_output_have_norm_gain():
    for name, array in parameters(lenet_5()).items():
        if name.endswith("weight"):
            gain = 1.0 if name == "fc2.weight" else np.sqrt(2)
            np.testing.assert_allclose(np.linalg.norm(array.reshape(len(array), -1), axis=1), gain, rtol=1e-5)
    projection = parameters(bert(layers=1, hidden=32, intermediate=64, heads=4, tokens=8))[
        "encoder.0.output.weight"
    ]
    np.testing.assert_allclose(np.linalg.norm(projection, axis=0), 1.0, rtol=1e-5)


def test_other_sizes_and_opsets():
    small = resnet50(opset=13, blocks=(1, 1), width=8, image=32, classes=5)
    session = ort.InferenceSession(small.SerializeToString(), providers=["CPUExecutionProvider"])
    (y,) = session.run(None, {"input": np.ones((3, 3, 32, 32), np.float32)})
    assert y.shape == (3, 5)
    assert small.opset_import[0].version == 13
    assert len(layers_of(mlp(layers=2, width=16))) == 2


def test_widths_are_those_given_and_no_others():
    shapes = {
        name: array.shape for name, array in parameters(mobilenet_v2(widths={"block2.hidden": 40})).items()
    }
    assert shapes["block2.expand.weight"] == (40, 16, 1, 1) and shapes["block2.depthwise.weight"][0] == 40
    with pytest.raises(ValueError, match=r"no layers are called block2.hiden: choose from block1.out, "):
        mobilenet_v2(widths={"block2.hiden": 40})


def test_unusable_bert():
    with pytest.raises(ValueError, match="5 heads do not divide 32"):
        bert(hidden=32, heads=5)
    with pytest.raises(ValueError, match="opset 17"):
        bert(opset=16)


def test_lenet_300_100_computes_three_layers():
    model = lenet_300_100()
    p, x = parameters(model), NETWORKS["lenet-300-100"].sample_input(batch=3)
    y = x.reshape(3, -1)
    for layer in ("fc1", "fc2", "fc3"):
        y = y @ p[f"{layer}.weight"].T + p[f"{layer}.bias"]
        y = y if layer == "fc3" else np.maximum(y, 0)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": x})[0], y, rtol=1e-4, atol=1e-4)


def test_bert_computes_an_encoder():
    batch, tokens, hidden, heads = 2, 6, 16, 4
    model = bert(layers=2, hidden=hidden, intermediate=32, heads=heads, tokens=tokens, vocabulary=11)
    p = {name: array.astype(np.float64) for name, array in parameters(model).items()}
    ids = np.random.default_rng(0).integers(11, size=(batch, tokens))
    erf = np.vectorize(math.erf)

    def norm(x, name):
        centred = x - x.mean(-1, keepdims=True)
        return centred / centred.std(-1, keepdims=True) * p[f"{name}.weight"] + p[f"{name}.bias"]

    def linear(x, name):
        return x @ p[f"{name}.weight"] + p[f"{name}.bias"]

    def attention(x, name):
        q, k, v = (
            linear(x, f"{name}.{part}").reshape(batch, tokens, heads, -1).swapaxes(1, 2)
            for part in ("query", "key", "value")
        )
        scores = np.exp(q @ k.swapaxes(2, 3) / np.sqrt(hidden / heads))
        context = scores / scores.sum(-1, keepdims=True) @ v
        return linear(context.swapaxes(1, 2).reshape(batch, tokens, hidden), f"{name}.output")

    x = norm(p["embeddings.word.weight"][ids] + p["embeddings.position.weight"], "embeddings.norm")
    for i in range(2):
        name = f"encoder.{i}"
        x = norm(attention(x, f"{name}.attention") + x, f"{name}.norm1")
        y = linear(x, f"{name}.intermediate")
        y = 0.5 * y * (1 + erf(y / np.sqrt(2)))
        x = norm(linear(y, f"{name}.output") + x, f"{name}.norm2")
    pooled = np.tanh(x[:, 0] @ p["pooler.dense.weight"].T + p["pooler.dense.bias"])
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    got = session.run(None, {"input_ids": ids})
    np.testing.assert_allclose(got[0], x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(got[1], pooled, rtol=1e-4, atol=1e-4)
