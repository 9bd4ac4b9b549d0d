"""QuantizeLinear, DequantizeLinear and DynamicQuantizeLinear.

Of a quantized tensor a slot holds integers: the zero point where the real number is zero. Constants behind
DequantizeLinear have slots as any computed tensor has, which go together with the channels of the layers that
read them: DequantizeLinear slices integers, scales and zero points.

The range that DynamicQuantizeLinear finds always includes zero, so a channel of zeros can go. Any other may
be the one that sets the range: it stays even if nothing reads it.
"""

import numpy as np
from onnx import TensorProto

from scalpel_graph.channels.across_channels import zeros
from scalpel_graph.channels.constants import Constants, numpy_type, slices
from scalpel_graph.channels.dequantized import dequantized
from scalpel_graph.channels.rule import Kept, Refusal, Rule, take
from scalpel_graph.channels.slots import BoolArray
from scalpel_graph.group_csr import Array

#: Integer types whose numbers ``numpy`` rounds to as ONNX Runtime does.
LIMITS = {
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
            if zero is None or zero.size != self.scale.size:
                raise Refusal("its zero point is not constant, or not of its scale's shape")
            self.zero = zero.reshape(self.scale.shape)
        self.along = None
        if self.scale.size > 1 and self.made:
            self.along = int(node.attrs.get("axis", 1)) % len(self.made)
        self.data = self.input_constant(0)
        if self.data is None:
            self.given = self.axes(node.inputs[0])
            for a, b in zip(self.given, self.made, strict=True):
                self.couple(a, b)
        else:
            self.free += [axis.slots for axis in self.made if axis is not None]

    def constants(self, constants: Constants) -> None:
        """Constants are converted."""
        if self.data is not None:
            found = dequantized(self.graph, self.node.outputs[0])
            for axis in self.made:
                if axis is not None and found is not None:
                    constants.set(axis.slots, *slices(found.values, axis.index))
            return
        for a, b in zip(self.given, self.made, strict=True):
            if a is not None and b is not None and a.size == b.size and self.along in (None, a.index):
                known, value = constants.known[a.slots], constants.value[a.slots]
                found_in, result = self._convert(value)
                constants.set(b.slots, known & found_in, result)

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
        limits = LIMITS.get(self.graph.type(self.node.outputs[0]) or 0)
        if limits is None:
            return np.zeros(len(value), dtype=np.bool_), value
        if numpy_type(self.graph, self.node.inputs[0]) != np.float32:
            return value == 0, np.broadcast_to(zero, value.shape)
        quotient = np.rint(value.astype(np.float32) / self.scale.astype(np.float32)).astype(np.float64)
        return np.ones(len(value), dtype=np.bool_), np.clip(quotient + zero, *limits)


class DequantizeRule(_LinearRule):
    """DequantizeLinear."""

    def _convert(self, value: Array) -> tuple[BoolArray, Array]:
        if self.graph.type(self.node.inputs[0]) not in LIMITS:
            return np.zeros(len(value), dtype=np.bool_), value
        difference = value - self.zero.astype(np.float64)
        if numpy_type(self.graph, self.node.outputs[0]) != np.float32:
            return difference == 0, difference
        return np.ones(len(value), dtype=np.bool_), difference.astype(np.float32) * self.scale


class DynamicQuantizeRule(Rule):
    """DynamicQuantizeLinear. Slots of what it makes hold the difference from the zero point it finds."""

    def constants(self, constants: Constants) -> None:
        """Zero becomes the zero point, and can go; the others are left unnamed, which keeps them."""
        made, zero_point = self.node.outputs[0], self.node.outputs[2]
        # Who takes the zero point for a number like any other would misread the difference.
        understood = not self.graph.is_pinned(made) and all(
            reader.op in ("ConvInteger", "MatMulInteger")
            and reader.inputs[0] is made
            and len(reader.inputs) > 2
            and reader.inputs[2] is zero_point
            for reader in made.outputs
        )
        for a, b in zip(self.axes(self.node.inputs[0]), self.axes(made), strict=True):
            if a is not None and b is not None and a.size == b.size and understood:
                zero = zeros(constants, a)
                self.couplings.append((a.slots[zero], b.slots[zero]))
                constants.set(b.slots, zero, np.zeros(b.size))

    def describe(self) -> None:
        """Which slots go together depends on what they hold: see `constants`."""


RULES = {
    "QuantizeLinear": QuantizeRule,
    "DequantizeLinear": DequantizeRule,
    "DynamicQuantizeLinear": DynamicQuantizeRule,
}
