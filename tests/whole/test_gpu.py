"""Target gpu: whole channels go, what is left stays dense, masks are gone, stock ONNX Runtime runs it."""

import numpy as np
import pytest
from onnx import helper, numpy_helper

import scalpel_graph as sg
from models.resnet import resnet50
from scalpel_graph.target import load_target
from tests.pass_runner import op_types, outputs
from tests.scalpel_graph.channels.test_networks import add_masks, resnet_groups

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
