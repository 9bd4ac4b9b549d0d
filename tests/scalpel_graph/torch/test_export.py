import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import scalpel_graph as sg
from scalpel_graph.torch import GroupPruner, export_onnx, insert_masks

X = torch.randn(2, 1, 12, 12, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 32, 3)
        self.relu1 = nn.ReLU()
        self.pool1 = nn.MaxPool2d(2)
        self.conv2 = nn.Conv2d(32, 32, 3, bias=False)
        self.norm2 = nn.BatchNorm2d(32)
        self.relu2 = nn.ReLU()
        self.drop = nn.Dropout(0.5)
        self.fc1 = nn.Linear(32 * 9, 64)
        self.relu3 = nn.ReLU()
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x):
        x = self.pool1(self.relu1(self.conv1(x)))
        x = self.relu2(self.norm2(self.conv2(x)))
        return self.fc2(self.relu3(self.fc1(self.drop(x.flatten(1)))))


def pruned():
    torch.manual_seed(0)
    network = Net()
    masks = insert_masks(network, ["pool1", "relu2", "relu3"], X)
    with torch.no_grad():
        network.norm2.running_mean.normal_()
        network.norm2.bias.normal_()
        masks["pool1.mask"].alpha[::2] = 0
        masks["relu2.mask"].alpha[:24] = 0
        masks["relu3.mask"].alpha[5:21] = 0
    GroupPruner(network, {"conv2": "1x3", "fc1": "1x8"}).prune_to({"conv2": 0.75, "fc1": 0.25})
    return network


def run(model, x, library=False):
    options = onnxruntime.SessionOptions()
    if library:
        options.register_custom_ops_library(str(sg.custom_op_library()))
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: x.numpy()})[0]


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    network = pruned()
    path = tmp_path_factory.mktemp("export") / "net.onnx"
    export_onnx(network, X, path)
    return network, path


def test_weights_and_masks_arrive_as_they_are(exported):
    network, path = exported
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    for name in ("conv1", "fc1", "fc2"):
        weight = network.get_submodule(name).weight.detach().numpy()
        assert tensors[f"{name}.weight"].tobytes() == weight.tobytes()
    folded = tensors["conv2.weight"]
    np.testing.assert_array_equal(folded == 0, network.conv2.weight.detach().numpy() == 0)
    constants = [tensors[n.input[1]].ravel() for n in model.graph.node if n.op_type == "Mul"]
    expected = [network.get_submodule(f"{n}.mask").alpha.numpy() for n in ("pool1", "relu2", "relu3")]
    for constant, alpha in zip(constants, expected, strict=True):
        np.testing.assert_array_equal(constant, alpha)


def test_weight_layers_are_called_as_their_modules_are(exported):
    graph = onnx.load(exported[1]).graph
    assert [n.name for n in graph.node if n.op_type in ("Conv", "Gemm")] == ["conv1", "conv2", "fc1", "fc2"]
    assert not any(node.metadata_props for node in graph.node)


def test_it_computes_the_same_at_any_batch_size_in_evaluation(exported):
    network, path = exported
    assert network.training
    for batch in (1, 5):
        x = torch.randn(batch, 1, 12, 12)
        with torch.no_grad():
            expected = network.eval()(x).numpy()
        network.train()
        np.testing.assert_allclose(run(onnx.load(path), x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_optimizer_removes_what_is_masked(exported, target):
    network, path = exported
    result = sg.optimize(path, target=target)
    report = result.report.to_json()
    removed = {node["name"]: (node["before"], node["after"]) for node in report["removed_nodes"]}
    assert {name: removed[name] for name in ("conv1", "conv2", "fc1")} == {
        "conv1": (32, 16),
        "conv2": (32, 8),
        "fc1": (64, 48),
    }
    assert not any(node.op_type == "Mul" for node in result.model.graph.node)
    with torch.no_grad():
        expected = network.eval()(X).numpy()
    network.train()
    np.testing.assert_allclose(run(result.model, X, library=target == "cpu"), expected, rtol=1e-4, atol=1e-5)


def test_names_inputs_by_keyword_and_a_fixed_batch(tmp_path):
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 3)

        def forward(self, left, right, scale=2.0):
            return self.fc(left * scale + right)

    inputs = {"left": torch.randn(2, 5, 4), "right": torch.randn(2, 5, 4)}
    export_onnx(Two(), inputs, tmp_path / "a.onnx", output_names=["answer"])
    graph = onnx.load(tmp_path / "a.onnx").graph
    assert [value.name for value in graph.input] == ["left", "right"]
    assert [value.name for value in graph.output] == ["answer"]
    assert graph.input[0].type.tensor_type.shape.dim[0].dim_param
    assert [node.name for node in graph.node if node.op_type == "MatMul"] == ["fc"]
    export_onnx(
        Two(), tuple(inputs.values()), tmp_path / "b.onnx", input_names=["a", "b"], dynamic_batch=False
    )
    graph = onnx.load(tmp_path / "b.onnx").graph
    assert [value.name for value in graph.input] == ["a", "b"]
    assert [dim.dim_value for dim in graph.input[0].type.tensor_type.shape.dim] == [2, 5, 4]


def test_a_model_that_cannot_be_exported(tmp_path):
    class Odd(nn.Module):
        def forward(self, x):
            return x if x.sum().item() > 0 else -x

    with pytest.raises(sg.InputError, match=r"^PyTorch cannot export the model: .") as caught:
        export_onnx(Odd(), X, tmp_path / "odd.onnx")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "odd.onnx").exists()
