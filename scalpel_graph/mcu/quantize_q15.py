"""16-bit fixed point, as the Scalpel paper has it on a microcontroller: every scale is a power of two.

An activation gets as many fractional bits as its range on the calibration inputs leaves; values that are
handed on (pools, Concat) share one format. Weights of a layer share one too: as many fractional bits as fit
an accumulator of 32 bits whatever the input is, unless that leaves too few; then as many as fit 16 bits, and
the accumulator has 64.
"""

import math
from collections.abc import Mapping

import numpy as np

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array
from scalpel_graph.mcu.network import (
    ACCUMULATOR_32,
    LIMITS,
    Clip,
    Concat,
    Flatten,
    FloatLayer,
    FloatNetwork,
    Format,
    IntegerLayer,
    Multiply,
    Network,
    Pool,
    Value,
    hwc_columns,
)
from scalpel_graph.mcu.ranges import Ranges
from scalpel_graph.mcu.same_format import classes

_LOW, _HIGH = LIMITS["q15"]

#: The root mean square of a layer's non-zero weights, in units of the last place, from which on 32-bit
#: accumulators are precise enough: rounding is then 47 dB below the weights, half a bit better than int8's.
_ENOUGH = 64

#: Fractional bits of a value that is (nearly) zero on all inputs, and of weights.
_MOST_BITS = 30
#: Accumulators of 32 bits are shifted by at most this.
_MOST_SHIFT = 30


def quantize(network: FloatNetwork, ranges: Ranges, name: str) -> Network:
    """Chooses formats and rounds weights.

    Args:
        network: the float layers.
        ranges: of every value.
        name: of the network.

    Raises:
        InputError: a layer's weights do not fit.
    """
    same = classes(network, lambda layer: layer.op not in ("Conv", "Gemm"))
    bits: dict[str, int] = {}
    for value, of in same.items():
        reach = max(abs(edge) for edge in ranges[value])
        bits[of] = min(bits.get(of, _MOST_BITS), _fractional_bits(reach))
    while True:
        formats = {value: bits[of] for value, of in same.items()}
        too_many = _too_precise(network, formats)
        if too_many is None:
            break
        bits[same[too_many]] -= 1
    values = {
        value: Value(value, shape, Format(2.0 ** -formats[value])) for value, shape in network.shapes.items()
    }
    layers = tuple(_layer(layer, formats, values) for layer in network.layers)
    return Network(name, "q15", network.input, network.output, values, layers)


def _fractional_bits(reach: float) -> int:
    """The most with which ``reach`` does not saturate."""
    if reach == 0:
        return _MOST_BITS
    bits = min(15 - math.floor(math.log2(reach)), _MOST_BITS)
    while round(reach * 2.0**bits) > _HIGH:
        bits -= 1
    return bits


def _too_precise(network: FloatNetwork, formats: Mapping[str, int]) -> str | None:
    """A value that has more fractional bits than the sums it is rounded from."""
    for layer in network.layers:
        if layer.weights is not None:
            most = formats[layer.inputs[0]] + _fractional_bits(float(np.abs(layer.weights).max()))
            if most < formats[layer.output]:
                return layer.output
    return None


def _layer(layer: FloatLayer, formats: Mapping[str, int], values: Mapping[str, Value]) -> IntegerLayer:
    y = formats[layer.output]
    low, high = (round(min(max(edge * 2.0**y, _LOW), _HIGH)) for edge in (layer.low, layer.high))
    common = {
        "name": layer.name, "inputs": tuple(layer.inputs), "output": layer.output, "low": low, "high": high,
    }  # fmt: skip
    if layer.op == "Flatten":
        return Flatten(**common)
    if layer.op == "Concat":
        return Concat(**common)
    if layer.op == "Clip":
        return Clip(**common)
    if layer.op in ("MaxPool", "AveragePool"):
        return Pool(**common, op=layer.op, window=layer.window, count_pads=layer.attributes["count_pads"])
    x = values[layer.inputs[0]]
    weights, bias, shift = _weights(layer, formats[x.name], y)
    if layer.op == "Conv":
        weights = hwc_columns(weights, x.shape[0] // layer.window.group)
    return Multiply(
        **common,
        op=layer.op,
        weights=weights,
        bias=bias,
        multiplier=np.ones(1, np.int64),
        shift=np.array([shift], np.int64),
        window=layer.window,
    )


def _weights(layer: FloatLayer, x: int, y: int) -> tuple[Array, Array, int]:
    """Weights (int16), bias (int64) and shift, of input and output formats with x and y fractional bits."""
    weights = layer.weights
    assert weights is not None
    bias = np.zeros(len(weights)) if layer.bias is None else layer.bias
    most = _fractional_bits(float(np.abs(weights).max()))
    nonzero = weights[weights != 0]
    rms = math.sqrt(float(np.mean(np.square(nonzero)))) if nonzero.size else 0.0
    for bits in range(most, -_MOST_BITS, -1):
        shift = x + bits - y
        if shift < 0 or rms * 2.0**bits < min(_ENOUGH, rms * 2.0**most):
            break
        stored, stored_bias = _rounded(weights, bits), _rounded(bias, x + bits)
        if shift <= _MOST_SHIFT and bound(stored, stored_bias, shift) < ACCUMULATOR_32:
            return stored.astype(np.int16), stored_bias, shift
    stored_bias = _rounded(bias, x + most)
    shift = x + most - y
    if shift > 62 or bound(_rounded(weights, most), stored_bias, shift) >= 2**62:
        raise InputError(
            f"node {layer.name!r}: its bias is too large against its weights for 64-bit accumulators"
        )
    return _rounded(weights, most).astype(np.int16), stored_bias, shift


def bound(weights: Array, bias: Array, shift: int) -> int:
    """What no sum of a layer exceeds in magnitude, rounding included, whatever its int16 input."""
    rounding = 2**shift >> 1
    rows = np.abs(weights.astype(np.int64)).sum(axis=1).astype(object) * 2**15
    return int(max(row + abs(int(b)) for row, b in zip(rows, bias, strict=True))) + rounding


def _rounded(values: Array, bits: int) -> Array:
    return np.rint(values * 2.0**bits).astype(np.int64)
