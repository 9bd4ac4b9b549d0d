"""Operators of ONNX Runtime on quantized tensors, channel by channel.

QLinearAdd, QLinearMul, QLinearSigmoid, QLinearLeakyRelu, average pools, QLinearConcat: each is the operator
that it is named after, on integers that a scale and a zero point next to each tensor turn into numbers.
"""

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.concat_split import MovingRule
from scalpel_graph.channels.constants import Constants, Float64Array, element_type, first_output
from scalpel_graph.channels.elementwise import ElementwiseRule, UnaryRule
from scalpel_graph.channels.pooling import AveragePoolRule
from scalpel_graph.channels.quantize_linear import LIMITS
from scalpel_graph.channels.rule import Kept, Refusal, Rule
from scalpel_graph.channels.slots import Axis, BoolArray
from scalpel_graph.group_csr import Array

#: Closer to a half than this, kernels that multiply in another order may round differently.
_TIE = 1e-4

_Known = tuple[BoolArray, Float64Array]


class _LinearRule(Rule):
    """Common part: all scales and zero points are single constants."""

    def check_scales(self) -> None:
        """Looks at the inputs that hold no data.

        Raises:
            Refusal: one is not a single constant.
        """
        for index, tensor in enumerate(self.node.inputs):
            if index in self.data_places() or not tensor.name:
                continue
            values = self.graph.constant(tensor)
            if values is None or values.size != 1:
                raise Refusal(f"{tensor.name!r}, a scale or a zero point, is not one constant")

    def data_places(self) -> range:
        """Which inputs hold data: each has its scale and its zero point behind it."""
        return range(1)

    def zero_at(self, index: int) -> float:
        """The zero point at an input; 0 where it is left out."""
        zero = self.input_constant(index)
        return 0.0 if zero is None else float(zero.reshape(()))

    def requantized(self, value: Float64Array, source: int, target: int) -> tuple[BoolArray, Float64Array]:
        """Integers of one scale brought to another, and where it is certain how they round.

        Args:
            value: the integers.
            source, target: the inputs that hold their scale and that of the result; zero points are behind.
        """
        scales = [self.weight(index, "scale").astype(np.float64).reshape(()) for index in (source, target)]
        limits = LIMITS.get(self.graph.type(self.node.outputs[0]) or 0, (0, 0))
        quotient = (value - self.zero_at(source + 1)) * (scales[0] / scales[1])
        halves = np.abs(np.abs(quotient - np.trunc(quotient)) - 0.5) < _TIE
        result = np.clip(np.rint(quotient) + self.zero_at(target + 1), *limits)
        return ~halves & (limits != (0, 0)), result

    def computed(self, operands: list[Float64Array]) -> Array | None:
        """What the node makes of vectors of integers, as ONNX Runtime computes it."""
        feeds: dict[str, Array] = {}
        for place, operand in zip(self.data_places(), operands, strict=True):
            dtype = element_type(self.graph, self.node.inputs[place])
            if dtype is None:
                return None
            vector = operand.astype(dtype)
            name = self.node.inputs[place].name
            if name in feeds and not np.array_equal(feeds[name], vector):
                return None
            feeds[name] = vector
        for tensor in self.node.inputs:
            values = self.graph.constant(tensor)
            if tensor.name and tensor.name not in feeds and values is not None:
                feeds[tensor.name] = values
        result = first_output(self.graph, self.node, feeds)
        return None if result is None else result.astype(np.float64)


class QLinearBinaryRule(_LinearRule, ElementwiseRule):
    """QLinearAdd: ``A, scale, zero, B, scale, zero, scale, zero``."""

    def describe(self) -> None:
        """See `ElementwiseRule`."""
        self.check_scales()
        super().describe()

    def data_places(self) -> range:
        """A and B."""
        return range(0, 6, 3)

    def _operands(self) -> list[gs.Tensor]:
        return [self.node.inputs[0], self.node.inputs[3]]

    def _compute(self, operands: list[Float64Array]) -> Array | None:
        return self.computed(operands)


