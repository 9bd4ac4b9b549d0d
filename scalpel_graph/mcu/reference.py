"""The arithmetic of a quantized network in numpy: what every other form of it must give, byte for byte."""

from collections.abc import Mapping

import numpy as np

from scalpel_graph.group_csr import Array
from scalpel_graph.mcu.network import (
    LIMITS,
    Add,
    ArgMax,
    Clip,
    Concat,
    Flatten,
    IntegerLayer,
    Lrn,
    Multiply,
    Network,
    Pool,
    Softmax,
    Value,
    Window,
)


def quantize_input(network: Network, x: Array) -> Array:
    """Float32 input as the device gets it, rounded half up."""
    form = network.values[network.input].format
    low, high = LIMITS[network.dtype]
    scaled = x.astype(np.float32) * np.float32(1 / form.scale)
    stored = np.floor(scaled + np.float32(0.5)) + np.float32(form.zero_point)
    limited: Array = np.clip(stored, low, high).astype(np.int64)
    return limited


def run(network: Network, x: Array) -> Array:
    """The stored output for a batch of stored inputs; both int64 ``[N, ...]`` in ONNX's order."""
    stored: dict[str, Array] = {network.input: x.astype(np.int64)}
    for layer in network.layers:
        values = network.values
        y = _layer(layer, [stored[name] for name in layer.inputs], values)
        stored[layer.output] = np.clip(y, layer.low, layer.high)
    return stored[network.output]


def _layer(layer: IntegerLayer, xs: list[Array], values: Mapping[str, Value]) -> Array:
    """What a layer computes, before its limits."""
    y: Array
    x = xs[0]
    zero = values[layer.inputs[0]].format.zero_point
    match layer:
        case Multiply():
            y = _multiply(layer, x - zero) + values[layer.output].format.zero_point
        case Pool():
            y = _pool(layer, x - zero) + zero
        case Flatten():
            y = _flatten(layer, x)
        case Concat():
            y = np.concatenate(xs, axis=1)
        case Clip():
            half = 2**layer.shift >> 1
            y = (((x - zero) * layer.multiplier + half) >> layer.shift) + values[
                layer.output
            ].format.zero_point
        case Add():
            zeros = [values[name].format.zero_point for name in layer.inputs]
            total = sum((a - z) * m for a, z, m in zip(xs, zeros, layer.multipliers, strict=True))
            half = 2**layer.shift >> 1
            y = ((total + half) >> layer.shift) + values[layer.output].format.zero_point
        case Lrn():
            y = _lrn(layer, x - zero) + values[layer.output].format.zero_point
        case Softmax():
            e = layer.table[
                np.minimum((x.max(axis=1, keepdims=True) - x) >> layer.index_shift, len(layer.table) - 1)
            ]
            total = e.sum(axis=1, keepdims=True)
            y = (e * layer.one + total // 2) // total + values[layer.output].format.zero_point
        case ArgMax():
            y = x.argmax(axis=1).reshape(-1, *values[layer.output].shape)
    return y


def _multiply(layer: Multiply, x: Array) -> Array:
    """Doubles hold every sum exactly."""
    W = layer.weights.astype(np.float64)
    each = [layer.bias, layer.multiplier, layer.shift]
    if layer.op == "Gemm":
        return _requantized((x @ W.T).astype(np.int64), *each)
    group = layer.window.group
    patches = _patches(_planes(x), layer.window)  # [N, C, kh, kw, oh, ow]
    N, C, kh, kw, oh, ow = patches.shape
    M = len(W)
    columns = patches.reshape(N, group, C // group, kh * kw, oh * ow).transpose(0, 1, 3, 2, 4)
    columns = columns.reshape(N, group, -1, oh * ow).astype(np.float64)
    acc = (W.reshape(group, M // group, -1) @ columns).reshape(N, M, oh * ow).astype(np.int64)
    y = _requantized(acc, *(array[:, None] for array in each))
    return y.reshape(N, M, oh, ow) if x.ndim == 4 else y.reshape(N, M, ow)


def _requantized(acc: Array, bias: Array, multiplier: Array, shift: Array) -> Array:
    rounding = (np.int64(1) << shift) >> 1
    y: Array = ((acc + bias) * multiplier + rounding) >> shift
    return y


def _pool(layer: Pool, x: Array) -> Array:
    lowest = np.iinfo(np.int64).min
    planes = _planes(x)
    y: Array
    if layer.op == "MaxPool":
        y = _patches(planes, layer.window, lowest).max(axis=(2, 3))
    else:
        n = counts(layer, planes.shape[2], planes.shape[3])
        y = (2 * _patches(planes, layer.window).sum(axis=(2, 3)) + n) // (2 * n)
    return y if x.ndim == 4 else y[:, :, 0]


def counts(layer: Pool, height: int, width: int) -> Array:
    """``[oh, ow]``: how many elements each average is of."""
    inside = np.ones((1, 1, height, width), np.int64)
    n: Array = _patches(inside, layer.window, int(layer.count_pads)).sum(axis=(2, 3))[0, 0]
    return n


def _lrn(layer: Lrn, x: Array) -> Array:
    squares = np.pad(x * x, ((0, 0), (layer.before, layer.after), *((0, 0),) * (x.ndim - 2)))
    sums = sum(squares[:, i : i + x.shape[1]] for i in range(layer.before + layer.after + 1))
    last = len(layer.table) - 1
    q = np.minimum(sums >> layer.square_shift, (last << layer.fraction_bits) - 1)
    i, f = q >> layer.fraction_bits, q & ((1 << layer.fraction_bits) - 1)
    factor = layer.table[i] - ((layer.table[i] - layer.table[i + 1]) * f >> layer.fraction_bits)
    y: Array = (x * factor + (1 << (layer.shift - 1))) >> layer.shift
    return y


def _flatten(layer: Flatten, x: Array) -> Array:
    return (x if layer.planar else np.moveaxis(x, 1, -1)).reshape(len(x), -1)


def _planes(x: Array) -> Array:
    return x if x.ndim == 4 else x[:, :, None]


def _patches(x: Array, window: Window, padding: int = 0) -> Array:
    """``[N, C, H, W]`` to ``[N, C, kh, kw, oh, ow]``."""
    top, left, bottom, right = window.pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=padding)
    (kh, kw), (sh, sw), (dh, dw) = window.kernel, window.strides, window.dilations
    oh = (padded.shape[2] - (kh - 1) * dh - 1) // sh + 1
    ow = (padded.shape[3] - (kw - 1) * dw - 1) // sw + 1
    taps = [
        [
            padded[:, :, i * dh : i * dh + (oh - 1) * sh + 1 : sh, j * dw : j * dw + (ow - 1) * sw + 1 : sw]
            for j in range(kw)
        ]
        for i in range(kh)
    ]
    return np.stack([np.stack(row, axis=2) for row in taps], axis=2)
