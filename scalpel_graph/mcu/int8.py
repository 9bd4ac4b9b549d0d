"""8-bit integers: activations with a scale and a zero point, weights with a scale for each output."""

from collections.abc import Mapping

import numpy as np

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array
from scalpel_graph.mcu.network import (
    ACCUMULATOR_32,
    LIMITS,
    PROBABILITIES,
    FloatLayer,
    FloatNetwork,
    Format,
)
from scalpel_graph.mcu.ranges import Ranges

_LOW, _HIGH = LIMITS["int8"]
_MOST_SHIFT = 62
_BITS_OF_BIAS = 29
#: Inputs less their zero point do not exceed this.
_WIDEST = 255


def formats(network: FloatNetwork, ranges: Ranges, same: Mapping[str, str]) -> dict[str, Format]:
    """Of every value; see `q15.formats`. Zero is stored exactly."""
    edges: dict[str, tuple[float, float]] = {}
    for value, of in same.items():
        low, high = edges.get(of, (0.0, 0.0))
        edges[of] = min(low, ranges[value][0]), max(high, ranges[value][1])
    found = {of: _format(low, high) for of, (low, high) in edges.items()}
    for layer in network.layers:
        if layer.op == "Softmax":
            found[same[layer.output]] = PROBABILITIES["int8"]
        elif layer.op == "ArgMax":
            found[same[layer.output]] = Format(1.0)
    return {value: found[of] for value, of in same.items()}


def weights(layer: FloatLayer, x: Format, y: Format) -> tuple[Array, Array, Array, Array]:
    """Weights (int8), bias, multiplier and shift (int64), by the formats of input and output.

    Raises:
        InputError: a sum does not fit 32 bits.
    """
    stored, bias, scale = rounded(layer, x, _BITS_OF_BIAS)
    sums = np.abs(stored.astype(np.int64)).sum(axis=1) * _WIDEST + np.abs(bias)
    if sums.max() >= ACCUMULATOR_32:
        raise InputError(f"node {layer.name!r}: sums of {stored.shape[1]} products may not fit 32 bits")
    return stored, bias, *fixed_point(x.scale * scale / y.scale)


def rounded(layer: FloatLayer, x: Format, bits_of_bias: int) -> tuple[Array, Array, Array]:
    """Weights (int8), bias (int64) and the scale of the weights of each output.

    Args:
        layer: it; scales that it has are kept.
        x: the format of its input.
        bits_of_bias: what others are chosen for: no bias is stored as more than 2 to this.
    """
    W = layer.weights
    assert W is not None
    bias = np.zeros(len(W)) if layer.bias is None else layer.bias
    if layer.scales is not None:
        scale = np.broadcast_to(layer.scales, len(W))
    else:
        scale = np.abs(W).max(axis=1) / _HIGH
        # A bias that is large against the weights of its row needs a larger unit.
        scale = np.maximum(scale, np.abs(bias) / (x.scale * 2.0**bits_of_bias))
        scale[scale == 0] = 1.0
    stored_bias = np.rint(bias / (x.scale * scale)).astype(np.int64)
    return np.rint(W / scale[:, None]).astype(np.int8), stored_bias, scale


def fixed_point(ratios: Array) -> tuple[Array, Array]:
    """Multipliers from 2^30 to 2^31 and shifts: ``ratio ≈ multiplier / 2^shift``."""
    fraction, exponent = np.frexp(ratios)
    multiplier = np.rint(fraction * 2.0**31).astype(np.int64)
    shift = 31 - exponent.astype(np.int64)
    full = multiplier == 2**31
    multiplier[full] //= 2
    shift[full] -= 1
    small = np.maximum(shift - _MOST_SHIFT, 0)  # next to nothing: fewer digits
    return multiplier >> np.minimum(small, 62), shift - small


def _format(low: float, high: float) -> Format:
    if low == high:
        return Format(1.0)
    scale = float(np.float32((high - low) / (_HIGH - _LOW)))
    return Format(scale, min(max(round(_LOW - low / scale), _LOW), _HIGH))
