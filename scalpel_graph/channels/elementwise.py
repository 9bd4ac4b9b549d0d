"""Operators that work element by element: activations, and arithmetic with broadcasting.

A slot goes from all inputs and the output together; where an input is broadcast along an axis it keeps its
one slot. The output of constants is a constant. A factor of zero makes a zero of whatever it multiplies: mask
layers need nothing more.
"""

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.constants import (
    Constants,
    Float64Array,
    element_type,
    first_output,
    is_float,
    numpy_type,
    slices,
)
from scalpel_graph.channels.positive import is_positive
from scalpel_graph.channels.rule import Kept, Refusal, Rule, take
from scalpel_graph.channels.slots import Axis, BoolArray
from scalpel_graph.group_csr import Array

_Known = tuple[BoolArray, Float64Array]

#: Operators of one tensor; other inputs are parameters.
UNARY = (
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "Cast", "Ceil", "Celu", "Clip", "Cos", "Cosh",
    "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "IsInf", "IsNaN",
    "LeakyRelu", "Log", "Mish", "Neg", "Not", "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid",
    "Sign", "Sin", "Sinh", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu",
)  # fmt: skip
#: Operators of tensors that are broadcast against each other.
BROADCASTING = (
    "Add", "And", "Div", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min",
    "Mod", "Mul", "Or", "PRelu", "Pow", "Sub", "Sum", "Where", "Xor",
)  # fmt: skip

#: Those that have no finite result for some numbers.
MAY_FAIL = (
    "Acos", "Acosh", "Asin", "Atanh", "Cosh", "Div", "Exp", "Log", "Mod", "Pow", "Reciprocal", "Sinh", "Sqrt",
)  # fmt: skip


class ElementwiseRule(Rule):
    """Common part: couples the axes of the operands with those of the output."""

    def describe(self) -> None:
        """See the module's docstring."""
        self.fragile = self.node.op in MAY_FAIL and not self._is_harmless()
        self.output = self.only_output()
        made = self.axes(self.output)
        self.made = made
        self.operands = self._operands()
        for index in range(len(made)):
            aligned = [(tensor, self._aligned(tensor, index)) for tensor in self.operands]
            if any(unknown for _, (_, unknown) in aligned) or made[index] is None:
                continue  # left unnamed: what has slots here stays
            for _, (axis, _) in aligned:
                if axis is not None and axis.size != 1:
                    self.couple(axis, made[index])
            if all(axis is None or axis.size == 1 for _, (axis, _) in aligned):
                self._describe_made_by_constants(index)

    def _is_harmless(self) -> bool:
        """Whether it divides by constants, or raises to constant powers, that suit every number."""
        values = self.input_constant(1)
        if values is None or self.node.op not in ("Div", "Pow"):
            return False
        if self.node.op == "Div":
            return bool((values != 0).all())
        return bool((values >= 0).all() and (values == np.rint(values)).all())

    def _operands(self) -> list[gs.Tensor]:
        return [tensor for tensor in self.node.inputs if tensor.name]

    def _aligned(self, tensor: gs.Tensor, index: int) -> tuple[Axis | None, bool]:
        """The axis of a variable along axis ``index`` of the output, and whether its size is unknown."""
        if isinstance(tensor, gs.Constant):
            return None, False
        axes = self.axes(tensor)
        place = index - len(self.made) + len(axes)
        return (None, False) if place < 0 else (axes[place], axes[place] is None)

    def _describe_made_by_constants(self, index: int) -> None:
        """An axis along which only constants have more than one slot, or none has."""
        made = self.made[index]
        assert made is not None
        variables = [
            axis for tensor in self.operands if (axis := self._aligned(tensor, index)[0]) is not None
        ]
        if made.size == 1:
            for axis in variables:
                self.couple(axis, made)
        else:
            self.free.append(made.slots)

    def constants(self, constants: Constants) -> None:
        """The operator's value where all operands are constant."""
        for index, made in enumerate(self.made):
            if made is None:
                continue
            operands = [self._known(constants, tensor, index, made.size) for tensor in self.operands]
            if not any(operand[0].any() for operand in operands):
                continue
            known, value = self._combine(operands, index)
            constants.set(made.slots, known, value)

    def _known(self, constants: Constants, tensor: gs.Tensor, index: int, size: int) -> _Known:
        """What an operand holds along an axis of the output, broadcast to its size."""
        values = self.graph.constant(tensor)
        if values is None:
            axis, _ = self._aligned(tensor, index)
            if axis is None or axis.size not in (1, size):
                return np.zeros(size, dtype=np.bool_), np.zeros(size)
            known, value = constants.known[axis.slots], constants.value[axis.slots]
        else:
            shape = (1,) * (len(self.made) - values.ndim) + values.shape
            known, value = slices(values.reshape(shape), index)
        return np.broadcast_to(known, size), np.broadcast_to(value, size)

    def _combine(self, operands: list[_Known], index: int) -> _Known:
        size = len(operands[0][0])
        known = np.logical_and.reduce([operand[0] for operand in operands])
        value = np.zeros(size)
        if known.any():
            found = self._compute([operand[1][known] for operand in operands])
            if found is None:
                return np.zeros(size, dtype=np.bool_), value
            value[known] = found
        return known, value

    def _compute(self, operands: list[Float64Array]) -> Array | None:
        """The operator's value on vectors; None if it cannot be computed."""
        feeds: dict[str, Array] = {}
        for tensor, operand in zip(self.operands, operands, strict=True):
            values = self.graph.constant(tensor)
            dtype = element_type(self.graph, tensor) if values is None else values.dtype
            if dtype is None:
                return None
            vector = operand.astype(dtype)
            if tensor.name in feeds and not np.array_equal(feeds[tensor.name], vector):
                return None
            feeds[tensor.name] = vector
        for tensor in self.node.inputs:
            values = self.graph.constant(tensor)
            if tensor.name and tensor.name not in feeds:
                if values is None:
                    return None
                feeds[tensor.name] = values
        if numpy_type(self.graph, self.output) is None:
            return None
        result = first_output(self.graph, self.node, feeds)
        return None if result is None or result.shape != operands[0].shape else result.astype(np.float64)

    def shrink(self, kept: Kept) -> None:
        """Slices the operands that are constants."""
        for position, tensor in enumerate(self.node.inputs):
            values = self.graph.constant(tensor)
            if values is None:
                continue
            smaller = values
            for index, made in enumerate(self.made):
                place = index - len(self.made) + values.ndim
                if made is not None and place >= 0 and values.shape[place] == made.size:
                    smaller = take(smaller, kept.of(made), place)
            if smaller.shape != values.shape:
                kept.replace(self.graph, self.node, position, smaller)


