"""Quantized networks of every form become sparse and compute the same integers."""

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType

from scalpel_graph import ops, qlinear_ops
from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.clean_up import CleanUp
from scalpel_graph.passes.fold_constants import FoldConstants
from scalpel_graph.passes.fuse_quantized_residual import FuseQuantizedResidual
from scalpel_graph.passes.manager import PassManager, PassRecord
from scalpel_graph.passes.move_quantization import MoveQuantization
from scalpel_graph.passes.substitute_quantized import SubstituteQuantized
from tests.ort_sessions import session
from tests.pass_runner import CPU, EAGER, model, random, sparse
from tests.quantized_networks import convnet, dynamic, exported, inputs, mixer, quantized, separable

SYMMETRIC = {"ActivationSymmetric": True}
MODES: dict[str, dict[str, Any]] = {
    "qdq-u8-per-channel": {},
    "qdq-u8-per-tensor": {"per_channel": False},
    "qdq-u8-reduced": {"reduce_range": True},
    "qdq-s8-per-channel": {"activation_type": QuantType.QInt8},
    "qdq-s8-symmetric": {"activation_type": QuantType.QInt8, "extra_options": SYMMETRIC},
    "qdq-own-pairs": {"extra_options": {"DedicatedQDQPair": True}},
    "qdq-float-bias": {"extra_options": {"QuantizeBias": False}},
    "qdq-fake-weights": {"extra_options": {"AddQDQPairToWeight": True}},
    "qdq-microsoft": {"extra_options": {"UseQDQContribOps": True}},
    "qoperator-u8-per-channel": {"quant_format": QuantFormat.QOperator},
    "qoperator-u8-per-tensor": {"quant_format": QuantFormat.QOperator, "per_channel": False},
    "qoperator-s8": {"quant_format": QuantFormat.QOperator, "activation_type": QuantType.QInt8},
}
CONVNET_LAYERS = {qlinear_ops.CONV: 4, qlinear_ops.CONV_ADD: 1, qlinear_ops.GEMM: 2}


def rewrite(proto: onnx.ModelProto, target: Any = EAGER) -> tuple[onnx.ModelProto, dict[str, PassRecord]]:
    graph = ModelGraph(proto)
    passes = [
        FoldConstants(), MoveQuantization(), SubstituteQuantized(), FuseQuantizedResidual(), CleanUp(),
    ]  # fmt: skip
    records = PassManager(passes).run(graph, PassContext(target))
    out = graph.to_proto()
    onnx.checker.check_model(out, full_check=True)
    return out, {record.name: record for record in records}


def ours(proto: onnx.ModelProto) -> Counter[str]:
    return Counter(node.op_type for node in proto.graph.node if node.domain == ops.DOMAIN)


def step_of_output(proto: onnx.ModelProto) -> float:
    """The scale of the DequantizeLinear that makes the output; 0 where it is not made so."""
    last = next(node for node in proto.graph.node if proto.graph.output[0].name in node.output)
    scales = {tensor.name: tensor for tensor in proto.graph.initializer}
    if last.op_type != "DequantizeLinear":
        return 0.0
    return float(numpy_helper.to_array(scales[last.input[1]]).max())


def assert_same(before: onnx.ModelProto, after: onnx.ModelProto, *, steps: float, exact: bool) -> None:
    """Both ways of running ``after`` give what ``before`` gives, to so many steps of the output, or
    exactly."""
    reference, with_library, without = (
        session(before, library=False),
        session(after),
        session(after, library=False),
    )
    for feeds in inputs(before):
        expected = reference.run(None, feeds)[0]
        allowed = steps * step_of_output(before) + 1e-5 * np.abs(expected).max()
        for other in (with_library, without):
            difference = np.abs(other.run(None, feeds)[0] - expected).max()
            assert difference <= (1e-5 * np.abs(expected).max() if exact else allowed)
        assert len(np.unique(expected)) > 5


