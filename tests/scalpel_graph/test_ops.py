"""The operators as functions of standard operators: what stock ONNX Runtime and onnx make of them."""

from math import inf
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper
from onnx.reference import ReferenceEvaluator

from scalpel_graph import ops
from scalpel_graph.ops import Gate
from tests.ort_sessions import session
from tests.sparse_layer import NO_ACTIVATION, OPSETS, RELU, RELU6, SparseLayer, conv, gemm

LAYERS = {
    "gemm": gemm(12, 37, (1, 8), (3, 37), bias=True, activation=RELU),
    "gemm-no-activation": gemm(12, 37, (4, 1), (3, 37), bias=True),
    "gemm-no-bias": gemm(12, 37, (1, 1), (3, 37), activation=RELU),
    "gemm-plain": gemm(12, 37, (3, 5), (3, 37)),
    "gemm-relu6": gemm(12, 37, (1, 8), (3, 37), bias=True, activation=RELU6),
    "gemm-residual": gemm(12, 37, (1, 8), (3, 37), bias=True, has_residual=True, activation=RELU),
    "gemm-one-row-block": gemm(3, 37, (4, 1), (3, 37), bias=True),
    "gemm-three-dimensions": gemm(12, 37, (1, 8), (2, 3, 37), bias=True, activation=RELU),
    "gemm-three-dimensions-plain": gemm(12, 37, (1, 8), (2, 3, 37)),
    "conv": conv((8, 4, 3, 3), (4, 1), (1, 4, 9, 9), pads=(1, 1, 1, 1), bias=True, activation=RELU),
    "conv-no-activation": conv((8, 4, 3, 3), (4, 1), (1, 4, 9, 9), bias=True),
    "conv-no-bias": conv((8, 4, 3, 3), (1, 8), (1, 4, 9, 9), strides=(2, 2), activation=RELU),
    "conv-relu6": conv((8, 4, 3, 3), (3, 1), (1, 4, 9, 9), bias=True, activation=RELU6),
    "conv-residual": conv((8, 4, 1, 1), (4, 1), (1, 4, 9, 9), has_residual=True, activation=RELU),
    "conv-groups": conv((8, 1, 3, 3), (1, 1), (1, 8, 9, 9), group=8, bias=True, activation=RELU),
    "gemm-hard-swish": gemm(12, 37, (4, 1), (3, 37), bias=True, activation=(-inf, inf, Gate.HARD_SWISH)),
    "conv-silu": conv(
        (8, 4, 1, 1), (4, 1), (1, 4, 9, 9), has_residual=True, activation=(-inf, inf, Gate.SILU)
    ),
    "gemm-gelu": gemm(12, 37, (4, 1), (3, 37), bias=True, activation=(-inf, inf, Gate.GELU)),
    "conv-bounds-and-gate": conv((8, 4, 1, 1), (4, 1), (1, 4, 9, 9), activation=(0.0, 6.0, Gate.HARD_SWISH)),
    "gemm-fp16": gemm(12, 37, (1, 8), (3, 37), bias=True, activation=RELU, value_type="fp16"),
    "gemm-int8": gemm(12, 37, (1, 8), (3, 37), bias=True, activation=RELU6, value_type="int8"),
    "gemm-bf16": gemm(12, 37, (4, 1), (3, 37), bias=True, value_type="bf16"),
    "conv-fp16": conv((8, 4, 3, 3), (4, 1), (1, 4, 9, 9), bias=True, value_type="fp16"),
    "conv-bf16": conv((8, 4, 3, 3), (1, 8), (1, 4, 9, 9), activation=RELU, value_type="bf16"),
    "conv-1d": conv((8, 4, 3), (4, 1), (1, 4, 20), dilations=(2,), bias=True, activation=RELU),
}
DENSE = {"Conv", "FusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul"}


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_stock_onnx_runtime_is_left_with_the_dense_layer(
    layer: SparseLayer, opset: int, tmp_path: Path
) -> None:
    """The same nodes as from a model whose weights were never sparse: nothing of the decoding remains."""
    paths = [tmp_path / "sparse.onnx", tmp_path / "dense.onnx"]
    session(layer.model(opset), library=False, save_to=paths[0])
    session(layer.dense_model(opset), library=False, save_to=paths[1])
    sparse, dense = ([node.op_type for node in onnx.load(path).graph.node] for path in paths)
    assert sparse == dense
    assert len(DENSE.intersection(sparse)) == 1


