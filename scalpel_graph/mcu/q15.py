"""16-bit fixed point, as the Scalpel paper has it on a microcontroller: every scale is a power of two.

An activation gets as many fractional bits as its range on the calibration inputs leaves. Weights of a layer
share one scale: as many fractional bits as fit an accumulator of 32 bits whatever the input is, unless that
leaves too few; then as many as fit 16 bits, and the accumulator has 64.
"""

import math
from collections.abc import Mapping

import numpy as np

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array
from scalpel_graph.mcu.network import ACCUMULATOR_32, LIMITS, FloatLayer, FloatNetwork, Format, bound
from scalpel_graph.mcu.ranges import Ranges

_LOW, _HIGH = LIMITS["q15"]

#: The root mean square of a layer's non-zero weights, in units of the last place, from which on 32-bit
#: accumulators are precise enough: rounding is then 47 dB below the weights, more precise than int8's.
_ENOUGH = 64

#: Fractional bits of a value that is (nearly) zero on all inputs, and of such weights.
_MOST_BITS = 30
_MOST_BITS_OF_WEIGHTS = 60
#: Accumulators of 32 and of 64 bits are shifted by at most this.
_MOST_SHIFT = 30
_MOST_SHIFT_64 = 62


def formats(network: FloatNetwork, ranges: Ranges, same: Mapping[str, str]) -> dict[str, Format]:
    """Of every value.

    Args:
        network: the float layers.
        ranges: of every value.
        same: for each value the name that stands for all that are stored alike.
    """
    bits: dict[str, int] = {}
    for value, of in same.items():
        reach = max(abs(edge) for edge in ranges[value])
        bits[of] = min(bits.get(of, _MOST_BITS), _fractional_bits(reach))
    for layer in network.layers:
        if layer.op in ("Softmax", "ArgMax"):
            bits[same[layer.output]] = 15 if layer.op == "Softmax" else 0
    changed = True
    while changed:  # an output cannot have more fractional bits than the sums that it is rounded from
        changed = False
        for layer in network.layers:
            if layer.weights is not None:
                most = bits[same[layer.inputs[0]]] + _bits_of_weights(layer.weights)
                if most < bits[same[layer.output]]:
                    bits[same[layer.output]] = most
                    changed = True
    return {value: Format(2.0 ** -bits[of]) for value, of in same.items()}


def weights(layer: FloatLayer, x: Format, y: Format) -> tuple[Array, Array, Array, Array]:
    """Weights (int16), bias, multiplier and shift (int64) of a layer, by the formats of its input and output.

    Raises:
        InputError: they fit no accumulator.
    """
    W = layer.weights
    assert W is not None
    bias = np.zeros(len(W)) if layer.bias is None else layer.bias
    scales = x.fraction_bits - y.fraction_bits
    most = min(_bits_of_weights(W), _MOST_SHIFT_64 - scales)
    if bias.any():  # a sum of 64 bits has to hold it
        most = min(most, 60 - math.ceil(math.log2(float(np.abs(bias).max()))) - x.fraction_bits)
    nonzero = W[W != 0]
    rms = math.sqrt(float(np.mean(np.square(nonzero)))) if nonzero.size else 0.0
    for bits in range(most, -_MOST_BITS_OF_WEIGHTS, -1):
        shift = scales + bits
        if shift < 0 or rms * 2.0**bits < min(_ENOUGH, rms * 2.0**most):
            break
        stored = _rounded(W, bits), _rounded(bias, x.fraction_bits + bits)
        if shift <= _MOST_SHIFT and bound(*stored, shift) < ACCUMULATOR_32:
            return _result(*stored, shift)
    shift = scales + most
    stored = _rounded(W, most), _rounded(bias, x.fraction_bits + most)
    if shift < 0 or (nonzero.size and rms * 2.0**most < 1) or bound(*stored, shift) >= 2**62:
        raise InputError(f"node {layer.name!r}: its bias is too large against its weights")
    return _result(*stored, shift)


def _result(stored: Array, bias: Array, shift: int) -> tuple[Array, Array, Array, Array]:
    return stored.astype(np.int16), bias, np.ones(1, np.int64), np.array([shift], np.int64)


def _fractional_bits(reach: float, most: int = _MOST_BITS) -> int:
    """The most with which ``reach`` does not saturate."""
    if reach == 0:
        return most
    bits = min(15 - math.floor(math.log2(reach)), most)
    while round(reach * 2.0**bits) > _HIGH:
        bits -= 1
    return bits


def _bits_of_weights(W: Array) -> int:
    return _fractional_bits(float(np.abs(W).max()), _MOST_BITS_OF_WEIGHTS)


def _rounded(values: Array, bits: int) -> Array:
    return np.rint(values * 2.0**bits).astype(np.int64)