@pytest.mark.parametrize("mode", MODES)
def test_convnet(mode: str) -> None:
    before = quantized(convnet(), **MODES[mode])
    after, records = rewrite(before)
    assert ours(after) == CONVNET_LAYERS, records["substitute-quantized"].skipped
    # None of the dense weights is left.
    assert not any(tensor.name.startswith("W") for tensor in after.graph.initializer)
    # ONNX Runtime computes Conv of int8 activations in float32, which rounds differently here and there.
    exact = mode.startswith(("qdq-u8", "qoperator-u8", "qdq-own"))
    assert_same(before, after, steps=1.01, exact=exact)
    # What is between neighbours stays quantized.
    made = {name: node for node in after.graph.node for name in node.output}
    last = [node for node in after.graph.node if node.op_type == qlinear_ops.GEMM][-1]
    if mode != "qdq-s8-symmetric":  # whose Relu is an operator of its own
        assert made[last.input[0]].op_type == qlinear_ops.GEMM


@pytest.mark.parametrize("mode", ["qdq-u8-per-channel", "qdq-s8-per-channel", "qoperator-u8-per-channel"])
def test_depthwise_convolutions_go_between_sparse_ones(mode: str) -> None:
    before = quantized(separable(), **MODES[mode])
    after, records = rewrite(before)
    assert ours(after) == {qlinear_ops.CONV: 5}, records["substitute-quantized"].skipped
    assert_same(before, after, steps=1.01, exact=mode != "qdq-s8-per-channel")


def test_without_prices_depthwise_convolutions_stay_dense() -> None:
    assert EAGER.quantized is not None
    target = replace(EAGER, quantized=replace(EAGER.quantized, depthwise_kernel={}))
    after, records = rewrite(quantized(separable()), target)
    assert ours(after) == {qlinear_ops.CONV: 3}
    assert any("depthwise" in skip.reason for skip in records["substitute-quantized"].skipped)


@pytest.mark.parametrize("opset", [13, 15, 21])
def test_opsets(opset: int) -> None:
    before = quantized(convnet(opset))
    after, _ = rewrite(before)
    assert ours(after) == CONVNET_LAYERS
    assert_same(before, after, steps=1.01, exact=True)


@pytest.mark.parametrize("per_channel", [False, True])
def test_mixer_quantized_while_it_runs(per_channel: bool) -> None:
    before = dynamic(mixer(), per_channel=per_channel)
    after, records = rewrite(before)
    assert ours(after) == {qlinear_ops.GEMM_TO_FLOAT: 4}, records["substitute-quantized"].skipped
    kinds = [node.op_type for node in after.graph.node]
    assert not {"MatMulInteger", "Cast", "Add"} & set(kinds)  # biases and a residual are inside
    assert_same(before, after, steps=0, exact=True)


@pytest.mark.parametrize("per_channel", [False, True])
def test_convnet_quantized_while_it_runs(per_channel: bool) -> None:
    before = dynamic(convnet(), per_channel=per_channel, op_types_to_quantize=["Conv", "MatMul", "Gemm"])
    after, records = rewrite(before)
    wanted = {qlinear_ops.CONV_TO_FLOAT: 5, qlinear_ops.GEMM_TO_FLOAT: 2}
    assert ours(after) == wanted, records["substitute-quantized"].skipped
    kinds = [node.op_type for node in after.graph.node]
    assert not {"ConvInteger", "MatMulInteger", "Cast", "Add", "Mul"} & set(kinds)  # all is inside
    assert_same(before, after, steps=0, exact=True)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", [np.uint8, np.int8])
def test_a_network_that_torch_quantized(dtype: type[Any], per_channel: bool) -> None:
    before = exported(dtype, per_channel=per_channel)
    after, records = rewrite(before)
    wanted = {
        qlinear_ops.CONV: 2, qlinear_ops.CONV_ADD: 1, qlinear_ops.CONV_TO_FLOAT: 1, qlinear_ops.GEMM_ADD: 1,
        qlinear_ops.GEMM_TO_FLOAT: 1,
    }  # fmt: skip
    assert ours(after) == wanted, records["substitute-quantized"].skipped
    [added] = [node for node in after.graph.node if node.op_type == qlinear_ops.CONV_ADD]
    assert {a.name: a.i for a in added.attribute if a.name == "rounds_product"} == {"rounds_product": 0}
    # The last product sums what was rounded twice, by steps of 0.03 at most.
    expected = session(before, library=False).run(None, inputs(before)[0])[0]
    for library in (True, False):
        found = session(after, library=library).run(None, inputs(before)[0])[0]
        assert np.abs(found - expected).max() < 0.03
        assert np.median(np.abs(found - expected)) < 1e-6