class UnaryRule(ElementwiseRule):
    """One tensor, and parameters that are the same for all its elements."""

    def _operands(self) -> list[gs.Tensor]:
        return self.node.inputs[:1]  # type: ignore[no-any-return]

    def shrink(self, kept: Kept) -> None:
        """Nothing has a size."""


class DropoutRule(UnaryRule):
    """Dropout, which hands on its input in inference."""

    def describe(self) -> None:
        """See `ElementwiseRule`."""
        training = self.input_constant(2)
        if self.has_input(2) and (training is None or training.any()):
            raise Refusal("it may be in training mode")
        super().describe()


class MulRule(ElementwiseRule):
    """Mul: zero times anything is zero."""

    def describe(self) -> None:
        """See `ElementwiseRule`; a constant that is not finite would make NaN of zero."""
        super().describe()
        values = (self.graph.constant(tensor) for tensor in self.operands)
        self.finite = all(value is None or (is_float(value) and np.isfinite(value).all()) for value in values)

    def _combine(self, operands: list[_Known], index: int) -> _Known:
        known, value = super()._combine(operands, index)
        if self.finite:
            zero = np.logical_or.reduce([operand[0] & (operand[1] == 0) for operand in operands])
            known, value = known | zero, np.where(zero, 0.0, value)
        return known, value


class DivRule(ElementwiseRule):
    """Div: zero divided by what is never zero is zero."""

    def describe(self) -> None:
        """See `ElementwiseRule`."""
        super().describe()
        below = self.graph.constant(self.operands[1])
        if below is None:
            self.divides = is_positive(self.graph, self.operands[1])
        else:
            self.divides = bool((below != 0).all() and not np.isnan(below).any())
        self.divides &= numpy_type(self.graph, self.output) is not None

    def _combine(self, operands: list[_Known], index: int) -> _Known:
        known, value = super()._combine(operands, index)
        if self.divides:
            zero = operands[0][0] & (operands[0][1] == 0)
            known, value = known | zero, np.where(zero, 0.0, value)
        return known, value


class WhereRule(ElementwiseRule):
    """Where: a constant condition picks one of two tensors, slot by slot."""

    def _combine(self, operands: list[_Known], index: int) -> _Known:
        (fixed, condition), (known_x, x), (known_y, y) = operands
        picks_x = condition != 0
        known = fixed & np.where(picks_x, known_x, known_y)
        return known, np.where(known, np.where(picks_x, x, y), 0.0)


class PReluRule(ElementwiseRule):
    """PRelu, whose slope is broadcast to the input."""

    def describe(self) -> None:
        """See `ElementwiseRule`."""
        if self.input_constant(1) is None:
            raise Refusal("its slope is not constant")
        super().describe()


RULES = {
    **dict.fromkeys(UNARY, UnaryRule),
    **dict.fromkeys(BROADCASTING, ElementwiseRule),
    "Dropout": DropoutRule,
    "Mul": MulRule,
    "Div": DivRule,
    "Where": WhereRule,
    "PRelu": PReluRule,
}
