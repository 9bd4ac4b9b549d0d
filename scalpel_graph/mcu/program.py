"""A quantized network as calls of the Cortex-M kernels, with arrays in flash and buffers in an arena.

`runtime_ext/cortex_m/scalpel_kernels.h` says what the kernels take.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from scalpel_graph import cortex_m_packing as packing
from scalpel_graph.group_csr import Array
from scalpel_graph.mcu.network import (
    ACCUMULATOR_32,
    SIMD_WIDTH,
    STORED,
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
    bound,
)

#: Bytes of the kernels' structures on a 32-bit machine.
STRUCT_BYTES = {
    "scalpel_q15_layer": 28,
    "scalpel_w8_layer": 36,
    "scalpel_windows": 20,
    "scalpel_runs": 12,
    "scalpel_padding": 18,
    "scalpel_rescaling": 32,
    "scalpel_addition": 24,
    "scalpel_pool": 26,
    "scalpel_lrn": 28,
    "scalpel_softmax": 20,
}
#: Buffers begin at multiples of this many bytes, and are as long: kernels read whole groups of columns.
_ALIGNMENT = 8


@dataclass(frozen=True)
class Constant:
    """An array in flash."""

    name: str
    values: Array

    @property
    def nbytes(self) -> int:
        """Bytes of flash, the kernels' alignment included."""
        return -(-self.values.nbytes // 4) * 4


@dataclass(frozen=True)
class Struct:
    """One of the kernels' structures in flash.

    Attributes:
        ctype, name: of the C object.
        fields: C initializers.
    """

    ctype: str
    name: str
    fields: Mapping[str, str | int]


@dataclass(frozen=True)
class Buffer:
    """Memory of one value or one padded copy.

    Attributes:
        name: of what it holds.
        elements: how many numbers.
        itemsize: bytes of each.
    """

    name: str
    elements: int
    itemsize: int

    @property
    def nbytes(self) -> int:
        """Bytes of RAM."""
        return -(-self.elements * self.itemsize // _ALIGNMENT) * _ALIGNMENT


@dataclass(frozen=True)
class Call:
    """One call of a kernel.

    Attributes:
        function: its name.
        arguments: before the buffers: addresses of structures, arrays, numbers.
        reads, writes: the buffers.
        y_offset: first element of the one that it writes.
        amounts: what the kernel does, for the cost model.
    """

    function: str
    arguments: tuple[Struct | Constant | int, ...]
    reads: tuple[Buffer, ...]
    writes: Buffer
    y_offset: int = 0
    amounts: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class LayerCode:
    """What one layer becomes.

    Attributes:
        layer: it.
        calls: in order; none where nothing has to move.
        constants, structs: what is in flash for it.
    """

    layer: IntegerLayer
    calls: tuple[Call, ...]
    constants: tuple[Constant, ...]
    structs: tuple[Struct, ...]

    @property
    def flash_bytes(self) -> int:
        """Of its constants and structures."""
        return sum(constant.nbytes for constant in self.constants) + sum(
            -(-STRUCT_BYTES[struct.ctype] // 4) * 4 for struct in self.structs
        )


@dataclass(frozen=True)
class Program:
    """A network for the device.

    Attributes:
        network: what it computes.
        input, output: the caller's buffers.
        layers: in the order that they run.
        offsets: of each buffer in the arena, in bytes.
        arena_bytes: size of the arena.
    """

    network: Network
    input: Buffer
    output: Buffer
    layers: tuple[LayerCode, ...]
    offsets: Mapping[str, int]
    arena_bytes: int

    @property
    def flash_bytes(self) -> int:
        """Of everything but code."""
        return sum(code.flash_bytes for code in self.layers)

    def ram_bytes(self, code: LayerCode) -> int:
        """Bytes of the arena that a layer's own buffers take."""
        buffers = {b.name: b for call in code.calls for b in (*call.reads, call.writes)}
        return sum(b.nbytes for name, b in buffers.items() if name in self.offsets)


class Unsupported(Exception):  # noqa: N818 - it is an answer, not an error
    """The kernels have no such layer; the message says why."""


def build(network: Network) -> Program:
    """Plans the calls and the memory of a network.

    Raises:
        Unsupported: a layer is too large for the kernels' 16-bit numbers.
    """
    return _Planner(network).run()


def layer_code(network: Network, layer: IntegerLayer) -> LayerCode:
    """What one layer becomes by itself, for the cost model.

    Raises:
        Unsupported: the kernels have no such layer.
    """
    planner = _Planner(network)
    for name in (network.input, *layer.inputs):
        planner.buffers[name] = planner.value_buffer(name)
    return planner.layer(layer)


def identifier(name: str, taken: set[str]) -> str:
    """A C identifier after a name that nobody has yet; it is taken."""
    base = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "layer"
    base = f"n{base}" if base[0].isdigit() else base
    result, number = base, 1
    while result in taken:
        result, number = f"{base}_{number}", number + 1
    taken.add(result)
    return result


def border(layer: Multiply, x: Value, c: int) -> tuple[tuple[int, int, int, int], int]:
    """The padding of a layer's input and its channels with it, such that groups of ``c`` columns fit in.

    Groups lie along the channels of neighbouring pixels of a row of the window, which has to begin at a
    multiple of c in every line of the input: if need be, lines are made longer. Where pixels of the window
    are not neighbours, each pixel gets channels of zeros.
    """
    pads, (_, width, channels) = layer.window.pads, x.hwc
    if layer.op == "Gemm" or channels % c == 0:
        return pads, -(-channels // c) * c
    kernel_h, kernel_w = layer.window.kernel
    dilation_h, dilation_w = layer.window.dilations
    if layer.window.group > 1 or (dilation_w > 1 and kernel_w > 1):
        return pads, -(-channels // c) * c
    top, left, bottom, right = pads
    while kernel_h > 1 and (left + width + right) * channels * dilation_h % c:
        right += 1
    return (top, left, bottom, right), channels


class _Planner:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.itemsize = STORED[network.dtype].itemsize
        self.bits = str(8 * self.itemsize)
        self.buffers: dict[str, Buffer] = {}
        self.names: set[str] = set()
        self.constants: list[Constant] = []
        self.structs: list[Struct] = []
        self.calls: list[Call] = []

    def run(self) -> Program:
        network = self.network
        self.buffers[network.input] = Buffer("in", network.values[network.input].size, self.itemsize)
        codes = [self.layer(layer) for layer in network.layers]
        given = self.buffers[network.input]
        # What the last layer writes is the caller's; earlier layers may have written it in its place.
        last = self.buffers[network.output]
        out = Buffer("out", last.elements, last.itemsize)
        codes = [_renamed(code, last, out) for code in codes]
        offsets, arena_bytes = _plan(codes, {given.name, out.name})
        return Program(network, given, out, tuple(codes), offsets, arena_bytes)

    def layer(self, layer: IntegerLayer) -> LayerCode:
        self.constants, self.structs, self.calls = [], [], []
        self.prefix = identifier(layer.name, self.names)
        match layer:
            case Multiply():
                self.multiply(layer)
            case Pool():
                self.pool(layer)
            case Flatten():
                self.flatten(layer)
            case Concat():
                self.concat(layer)
            case Clip():
                self.clip(layer)
            case Add():
                self.add(layer)
            case Lrn():
                self.lrn(layer)
            case Softmax():
                self.softmax(layer)
            case ArgMax():
                x = self.buffers[layer.inputs[0]]
                y, amounts = self.written(layer), {"element": x.elements}
                self.call(f"argmax_{self.bits}", x.elements, reads=[x], writes=y, amounts=amounts)
        return LayerCode(layer, tuple(self.calls), tuple(self.constants), tuple(self.structs))

    # -- parts ------------------------------------------------------------------------------------------

    def value(self, name: str) -> Value:
        return self.network.values[name]

    def value_buffer(self, name: str) -> Buffer:
        return Buffer(name, self.value(name).size, self.itemsize)

    def written(self, layer: IntegerLayer) -> Buffer:
        buffer = self.value_buffer(layer.output)
        self.buffers[layer.output] = buffer
        return buffer

    def constant(self, what: str, values: Array) -> Constant:
        constant = Constant(f"{self.prefix}_{what}", np.ascontiguousarray(values))
        self.constants.append(constant)
        return constant

    def struct(self, ctype: str, what: str, **fields: str | int) -> Struct:
        for name, number in fields.items():
            if isinstance(number, int) and not _fits(ctype, name, number):
                raise Unsupported(f"its {name.replace('_', ' ')} of {number} is too large for the kernels")
        struct = Struct(ctype, f"{self.prefix}_{what}", fields)
        self.structs.append(struct)
        return struct

    def call(
        self,
        function: str,
        *arguments: Struct | Constant | int,
        reads: Sequence[Buffer],
        writes: Buffer,
        y_offset: int = 0,
        amounts: Mapping[str, int],
    ) -> None:
        self.calls.append(
            Call(f"scalpel_{function}", arguments, tuple(reads), writes, y_offset, dict(amounts))
        )

    def padded(
        self, x: Buffer, value: Value, pads: tuple[int, int, int, int], channels: int, *, wide: bool
    ) -> Buffer:
        """A copy with a border, with more channels, or with wider numbers."""
        height, width, x_channels = value.hwc
        fill = value.format.zero_point
        top, left, bottom, right = pads
        padding = self.struct(
            "scalpel_padding", "padding", height=height, width=width, channels=x_channels,
            y_channels=channels, top=top, left=left, bottom=bottom, right=right, value=fill,
        )  # fmt: skip
        lines = height + top + bottom
        pixels = lines * (width + left + right)
        elements = pixels * channels
        # Kernels may read the rest of a group of columns behind the last pixel.
        y = Buffer(f"{self.prefix} padded", elements + self.width - 1, 2 if wide else self.itemsize)
        function = "pad_8_to_16" if wide and self.itemsize == 1 else f"pad_{self.bits}"
        amounts = {"element": elements, "pixel": pixels, "line": lines}
        self.call(function, padding, reads=[x], writes=y, amounts=amounts)
        return y

    # -- layers -----------------------------------------------------------------------------------------

    def multiply(self, layer: Multiply) -> None:
        x_value = self.value(layer.inputs[0])
        c = 1 if layer.group_shape is None else layer.group_shape[1]
        _, _, channels = x_value.hwc
        pads, wide_channels = border(layer, x_value, c)
        x = self.buffers[layer.inputs[0]]
        is_given = layer.inputs[0] == self.network.input
        reads_more = channels % c != 0 and (layer.op == "Conv" or is_given)
        if self.itemsize == 1 or any(pads) or reads_more:
            x = self.padded(x, x_value, pads, wide_channels, wide=True)
        y = self.written(layer)
        if layer.op == "Gemm":
            self.fully_connected(layer, x, y)
        else:
            self.convolution(layer, x, y, x_value.hwc[1] + pads[1] + pads[3], wide_channels)

    def fully_connected(self, layer: Multiply, x: Buffer, y: Buffer) -> None:
        M, K = layer.weights.shape
        family, acc = self.family(layer)
        if layer.group_shape is None:
            blocks = M // 4 + (M % 4).bit_count()
            amounts = {"row_block": blocks, "step": blocks * -(-K // self.width)}
            values = self.constant("weights", packing.dense_fc(layer.weights, self.width))
            struct = self.layer_struct(layer, values, None, None)
            self.call(f"dense_fc_{family}{acc}", struct, reads=[x], writes=y, amounts=amounts)
            return
        try:
            arrays = packing.sparse_fc(layer.weights, layer.group_shape)
        except ValueError as error:
            raise Unsupported(str(error)) from error
        values, columns, counts = self.sparse_constants(arrays)
        struct = self.layer_struct(layer, values, columns, counts)
        shape = "x".join(map(str, layer.group_shape))
        index = "u8" if arrays.columns.dtype == np.uint8 else "u16"
        amounts = {"row_block": len(arrays.counts), "group": len(arrays.columns)}
        self.call(f"fc_{family}_{shape}_{index}{acc}", struct, reads=[x], writes=y, amounts=amounts)

    def convolution(self, layer: Multiply, x: Buffer, y: Buffer, padded_width: int, channels: int) -> None:
        window, value = layer.window, self.value(layer.inputs[0])
        oh, ow, M = self.value(layer.output).hwc
        windows = self.struct(
            "scalpel_windows", "windows", height=oh, width=ow,
            x_row_step=window.strides[0] * padded_width * channels,
            x_column_step=window.strides[1] * channels,
            y_row_step=ow * M, y_pixel_step=M,
        )  # fmt: skip
        group_channels = value.hwc[2] // window.group
        weights = layer.weights.reshape(M, *window.kernel, group_channels)
        if layer.group_shape is not None and window.group == 1:
            weights = np.pad(weights, ((0, 0), (0, 0), (0, 0), (0, channels - group_channels)))
        padded = packing.PaddedInput(padded_width, channels, window.dilations, window.group)
        family, acc = self.family(layer)
        if layer.group_shape is not None:
            try:
                arrays = packing.sparse_conv(weights, layer.group_shape, padded)
            except ValueError as error:
                raise Unsupported(str(error)) from error
            struct = self.layer_struct(layer, *self.sparse_constants(arrays))
            shape = "x".join(map(str, layer.group_shape))
            tiles = oh * -(-ow // packing.PIXELS_PER_TILE[layer.group_shape])
            amounts = {
                "line": oh * len(arrays.counts),
                "tile_row_block": tiles * len(arrays.counts),
                "tile_group": tiles * len(arrays.columns),
            }
            function = f"conv_{family}_{shape}{acc}"
            self.call(function, struct, windows, reads=[x], writes=y, amounts=amounts)
        elif window.group == M == value.hwc[2]:
            taps = self.constant("taps", padded.taps(window.kernel).reshape(-1))
            values = self.constant("weights", np.ascontiguousarray(weights.reshape(M, -1).T).reshape(-1))
            struct = self.layer_struct(layer, values, None, None)
            function = f"depthwise_{family}{acc}"
            n_taps = prod(window.kernel)
            amounts = {"output": oh * ow * M, "output_tap": oh * ow * M * n_taps}
            self.call(function, struct, windows, taps, n_taps, reads=[x], writes=y, amounts=amounts)
        else:
            described = packing.runs(weights.shape, padded)
            values = self.constant("weights", packing.dense_conv(weights, self.width, padded))
            offsets = self.constant("runs_offsets", described.offsets)
            runs = self.struct(
                "scalpel_runs", "runs", offsets=offsets.name, count=len(described.offsets),
                length=described.length, groups=described.groups, group_channels=described.group_channels,
            )  # fmt: skip
            struct = self.layer_struct(layer, values, None, None)
            n_runs, rows = len(described.offsets), M // described.groups
            tiles, blocks_of_tile = oh * -(-ow // 2), described.groups * (rows // 2 + rows % 2)
            blocks = tiles * blocks_of_tile
            amounts = {
                "tile": tiles,
                "line": oh * blocks_of_tile,
                "row_block": blocks,
                "run": blocks * n_runs,
                "step": blocks * n_runs * -(-described.length // self.width),
            }
            function = f"dense_conv_{family}{acc}"
            self.call(function, struct, windows, runs, reads=[x], writes=y, amounts=amounts)

    @property
    def width(self) -> int:
        """Weights side by side in a group."""
        return SIMD_WIDTH[self.network.dtype]

    def family(self, layer: Multiply) -> tuple[str, str]:
        """Of kernels, and which accumulator."""
        if self.itemsize == 1:
            return "w8", "_acc32"  # int8.weights has seen to it
        family, rounding = ("q15", int(layer.shift[0])) if self.network.dtype == "q15" else ("w8", 0)
        wide = bound(layer.weights, layer.bias, rounding) >= ACCUMULATOR_32
        return family, "_acc64" if wide else "_acc32"

    def sparse_constants(self, arrays: packing.SparseArrays) -> tuple[Constant, Constant, Constant]:
        # A layer whose weights are all zero has no groups, and C no arrays without elements.
        return (
            self.constant("weights", _at_least_one(arrays.values)),
            self.constant("columns", _at_least_one(arrays.columns)),
            self.constant("counts", arrays.counts),
        )

    def layer_struct(
        self, layer: Multiply, values: Constant, columns: Constant | None, counts: Constant | None
    ) -> Struct:
        M, K = layer.weights.shape
        pointers = {
            "values": values.name,
            "columns": columns.name if columns else "NULL",
            "counts": counts.name if counts else "NULL",
        }
        rows = K if layer.op == "Gemm" else 0
        family, acc = self.family(layer)
        dtype = np.int64 if acc == "_acc64" else np.int32
        if family == "q15":
            shift = int(layer.shift[0])
            bias = self.constant("bias", (layer.bias + (2**shift >> 1)).astype(dtype))
            return self.struct(
                "scalpel_q15_layer", "layer", **pointers, bias=bias.name, rows=M, inputs=rows,
                min=layer.low, max=layer.high, shift=shift,
            )  # fmt: skip
        zero = self.value(layer.inputs[0]).format.zero_point
        folded = layer.bias - zero * layer.weights.astype(np.int64).sum(axis=1)
        return self.struct(
            "scalpel_w8_layer", "layer", **pointers,
            bias=self.constant("bias", folded.astype(dtype)).name,
            multipliers=self.constant("multipliers", layer.multiplier.astype(np.int32)).name,
            shifts=self.constant("shifts", layer.shift.astype(np.uint8)).name,
            rows=M, inputs=rows, zero_point=self.value(layer.output).format.zero_point,
            min=layer.low, max=layer.high, y_is_int8=int(self.itemsize == 1),
        )  # fmt: skip

    def pool(self, layer: Pool) -> None:
        x, window = self.value(layer.inputs[0]), layer.window
        (height, width, channels), (oh, ow, _) = x.hwc, self.value(layer.output).hwc
        pool = self.struct(
            "scalpel_pool", "pool", height=height, width=width, channels=channels, y_height=oh, y_width=ow,
            kernel_h=window.kernel[0], kernel_w=window.kernel[1], stride_h=window.strides[0],
            stride_w=window.strides[1], dilation_h=1, dilation_w=1, top=window.pads[0], left=window.pads[1],
        )  # fmt: skip
        outputs = oh * ow * channels
        amounts = {"output": outputs, "output_tap": outputs * prod(window.kernel), "pixel": oh * ow}
        if layer.op == "MaxPool":
            parts = window.kernel[0] * -(-window.kernel[1] // packing.TAPS_OF_MAXIMUM)
            amounts["pixel_part"] = oh * ow * parts
        extra: tuple[int, ...] = ()
        if layer.op == "AveragePool":
            extra = (int(layer.count_pads), x.format.zero_point)
        function = f"{'max' if layer.op == 'MaxPool' else 'average'}_pool_{self.bits}"
        source = self.buffers[layer.inputs[0]]
        self.call(function, pool, *extra, reads=[source], writes=self.written(layer), amounts=amounts)

    def flatten(self, layer: Flatten) -> None:
        x, source = self.value(layer.inputs[0]), self.buffers[layer.inputs[0]]
        height, width, channels = x.hwc
        moves = layer.planar and height * width > 1 and channels > 1
        both_given = source is self.buffers[self.network.input] and layer.output == self.network.output
        if not moves and not both_given:
            self.buffers[layer.output] = source
            return
        y = self.written(layer)
        amounts = {"element": x.size}
        arguments = (height * width, channels) if moves else (x.size, 1)
        self.call(f"transpose_{self.bits}", *arguments, reads=[source], writes=y, amounts=amounts)

    def concat(self, layer: Concat) -> None:
        y, at = self.written(layer), 0
        height, width, channels = self.value(layer.output).hwc
        for number, name in enumerate(layer.inputs):
            part = self.value(name).hwc[2]
            self.rescale(
                layer, f"part_{number}", self.buffers[name], y, pixels=height * width, channels=part,
                step=channels, y_offset=at,
            )  # fmt: skip
            at += part

    def clip(self, layer: Clip) -> None:
        source, y = self.buffers[layer.inputs[0]], self.written(layer)
        zero_points = tuple(self.value(name).format.zero_point for name in (layer.inputs[0], layer.output))
        self.rescale(
            layer, "clip", source, y, pixels=1, channels=y.elements, step=y.elements,
            multiplier=layer.multiplier, shift=layer.shift, zero_points=zero_points,
        )  # fmt: skip

    def add(self, layer: Add) -> None:
        values = [self.value(name).format.zero_point for name in layer.inputs]
        length = self.value(layer.output).size
        addition = self.struct(
            "scalpel_addition", "addition", length=length,
            multiplier=f"{{{layer.multipliers[0]}, {layer.multipliers[1]}}}",
            x_zero_point=f"{{{values[0]}, {values[1]}}}",
            zero_point=self.value(layer.output).format.zero_point, min=layer.low, max=layer.high,
            shift=layer.shift,
        )  # fmt: skip
        sources = [self.buffers[name] for name in layer.inputs]
        y = self.written(layer)
        self.call(f"add_{self.bits}", addition, reads=sources, writes=y, amounts={"element": length})

    def lrn(self, layer: Lrn) -> None:
        height, width, channels = self.value(layer.output).hwc
        table = self.constant("table", layer.table.astype(np.uint16))
        lrn = self.struct(
            "scalpel_lrn", "lrn", pixels=height * width, channels=channels, before=layer.before,
            after=layer.after, table=table.name, entries=len(layer.table), square_shift=layer.square_shift,
            fraction_bits=layer.fraction_bits, shift=layer.shift,
            min=layer.low if self.itemsize == 2 else -(2**15),
            max=layer.high if self.itemsize == 2 else 2**15 - 1,
        )  # fmt: skip
        x, y, size = self.buffers[layer.inputs[0]], self.written(layer), height * width * channels
        amounts = {"element": size, "pixel": height * width}
        if self.itemsize == 2:
            self.call("lrn_16", lrn, reads=[x], writes=y, amounts=amounts)
            return
        # In 16 bits between two changes of zero point.
        zeros = [self.value(name).format.zero_point for name in (layer.inputs[0], layer.output)]
        wide = [Buffer(f"{self.prefix} {which}", size, 2) for which in ("squared", "normalised")]
        steps = (("8_to_16", x, wide[0], zeros[0], 0), ("16_to_8", wide[1], y, 0, zeros[1]))
        for number, (name, source, target, x_zero, y_zero) in enumerate(steps):
            limits = {"min": layer.low, "max": layer.high} if number else {"min": -(2**15), "max": 2**15 - 1}
            rescaling = self.struct(
                "scalpel_rescaling", name, pixels=1, channels=size, x_pixel_step=size, y_pixel_step=size,
                multiplier=1, x_zero_point=x_zero, y_zero_point=y_zero, **limits, shift=0,
            )  # fmt: skip
            self.call(f"rescale_{name}", rescaling, reads=[source], writes=target, amounts={"element": size})
            if not number:
                self.call("lrn_16", lrn, reads=[wide[0]], writes=wide[1], amounts=amounts)

    def softmax(self, layer: Softmax) -> None:
        x = self.buffers[layer.inputs[0]]
        table = self.constant("table", layer.table.astype(np.uint16))
        softmax = self.struct(
            "scalpel_softmax", "softmax", length=x.elements, table=table.name, entries=len(layer.table),
            index_shift=layer.index_shift, one=layer.one,
            zero_point=self.value(layer.output).format.zero_point, max=layer.high,
        )  # fmt: skip
        y, amounts = self.written(layer), {"element": x.elements}
        self.call(f"softmax_{self.bits}", softmax, reads=[x], writes=y, amounts=amounts)

    def rescale(
        self,
        layer: IntegerLayer,
        what: str,
        x: Buffer,
        y: Buffer,
        *,
        pixels: int,
        channels: int,
        step: int,
        y_offset: int = 0,
        multiplier: int = 1,
        shift: int = 0,
        zero_points: tuple[int, ...] = (0, 0),
    ) -> None:
        """A copy within the limits of a layer, of all or some of the channels of the output."""
        rescaling = self.struct(
            "scalpel_rescaling", what, pixels=pixels, channels=channels, x_pixel_step=channels,
            y_pixel_step=step, multiplier=multiplier, x_zero_point=zero_points[0],
            y_zero_point=zero_points[1], min=layer.low, max=layer.high, shift=shift,
        )  # fmt: skip
        self.call(
            f"rescale_{self.bits}", rescaling, reads=[x], writes=y, y_offset=y_offset,
            amounts={"element": pixels * channels, "pixel": pixels},
        )  # fmt: skip


def _fits(ctype: str, name: str, number: int) -> bool:
    """Whether a number fits the field: those that count pixels or channels have 16 bits."""
    wide = {
        "x_row_step",
        "x_column_step",
        "y_row_step",
        "y_pixel_step",
        "x_pixel_step",
        "pixels",
        "length",
        "one",
    }
    if name in wide or ctype == "scalpel_rescaling":
        return -(2**31) <= number < 2**32
    return number < 2**16


def _at_least_one(values: Array) -> Array:
    return values if values.size else np.zeros(1, values.dtype)


def _renamed(code: LayerCode, old: Buffer, new: Buffer) -> LayerCode:
    calls = tuple(
        replace(
            call,
            reads=tuple(new if b is old else b for b in call.reads),
            writes=new if call.writes is old else call.writes,
        )
        for call in code.calls
    )
    return replace(code, calls=calls)


def _plan(codes: Sequence[LayerCode], given: set[str]) -> tuple[dict[str, int], int]:
    """Offsets of the buffers: the largest first, each in the tightest gap among those alive with it."""
    lives: dict[str, tuple[int, int]] = {}
    sizes: dict[str, int] = {}
    for time, call in enumerate(call for code in codes for call in code.calls):
        for buffer in (*call.reads, call.writes):
            if buffer.name not in given:
                first, _ = lives.get(buffer.name, (time, time))
                lives[buffer.name] = first, time
                sizes[buffer.name] = buffer.nbytes
    offsets: dict[str, int] = {}
    for name in sorted(lives, key=lambda name: (-sizes[name], lives[name], name)):
        first, last = lives[name]
        alive = sorted(
            (offsets[other], offsets[other] + sizes[other])
            for other in offsets
            if lives[other][0] <= last and first <= lives[other][1]
        )
        offsets[name] = _tightest_gap(alive, sizes[name])
    return offsets, max((offsets[name] + sizes[name] for name in offsets), default=0)


def _tightest_gap(taken: Sequence[tuple[int, int]], size: int) -> int:
    best: tuple[int, int] | None = None
    end = 0
    for begin, stop in taken:
        gap = begin - end
        if gap >= size and (best is None or gap < best[0]):
            best = gap, end
        end = max(end, stop)
    return end if best is None else best[1]


def stored_as(layer: IntegerLayer) -> str:
    """``dense``, a group shape such as ``1×2``, or nothing for a layer without weights."""
    if not isinstance(layer, Multiply):
        return ""
    return "dense" if layer.group_shape is None else "×".join(map(str, layer.group_shape))


def accumulator_bits(code: LayerCode) -> int | None:
    """Of a layer with weights; None for any other."""
    if not isinstance(code.layer, Multiply):
        return None
    return 64 if any(call.function.endswith("_acc64") for call in code.calls) else 32