@pytest.mark.parametrize("mode", ["qdq-u8-per-channel", "qdq-s8-per-channel", "qoperator-u8-per-channel"])
def test_mixer(mode: str) -> None:
    before = quantized(mixer(), **MODES[mode])
    after, records = rewrite(before)
    assert ours(after) == {qlinear_ops.GEMM: 3, qlinear_ops.GEMM_ADD: 1}, records[
        "substitute-quantized"
    ].skipped
    assert_same(before, after, steps=1.01, exact=mode != "qdq-s8-per-channel")


QDQ_MATMUL = """(float[4, 8] X) => (Y) {
  x = QuantizeLinear(X, xs, xz)   xf = DequantizeLinear(x, xs, xz)
  w = DequantizeLinear<axis = 1>(W, ws, wz)
  Y = MatMul(xf, w)
}"""


def integers(rows: int, columns: int) -> Any:
    return (
        np.rint(sparse(rows, columns, group_shape=(4, 1), density=0.4) * 40).clip(-127, 127).astype(np.int8)
    )


def matmul_weights(**changes: Any) -> dict[str, Any]:
    return {
        "xs": np.float32(0.02), "xz": np.uint8(120),
        "W": np.ascontiguousarray(integers(16, 8).T), "ws": np.full(16, 0.01, np.float32),
        "wz": np.zeros(16, np.int8), **changes,
    }  # fmt: skip


def test_a_product_that_nobody_quantizes_stays_float32() -> None:
    before = model(QDQ_MATMUL, matmul_weights())
    after, _ = rewrite(before)
    assert ours(after) == {qlinear_ops.GEMM_TO_FLOAT: 1}
    assert_same(before, after, steps=0, exact=True)


def test_a_uint8_weight_is_read_less_its_zero_point() -> None:
    centred = integers(16, 8).T.astype(np.int32)
    shifted = matmul_weights(W=(centred + 128).clip(0, 255).astype(np.uint8), wz=np.full(16, 128, np.uint8))
    before = model(QDQ_MATMUL, shifted)
    after, _ = rewrite(before)
    assert ours(after) == {qlinear_ops.GEMM_TO_FLOAT: 1}
    values = next(t for t in after.graph.initializer if t.name.endswith("_values"))
    assert numpy_helper.to_array(values).size < centred.size
    assert_same(before, after, steps=0, exact=True)


