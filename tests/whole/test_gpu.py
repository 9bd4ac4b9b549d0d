"""Target gpu: whole channels go, what is left stays dense, masks are gone, stock ONNX Runtime runs it."""

import numpy as np
import pytest

import scalpel_graph as sg
from models.resnet import resnet50
from scalpel_graph.target import load_target
from tests.pass_runner import op_types, outputs
from tests.scalpel_graph.channels.test_networks import add_masks, resnet_groups

BLOCKS = (2, 1, 1, 1)


def masked(kept_of):
    groups = [(names, channels, kept_of(kept)) for names, channels, kept in resnet_groups(32, BLOCKS)]
    return add_masks(resnet50(width=32, blocks=BLOCKS, image=64), groups)


@pytest.mark.parametrize("fewer", [0, 3])
def test_a_masked_resnet_50_becomes_dense_and_narrow(fewer):
    """Of half the channels, or three fewer, are left what the same network at half the width has."""
    proto = masked(lambda kept: kept - fewer)
    result = sg.optimize(proto, target="gpu")
    assert result.report.verified.ok and result.report.verified.runs
    smaller = sg.optimize(resnet50(width=16, blocks=BLOCKS, image=64), target="gpu")
    assert "Mul" not in op_types(result.model)
    assert op_types(result.model) == op_types(smaller.model)
    assert result.report.parameters.after == smaller.report.parameters.after
    assert result.report.macs.after == smaller.report.macs.after
    assert not any(node.domain for node in result.model.graph.node)
    for node in result.report.removed_nodes:
        assert (node.after * 2, node.possible) == (node.before, node.after - fewer)
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
    assert all(node.after == node.possible == node.before // 2 - 3 for node in result.report.removed_nodes)
