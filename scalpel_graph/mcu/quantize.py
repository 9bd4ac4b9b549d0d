"""Chooses how values are stored and rounds weights: float layers become integer ones.

What differs between the kinds of integers is in `q15`, `int8` and `int8x16`.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from scalpel_graph.mcu import int8, int8x16, q15
from scalpel_graph.mcu.given import with_all_formats
from scalpel_graph.mcu.int8 import fixed_point
from scalpel_graph.mcu.network import (
    LIMITS,
    PROBABILITIES,
    STORED,
    Add,
    ArgMax,
    Clip,
    Concat,
    Dtype,
    Flatten,
    FloatLayer,
    FloatNetwork,
    IntegerLayer,
    Lrn,
    Multiply,
    Network,
    Pool,
    Softmax,
    Value,
    hwc_columns,
)
from scalpel_graph.mcu.ranges import Ranges
from scalpel_graph.mcu.same_format import classes

_KINDS = {"q15": q15, "int8": int8, "int8x16": int8x16}

#: Layers that hand values on as they are stored.
_HAND_ON = ("MaxPool", "AveragePool", "Clip", "Concat", "Flatten")

_LRN_ENTRIES = 257
_LRN_FRACTION_BITS = 15
_SOFTMAX_ENTRIES = 1024
_LARGEST = 32767
#: e to the minus this is nothing against 1 in 15 bits.
_NOTHING = 11.0


def quantize(network: FloatNetwork, ranges: Ranges, name: str) -> Network:
    """Makes a network of integers.

    Args:
        network: the float layers.
        ranges: of every value, before the limits of its layer; none for a network that has formats.
        name: of the network.

    Raises:
        InputError: a layer's numbers do not fit.
    """
    dtype = network.dtype
    if network.formats:
        network = with_all_formats(network, _HAND_ON)
        formats = network.formats
    else:
        ranges = dict(ranges)
        for layer in network.layers:  # a limit that was moved before a pool
            low, high = ranges[layer.output]
            ranges[layer.output] = max(low, layer.low), min(high, layer.high)
        same = classes(network, lambda layer: layer.op in _HAND_ON)
        formats = _KINDS[dtype].formats(network, ranges, same)
    values = {value: Value(value, shape, formats[value]) for value, shape in network.shapes.items()}
    layers = tuple(_layer(layer, values, dtype) for layer in network.layers)
    return Network(name, dtype, network.input, network.output, values, layers)


def _layer(layer: FloatLayer, values: Mapping[str, Value], dtype: Dtype) -> IntegerLayer:
    form = values[layer.output].format
    least, most = LIMITS[dtype]
    low, high = (
        round(min(max(edge / form.scale + form.zero_point, least), most)) for edge in (layer.low, layer.high)
    )
    common: dict[str, Any] = {
        "name": layer.name, "inputs": tuple(layer.inputs), "output": layer.output, "low": low, "high": high,
    }  # fmt: skip
    match layer.op:
        case "Flatten":
            return Flatten(**common)
        case "Concat":
            return Concat(**common)
        case "Clip":
            return _clip(common, values)
        case "MaxPool" | "AveragePool":
            count_pads = layer.attributes["count_pads"]
            return Pool(**common, op=layer.op, window=layer.window, count_pads=count_pads)
        case "Add":
            return _add(common, layer, values)
        case "LRN":
            return _lrn(common, layer, values, dtype)
        case "Softmax":
            return _softmax(common, layer, values, dtype)
        case "ArgMax":
            return ArgMax(**common)
    x = values[layer.inputs[0]]
    weights, bias, multiplier, shift = _KINDS[dtype].weights(layer, x.format, form)
    if layer.op == "Conv":
        weights = hwc_columns(weights, x.shape[0] // layer.window.group)
    return Multiply(
        **common, op=layer.op, weights=weights, bias=bias, multiplier=multiplier, shift=shift,
        window=layer.window,
    )  # fmt: skip


def _clip(common: Mapping[str, Any], values: Mapping[str, Value]) -> Clip:
    x, y = (values[name].format for name in (common["inputs"][0], common["output"]))
    if x == y:
        return Clip(**common)
    multiplier, shift = fixed_point(np.array([x.scale / y.scale]))
    return Clip(**common, multiplier=int(multiplier[0]), shift=int(shift[0]))


def _add(common: Mapping[str, Any], layer: FloatLayer, values: Mapping[str, Value]) -> Add:
    """Both multipliers share one shift: that of the larger. Powers of two stay exact."""
    y = values[layer.output].format.scale
    ratios = np.array([values[name].format.scale / y for name in layer.inputs])
    multiplier, shift = fixed_point(ratios)
    common_shift = int(shift.min())
    multipliers = [int(m) >> int(s - common_shift) for m, s in zip(multiplier, shift, strict=True)]
    return Add(**common, multipliers=(multipliers[0], multipliers[1]), shift=common_shift)


def _lrn(common: Mapping[str, Any], layer: FloatLayer, values: Mapping[str, Value], dtype: Dtype) -> Lrn:
    """A table of ``(bias + alpha / size · Σ x²)^−beta`` over the whole range of the sum."""
    size, alpha, beta, bias = (layer.attributes[name] for name in ("size", "alpha", "beta", "bias"))
    x, y = (values[name].format.scale for name in (layer.inputs[0], layer.output))
    largest_square = 2**30 if STORED[dtype].itemsize == 2 else 2**16
    sum_bits = (min(size, values[layer.inputs[0]].shape[0]) * largest_square).bit_length()
    interval_bits = sum_bits - (_LRN_ENTRIES - 1).bit_length() + 1
    fraction_bits = min(interval_bits, _LRN_FRACTION_BITS)
    sums = np.arange(_LRN_ENTRIES) * 2.0**interval_bits
    factors = x / y * (bias + alpha / size * x * x * sums) ** -beta
    shift = min(int(np.floor(np.log2(_LARGEST / factors[0]))), 31)
    return Lrn(
        **common,
        before=(size - 1) // 2,
        after=size // 2,
        table=np.rint(factors * 2.0**shift).astype(np.int64),
        square_shift=interval_bits - fraction_bits,
        fraction_bits=fraction_bits,
        shift=shift,
    )


def _softmax(
    common: Mapping[str, Any], layer: FloatLayer, values: Mapping[str, Value], dtype: Dtype
) -> Softmax:
    """A table of ``e^−d`` for differences ``d`` from the largest input."""
    scale = values[layer.inputs[0]].format.scale
    index_shift = max(0, int(np.ceil(np.log2(_NOTHING / (scale * _SOFTMAX_ENTRIES)))))
    differences = np.arange(_SOFTMAX_ENTRIES) * 2.0**index_shift * scale
    table = np.rint(_LARGEST * np.exp(-differences)).astype(np.int64)
    one = round(1 / PROBABILITIES[dtype].scale)
    return Softmax(**common, table=table, index_shift=index_shift, one=one)