class QLinearMulRule(QLinearBinaryRule):
    """QLinearMul: zero times anything is zero."""

    def _combine(self, operands: list[_Known], index: int) -> _Known:
        known, value = super()._combine(operands, index)
        places = zip(self.data_places(), operands, strict=True)
        zero = np.logical_or.reduce(
            [found & (held == self.zero_at(place + 2)) for place, (found, held) in places]
        )
        return known | zero, np.where(zero, self.zero_at(7), value)


class QLinearUnaryRule(_LinearRule, UnaryRule):
    """QLinearSigmoid and QLinearLeakyRelu: ``X, scale, zero, scale, zero``."""

    def describe(self) -> None:
        """See `ElementwiseRule`."""
        self.check_scales()
        super().describe()

    def _compute(self, operands: list[Float64Array]) -> Array | None:
        return self.computed(operands)


class QLinearPoolRule(_LinearRule, AveragePoolRule):
    """QLinearAveragePool and QLinearGlobalAveragePool, channels first."""

    def describe(self) -> None:
        """See `PoolRule`."""
        self.check_scales()
        if self.node.attrs.get("channels_last", 0):
            raise Refusal("its channels are last")
        super().describe()

    def constants(self, constants: Constants) -> None:
        """Zero points, or all constants, become what the scales make of them."""
        x, y = self.slots.axis(self.node.inputs[0], 1), self.slots.axis(self.node.outputs[0], 1)
        if x is None or y is None or x.size != y.size:
            return
        known, value = constants.known[x.slots], constants.value[x.slots]
        known = known if self.hands_on() else known & (value == self.zero_at(2))
        certain, result = self.requantized(value, 1, 3)
        constants.set(y.slots, known & certain, result)


class QLinearConcatRule(_LinearRule, MovingRule):
    """QLinearConcat: ``scale, zero``, then data, scale and zero of each part."""

    def connect(self) -> None:
        """Each part has its place along the output's axis; across it all go together."""
        self.check_scales()
        made = self.axes(self.node.outputs[0])
        self.axis = self.place(len(made), int(self.node.attrs["axis"]))
        self.optional_along = frozenset({self.axis})
        self.parts: list[tuple[int, Axis, Axis, int]] = []  # input, its axis, the output's, offset in it
        offset = 0
        for place in self.data_places():
            axes = self.axes(self.node.inputs[place])
            whole, part = made[self.axis], axes[self.axis]
            if whole is None or part is None:
                raise Refusal("the sizes of its inputs are not known")
            self.couplings.append((part.slots, whole.slots[offset : offset + part.size]))
            self.parts.append((place, part, whole, offset))
            offset += part.size
            for a, b in zip(axes, made, strict=True):
                if a is not part:
                    self.couple(a, b)

    def data_places(self) -> range:
        """All parts."""
        return range(2, len(self.node.inputs), 3)

    def constants(self, constants: Constants) -> None:
        """Each part is brought to the scale of the output."""
        for place, part, whole, offset in self.parts:
            known, value = constants.known[part.slots], constants.value[part.slots]
            certain, result = self.requantized(value, place + 1, 0)
            constants.set(whole.slots[offset : offset + part.size], known & certain, result)

    def shrink(self, kept: Kept) -> None:
        """Leaves out parts of which nothing is left, with their scales and zero points."""
        for place, part, _, _ in reversed(self.parts):
            indices = kept.of(part)
            if indices is not None and not len(indices):
                for index in range(place + 2, place - 1, -1):
                    del self.node.inputs[index]


MICROSOFT_RULES = {
    "QLinearAdd": QLinearBinaryRule,
    "QLinearMul": QLinearMulRule,
    "QLinearSigmoid": QLinearUnaryRule,
    "QLinearLeakyRelu": QLinearUnaryRule,
    "QLinearAveragePool": QLinearPoolRule,
    "QLinearGlobalAveragePool": QLinearPoolRule,
    "QLinearConcat": QLinearConcatRule,
}
