"""The operators in ONNX Runtime, against their functions in stock ONNX Runtime and onnx's own evaluator."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scalpel_graph import ops
from scalpel_graph.ops import Gate
from tests.ort_sessions import run, session
from tests.sparse_layer import OPSETS, RELU, RELU6, SparseLayer, assemble, conv, gemm

TOLERANCE: dict[str, Any] = {"rtol": 1e-5, "atol": 1e-5}

HARD_SWISH, SILU, GELU = (
    (float("-inf"), float("inf"), gate) for gate in (Gate.HARD_SWISH, Gate.SILU, Gate.GELU)
)

GEMMS = {
    "csr": gemm(16, 24, (1, 1), (3, 24), bias=True),
    "simd-group": gemm(32, 64, (1, 8), (1, 64), bias=True, activation=RELU),
    "simd-group-columns-left-over": gemm(10, 37, (1, 8), (5, 37), bias=True, activation=RELU6),
    "row-block": gemm(32, 20, (8, 1), (1, 20), activation=RELU),
    "row-block-rows-left-over": gemm(30, 20, (4, 1), (17, 20), bias=True, has_residual=True),
    "block": gemm(13, 19, (3, 5), (4, 19), bias=True, has_residual=True, activation=RELU6),
    "one-row-block": gemm(3, 11, (4, 1), (2, 11), bias=True),
    "one-output": gemm(1, 40, (1, 8), (2, 40), bias=True, activation=RELU),
    "no-bias": gemm(12, 33, (1, 16), (6, 33)),
    "vector": gemm(12, 33, (2, 1), (33,), bias=True, activation=RELU),
    "three-dimensions": gemm(24, 16, (1, 4), (2, 7, 16), bias=True, has_residual=True, activation=RELU),
    "four-dimensions": gemm(9, 16, (16, 1), (2, 3, 4, 16), activation=(-0.5, 0.25, Gate.NONE)),
    "lower-bound": gemm(9, 16, (1, 1), (4, 16), bias=True, activation=(-1.0, float("inf"), Gate.NONE)),
    "upper-bound": gemm(9, 16, (1, 1), (4, 16), bias=True, activation=(float("-inf"), 1.0, Gate.NONE)),
    "hard-swish": gemm(33, 64, (1, 8), (1, 64), bias=True, activation=HARD_SWISH),
    "silu": gemm(30, 20, (4, 1), (17, 20), bias=True, has_residual=True, activation=SILU),
    "gelu": gemm(30, 20, (4, 1), (17, 20), bias=True, activation=GELU),
    "bounds-and-gate": gemm(30, 20, (1, 1), (3, 20), bias=True, activation=(-0.5, 0.5, Gate.SILU)),
    "larger": gemm(257, 300, (1, 8), (33, 300), bias=True, activation=RELU),
    "fp16": gemm(257, 300, (1, 8), (1, 300), bias=True, activation=RELU, value_type="fp16"),
    "fp16-columns-left-over": gemm(33, 37, (1, 16), (2, 37), bias=True, value_type="fp16"),
    "fp16-many-rows": gemm(33, 37, (4, 1), (40, 37), bias=True, has_residual=True, value_type="fp16"),
    "int8": gemm(257, 300, (1, 8), (1, 300), bias=True, activation=RELU, value_type="int8"),
    "int8-columns-left-over": gemm(33, 37, (4, 1), (2, 37), value_type="int8"),
    "int8-many-rows": gemm(33, 37, (8, 1), (40, 37), bias=True, has_residual=True, value_type="int8"),
    "bf16": gemm(257, 300, (8, 1), (1, 300), bias=True, activation=RELU, value_type="bf16"),
    "bf16-csr": gemm(33, 37, (1, 1), (1, 37), bias=True, value_type="bf16"),
}
CONVS = {
    "pointwise": conv((16, 8, 1, 1), (4, 1), (2, 8, 5, 7), bias=True, activation=RELU),
    "padded": conv((16, 8, 3, 3), (4, 1), (1, 8, 9, 9), pads=(1, 1, 1, 1), bias=True, activation=RELU6),
    "strided": conv((12, 3, 5, 5), (1, 8), (2, 3, 17, 19), strides=(2, 3), pads=(2, 1, 0, 2), bias=True),
    "dilated": conv((6, 4, 3, 2), (2, 1), (1, 4, 11, 12), dilations=(2, 3), pads=(2, 0, 1, 3)),
    "rows-left-over": conv((7, 5, 3, 3), (4, 1), (2, 5, 8, 8), bias=True, has_residual=True, activation=RELU),
    "block": conv((10, 6, 3, 3), (3, 4), (1, 6, 8, 8), bias=True, has_residual=True),
    "groups": conv(
        (12, 4, 3, 3), (2, 1), (2, 12, 7, 7), group=3, pads=(1, 1, 1, 1), bias=True, activation=RELU
    ),
    "depthwise": conv((8, 1, 3, 3), (1, 1), (1, 8, 10, 10), group=8, strides=(2, 2), activation=RELU6),
    "groups-columns-left-over": conv((6, 3, 1, 3), (1, 8), (1, 6, 4, 9), group=2, bias=True),
    "1d": conv((8, 6, 3), (4, 1), (2, 6, 20), pads=(1, 1), strides=(2,), bias=True, activation=RELU),
    "1d-dilated-groups": conv(
        (8, 3, 4), (1, 4), (3, 6, 31), group=2, dilations=(3,), pads=(0, 5), has_residual=True
    ),
    "hard-swish": conv((16, 8, 3, 3), (4, 1), (1, 8, 9, 9), pads=(1, 1, 1, 1), activation=HARD_SWISH),
    "silu": conv((16, 8, 1, 1), (4, 1), (2, 8, 5, 7), bias=True, has_residual=True, activation=SILU),
    "gelu": conv((8, 6, 3), (4, 1), (2, 6, 20), pads=(1, 1), bias=True, activation=GELU),
    "fp16": conv((16, 8, 3, 3), (4, 1), (1, 8, 9, 9), pads=(1, 1, 1, 1), bias=True, value_type="fp16"),
    "bf16": conv((16, 8, 1, 1), (8, 1), (2, 8, 5, 7), bias=True, activation=RELU, value_type="bf16"),
    "whole-input": conv((5, 4, 6, 6), (1, 16), (2, 4, 6, 6), bias=True),
    "larger": conv((32, 16, 3, 3), (8, 1), (2, 16, 28, 28), pads=(1, 1, 1, 1), bias=True, activation=RELU),
}
LAYERS = [pytest.param(layer, id=f"gemm-{name}") for name, layer in GEMMS.items()] + [
    pytest.param(layer, id=f"conv-{name}") for name, layer in CONVS.items()
]


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("layer", LAYERS)
def test_operator_and_function_agree_with_the_dense_layer(layer: SparseLayer, opset: int) -> None:
    feeds = layer.feeds()
    expected = layer.expected(feeds)
    symbolic = ["b", *layer.x_shape[1:]] if len(layer.x_shape) > 1 else None
    for x_dims in (layer.x_shape, symbolic):
        model = layer.model(opset, x_dims)
        np.testing.assert_allclose(run(model, feeds), expected, **TOLERANCE)
        np.testing.assert_allclose(run(model, feeds, library=False), expected, **TOLERANCE)


@pytest.mark.parametrize("layer", LAYERS)
def test_int32_columns_are_as_good_as_uint16(layer: SparseLayer) -> None:
    model, feeds = layer.model(), layer.feeds()
    wide = layer.model()
    (columns,) = (tensor for tensor in wide.graph.initializer if tensor.name == "column_indices")
    columns.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(columns).astype(np.int32), columns.name))
    np.testing.assert_array_equal(run(wide, feeds), run(model, feeds))
    np.testing.assert_array_equal(run(wide, feeds, library=False), run(model, feeds, library=False))


@pytest.mark.parametrize(
    "layer",
    [
        GEMMS["simd-group-columns-left-over"],
        GEMMS["row-block-rows-left-over"],
        GEMMS["block"],
        CONVS["rows-left-over"],
        CONVS["groups-columns-left-over"],
        CONVS["block"],
    ],
)
def test_what_lies_in_the_padding_of_a_group_is_not_looked_at(layer: SparseLayer) -> None:
    arrays = layer.initializers()
    (r, c), M = layer.group_shape, layer.weights.shape[0]
    blocks = np.arange(arrays["row_offsets"].size - 1).repeat(np.diff(arrays["row_offsets"]))
    rows = blocks[:, None, None] * r + np.arange(r)[:, None]
    columns = arrays["column_indices"][:, None, None].astype(np.int64) * c + np.arange(c)
    padding = (rows >= M) | (columns >= layer.weights.size // M)
    assert padding.any()
    arrays["values"] = np.where(padding, np.float32(np.nan), arrays["values"])
    model = assemble(
        layer.op_type, arrays, layer.attributes(), x_dims=layer.x_shape, has_residual=layer.has_residual
    )
    feeds = layer.feeds()
    np.testing.assert_allclose(run(model, feeds), layer.expected(feeds), **TOLERANCE)
    np.testing.assert_allclose(run(model, feeds, library=False), layer.expected(feeds), **TOLERANCE)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_number_of_threads_does_not_change_the_result(layer: SparseLayer) -> None:
    model, feeds = layer.model(), layer.feeds()
    np.testing.assert_array_equal(run(model, feeds, threads=1), run(model, feeds, threads=2))


@pytest.mark.parametrize("layer", [GEMMS["block"], CONVS["padded"], CONVS["groups"], CONVS["1d"]])
def test_no_groups_at_all_leave_bias_residual_and_activation(layer: SparseLayer) -> None:
    empty = SparseLayer(**{**vars(layer), "weights": np.zeros_like(layer.weights)})
    assert empty.initializers()["values"].shape[0] == 0
    feeds = empty.feeds()
    expected = empty.expected(feeds)
    np.testing.assert_allclose(run(empty.model(), feeds), expected, **TOLERANCE)
    np.testing.assert_allclose(run(empty.model(), feeds, library=False), expected, **TOLERANCE)


@pytest.mark.parametrize("layer", [GEMMS["csr"], GEMMS["three-dimensions"], CONVS["padded"], CONVS["1d"]])
def test_a_batch_of_zero_gives_a_batch_of_zero(layer: SparseLayer) -> None:
    y = run(layer.model(x_dims=["b", *layer.x_shape[1:]]), layer.feeds(batch=0))
    assert y.shape == (0, *layer.expected(layer.feeds()).shape[1:])


def test_gemm_of_an_empty_middle_dimension() -> None:
    layer = GEMMS["three-dimensions"]
    feeds = {"x": np.zeros((2, 0, 16), np.float32), "residual": np.zeros((2, 0, 24), np.float32)}
    assert run(layer.model(x_dims=[None, None, 16]), feeds).shape == (2, 0, 24)


@pytest.mark.parametrize("layer", [GEMMS["simd-group"], GEMMS["three-dimensions"], CONVS["rows-left-over"]])
def test_one_session_takes_any_batch(layer: SparseLayer) -> None:
    running = session(layer.model(x_dims=["b", *layer.x_shape[1:]]), threads=2)
    for batch in (1, 2, 3, 8, 1, 16):
        feeds = layer.feeds(batch=batch)
        np.testing.assert_allclose(running.run(None, feeds)[0], layer.expected(feeds), **TOLERANCE)


@pytest.mark.parametrize("layer", [GEMMS["larger"], CONVS["larger"], CONVS["rows-left-over"]])
def test_one_session_runs_in_many_threads_at_once(layer: SparseLayer) -> None:
    running = session(layer.model(x_dims=["b", *layer.x_shape[1:]]), threads=2)
    cases = [layer.feeds(seed, batch=1 + seed % 3) for seed in range(24)]
    alone = [running.run(None, feeds)[0] for feeds in cases]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda feeds: running.run(None, feeds)[0], cases * 4))
    for y, expected in zip(together, alone * 4, strict=True):
        np.testing.assert_array_equal(y, expected)


def test_sessions_come_and_go() -> None:
    layers = [GEMMS["block"], CONVS["groups"], GEMMS["csr"], CONVS["1d"]]
    first = [(layer, session(layer.model())) for layer in layers]
    for layer in layers:
        np.testing.assert_allclose(
            run(layer.model(), layer.feeds()), layer.expected(layer.feeds()), **TOLERANCE
        )
    for layer, running in reversed(first):
        feeds = layer.feeds()
        np.testing.assert_allclose(running.run(None, feeds)[0], layer.expected(feeds), **TOLERANCE)


def test_a_residual_may_be_a_constant() -> None:
    layer = GEMMS["block"]
    feeds = layer.feeds()
    model = layer.model()
    model.graph.initializer.append(numpy_helper.from_array(feeds["residual"], "residual"))
    del model.graph.input[1]
    np.testing.assert_allclose(run(model, {"x": feeds["x"]}), layer.expected(feeds), **TOLERANCE)


def test_constants_may_come_from_nodes() -> None:
    layer = CONVS["padded"]
    model, feeds = layer.model(), layer.feeds()
    for tensor in model.graph.initializer:
        model.graph.node.insert(0, helper.make_node("Constant", [], [tensor.name], value=tensor))
    del model.graph.initializer[:]
    np.testing.assert_allclose(run(model, feeds), layer.expected(feeds), **TOLERANCE)


def test_an_operator_inside_a_branch() -> None:
    layer = GEMMS["row-block"]
    inner, feeds = layer.model().graph, layer.feeds()
    inner.node[0].output[0] = "computed"
    branches = {
        "then_branch": helper.make_graph(
            inner.node,
            "sparse",
            [],
            [helper.make_tensor_value_info("computed", TensorProto.FLOAT, None)],
            inner.initializer,
        ),
        "else_branch": helper.make_graph(
            [helper.make_node("Identity", ["x"], ["same"])],
            "other",
            [],
            [helper.make_tensor_value_info("same", TensorProto.FLOAT, None)],
        ),
    }
    graph = helper.make_graph(
        [helper.make_node("If", ["condition"], ["y"], **branches)],
        "branches",
        [*inner.input, helper.make_tensor_value_info("condition", TensorProto.BOOL, [])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    ops.add_functions(model, [ops.GEMM])
    for library in (True, False):
        running = session(model, library=library)
        (y,) = running.run(None, {**feeds, "condition": np.array(True)})
        np.testing.assert_allclose(y, layer.expected(feeds), **TOLERANCE)
        (y,) = running.run(None, {**feeds, "condition": np.array(False)})
        np.testing.assert_array_equal(y, feeds["x"])


def test_the_library_runs_in_place_of_the_function(tmp_path: Any) -> None:
    path = tmp_path / "optimized.onnx"
    session(CONVS["padded"].model(), save_to=path)
    assert [node.op_type for node in onnx.load(path).graph.node] == [ops.CONV]
