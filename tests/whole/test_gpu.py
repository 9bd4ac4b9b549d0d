"""Target gpu: whole channels go, what is left stays dense, masks are gone, stock ONNX Runtime runs it."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import scalpel_graph as sg
from models.resnet import resnet50
from scalpel_graph.target import load_target
from tests.pass_runner import op_types, outputs
from tests.scalpel_graph.channels.test_networks import add_masks, resnet_groups
from tests.scalpel_graph.test_gpu_cost import GPU

BLOCKS = (2, 1, 1, 1)


def masked(kept_of):
    groups = [(names, channels, kept_of(kept)) for names, channels, kept in resnet_groups(32, BLOCKS)]
    return add_masks(resnet50(width=32, blocks=BLOCKS, image=64), groups)


def as_conditions(proto):
    """The masks as Where: every other one picks zero instead of the channel."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    proto.graph.initializer.append(numpy_helper.from_array(np.zeros((), np.float32), "nothing"))
    masks = [node for node in proto.graph.node if node.op_type == "Mul"]
    for number, node in enumerate(masks):
        keep = numpy_helper.to_array(weights[node.input[1]]) != 0
        condition = keep if number % 2 else ~keep
        weights[node.input[1]].CopyFrom(numpy_helper.from_array(condition, node.input[1]))
        operands = [node.input[0], "nothing"] if number % 2 else ["nothing", node.input[0]]
        node.op_type = "Where"
        node.input[:] = [node.input[1], *operands]
    return proto


