"""The 8-bit operators in ONNX Runtime, against numpy and against their functions in stock ONNX Runtime."""

import re
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from scalpel_graph import ops
from scalpel_graph.qlinear_ops import (
    ADDS,
    CONV,
    CONV_ADD,
    CONV_TO_FLOAT,
    GEMM,
    GEMM_ADD,
    GEMM_TO_FLOAT,
    OPERATORS,
    TO_FLOAT,
)
from tests.ort_sessions import run, session
from tests.qlinear_layer import QLinearLayer

SIGNED: dict[str, Any] = {"dtype": np.int8, "zero_points": (-5, 10, 3, -20)}
PADDED = {"pads": [1, 1, 1, 1]}

LAYERS = {
    "gemm": QLinearLayer(GEMM, (32, 64), (4, 1), (1, 64)),
    "gemm-signed": QLinearLayer(GEMM, (30, 37), (8, 1), (5, 37), **SIGNED),
    "gemm-vector": QLinearLayer(GEMM, (10, 37), (1, 8), (37,), single_scale=True),
    "gemm-cube": QLinearLayer(GEMM, (33, 16), (4, 4), (2, 7, 16)),
    "conv": QLinearLayer(CONV, (16, 8, 3, 3), (4, 1), (2, 8, 9, 9), geometry=PADDED),
    "conv-signed": QLinearLayer(CONV, (13, 8, 3, 3), (8, 1), (1, 8, 9, 9), geometry=PADDED, **SIGNED),
    "conv-pointwise": QLinearLayer(CONV, (32, 24, 1, 1), (16, 1), (1, 24, 7, 7), single_scale=True),
    "conv-strided-groups": QLinearLayer(
        CONV,
        (12, 4, 3, 3),
        (2, 1),
        (1, 12, 11, 12),
        geometry={"group": 3, "strides": [2, 3], "dilations": [1, 2]},
    ),
    "conv-depthwise": QLinearLayer(
        CONV, (12, 1, 3, 3), (1, 9), (2, 12, 9, 11), geometry={"group": 12, **PADDED}
    ),
    "conv-depthwise-signed": QLinearLayer(
        CONV,
        (12, 1, 5, 5),
        (1, 25),
        (1, 12, 14, 9),
        geometry={"group": 12, "strides": [2, 2], "pads": [2, 2, 2, 2]},
        **SIGNED,
    ),
    "conv-1d": QLinearLayer(CONV, (8, 6, 3), (4, 1), (2, 6, 20), geometry={"pads": [1, 1]}),
    "conv-add": QLinearLayer(CONV_ADD, (16, 8, 3, 3), (4, 1), (2, 8, 9, 9), geometry=PADDED),
    "conv-add-first": QLinearLayer(CONV_ADD, (16, 8, 1, 1), (4, 1), (2, 8, 9, 9), residual_first=True),
    "conv-add-signed": QLinearLayer(CONV_ADD, (16, 8, 1, 1), (4, 1), (2, 8, 9, 9), **SIGNED),
    "conv-add-at-once": QLinearLayer(
        CONV_ADD, (16, 8, 3, 3), (4, 1), (2, 8, 9, 9), geometry=PADDED, rounds_product=False
    ),
    "conv-add-at-once-signed": QLinearLayer(
        CONV_ADD, (13, 8, 1, 1), (8, 1), (1, 8, 9, 9), rounds_product=False, residual_first=True, **SIGNED
    ),
    "gemm-add-at-once": QLinearLayer(GEMM_ADD, (32, 64), (4, 1), (3, 64), rounds_product=False),
    "gemm-add": QLinearLayer(GEMM_ADD, (32, 64), (4, 1), (3, 64)),
    "gemm-add-first": QLinearLayer(GEMM_ADD, (17, 64), (8, 1), (2, 5, 64), residual_first=True),
    "gemm-add-signed": QLinearLayer(GEMM_ADD, (32, 64), (4, 1), (1, 64), **SIGNED),
    "conv-to-float": QLinearLayer(CONV_TO_FLOAT, (16, 8, 3, 3), (4, 1), (2, 8, 9, 9), geometry=PADDED),
    "conv-to-float-add": QLinearLayer(CONV_TO_FLOAT, (16, 8, 1, 1), (4, 1), (2, 8, 9, 9), adds=True),
    "conv-to-float-signed": QLinearLayer(
        CONV_TO_FLOAT, (13, 8, 3), (8, 1), (1, 8, 20), single_scale=True, **SIGNED
    ),
    "to-float": QLinearLayer(GEMM_TO_FLOAT, (32, 64), (4, 1), (2, 5, 64)),
    "to-float-add": QLinearLayer(GEMM_TO_FLOAT, (32, 64), (4, 1), (2, 5, 64), adds=True),
    "to-float-signed": QLinearLayer(GEMM_TO_FLOAT, (31, 64), (1, 8), (1, 64), single_scale=True, **SIGNED),
}


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize("layer", [pytest.param(layer, id=name) for name, layer in LAYERS.items()])
def test_operator_and_function_compute_the_contract(layer: QLinearLayer, opset: int) -> None:
    feeds = layer.feeds()
    expected = layer.expected(feeds)
    for batch in (None, "b"):
        model = layer.model(opset, batch=batch)
        found, folded = run(model, feeds), run(model, feeds, library=False)
        assert found.dtype == folded.dtype == expected.dtype
        if layer.op_type in TO_FLOAT:
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
            np.testing.assert_allclose(folded, expected, rtol=1e-5, atol=1e-5)
            continue
        # A sum of two is rounded by one multiply-add less; a dense layer may be computed in float32.
        steps = np.abs(found.astype(int) - expected)
        assert steps.max() <= (1 if layer.op_type in ADDS else 0)
        assert (steps != 0).mean() < 1e-3
        assert np.abs(folded.astype(int) - expected).max() <= 1
    assert len(np.unique(expected)) > 8  # not all of it saturated


