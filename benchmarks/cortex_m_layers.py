"""Layers of given sizes and densities as calls of the Cortex-M kernels, with what their cost depends on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from benchmarks.kernel_cases import Case
from scalpel_graph.cortex_m_packing import (
    PIXELS_PER_TILE,
    TAPS_OF_MAXIMUM,
    PaddedInput,
    SparseArrays,
    dense_conv,
    dense_fc,
    runs,
    sparse_conv,
    sparse_fc,
)
from scalpel_graph.group_csr import GroupShape

Array = npt.NDArray[Any]
Family = Literal["q15", "w8"]

#: Of the kernels, narrowest first; groups of int16 weights are 2 columns wide, of int8 weights 4.
GROUP_SHAPES: Mapping[Family, Sequence[GroupShape]] = {
    "q15": ((1, 2), (2, 2), (4, 2)),
    "w8": ((1, 4), (2, 4), (4, 4)),
}
_SHIFT = 8
_W8_SHIFT = 40
_INT16 = (-32768, 32767)
_INT8 = (-128, 127)


@dataclass(frozen=True)
class Layer:
    """A call, and what the cost model counts of it.

    Attributes:
        case: the call.
        amounts: by name; ``call`` is 1.
        constant_bytes: of weights, indices and what else belongs to the layer in flash.
    """

    case: Case
    amounts: Mapping[str, int]
    constant_bytes: int


@dataclass(frozen=True)
class Weights:
    """How weights are made.

    Attributes:
        family: their type.
        group_shape: of a sparse layer; None for a dense one.
        density: share of groups that are kept.
        acc64: whether sums have 64 bits; the activations of int8 weights then have 16.
    """

    family: Family
    group_shape: GroupShape | None
    density: float = 1.0
    acc64: bool = False

    def random(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Without zeros in the groups that are kept, ``[M, ...]``."""
        values: Array = rng.integers(1, 100, shape) * rng.choice([-1, 1], shape)
        dtype = np.int16 if self.family == "q15" else np.int8
        if self.group_shape is None:
            return values.astype(dtype)
        (r, c), flat = self.group_shape, values.reshape(len(values), -1)
        blocks, columns = -(-flat.shape[0] // r), -(-flat.shape[1] // c)
        kept = np.zeros(blocks * columns, bool)
        kept[rng.permutation(kept.size)[: round(self.density * kept.size)]] = True
        mask = np.kron(kept.reshape(blocks, columns), np.ones((r, c), bool))
        kept_values: Array = values * mask[: flat.shape[0], : flat.shape[1]].reshape(shape)
        return kept_values.astype(dtype)

    @property
    def columns(self) -> int:
        """Of a group, and of what dense weights are padded to."""
        return 2 if self.family == "q15" else 4

    def name(self, operation: str, index: str = "") -> str:
        """Of the kernel."""
        if self.group_shape is None:
            name = f"dense_{operation}_{self.family}"
        else:
            name = f"{operation}_{self.family}_{'x'.join(map(str, self.group_shape))}{index}"
        return name + ("_acc64" if self.acc64 else "_acc32")

    @property
    def limits(self) -> tuple[int, int]:
        """Of activations."""
        return _INT8 if self.family == "w8" and not self.acc64 else _INT16

    def numbers(self, rows: int, inputs: int) -> tuple[int, ...]:
        """Of the layer."""
        if self.family == "q15":
            return (rows, inputs, _SHIFT, *self.limits)
        return (rows, inputs, 0 if self.acc64 else 3, *self.limits, int(self.limits == _INT8))

    def tail(self, rows: int) -> list[Array]:
        """Bias, and scales where there are any."""
        bias = np.full(rows, 128, np.int64 if self.acc64 else np.int32)
        if self.family == "q15":
            return [bias]
        multiplier = ((1 << 30) + 12345) >> (7 if self.acc64 else 0)
        return [bias, np.full(rows, multiplier, np.int32), np.full(rows, _W8_SHIFT, np.uint8)]

    def output_bytes(self, elements: int) -> int:
        """Of so many outputs."""
        return elements * (1 if self.limits == _INT8 else 2)

    def inputs(self, rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
        """Random ones."""
        return rng.integers(self.limits[0], self.limits[1] + 1, shape).astype(np.int16)


def _layer(case: Case, amounts: Mapping[str, int]) -> Layer:
    return Layer(case, {"call": 1, **amounts}, sum(array.nbytes for array in case.arrays[1:]))


def fully_connected(M: int, K: int, weights: Weights, rng: np.random.Generator) -> Layer:
    """A layer with M outputs and K inputs."""
    values, c = weights.random(rng, (M, K)), weights.columns
    x = weights.inputs(rng, (-(-K // c) * c,))
    bias, *scales = weights.tail(M)
    if weights.group_shape is None:
        blocks = M // 4 + M % 4 // 2 + M % 2
        arrays = [x[:K], dense_fc(values, c), bias, *scales]
        name, amounts = weights.name("fc"), {"row_block": blocks, "step": blocks * -(-K // c)}
    else:
        packed = sparse_fc(values, weights.group_shape)
        arrays = [x, packed.values, bias, *scales, packed.columns, packed.counts]
        name = weights.name("fc", f"_u{8 * packed.columns.itemsize}")
        amounts = {"row_block": len(packed.counts), "group": len(packed.columns)}
    return _layer(Case(name, weights.numbers(M, K), arrays, weights.output_bytes(M)), amounts)


@dataclass(frozen=True)
class ConvShape:
    """A convolution over an input that has its border.

    Attributes:
        rows: output channels.
        channels: of the input.
        kernel: height and width.
        output: height and width.
    """

    rows: int
    channels: int
    kernel: tuple[int, int]
    output: tuple[int, int]

    @property
    def padded(self) -> tuple[int, int]:
        """Height and width of the input."""
        return self.output[0] + self.kernel[0] - 1, self.output[1] + self.kernel[1] - 1

    @property
    def windows(self) -> tuple[int, ...]:
        """The numbers of ``scalpel_windows``."""
        width = self.padded[1]
        right, down = self.rows, self.output[1] * self.rows
        return (*self.output, width * self.channels, self.channels, down, right)


def convolution(shape: ConvShape, weights: Weights, rng: np.random.Generator) -> Layer:
    """With strides of 1."""
    M, c = shape.rows, weights.columns
    values = weights.random(rng, (M, *shape.kernel, shape.channels))
    x = weights.inputs(rng, (*shape.padded, shape.channels))
    padded = PaddedInput(shape.padded[1], shape.channels)
    bias, *scales = weights.tail(M)
    oh, ow = shape.output
    numbers = (*weights.numbers(M, 0), *shape.windows)
    if weights.group_shape is None:
        own = runs(values.shape, padded)
        arrays = [x, dense_conv(values, c, padded), bias, *scales, own.offsets]
        numbers += (len(own.offsets), own.length, own.groups, own.group_channels)
        tiles = oh * -(-ow // 2)
        blocks = tiles * (M // 2 + M % 2)
        n_runs = blocks * len(own.offsets)
        amounts = {
            "line": oh * (M // 2 + M % 2),
            "row_block": blocks,
            "run": n_runs,
            "step": n_runs * -(-own.length // c),
        }
    else:
        packed: SparseArrays = sparse_conv(values, weights.group_shape, padded)
        arrays = [x, packed.values, bias, *scales, packed.columns, packed.counts]
        tiles = oh * -(-ow // PIXELS_PER_TILE[weights.group_shape])
        amounts = {
            "line": oh * len(packed.counts),
            "tile_row_block": tiles * len(packed.counts),
            "tile_group": tiles * len(packed.columns),
        }
    case = Case(weights.name("conv"), numbers, arrays, weights.output_bytes(prod(shape.output) * M))
    return _layer(case, amounts)


def depthwise(shape: ConvShape, weights: Weights, rng: np.random.Generator) -> Layer:
    """With strides of 1; rows and channels are the same."""
    M = shape.rows
    values = weights.random(rng, (M, *shape.kernel)).transpose(1, 2, 0)
    x = weights.inputs(rng, (*shape.padded, M))
    taps = PaddedInput(shape.padded[1], M).taps(shape.kernel).reshape(-1)
    outputs = prod(shape.output) * M
    name = f"depthwise_{weights.family}_{'acc64' if weights.acc64 else 'acc32'}"
    arrays = [x, values, *weights.tail(M), taps]
    case = Case(name, (*weights.numbers(M, 0), *shape.windows), arrays, weights.output_bytes(outputs))
    return _layer(case, {"output": outputs, "output_tap": outputs * len(taps)})


def pool(kernel_name: str, sizes: tuple[int, int, int], rng: np.random.Generator) -> Layer:
    """Square windows side by side; ``sizes`` are channels, kernel and output."""
    channels, kernel, output = sizes
    size = kernel * output
    x = rng.integers(-128, 128, (size, size, channels))
    x = x.astype(np.int8 if kernel_name.endswith("_8") else np.int16)
    numbers: tuple[int, ...] = (
        size,
        size,
        channels,
        output,
        output,
        kernel,
        kernel,
        kernel,
        kernel,
        1,
        1,
        0,
        0,
    )
    outputs = output * output * channels
    if kernel_name.startswith("average"):
        numbers += (0, 0)
    case = Case(kernel_name, numbers, [x], outputs * x.itemsize)
    pixels, taps = output * output, kernel * kernel
    parts = kernel * -(-kernel // TAPS_OF_MAXIMUM)
    amounts = {"output": outputs, "output_tap": outputs * taps, "pixel": pixels}
    if kernel_name.startswith("max"):
        amounts["pixel_part"] = pixels * parts
    return _layer(case, amounts)


def elementwise(kind: str, elements: int, pixels: int, rng: np.random.Generator) -> Layer:
    """Any of the others, on ``pixels`` pixels of ``elements / pixels`` channels."""
    channels = elements // pixels
    bits = 8 if "_8" in kind else 16
    x = rng.integers(-128, 128, elements).astype(np.int8 if bits == 8 else np.int16)
    y_bytes = elements * (1 if kind.endswith("_8") else 2)
    limits = _INT8 if kind.endswith("_8") else _INT16
    numbers: tuple[int, ...]
    tables: list[Array] = []
    if kind.startswith("pad"):
        side = int(pixels**0.5)
        numbers = (side, side, channels, channels, 1, 1, 1, 1, 0)
        elements = (side + 2) * (side + 2) * channels
        y_bytes = elements * (1 if kind == "pad_8" else 2)
    elif kind.startswith("transpose"):
        numbers = (pixels, channels)
    elif kind.startswith("rescale"):
        numbers = (pixels, channels, channels, channels, 1 << 30, 0, 0, *limits, 31)
    elif kind.startswith("add"):
        numbers, tables = (elements, 1 << 20, 1 << 20, 0, 0, 0, *limits, 20), [x]
    elif kind.startswith("lookup"):
        table = np.arange(-128, 128).astype(np.int8) if bits == 8 else np.arange(-256, 257).astype(np.int16)
        numbers, tables = (elements,), [table]
    elif kind.startswith("lrn"):
        numbers = (pixels, channels, 1, 1, 12, 3, 15, *limits)
        tables = [np.arange(65535, 0, -255).astype(np.uint16)]
    elif kind.startswith("softmax"):
        numbers = (elements, 0, 256 if bits == 8 else 32768, 0, limits[1])
        tables = [np.round(32767 * np.exp(-np.arange(64) / 8)).astype(np.uint16)]
    else:
        numbers, y_bytes = (elements,), 4
    amounts = {"element": elements, "pixel": pixels}
    if kind.startswith("pad"):
        amounts["line"] = int(pixels**0.5) + 2
    return _layer(Case(kind, numbers, [x, *tables], y_bytes), amounts)
