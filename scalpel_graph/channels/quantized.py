"""Quantized graphs: QuantizeLinear, DequantizeLinear, and layers whose weights are dequantized constants.

Of a quantized tensor a slot holds integers: the zero point where the real number is zero. The weights of
a layer behind DequantizeLinear have slots as any computed tensor has, which go together with the layer's
channels: the layer says which it does not need, DequantizeLinear slices integers, scales and zero points.
A constant other than zero stays where a quantized bias would have to take it.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from scalpel_graph.channels.constants import Constants, numpy_type, slices
from scalpel_graph.channels.conv import ConvRule, ConvTransposeRule
from scalpel_graph.channels.gemm_matmul import GemmRule, MatMulRule
from scalpel_graph.channels.rule import Kept, Refusal, Rule, take
from scalpel_graph.channels.slots import Axis, BoolArray, Slots
from scalpel_graph.graph import ModelGraph
from scalpel_graph.group_csr import Array

#: Integer types whose numbers ``numpy`` rounds to as ONNX Runtime does.
_LIMITS = {
    int(TensorProto.INT8): (-128, 127),
    int(TensorProto.UINT8): (0, 255),
    int(TensorProto.INT16): (-32768, 32767),
    int(TensorProto.UINT16): (0, 65535),
}


class _LinearRule(Rule):
    """Common part: ``real = (integer - zero point) · scale``, per tensor or per slot of one axis."""

    def describe(self) -> None:
        """Couples all axes."""
        node = self.node
        if node.attrs.get("block_size", 0):
            raise Refusal("it has a scale per block")
        self.made = self.axes(node.outputs[0])
        self.scale = self.weight(1, "scale")
        if self.scale.ndim > 1 or (self.scale <= 0).any():
            raise Refusal("its scale is not a positive number, or one per channel")
        self.zero = np.zeros_like(self.scale)
        if self.has_input(2):
            zero = self.input_constant(2)
            if zero is None or zero.shape != self.scale.shape:
                raise Refusal("its zero point is not constant, or not of its scale's shape")
            self.zero = zero
        self.along = None
        if self.scale.size > 1:
            self.along = int(node.attrs.get("axis", 1)) % len(self.made)
        self.data = self.input_constant(0)
        if self.data is None:
            self.given = self.axes(node.inputs[0])
            for a, b in zip(self.given, self.made, strict=True):
                self.couple(a, b)
        else:
            self.free += [axis.slots for axis in self.made if axis is not None]

    def constants(self, constants: Constants) -> None:
        """Constants are converted. Of constant data only zeros are noted: the rest stays quantized."""
        if self.data is not None:
            values = dequantized(self.graph, self.node.outputs[0])
            for axis in self.made:
                if axis is not None and values is not None:
                    known, value = slices(values, axis.index)
                    constants.set(axis.slots, known & (value == 0), np.zeros(axis.size))
            return
        for a, b in zip(self.given, self.made, strict=True):
            if a is not None and b is not None and a.size == b.size and self.along in (None, a.index):
                known, value = constants.known[a.slots], constants.value[a.slots]
                found, result = self._convert(value)
                constants.set(b.slots, known & found, result)

    def _convert(self, value: Array) -> tuple[BoolArray, Array]:
        """The result for numbers along one axis, and where it is certain."""
        raise NotImplementedError

    def shrink(self, kept: Kept) -> None:
        """Slices the data if it is constant, scales and zero points if there is one per slot."""
        if self.data is not None:
            smaller = self.data
            for axis in self.made:
                smaller = smaller if axis is None else take(smaller, kept.of(axis), axis.index)
            if smaller.shape != self.data.shape:
                kept.replace(self.graph, self.node, 0, smaller)
        indices = None if self.along is None else kept.of(self.made[self.along])
        if indices is not None:
            kept.replace(self.graph, self.node, 1, take(self.scale, indices, 0))
            if self.has_input(2):
                kept.replace(self.graph, self.node, 2, take(self.zero, indices, 0))


class QuantizeRule(_LinearRule):
    """QuantizeLinear: ``saturate(round(x / scale) + zero point)``."""

    def _convert(self, value: Array) -> tuple[BoolArray, Array]:
        zero = self.zero.astype(np.float64)
        limits = _LIMITS.get(self.graph.type(self.node.outputs[0]) or 0)
        if limits is None:
            return np.zeros(len(value), dtype=np.bool_), value
        if numpy_type(self.graph, self.node.inputs[0]) != np.float32:
            return value == 0, np.broadcast_to(zero, value.shape)
        quotient = np.rint(value.astype(np.float32) / self.scale.astype(np.float32)).astype(np.float64)
        return np.ones(len(value), dtype=np.bool_), np.clip(quotient + zero, *limits)


class DequantizeRule(_LinearRule):
    """DequantizeLinear."""

    def _convert(self, value: Array) -> tuple[BoolArray, Array]:
        if self.graph.type(self.node.inputs[0]) not in _LIMITS:
            return np.zeros(len(value), dtype=np.bool_), value
        difference = value - self.zero.astype(np.float64)
        if numpy_type(self.graph, self.node.outputs[0]) != np.float32:
            return difference == 0, difference
        return np.ones(len(value), dtype=np.bool_), difference.astype(np.float32) * self.scale


def dequantized(graph: ModelGraph, tensor: gs.Tensor) -> Array | None:
    """The value of a tensor that DequantizeLinear makes of constants, also behind Transpose; else None."""
    maker = tensor.inputs[0] if tensor.inputs else None
    if maker is None or (maker.domain or "") not in ("", "ai.onnx"):
        return None
    if maker.op == "Transpose":
        values = dequantized(graph, maker.inputs[0])
        return None if values is None else np.transpose(values, maker.attrs.get("perm"))
    if maker.op != "DequantizeLinear" or maker.attrs.get("block_size", 0):
        return None
    data, scale, *zero = (graph.constant(given) for given in maker.inputs if given.name)
    if data is None or scale is None or data.dtype.kind not in "iu" or scale.dtype.kind != "f":
        return None
    offset = zero[0] if zero else np.zeros(scale.shape, dtype=data.dtype)
    if offset is None or scale.ndim > 1 or offset.shape != scale.shape:
        return None
    if scale.size > 1:
        shape = [1] * data.ndim
        shape[int(maker.attrs.get("axis", 1)) % data.ndim] = scale.size
        scale, offset = scale.reshape(shape), offset.reshape(shape)
    return np.asarray((data.astype(np.int64) - offset.astype(np.int64)).astype(scale.dtype) * scale)


class _QuantizedLayer(Rule):
    """Common part of layers with quantized weights."""

    fragile = True
    why = "they hold a non-zero constant, and its weights are quantized"

    def input_constant(self, index: int) -> Array | None:
        """See `Rule`; also of dequantized constants."""
        values = super().input_constant(index)
        return dequantized(self.graph, self.node.inputs[index]) if values is None else values

    def _connect(self, index: int, *axes: tuple[int, Axis]) -> None:
        """The slots of a computed input go together with channels; reads can do without zeros only."""
        for place, channels in axes:
            self.couple(self.slots.axis(self.node.inputs[index], place), channels)
        self.reads = [replace(read, largest=0.0, why=self.why) for read in self.reads]

    def _slice_constant(self, kept: Kept, index: int, channels: Axis) -> None:
        """Slices a bias that is not quantized."""
        if not self.has_input(index):
            return
        values = self.graph.constant(self.node.inputs[index])
        if values is not None and values.ndim and values.shape[-1] == channels.size:
            kept.replace(self.graph, self.node, index, take(values, kept.of(channels), values.ndim - 1))


class QuantizedConvRule(_QuantizedLayer, ConvRule):
    """Conv; without groups, or depthwise."""

    def describe(self) -> None:
        """See the module's docstring."""
        super().describe()
        self.depthwise = self.group > 1 and self.inputs.shape[1] == 1
        if self.group > 1 and not self.depthwise:
            raise Refusal("its weights are quantized and in groups")
        if self.depthwise:
            self._connect(1, (0, self.x if self.transposed else self.y))
        else:
            self._connect(1, (int(self.transposed), self.y), (1 - int(self.transposed), self.x))
        if self.has_input(2):
            self._connect(2, (0, self.y))

    def shrink(self, kept: Kept) -> None:
        """DequantizeLinear has what is to be sliced."""
        self._slice_constant(kept, 2, self.y)
        if self.depthwise:
            self.node.attrs["group"] = int(kept.live[self.x.slots].sum())


