"""QuantizeLinear and DequantizeLinear come next to quantized layers, through what moves numbers about."""

from typing import Any

import numpy as np
import onnx
import pytest

from scalpel_graph.passes.move_quantization import MoveQuantization
from tests.pass_runner import model, run, sparse

WEIGHTS: dict[str, Any] = {
    "s": np.float32(0.03), "z": np.uint8(100), "ws": np.float32(0.02), "low": np.float32(-0.5),
    "W": np.rint(sparse(8, 4, 3, 3) * 40).clip(-127, 127).astype(np.int8),
    "W2": np.rint(sparse(8, 5, density=0.5) * 40).clip(-127, 127).astype(np.int8),
    "shape": np.array([2, -1]),
    "axes": np.array([1]), "bias": np.ones((1, 8, 1, 1), np.float32), "each": np.full(8, 0.03, np.float32),
    "zeros": np.full(8, 100, np.uint8),
}  # fmt: skip
CONV = """(float[2, 4, 6, 6] X) => (Y) {
  x = QuantizeLinear(X, s, z)   xf = DequantizeLinear(x, s, z)
  w = DequantizeLinear(W, ws)
  c = Conv(xf, w)
  %s
  Y = DequantizeLinear(q, s, z)
}"""


def kinds(proto: onnx.ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


@pytest.mark.parametrize(
    ("between", "expected"),
    [
        ("m = MaxPool<kernel_shape = [2, 2], pads = [1, 1, 0, 0]>(c)", ["MaxPool"]),
        ("m = Transpose<perm = [0, 2, 3, 1]>(c)", ["Transpose"]),
        ("a = Relu(c)   m = Reshape(a, shape)", ["Reshape"]),
        ("a = Add(bias, c)   b = MaxPool<kernel_shape = [2, 2]>(a)   m = Flatten(b)", ["MaxPool", "Flatten"]),
        ("a = Unsqueeze(c, axes)   b = Clip(a, low)   m = Squeeze(b, axes)", ["Squeeze"]),
    ],
)
def test_quantize_moves_towards_the_layer(between: str, expected: list[str]) -> None:
    before = model(CONV % f"{between}   q = QuantizeLinear(m, s, z)", WEIGHTS)
    after, records = run(before, MoveQuantization())
    assert len(records["move-quantization"].rewritten) == len(expected)
    found = kinds(after)
    assert found[len(found) - len(expected) - 2 :] == ["QuantizeLinear", *expected, "DequantizeLinear"]


@pytest.mark.parametrize(
    "between",
    [
        "m = Softmax(c)   q = QuantizeLinear(m, s, z)",
        "m = Flatten(c)   q = QuantizeLinear(m, s, z)   Z = Identity(m)",
        "m = Transpose<perm = [1, 0, 2, 3]>(c)   r = QuantizeLinear<axis = 0>(m, each, zeros)",
        "t = Tanh(c)   m = Flatten(t)   q = QuantizeLinear(m, s, z)",
    ],
)
def test_quantize_stays(between: str) -> None:
    text = CONV % between
    text = text.replace("DequantizeLinear(q, s, z)", "Identity(r)") if "r = " in between else text
    if "Z =" in text:
        text = text.replace("(Y)", "(Y, Z)")
    before = model(text, WEIGHTS)
    after, records = run(before, MoveQuantization())
    assert not records["move-quantization"].rewritten
    assert kinds(after) == kinds(before)


@pytest.mark.parametrize("other_reader", [False, True])
def test_dequantize_moves_towards_the_layer(other_reader: bool) -> None:
    text = """(float[2, 4, 2, 2] X) => (Y%s) {
      x = QuantizeLinear(X, s, z)   xf = DequantizeLinear(x, s, z)
      t = Transpose<perm = [0, 2, 3, 1]>(xf)   f = Flatten(t)
      w = DequantizeLinear(W3, ws)
      Y = Gemm(f, w)%s
    }"""
    text %= (", Z", "   Z = Tanh(xf)") if other_reader else ("", "")
    weights = {**WEIGHTS, "W3": np.rint(sparse(16, 5) * 40).clip(-127, 127).astype(np.int8)}
    after, records = run(model(text, weights), MoveQuantization())
    assert len(records["move-quantization"].rewritten) == 2
    makers = {node.output[0]: node for node in after.graph.node}
    [gemm] = [node for node in after.graph.node if node.op_type == "Gemm"]
    dequantize = makers[gemm.input[0]]
    assert dequantize.op_type == "DequantizeLinear"
    flatten = makers[dequantize.input[0]]
    assert flatten.op_type == "Flatten" and makers[flatten.input[0]].op_type == "Transpose"
    assert makers[makers[flatten.input[0]].input[0]].op_type == "QuantizeLinear"
    assert kinds(after).count("DequantizeLinear") == 2 + other_reader  # that of the weight is one


def test_older_opsets_are_left_alone() -> None:
    before = model(CONV % "m = Flatten(c)   q = QuantizeLinear(m, s, z)", WEIGHTS, opset=11)
    _, records = run(before, MoveQuantization())
    assert not records["move-quantization"].rewritten