@pytest.mark.parametrize(
    ("name", "operators"),
    [
        ("gemm", {"QGemm"}),
        ("gemm-signed", {"QGemm"}),
        ("conv", {"QLinearConv"}),
        ("conv-strided-groups", {"QLinearConv"}),
        ("conv-depthwise", {"QLinearConv"}),
        ("conv-add", {"QLinearConv", "QLinearAdd"}),
        ("conv-add-first", {"QLinearConv", "QLinearAdd"}),
        ("gemm-add", {"QGemm", "QLinearAdd"}),
        ("gemm-add-first", {"QGemm", "QLinearAdd"}),
        ("to-float", {"MatMulInteger"}),
    ],
)
def test_function_folds_to_the_dense_integer_operator(name: str, operators: set[str], tmp_path: Path) -> None:
    session(LAYERS[name].model(), library=False, save_to=tmp_path / "folded.onnx")
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "folded.onnx").graph.node)
    assert operators <= kinds.keys()
    assert not kinds.keys() & {"Conv", "Gemm", "MatMul", "DequantizeLinear", "QuantizeLinear"}


@pytest.mark.parametrize(
    "name", ["conv", "conv-signed", "gemm", "to-float", "conv-add", "gemm-add", "conv-to-float"]
)
def test_output_shape_and_type_are_known_before_running(name: str) -> None:
    layer = LAYERS[name]
    model = layer.model()
    del model.functions[:]
    kind = (
        TensorProto.FLOAT
        if layer.op_type in TO_FLOAT
        else helper.np_dtype_to_tensor_dtype(np.dtype(layer.dtype))
    )
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("Y", kind, None))
    found = session(model).get_outputs()[0]
    assert found.shape == list(layer.expected(layer.feeds()).shape)


def test_scale_and_zero_point_of_integer_to_float_may_come_from_the_model() -> None:
    layer = LAYERS["to-float"]
    model = layer.model()
    x = np.random.default_rng(0).standard_normal(layer.x_shape).astype(np.float32)
    names = ["X", "x_scale", "x_zero_point"]
    model.graph.node.insert(0, helper.make_node("DynamicQuantizeLinear", ["input"], names))
    kept = [tensor for tensor in model.graph.initializer if tensor.name not in names]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("input", TensorProto.FLOAT, list(x.shape)))
    found, folded = run(model, {"input": x}), run(model, {"input": x}, library=False)
    np.testing.assert_allclose(found, folded, rtol=1e-5, atol=1e-5)


def test_empty_batch_gives_an_empty_output() -> None:
    for name in ("gemm", "conv", "to-float", "conv-add", "gemm-add", "conv-to-float"):
        layer = LAYERS[name]
        shape = layer.expected(layer.feeds()).shape[1:]
        feeds = {key: value[:0] for key, value in layer.feeds().items()}
        assert run(layer.model(batch="b"), feeds).shape == (0, *shape)


def test_two_threads_compute_what_one_does() -> None:
    layer = QLinearLayer(CONV, (64, 32, 3, 3), (4, 1), (1, 32, 28, 28), geometry=PADDED)
    feeds = layer.feeds()
    np.testing.assert_array_equal(run(layer.model(), feeds, threads=2), layer.expected(feeds))


