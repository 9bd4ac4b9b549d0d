"""8-bit weights with a scale for each output, 16-bit activations with a scale and no zero point.

What TensorFlow Lite calls 16x8.
"""

from collections.abc import Mapping

import numpy as np

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array
from scalpel_graph.mcu import int8
from scalpel_graph.mcu.network import (
    ACCUMULATOR_32,
    LIMITS,
    PROBABILITIES,
    FloatLayer,
    FloatNetwork,
    Format,
)
from scalpel_graph.mcu.ranges import Ranges

_LOW, _HIGH = LIMITS["int8x16"]
#: Its reciprocal is a float32 too.
_SMALLEST_SCALE = 2.0**-126
#: What a bias has at most: more precise than the sum of any 2^15 products needs.
_BITS_OF_BIAS = 37
#: Sums times multipliers stay below 2^62, with multipliers of 16 bits and more.
_BITS_OF_SUM = 46
_BITS_OF_PRODUCT = 62


def formats(network: FloatNetwork, ranges: Ranges, same: Mapping[str, str]) -> dict[str, Format]:
    """Of every value; see `q15.formats`."""
    reach: dict[str, float] = {}
    for value, of in same.items():
        reach[of] = max(reach.get(of, 0.0), *map(abs, ranges[value]))
    found = {of: _format(edge) for of, edge in reach.items()}
    for layer in network.layers:
        if layer.op == "Softmax":
            found[same[layer.output]] = PROBABILITIES["int8x16"]
        elif layer.op == "ArgMax":
            found[same[layer.output]] = Format(1.0)
    return {value: found[of] for value, of in same.items()}


def weights(layer: FloatLayer, x: Format, y: Format) -> tuple[Array, Array, Array, Array]:
    """Weights (int8), bias, multiplier and shift (int64), by the formats of input and output.

    Rows whose sums may need more than 32 bits have multipliers of as many bits less.

    Raises:
        InputError: a bias is too large, or the outputs are too small.
    """
    stored, bias, scale = int8.rounded(layer, x, _BITS_OF_BIAS)
    sums = np.abs(stored.astype(np.int64)).sum(axis=1) * -_LOW + np.abs(bias)
    if sums.max() >= 2**_BITS_OF_SUM:
        raise InputError(f"node {layer.name!r}: its bias is too large against its weights")
    multiplier, shift = int8.fixed_point(x.scale * scale / y.scale)
    bits = np.frexp(np.maximum(sums, ACCUMULATOR_32 - 1).astype(np.float64))[1]
    less = np.maximum(bits + 31 - _BITS_OF_PRODUCT, 0).astype(np.int64)
    if (shift < less).any():
        raise InputError(f"node {layer.name!r}: its outputs are too small against its weights")
    return stored, bias, (multiplier + (1 << less >> 1)) >> less, shift - less


def _format(reach: float) -> Format:
    return Format(max(float(np.float32(reach / _HIGH)), _SMALLEST_SCALE) if reach else 1.0)