@pytest.mark.parametrize("name", ["gemm", "gemm-no-activation", "conv", "conv-no-activation", "conv-no-bias"])
def test_a_fused_activation_leaves_one_node(name: str, tmp_path: Path) -> None:
    session(LAYERS[name].model(), library=False, save_to=tmp_path / "optimized.onnx")
    (node,) = onnx.load(tmp_path / "optimized.onnx").graph.node
    assert node.op_type in DENSE


@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_stock_onnx_runtime_is_left_with_the_dense_weights(layer: SparseLayer, tmp_path: Path) -> None:
    path = tmp_path / "optimized.onnx"
    session(layer.model(), library=False, save_to=path)
    arrays = [onnx.numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer]
    wanted = layer.weights if layer.conv else layer.weights.T
    assert any(array.shape == wanted.shape and (array == wanted).all() for array in arrays)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_onnx_evaluates_the_function_to_the_dense_layer(layer: SparseLayer, opset: int) -> None:
    feeds = layer.feeds()
    (y,) = ReferenceEvaluator(layer.model(opset)).run(None, feeds)
    np.testing.assert_allclose(y, layer.expected(feeds), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("opset", OPSETS)
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_a_model_with_the_function_passes_the_full_check(layer: SparseLayer, opset: int) -> None:
    model = layer.model(opset)
    shape = layer.expected(layer.feeds()).shape
    for value in (*model.graph.input[1:], *model.graph.output):
        value.CopyFrom(helper.make_tensor_value_info(value.name, onnx.TensorProto.FLOAT, shape))
    onnx.checker.check_model(model, full_check=True)


def test_the_function_names_what_the_operator_takes() -> None:
    for op_type in ops.GROUP_CSR_OPERATORS:
        function = ops.function(op_type, 17)
        assert (function.domain, function.name) == (ops.DOMAIN, op_type)
        assert tuple(function.input) == ops.inputs(op_type)
        assert ops.inputs(op_type)[:6] == ops.INPUTS
        assert list(function.output) == ["Y"]
    assert set(ops.function(ops.GEMM, 17).attribute) == set(LAYERS["gemm"].attributes())
    assert set(ops.function(ops.CONV, 17).attribute) == set(LAYERS["conv"].attributes())


def test_an_unknown_operator_or_an_old_opset_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'Gemm' is not an operator of ai\.scalpel"):
        ops.function("Gemm", 17)
    with pytest.raises(ValueError, match="need opset 13, not 12"):
        ops.function(ops.GEMM, 12)


def test_adding_functions_keeps_the_others_and_replaces_its_own() -> None:
    model = LAYERS["conv"].model(18)
    other = helper.make_function("my.domain", "GroupCsrConv", ["a"], ["b"], [], [helper.make_opsetid("", 18)])
    stale = helper.make_function(ops.DOMAIN, ops.CONV, ["a"], ["b"], [], [helper.make_opsetid("", 18)])
    del model.functions[:]
    model.functions.extend([other, stale])
    model.ir_version = 7
    ops.add_functions(model, [ops.CONV, ops.CONV])
    ops.add_functions(model, [ops.GEMM])
    assert list(model.functions) == [other, ops.function(ops.CONV, 18), ops.function(ops.GEMM, 18)]
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18), (ops.DOMAIN, 1)]
    assert model.ir_version == ops.MIN_IR_VERSION


def test_activations_are_told_apart(tmp_path: Path) -> None:
    kinds = {}
    for activation in (NO_ACTIVATION, RELU, RELU6, (-1.0, 1.0, Gate.NONE)):
        layer = gemm(12, 37, (1, 8), (2, 3, 37), activation=activation)
        session(layer.model(), library=False, save_to=tmp_path / "optimized.onnx")
        kinds[activation] = [node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert kinds == {
        NO_ACTIVATION: ["MatMul"],
        RELU: ["MatMul", "Relu"],
        RELU6: ["MatMul", "Clip"],
        (-1.0, 1.0, Gate.NONE): ["MatMul", "Clip"],
    }