class QuantizedConvTransposeRule(QuantizedConvRule, ConvTransposeRule):
    """ConvTranspose, likewise."""


class QuantizedGemmRule(_QuantizedLayer, GemmRule):
    """Gemm."""

    def describe(self) -> None:
        """See the module's docstring."""
        super().describe()
        self._connect(1, (self.inputs_axis, self.x), (1 - self.inputs_axis, self.y))
        if self.has_input(2):
            self._connect(2, (-1, self.y))

    def shrink(self, kept: Kept) -> None:
        """DequantizeLinear has what is to be sliced."""
        self._slice_constant(kept, 2, self.y)


class QuantizedMatMulRule(_QuantizedLayer, MatMulRule):
    """MatMul with a constant matrix."""

    def describe(self) -> None:
        """See the module's docstring."""
        super().describe()
        if self.side is not None:
            # [K, M] on the right, [M, K] on the left.
            self._connect(self.side, (self.side, self.y), (1 - self.side, self.x))

    def shrink(self, kept: Kept) -> None:
        """DequantizeLinear has what is to be sliced."""


def _layer(plain: type[Rule], quantized: type[Rule]) -> Callable[[ModelGraph, gs.Node, Slots], Rule]:
    """The rule of a layer, which depends on where its weights come from."""

    def rule(graph: ModelGraph, node: gs.Node, slots: Slots) -> Rule:
        computed = any(dequantized(graph, tensor) is not None for tensor in node.inputs[:2])
        return (quantized if computed else plain)(graph, node, slots)

    return rule


RULES: dict[str, Callable[[ModelGraph, gs.Node, Slots], Rule]] = {
    "QuantizeLinear": QuantizeRule,
    "DequantizeLinear": DequantizeRule,
    "Conv": _layer(ConvRule, QuantizedConvRule),
    "ConvTranspose": _layer(ConvTransposeRule, QuantizedConvTransposeRule),
    "Gemm": _layer(GemmRule, QuantizedGemmRule),
    "MatMul": _layer(MatMulRule, QuantizedMatMulRule),
}