def as_selections(proto, extra):
    """Widens the Convs inside the blocks by ``extra`` channels; a Gather behind the Relu leaves them out."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    producers = {node.output[0]: node for node in proto.graph.node}
    rng = np.random.default_rng(0)
    for node in list(proto.graph.node):
        if not node.name.endswith(("relu1", "relu2")):
            continue
        norm = producers[node.input[0]]
        conv = producers[norm.input[0]]
        channels = weights[conv.input[1]].dims[0] + extra
        picked = np.sort(rng.permutation(channels)[: channels - extra])
        for name in (conv.input[1], *norm.input[1:]):
            values = numpy_helper.to_array(weights[name])
            wider = rng.uniform(0.1, 1, (channels, *values.shape[1:])).astype(np.float32)
            wider[picked] = values
            weights[name].CopyFrom(numpy_helper.from_array(wider, name))
        indices = numpy_helper.from_array(picked, f"{node.name}.picked")
        proto.graph.initializer.append(indices)
        output = node.output[0]
        node.output[0] = f"{output}_all"
        gather = helper.make_node("Gather", [node.output[0], indices.name], [output], axis=1)
        proto.graph.node.insert(list(proto.graph.node).index(node) + 1, gather)
    return proto


FORMS = {
    "Mul": masked(lambda kept: kept),
    "Mul, three fewer": masked(lambda kept: kept - 3),
    "Where": as_conditions(masked(lambda kept: kept)),
    "Where, three fewer": as_conditions(masked(lambda kept: kept - 3)),
    "Gather": as_selections(resnet50(width=16, blocks=BLOCKS, image=64), 5),
    "Gather and Mul, three fewer": as_selections(masked(lambda kept: kept - 3), 11),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_masked_resnet_50_becomes_dense_and_narrow(form):
    """Of half the channels, or three fewer, are left what the same network at half the width has."""
    proto = FORMS[form]
    result = sg.optimize(proto, target="gpu")
    assert result.report.verified.ok and result.report.verified.runs
    assert not any(node.domain for node in result.model.graph.node)
    smaller = sg.optimize(resnet50(width=16, blocks=BLOCKS, image=64), target="gpu")
    assert op_types(result.model) == op_types(smaller.model)
    assert result.report.parameters.after == smaller.report.parameters.after
    assert result.report.macs.after == smaller.report.macs.after
    fewer = 3 if "fewer" in form else 0
    narrowed = [node for node in result.report.removed_nodes if node.possible < node.before]
    assert narrowed and all(node.possible == node.after - fewer for node in narrowed)
    x = np.random.default_rng(0).standard_normal((2, 3, 64, 64), dtype=np.float32)
    for expected, value in zip(
        outputs(proto, {"input": x}), outputs(result.model, {"input": x}), strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


def test_what_is_dense_stays_as_it_is():
    proto = resnet50(width=16, blocks=(1, 1), image=32)
    result = sg.optimize(proto, target="gpu")
    assert not result.report.removed_nodes and not result.report.layers
    assert {node.op_type for node in result.model.graph.node} <= {node.op_type for node in proto.graph.node}


def test_the_multiple_is_the_profiles(tmp_path):
    path = tmp_path / "narrow.toml"
    path.write_text('kind = "gpu"\ndescription = "one that does not care"\n')
    assert load_target(str(path)).round_channels_to == 1
    result = sg.optimize(masked(lambda kept: kept - 3), target=str(path))
    *narrowed, last = result.report.removed_nodes
    assert all(node.after == node.possible == node.before // 2 - 3 for node in narrowed)
    assert last.after == last.before == 1000


def pruned_matrices():
    """Two fully connected layers, of which groups of eight rows are left; the second is small and dense."""
    rng = np.random.default_rng(0)
    kept = np.repeat(rng.random((64, 512)) < 0.1, 8, axis=0)
    weights = {
        "W1": np.where(kept, rng.standard_normal((512, 512)), 0).astype(np.float32),
        "b1": rng.standard_normal(512).astype(np.float32),
        "W2": rng.standard_normal((10, 512)).astype(np.float32),
        "b2": np.zeros(10, np.float32),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "W1", "b1"], ["h"], name="fc1", transB=1),
        helper.make_node("Relu", ["h"], ["a"], name="relu"),
        helper.make_node("Gemm", ["a", "W2", "b2"], ["y"], name="fc2", transB=1),
    ]
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("x", ["batch", 512]), ("y", ["batch", 10]))
    ]
    tensors = [numpy_helper.from_array(array, name) for name, array in weights.items()]
    graph = helper.make_graph(nodes, "g", values[:1], values[1:], tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_profile_with_prices_makes_products_of_few_rows_sparse():
    """It runs in stock ONNX Runtime through its functions, and with our operators."""
    result = sg.optimize(pruned_matrices(), target=GPU)
    assert op_types(result.model) == ["GroupCsrGemm", "Gemm"]
    decisions = {layer.name: layer.chosen for layer in result.report.layers}
    assert decisions["fc1"].group_shape == (8, 1) and decisions["fc2"].decision == "dense"
    verified = result.report.verified
    assert verified.ok and verified.custom_ops and verified.fallback
    x = np.random.default_rng(1).standard_normal((3, 512), dtype=np.float32)
    for expected, value in zip(
        outputs(pruned_matrices(), {"x": x}), outputs(result.model, {"x": x}), strict=True
    ):
        np.testing.assert_allclose(value, expected, rtol=1e-4, atol=1e-4)


def test_many_rows_keep_a_product_dense():
    result = sg.optimize(pruned_matrices(), target=GPU, input_shapes={"x": (128, 512)})
    assert op_types(result.model) == ["Gemm", "Relu", "Gemm"]
    reasons = {skip.node: skip.reason for run in result.report.passes for skip in run.skipped}
    assert "128 rows" in reasons["fc1"]


@pytest.mark.parametrize("name", ["gpu", "h100"])
def test_without_prices_nothing_becomes_sparse(name):
    result = sg.optimize(pruned_matrices(), target=name)
    assert op_types(result.model) == ["Gemm", "Relu", "Gemm"]
    assert not result.report.layers


def test_autotune_is_for_cpus():
    with pytest.raises(sg.InputError, match="times layers on the CPU here, and target gpu is a GPU"):
        sg.optimize(pruned_matrices(), target="gpu", autotune=True)
