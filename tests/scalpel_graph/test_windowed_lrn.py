"""WindowedLrn as a function of standard operators: what stock ONNX Runtime and onnx make of it."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from scalpel_graph import ops, windowed_lrn
from tests.lrn_layer import BETAS, LrnLayer, lrn, uneven
from tests.ort_sessions import run, session
from tests.sparse_layer import OPSETS

LAYERS = {
    **{f"beta-{beta}": lrn((2, 7, 5, 6), beta=beta) for beta in BETAS},
    "one-channel": lrn((1, 1, 4, 4)),
    "all-channels": lrn((1, 9, 3, 3), size=31),
    "uneven": uneven((2, 12, 5, 3)),
    "1d": lrn((2, 6, 11), size=2),
    "3d": lrn((1, 6, 3, 4, 2), size=4, beta=0.5),
}
TOLERANCE = {"rtol": 2e-6, "atol": 1e-7}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_stock_onnx_runtime_folds_everything_else(layer: LrnLayer, opset: int, tmp_path: Path) -> None:
    path = tmp_path / "optimized.onnx"
    session(layer.model(opset), library=False, save_to=path)
    power = {0.5: ["Sqrt"], 0.75: ["Sqrt", "Sqrt", "Mul"], 1.0: []}[layer.beta]
    assert [node.op_type for node in onnx.load(path).graph.node] == ["Mul", "Conv", *power, "Div"]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_the_function_computes_the_definition(layer: LrnLayer, opset: int) -> None:
    feeds, model = layer.feeds(), layer.model(opset)
    expected = layer.expected(feeds["x"])
    np.testing.assert_allclose(run(model, feeds, library=False), expected, **TOLERANCE)
    np.testing.assert_allclose(ReferenceEvaluator(model).run(None, feeds)[0], expected, **TOLERANCE)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_a_model_with_the_function_passes_the_full_check(layer: LrnLayer, opset: int) -> None:
    model = layer.model(opset)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, layer.x_shape))
    onnx.checker.check_model(model, full_check=True)


def test_it_is_what_onnx_calls_lrn() -> None:
    attributes = {"size": 5, "alpha": 1.5, "beta": 0.75, "bias": 2.0}
    layer = lrn((2, 9, 4, 5), alpha=attributes["alpha"] / 5)
    layer.bias[:] = attributes["bias"]
    model = layer.model()
    model.graph.node[0].CopyFrom(helper.make_node("LRN", ["x"], ["y"], **attributes))
    feeds = layer.feeds()
    np.testing.assert_allclose(run(model, feeds), layer.expected(feeds["x"]), rtol=1e-5)


def test_the_function_names_what_the_operator_takes() -> None:
    function = ops.function(ops.LRN, 17)
    assert (function.domain, function.name) == (ops.DOMAIN, "WindowedLrn")
    assert tuple(function.input) == windowed_lrn.INPUTS
    assert list(function.output) == ["Y"]
    assert set(function.attribute) == set(LAYERS["1d"].attributes())


def test_a_node_is_ours_only_with_all_it_takes() -> None:
    node = LAYERS["1d"].model().graph.node[0]
    assert ops.is_ours(node)
    del node.attribute[0]
    assert not ops.is_ours(node)
