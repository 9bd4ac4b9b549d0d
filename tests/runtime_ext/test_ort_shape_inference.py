"""Output shapes that ONNX Runtime infers with the library, and onnx through the function bodies."""

import onnx
import pytest

from scalpel_graph import ops
from tests.ort_sessions import session
from tests.sparse_layer import OPSETS, Dims, SparseLayer, conv, gemm

GEMM = gemm(24, 16, (1, 4), (2, 16), bias=True)
SCALED = gemm(24, 16, (1, 4), (2, 16), bias=True, value_type="int8")
PLAIN_GEMM = gemm(24, 16, (1, 4), (2, 16))
SAME = conv((8, 4, 3, 3), (4, 1), (1, 4, 9, 9), pads=(1, 1, 1, 1), bias=True)
STRIDED = conv((8, 4, 3, 3), (4, 1), (1, 4, 9, 9), strides=(2, 2), pads=(1, 0, 1, 2))
DILATED = conv((8, 4, 3), (4, 1), (1, 4, 20), dilations=(2,), pads=(0, 3))

SETTLED: list[tuple[SparseLayer, Dims, Dims]] = [
    (GEMM, [2, 16], [2, 24]),
    (GEMM, ["b", 16], ["b", 24]),
    (PLAIN_GEMM, ["b", 16], ["b", 24]),
    (GEMM, ["b", "s", 16], ["b", "s", 24]),
    (GEMM, ["b", 5, 16], ["b", 5, 24]),
    (GEMM, [16], [24]),
    (SAME, ["b", 4, 9, 9], ["b", 8, 9, 9]),
    (STRIDED, ["b", 4, 9, 9], ["b", 8, 5, 5]),
    (STRIDED, [3, 4, 10, 12], [3, 8, 5, 6]),
    (DILATED, ["b", 4, 20], ["b", 8, 19]),
]


def dims(value: onnx.ValueInfoProto) -> list[int | str]:
    return [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]


@pytest.mark.parametrize(("layer", "x", "y"), SETTLED)
def test_onnx_runtime_infers_the_output_shape(layer: SparseLayer, x: Dims, y: Dims) -> None:
    assert session(layer.model(x_dims=x)).get_outputs()[0].shape == y


def test_a_same_convolution_keeps_symbolic_sizes() -> None:
    assert session(SAME.model(x_dims=["b", 4, "h", "w"])).get_outputs()[0].shape == ["b", 8, "h", "w"]


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (STRIDED, ["b", 4, "h", "w"]),
        (STRIDED, [1, 4, None, 9]),
        (GEMM, [None, 16]),
        (GEMM, None),
        (SAME, None),
    ],
)
def test_a_size_that_is_not_settled_leaves_the_shape_open_and_the_model_usable(
    layer: SparseLayer, x: Dims | None
) -> None:
    model = layer.model(x_dims=x)
    if x is None:
        model.graph.input[0].type.tensor_type.ClearField("shape")
    running = session(model)
    assert all(not isinstance(dim, int) or dim >= 0 for dim in running.get_outputs()[0].shape)
    feeds = layer.feeds()
    assert running.run(None, feeds)[0].shape == layer.expected(feeds).shape


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize(("layer", "x", "y"), SETTLED)
def test_onnx_infers_the_output_shape_through_the_function(
    layer: SparseLayer, x: Dims, y: Dims, opset: int
) -> None:
    model = layer.model(opset, x)
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    assert dims(inferred.graph.output[0]) == y
    onnx.checker.check_model(inferred, full_check=True)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("op_type", ops.GROUP_CSR_OPERATORS)
def test_onnx_refuses_a_declared_output_shape_that_is_wrong(op_type: str, opset: int) -> None:
    layer = {ops.GEMM: GEMM, ops.SCALED_GEMM: SCALED, ops.CONV: STRIDED}[op_type]
    model = layer.model(opset)
    shape = model.graph.output[0].type.tensor_type.shape
    for size in layer.expected(layer.feeds()).shape:
        shape.dim.add(dim_value=size + 1)
    with pytest.raises(onnx.shape_inference.InferenceError):
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