REFUSED = {
    "zero point": (
        {"wz": np.full(16, 5, np.int8), "W": np.where(integers(16, 8).T == 0, np.int8(5), np.int8(-127))},
        "zero point other than 0",
    ),
    "all zero": ({"W": np.zeros((8, 16), np.int8)}, "all its weights are zero"),
    "16 bits": (
        {"W": integers(16, 8).T.astype(np.int16), "wz": np.zeros(16, np.int16)},
        "its weight is int16, not 8-bit",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals(case: str) -> None:
    changes, reason = REFUSED[case]
    after, records = rewrite(model(QDQ_MATMUL, matmul_weights(**changes), opset=21, ir_version=10))
    assert not ours(after)
    [skip] = records["substitute-quantized"].skipped
    assert reason in skip.reason


def test_a_target_without_prices_says_so() -> None:
    after, records = rewrite(quantized(convnet()), replace(CPU, quantized=None))
    assert not ours(after)
    reasons = {skip.reason for skip in records["substitute-quantized"].skipped}
    assert any("has no prices for quantized layers" in reason for reason in reasons)


def test_an_activation_that_saturation_does_not_do_becomes_a_clip_of_integers() -> None:
    text = """(float[1, 8, 6, 6] X) => (Y) {
      x = QuantizeLinear(X, xs, z)   xf = DequantizeLinear(x, xs, z)
      w = DequantizeLinear<axis = 0>(W, ws)
      c = Conv(xf, w)   r = Clip(c, low, high)
      q = QuantizeLinear(r, ys, z)   Y = DequantizeLinear(q, ys, z)
    }"""
    weights = {
        "xs": np.float32(0.03), "ys": np.float32(0.05), "z": np.int8(3), "ws": np.full(16, 0.01, np.float32),
        "W": integers(16, 8).reshape(16, 8, 1, 1), "low": np.float32(-0.3), "high": np.float32(1.1),
    }  # fmt: skip
    before = model(text, weights)
    after, _ = rewrite(before)
    assert ours(after) == {qlinear_ops.CONV: 1}
    assert [node.op_type for node in after.graph.node].count("Clip") == 1
    assert_same(before, after, steps=1.01, exact=False)


def test_a_convolution_whose_output_is_read_as_float() -> None:
    text = """(float[1, 8, 6, 6] X) => (Y) {
      x = QuantizeLinear(X, xs, z)   xf = DequantizeLinear(x, xs, z)
      w = DequantizeLinear<axis = 0>(W, ws)
      c = Conv(xf, w, b)   Y = Add(more, c)
    }"""
    weights = {
        "xs": np.float32(0.03), "z": np.uint8(3), "ws": np.full(16, 0.01, np.float32), "b": random(16),
        "W": integers(16, 8).reshape(16, 8, 1, 1), "more": random(1, 16, 1, 1),
    }  # fmt: skip
    before = model(text, weights)
    after, _ = rewrite(before)
    assert [node.op_type for node in after.graph.node] == ["QuantizeLinear", qlinear_ops.CONV_TO_FLOAT]
    assert_same(before, after, steps=0, exact=True)


def test_torch_linear_with_a_transposed_weight_and_a_float_bias() -> None:
    text = """(float[5, 8] X) => (Y) {
      x = QuantizeLinear(X, xs, z)   xf = DequantizeLinear(x, xs, z)
      w = DequantizeLinear<axis = 0>(W, ws, wz)   wt = Transpose<perm = [1, 0]>(w)
      g = Gemm(xf, wt, b)
      q = QuantizeLinear(g, ys, z)   Y = DequantizeLinear(q, ys, z)
    }"""
    weights = {
        "xs": np.float32(0.02), "ys": np.float32(0.05), "z": np.uint8(128), "wz": np.zeros(16, np.int8),
        "ws": (np.arange(16, dtype=np.float32) + 1) / 1000, "W": integers(16, 8), "b": random(16),
    }  # fmt: skip
    before = model(text, weights)
    after, _ = rewrite(before)
    assert ours(after) == {qlinear_ops.GEMM: 1}
    assert_same(before, after, steps=1.01, exact=False)


def test_shared_weights_are_stored_once() -> None:
    text = """(float[4, 8] X) => (Y) {
      x = QuantizeLinear(X, xs, xz)   xf = DequantizeLinear(x, xs, xz)
      w = DequantizeLinear<axis = 1>(W, ws, wz)
      a = MatMul(xf, w)   b = MatMul(xf, w)   Y = Add(a, b)
    }"""
    after, _ = rewrite(model(text, matmul_weights()))
    assert ours(after) == {qlinear_ops.GEMM_TO_FLOAT: 2}
    assert sum(tensor.name.endswith("_values") for tensor in after.graph.initializer) == 1


def test_a_residual_that_others_read_too_is_not_fused() -> None:
    text = """(float[1, 8, 6, 6] X) => (Y, Z) {
      x = QuantizeLinear(X, xs, z)   xf = DequantizeLinear(x, xs, z)
      w = DequantizeLinear<axis = 0>(W, ws)
      c = Conv(xf, w)   q = QuantizeLinear(c, ys, z)   Z = DequantizeLinear(q, ys, z)
      s = Add(Z, xf)   t = QuantizeLinear(s, ys, z)   Y = DequantizeLinear(t, ys, z)
    }"""
    weights = {
        "xs": np.float32(0.03),
        "ys": np.float32(0.05),
        "z": np.uint8(128),
        "ws": np.full(8, 0.01, np.float32),
        "W": integers(8, 8).reshape(8, 8, 1, 1),
    }
    after, _ = rewrite(model(text, weights))
    assert ours(after) == {qlinear_ops.CONV: 1}
