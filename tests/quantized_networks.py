"""Small pruned networks, and what ONNX Runtime's own quantizer makes of them."""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from tests.pass_runner import model, random, sparse

Feeds = Sequence[dict[str, Any]]


def convnet(opset: int = 17) -> onnx.ModelProto:
    """Convolutions with every kind of activation, a residual block with a projection, pools, and two
    products."""
    text = """(float[1, 3, 16, 16] X) => (Y) {
      a0 = Conv<pads = [1, 1, 1, 1]>(X, W0, b0)        a = Relu(a0)
      p = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a)
      c0 = Conv<pads = [1, 1, 1, 1]>(p, W1, b1)        c = Relu(c0)
      d = Conv<pads = [1, 1, 1, 1]>(c, W2, b2)
      q = Conv(p, W3)
      s0 = Add(d, q)                                   s = Relu(s0)
      e0 = Conv<group = 4, strides = [2, 2]>(s, W4)    e = Clip(e0, zero, six)
      g = GlobalAveragePool(e)
      f = Flatten(g)
      h0 = Gemm<transB = 1>(f, W5, b5)                 h = Relu(h0)
      Y = Gemm(h, W6, b6)
    }"""
    weights = {
        "W0": sparse(16, 3, 3, 3, group_shape=(4, 1), density=0.5, seed=1) / 3,
        "b0": random(16, seed=2) / 10,
        "W1": sparse(24, 16, 3, 3, group_shape=(4, 1), density=0.3, seed=3) / 5,
        "b1": random(24, seed=4) / 10,
        "W2": sparse(32, 24, 3, 3, group_shape=(4, 1), density=0.3, seed=5) / 5,
        "b2": random(32, seed=6) / 10,
        "W3": sparse(32, 16, 1, 1, group_shape=(4, 1), density=0.4, seed=7) / 2,
        "W4": sparse(32, 8, 3, 3, group_shape=(4, 1), density=0.4, seed=8) / 3,
        "W5": sparse(20, 32, group_shape=(4, 1), density=0.4, seed=9) / 2,
        "b5": random(20, seed=10) / 10,
        "W6": np.ascontiguousarray(sparse(10, 20, group_shape=(1, 1), density=0.15, seed=11).T),
        "b6": random(10, seed=12) / 10,
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    return model(text, weights, opset=opset)


def separable() -> onnx.ModelProto:
    """Pointwise and depthwise convolutions in turns."""
    text = """(float[1, 3, 24, 24] X) => (Y) {
      a0 = Conv<pads = [1, 1, 1, 1], strides = [2, 2]>(X, W0, b0)   a = Clip(a0, zero, six)
      b1 = Conv<pads = [1, 1, 1, 1], group = 16>(a, W1)             b = Clip(b1, zero, six)
      c0 = Conv(b, W2)                                              c = Clip(c0, zero, six)
      d0 = Conv<pads = [2, 2, 2, 2], strides = [2, 2], group = 24>(c, W3)
      d = Relu(d0)
      e = Conv(d, W4)
      g = GlobalAveragePool(e)
      Y = Flatten(g)
    }"""
    weights = {
        "W0": sparse(16, 3, 3, 3, group_shape=(4, 1), density=0.7, seed=1) / 3,
        "b0": random(16, seed=2) / 10,
        "W1": random(16, 1, 3, 3, seed=3) / 2,
        "W2": sparse(24, 16, 1, 1, group_shape=(4, 1), density=0.4, seed=4),
        "W3": random(24, 1, 5, 5, seed=5) / 4,
        "W4": sparse(32, 24, 1, 1, group_shape=(4, 1), density=0.3, seed=6),
        "zero": np.float32(0),
        "six": np.float32(6),
    }
    return model(text, weights)


def mixer(opset: int = 17) -> onnx.ModelProto:
    """Products of a sequence, three of which read the same, with biases added behind them."""
    text = """(float[2, 6, 24] X) => (Y) {
      q0 = MatMul(X, Wq)   q = Add(q0, bq)
      k0 = MatMul(X, Wk)   k = Add(bk, k0)
      v = MatMul(X, Wv)
      m0 = Mul(q, k)
      m1 = Add(m0, v)
      m = Tanh(m1)
      Y0 = MatMul(m, Wo)   Y = Add(Y0, bo)
    }"""
    weights = {
        **{
            f"W{name}": np.ascontiguousarray(
                sparse(rows, columns, group_shape=(4, 1), density=0.3, seed=seed).T
            )
            for name, rows, columns, seed in (
                ("q", 32, 24, 1),
                ("k", 32, 24, 2),
                ("v", 32, 24, 3),
                ("o", 12, 32, 4),
            )
        },
        "bq": random(32, seed=5),
        "bk": random(32, seed=6),
        "bo": random(12, seed=7),
    }
    return model(text, weights, opset=opset)


def exported(dtype: type[Any] = np.uint8, *, per_channel: bool = True) -> onnx.ModelProto:
    """A network as PyTorch's exporter writes what PyTorch itself quantized.

    Biases are of real numbers, a sum is quantized only behind its Relu and MaxPool, and what is read as real
    numbers is not quantized at all.
    """
    text = """(float[2, 3, 12, 12] X) => (Y) {
      x = QuantizeLinear<axis = 1>(X, xs, xz)      xf = DequantizeLinear<axis = 1>(x, xs, xz)
      c0 = Conv<pads = [1, 1, 1, 1]>(xf, W0, b0)   c = Relu(c0)
      p = QuantizeLinear(c, ps, pz)                pf = DequantizeLinear(p, ps, pz)
      d0 = Conv<pads = [1, 1, 1, 1]>(pf, W1, b1)   d = Relu(d0)
      q = QuantizeLinear(d, qs, pz)                qf = DequantizeLinear(q, qs, pz)
      e0 = Conv<pads = [1, 1, 1, 1]>(qf, W2, b2)   e1 = Add(pf, e0)   e = Relu(e1)
      m = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(e)
      r = QuantizeLinear(m, rs, pz)                rf = DequantizeLinear(r, rs, pz)
      f0 = Conv(rf, W3, b3)                        f1 = Add(rf, f0)   f = Relu(f1)
      g0 = ReduceMean<axes = [-1, -2], keepdims = 1>(f)
      g1 = Reshape(g0, shape)
      g = QuantizeLinear(g1, gs, pz)               gf = DequantizeLinear(g, gs, pz)
      h0 = Gemm<transB = 1>(gf, W4, b4)            h1 = Add(h0, gf)   h = Relu(h1)
      i = QuantizeLinear(h, is, pz)                if = DequantizeLinear(i, is, pz)
      w5 = Transpose<perm = [1, 0]>(W5)
      Y0 = MatMul(if, w5)                          Y = Add(Y0, b5)
    }"""
    shapes: list[tuple[int, ...]] = [
        (16, 3, 3, 3), (24, 16, 3, 3), (16, 24, 3, 3), (16, 16, 1, 1), (16, 16), (12, 16),
    ]  # fmt: skip
    low = int(np.iinfo(dtype).min)
    tensors: dict[str, Any] = {
        "xs": np.float32(0.03), "xz": dtype(low + 120), "ps": np.float32(0.02), "pz": dtype(low),
        "qs": np.float32(0.025), "rs": np.float32(0.03), "gs": np.float32(0.01), "is": np.float32(0.02),
        "shape": np.array([2, 16]),
    }  # fmt: skip
    dequantized = []
    for number, shape in enumerate(shapes):
        real = sparse(*shape, group_shape=(4, 1), density=0.5, seed=number) / np.sqrt(np.prod(shape[1:]))
        channels = real.reshape(shape[0], -1)
        steps = np.maximum(np.abs(channels).max(axis=1), 1e-3) / 127
        steps = (steps if per_channel else steps.max()).astype(np.float32)
        along = steps.reshape(-1, *[1] * (len(shape) - 1)) if per_channel else steps
        tensors |= {
            f"w{number}_integers": np.rint(real / along).astype(np.int8), f"w{number}_scale": steps,
            f"w{number}_zero": np.zeros(steps.shape, np.int8),
            f"b{number}": random(shape[0], seed=number) / 10,
        }  # fmt: skip
        given = ", ".join(f"w{number}_{name}" for name in ("integers", "scale", "zero"))
        dequantized.append(f"W{number} = DequantizeLinear<axis = {0 if per_channel else 1}>({given})")
    return model(text.replace("{", "{\n" + "\n".join(dequantized), 1), tensors)


def inputs(proto: onnx.ModelProto, count: int = 4) -> list[dict[str, Any]]:
    """Some random inputs."""
    value = proto.graph.input[0]
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    return [{value.name: random(*shape, seed=50 + number)} for number in range(count)]


def quantized(proto: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """By ONNX Runtime's quantizer with calibration; options are its own."""
    settings: dict[str, Any] = {
        "quant_format": QuantFormat.QDQ, "per_channel": True,
        "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8, **options,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as name, _quiet():
        before, after = Path(name) / "before.onnx", Path(name) / "after.onnx"
        onnx.save(proto, before)
        quantize_static(before, after, _Reader(inputs(proto)), **settings)
        return onnx.load(after)


def dynamic(proto: onnx.ModelProto, **options: Any) -> onnx.ModelProto:
    """By ONNX Runtime's quantizer without calibration: activations are quantized while the model runs."""
    with tempfile.TemporaryDirectory() as name, _quiet():
        before, after = Path(name) / "before.onnx", Path(name) / "after.onnx"
        onnx.save(proto, before)
        quantize_dynamic(before, after, **{"weight_type": QuantType.QInt8, **options})
        return onnx.load(after)


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Feeds) -> None:
        self._feeds: Iterator[dict[str, Any]] = iter(feeds)

    def get_next(self) -> dict[str, Any] | None:
        return next(self._feeds, None)


class _quiet:  # noqa: N801 - used as a function
    """Keeps advice about files to itself that has no meaning here."""

    def __enter__(self) -> None:
        logging.disable(logging.WARNING)

    def __exit__(self, *_: object) -> None:
        logging.disable(logging.NOTSET)
