"""A network as a microcontroller runs it: a list of layers on integers, each with its arithmetic.

The same layers with float weights, before quantization, are a `FloatNetwork`.

Activations have no batch here. Their shapes are ONNX's: ``(C, H, W)``, ``(C, W)`` or ``(K,)``. On the device
they lie in the order ``H, W, C``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any, Literal

import numpy as np

from scalpel_graph.group_csr import Array, GroupShape

Shape = tuple[int, ...]
Dtype = Literal["q15", "int8", "int8x16"]
DTYPES: tuple[Dtype, ...] = ("q15", "int8", "int8x16")

#: What activations are stored as.
STORED: Mapping[Dtype, np.dtype[Any]] = {
    "q15": np.dtype(np.int16),
    "int8": np.dtype(np.int8),
    "int8x16": np.dtype(np.int16),
}

#: Smallest and largest stored number.
LIMITS: Mapping[Dtype, tuple[int, int]] = {
    dtype: (int(np.iinfo(stored).min), int(np.iinfo(stored).max)) for dtype, stored in STORED.items()
}

#: Weights side by side in a group: what a kernel multiplies at once.
SIMD_WIDTH: Mapping[Dtype, int] = {"q15": 2, "int8": 4, "int8x16": 4}

#: Sums that stay below this in magnitude fit an accumulator of 32 bits.
ACCUMULATOR_32 = 2**31


@dataclass(frozen=True)
class Window:
    """How a Conv or a pool moves over its input. A 1-D one has a height of 1.

    Attributes:
        kernel, strides, dilations: ``(h, w)``.
        pads: ``(top, left, bottom, right)``.
        group: of a Conv.
    """

    kernel: tuple[int, int] = (1, 1)
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    pads: tuple[int, int, int, int] = (0, 0, 0, 0)
    group: int = 1


@dataclass
class FloatLayer:
    """One layer before quantization.

    Attributes:
        op: ``Conv``, ``Gemm``, ``MaxPool``, ``AveragePool``, ``Clip``, ``Add``, ``Concat``, ``LRN``,
            ``Flatten``, ``Softmax`` or ``ArgMax``.
        name: of the node, for people.
        inputs: names of values.
        output: name of the value that it makes.
        weights: ``[M, K]`` float, columns in ONNX's order (channels, then kernel); None where there are none.
        bias: ``[M]`` float; None for none.
        window: of a Conv or pool.
        low, high: the activation.
        attributes: what else there is: of LRN ``size``, ``alpha``, ``beta``, ``bias``; of AveragePool
            ``count_pads``.
        scales: ``[M]`` or ``[1]``, of weights that came quantized: they are whole multiples of it.
    """

    op: str
    name: str
    inputs: list[str]
    output: str
    weights: Array | None = None
    bias: Array | None = None
    window: Window = field(default_factory=Window)
    low: float = -math.inf
    high: float = math.inf
    attributes: dict[str, Any] = field(default_factory=dict)
    scales: Array | None = None


@dataclass(frozen=True)
class Format:
    """How the numbers of a value are stored: ``real = (stored − zero_point) · scale``."""

    scale: float
    zero_point: int = 0

    @property
    def fraction_bits(self) -> int:
        """Of a power of two: ``scale = 2^−fraction_bits``."""
        return -round(math.log2(self.scale))


#: How Softmax stores probabilities.
PROBABILITIES: Mapping[Dtype, Format] = {
    "q15": Format(2.0**-15),
    "int8": Format(1 / 256, -128),
    "int8x16": Format(2.0**-15),
}


@dataclass
class FloatNetwork:
    """The layers of a network in the order that they run, with the shape of every value.

    Attributes:
        input, output: names of values.
        layers: in the order that they run.
        shapes: of values, by name.
        dtype: what they are to be stored as.
        formats: that a quantized model gives, by name; empty for others.
    """

    input: str
    output: str
    layers: list[FloatLayer]
    shapes: dict[str, Shape]
    dtype: Dtype
    formats: dict[str, Format] = field(default_factory=dict)


@dataclass(frozen=True)
class Value:
    """What one layer hands to others."""

    name: str
    shape: Shape
    format: Format

    @property
    def hwc(self) -> tuple[int, int, int]:
        """``(H, W, C)`` on the device."""
        if len(self.shape) == 3:
            return self.shape[1], self.shape[2], self.shape[0]
        if len(self.shape) == 2:
            return 1, self.shape[1], self.shape[0]
        return 1, 1, prod(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True, kw_only=True)
class Layer:
    """What every layer has.

    Attributes:
        name: of the node, for people.
        inputs: names of values.
        output: name of the value that it makes.
        low, high: the smallest and largest number that it stores.
    """

    name: str
    inputs: tuple[str, ...]
    output: str
    low: int
    high: int


@dataclass(frozen=True, kw_only=True)
class Multiply(Layer):
    """A fully connected layer or a convolution.

    ``stored = clip(zero_point + floor((acc · multiplier + 2^(shift − 1)) / 2^shift), low, high)`` with
    ``acc = bias + Σ weights · (input − input's zero point)``.

    Attributes:
        op: ``Conv`` or ``Gemm``.
        weights: ``[M, K]`` integers; columns of a Conv run over the kernel first, over channels last.
        bias: ``[M]`` int64.
        multiplier: ``[M]`` or ``[1]``, int64.
        shift: ``[M]`` or ``[1]``, int64.
        window: of a Conv.
        group_shape: how weights are stored; None for dense.
    """

    op: str
    weights: Array
    bias: Array
    multiplier: Array
    shift: Array
    window: Window = field(default_factory=Window)
    group_shape: GroupShape | None = None


@dataclass(frozen=True, kw_only=True)
class Pool(Layer):
    """A maximum or an average, ``floor((2 · Σ + n) / 2n)`` of n elements.

    Attributes:
        op: ``MaxPool`` or ``AveragePool``.
        window: it moves over the input.
        count_pads: whether an average counts padding (which is the zero point).
    """

    op: str
    window: Window
    count_pads: bool = False


@dataclass(frozen=True, kw_only=True)
class Clip(Layer):
    """Relu or Clip that no other layer could take over, or other numbers for the same values.

    ``zero_point + floor(((input − its zero point) · multiplier + 2^(shift − 1)) / 2^shift)``
    """

    multiplier: int = 1
    shift: int = 0


@dataclass(frozen=True, kw_only=True)
class Flatten(Layer):
    """An activation as a vector.

    Attributes:
        planar: in ONNX's order, channel by channel; else in the device's, where nothing has to move.
    """

    planar: bool = True


@dataclass(frozen=True, kw_only=True)
class Concat(Layer):
    """Channels of several values, one after the other. All have one format."""


@dataclass(frozen=True, kw_only=True)
class Add(Layer):
    """``zero_point + floor((Σ (input_i − its zero point) · multiplier_i + 2^(shift − 1)) / 2^shift)``."""

    multipliers: tuple[int, int]
    shift: int


@dataclass(frozen=True, kw_only=True)
class Lrn(Layer):
    """Local response normalisation: a channel times what a table has for the squares around it.

    With ``q = min(Σ x² >> square_shift, ((len(table) − 1) << fraction_bits) − 1)``, summed over the channels
    from ``before`` before to ``after`` after: ``i = q >> fraction_bits``, ``f = q mod 2^fraction_bits``,
    ``factor = table[i] − ((table[i] − table[i + 1]) · f >> fraction_bits)``, and
    ``(x · factor + 2^(shift − 1)) >> shift``.
    """

    before: int
    after: int
    table: Array
    square_shift: int
    fraction_bits: int
    shift: int


@dataclass(frozen=True, kw_only=True)
class Softmax(Layer):
    """Of a vector: ``e_i = table[min((max x − x_i) >> index_shift, len(table) − 1)]``, and
    ``zero_point + floor((e_i · one + floor(S / 2)) / S)`` with ``S = Σ e_i``.
    """

    table: Array
    index_shift: int
    one: int


@dataclass(frozen=True, kw_only=True)
class ArgMax(Layer):
    """The index of the first largest number of a vector."""


IntegerLayer = Multiply | Pool | Clip | Flatten | Concat | Add | Lrn | Softmax | ArgMax


@dataclass(frozen=True)
class Network:
    """A quantized network.

    Attributes:
        name: of the graph it came from.
        dtype: of its integers.
        input, output: names of values.
        values: by name.
        layers: in the order that they run.
    """

    name: str
    dtype: Dtype
    input: str
    output: str
    values: Mapping[str, Value]
    layers: tuple[IntegerLayer, ...]


def bound(weights: Array, bias: Array, shift: int) -> int:
    """What no sum of a layer exceeds in magnitude, rounding included, whatever its int16 input."""
    rounding: int = 2**shift >> 1
    rows = np.abs(weights.astype(np.int64)).sum(axis=1).tolist()
    return max(int(row) * 2**15 + abs(int(b)) for row, b in zip(rows, bias, strict=True)) + rounding


def hwc_columns(weights: Array, channels: int) -> Array:
    """The columns of a Conv's ``[M, channels · kernel]`` from ONNX's order to the device's, channels last."""
    M, K = weights.shape
    return weights.reshape(M, channels, K // channels).transpose(0, 2, 1).reshape(M, K)