BAD = [
    ("gemm", {"values": np.zeros((1, 4, 1), np.float32)}, {}, "values must be int8 [n_groups, r, c]"),
    ("gemm", {"x_scale": np.float32(0)}, {}, "x_scale must be above 0"),
    ("gemm", {"x_scale": np.float32("nan")}, {}, "x_scale is not finite"),
    ("gemm", {"x_scale": np.ones(1, np.float32)}, {}, "x_scale must be a float32 scalar, got float32 [1]"),
    ("gemm", {"y_scale": np.float32("inf")}, {}, "y_scale is not finite"),
    ("gemm", {"x_zero_point": np.int8(0)}, {}, "must be a scalar of the type of X, uint8, got int8 []"),
    ("gemm", {"w_scale": np.ones(31, np.float32)}, {}, "w_scale must be float32 [32] or a scalar, got"),
    ("gemm", {"w_scale": np.full(32, 3e38, np.float32), "y_scale": np.float32(1e-30)}, {}, "is not finite"),
    ("gemm", {"bias": np.zeros(32, np.float32)}, {}, "bias must be int32 [32], got float32 [32]"),
    ("to-float", {"bias": np.zeros(32, np.int32)}, {}, "bias must be float32 [32], got int32 [32]"),
    ("conv-to-float", {}, {"weight_shape": [16, 72]}, "weight_shape [16, 72]"),
    ("to-float", {}, {"weight_shape": [32, 8, 8]}, "weight_shape [32, 8, 8] must be [M, K]"),
    ("gemm", {}, {"weight_shape": [32, 8, 8]}, "weight_shape [32, 8, 8] must be [M, K]"),
    ("gemm", {}, {"weight_shape": [32]}, "weight_shape [32] has fewer than two dimensions"),
    ("conv", {}, {"strides": [1]}, "strides must be 2 ints"),
    ("conv", {}, {"strides": [0, 1]}, "stride"),
    ("conv", {"row_offsets": np.array([0, 1], np.int32)}, {}, "row_offsets"),
    ("conv-add", {"residual_scale": np.float32(-1)}, {}, "residual_scale must be above 0"),
    ("conv-add", {"residual_zero_point": np.float32(1)}, {}, "residual_zero_point must be a scalar"),
    ("conv-add", {"y_zero_point": np.int32(1)}, {}, "y_zero_point must be a scalar"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arrays", "attributes", "message"), BAD)
def test_a_node_that_contradicts_the_contract_is_refused(
    name: str, arrays: dict[str, Any], attributes: dict[str, Any], message: str
) -> None:
    layer = LAYERS[name]
    changed = {**layer.arrays(), **{key: np.asarray(value) for key, value in arrays.items()}}
    model = layer.model()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for key, value in changed.items():
        tensors[key].CopyFrom(onnx.numpy_helper.from_array(value, key))
    node = model.graph.node[0]
    kept = [attribute for attribute in node.attribute if attribute.name not in attributes]
    del node.attribute[:]
    node.attribute.extend([*kept, *(helper.make_attribute(key, value) for key, value in attributes.items())])
    del model.functions[:]
    with pytest.raises(Exception, match=f"{layer.op_type} node 'layer': .*{re.escape(message)}"):
        session(model)


def test_a_residual_of_another_shape_fails_the_call() -> None:
    layer = LAYERS["conv-add"]
    feeds = layer.feeds()
    with pytest.raises(
        Exception, match=r"residual \[1, 16, 9, 9\] must have the output's shape, \[2, 16, 9, 9\]"
    ):
        run(layer.model(batch="b"), {**feeds, "residual": feeds["residual"][:1]})


def test_x_of_another_shape_fails_the_call() -> None:
    layer = replace(LAYERS["gemm"], x_shape=(2, 63))
    model = LAYERS["gemm"].model()
    model.graph.input[0].CopyFrom(helper.make_tensor_value_info("X", TensorProto.UINT8, ["a", "b"]))
    with pytest.raises(Exception, match=r"X \[2, 63\] must have the shape \[..., 64\]"):
        run(model, {"X": np.zeros(layer.x_shape, np.uint8)})


def test_every_operator_is_one_of_ours() -> None:
    assert {layer.op_type for layer in LAYERS.values()} == set(OPERATORS)
    for layer in LAYERS.values():
        assert ops.is_ours(layer.model().graph.node[0])
