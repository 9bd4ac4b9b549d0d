"""Activations, masks and arithmetic with broadcasting."""

import numpy as np
from onnx import TensorProto

from tests.scalpel_graph.channels.random_network.base import Base, Value, since

#: Operators that stay finite and steep nowhere, what has to come before them, and the opset they need.
_ACTIVATIONS: tuple[tuple[str, str, int], ...] = (
    ("Relu", "", 7), ("Sigmoid", "", 7), ("Tanh", "", 7), ("LeakyRelu", "", 7), ("HardSwish", "", 14),
    ("Softplus", "", 7), ("Elu", "", 7), ("Abs", "", 7), ("Neg", "", 7), ("HardSigmoid", "", 7),
    ("Erf", "", 9), ("Identity", "", 7), ("Softsign", "", 7), ("Selu", "", 7), ("Celu", "", 12),
    ("Mish", "", 18), ("Gelu", "", 20), ("Sin", "", 7), ("Cos", "", 7), ("Atan", "", 7), ("Asinh", "", 9),
    ("Exp", "Tanh", 7), ("Sinh", "Tanh", 9), ("Cosh", "Tanh", 9), ("Tan", "Sigmoid", 7),
    ("Log", "Softplus", 7), ("Sqrt", "Exp", 7), ("Reciprocal", "Exp", 7), ("Acosh", "Cosh", 9),
    ("Asin", "half", 7), ("Acos", "half", 7), ("Atanh", "half", 9),
)  # fmt: skip
#: Operators that jump: only right behind an input of the model, where no rounding can decide.
_STEPS = (("Ceil", 7), ("Floor", 7), ("Sign", 9), ("Round", 11), ("Shrink", 9), ("ThresholdedRelu", 10))


class Elementwise(Base):
    """Operations that work element by element."""

    def activation(self) -> None:
        x = self.any_value()
        op, before, opset = self.pick(_ACTIVATIONS)
        if opset > self.opset or (op == "Celu" and self.dtype != np.float32):
            return
        y = x.name
        if before == "half":
            y = self.node("Mul", [self.node("Tanh", [y]), self.weight(0.9)])
        elif before == "Cosh":
            y = self.node("Add", [self.node("Exp", [self.node("Tanh", [y])]), self.weight(1.0)])
        elif before == "Softplus":
            y = self.node("Add", [self.node("Softplus", [y]), self.weight(0.1)])
        elif before:
            y = self.node(before, [self.node("Tanh", [y]) if before == "Exp" else y])
        self.add(self.node(op, [y]), x)

    def step(self) -> None:
        """What jumps, or compares, on exact values."""
        x = self.recent(lambda value: value.exact)
        assert x is not None
        if self.coin():
            op, opset = self.pick(_STEPS)
            if opset <= self.opset:
                attributes = {"lambd": 0.5, "bias": 0.2} if op == "Shrink" else {}
                self.add(self.node(op, [x.name], **attributes), x, exact=True)
            return
        op, opset = self.pick([("Greater", 9), ("Less", 9), ("GreaterOrEqual", 12), ("LessOrEqual", 12)])
        if opset > self.opset:
            return
        condition = self.node(op, [x.name, self.weight(self.per_channel(x))])
        if self.coin():
            other = self.node(op, [x.name, self.weight(0.3)])
            condition = self.node(self.pick(["And", "Or", "Xor"]), [condition, other])
        elif self.coin():
            condition = self.node("Not", [condition])
        if self.coin():
            self.add(self.node("Where", [condition, x.name, self.weight(self.per_channel(x))]), x, exact=True)
        else:
            y = self.node("Cast", [condition], to=self._type())
            self.add(self.node("Mul", [x.name, y]), x, exact=True)

    def _type(self) -> int:
        return {"float32": TensorProto.FLOAT, "float64": TensorProto.DOUBLE, "float16": TensorProto.FLOAT16}[
            self.dtype.name
        ]

    def cast(self) -> None:
        x = self.any_value()
        wider = TensorProto.FLOAT if self.dtype == np.float64 else TensorProto.DOUBLE
        self.add(self.node("Cast", [self.node("Cast", [x.name], to=wider)], to=self._type()), x)

    def dropout(self) -> None:
        x = self.any_value()
        if self.opset < 12:
            name = self.node("Dropout", [x.name], ratio=0.5)
        else:
            name = self.node("Dropout", [x.name, self.weight(np.float32(0.5))])
        self.add(name, x, exact=x.exact)

    def clip(self) -> None:
        x = self.any_value()
        low, high = float(self.pick([0.0, -1.0, 0.5])), float(self.pick([1.0, 3.0, 6.0]))
        if self.opset < 11:
            self.add(self.node("Clip", [x.name], min=low, max=high), x)
        else:
            self.add(self.node("Clip", [x.name, self.weight(low), self.weight(high)]), x)

    def prelu(self) -> None:
        x = self.any_value()
        slope = self.normal(x.channels).reshape(-1, *[1] * (x.rank - x.axis - 1))
        self.add(self.node("PRelu", [x.name, self.weight(self.pick([slope, slope[:1]]))]), x)

    def mask(self) -> None:
        """The paper's: zeros and ones for channels, of any shape that is broadcast; some scale as well."""
        x = self.any_value()
        values = (self.rng.random(x.channels) < 0.6).astype(np.float64)
        if self.coin(0.3):
            values *= self.normal(x.channels)
        inputs = [x.name, self.weight(self._spread(x, self.per_channel(x, values)))]
        self.add(self.node("Mul", inputs if self.coin() else inputs[::-1]), x, exact=x.exact)

    def _spread(self, x: Value, values: np.ndarray) -> np.ndarray:
        """Numbers for each channel, now and then of full size along other axes of fixed size as well."""
        for axis in range(1, x.rank):
            size, place = x.size(axis), axis - x.rank + values.ndim
            if axis != x.axis and size is not None and size <= 16 and place >= 0 and self.coin(0.2):
                values = np.repeat(values, size, axis=place)
        return values

    @since(9)
    def where(self) -> None:
        x = self.any_value()
        kept = self.per_channel(x, (self.rng.random(x.channels) < 0.6).astype(np.float64))
        condition = self.weight(self._spread(x, kept) != 0)
        other = self.pick([np.float64(0), np.float64(1), self.per_channel(x)])
        branches = [x.name, self.weight(other)]
        name = self.node("Where", [condition, *(branches if self.coin() else branches[::-1])])
        self.add(name, x, exact=x.exact)

    @since(9)
    def where_of_variables(self) -> None:
        x = self.any_value()
        condition = self.weight(self.per_channel(x, self.rng.random(x.channels)) < 0.6)
        self.add(self.node("Where", [condition, x.name, self.like(x).name]), x)

    def shift(self) -> None:
        x = self.any_value()
        op = self.pick(["Add", "Sub", "Max", "Min"])
        values = self.pick([np.float64(0.5), self.normal(1), self.per_channel(x), self.per_channel(x)])
        if values.ndim > 1:
            values = self._spread(x, values)
        inputs = [x.name, self.weight(values)]
        self.add(self.node(op, inputs if self.coin() else inputs[::-1]), x)

    def divide(self) -> None:
        x = self.any_value()
        kind = self.pick(["constant", "variable", "into", "power", "modulo"])
        if kind == "constant":
            y = self.node("Div", [x.name, self.weight(np.abs(self.per_channel(x)) + 0.5)])
        elif kind == "variable":
            one = self.weight(1.0)
            y = self.node("Div", [x.name, self.node("Add", [self.node("Abs", [self.like(x).name]), one])])
        elif kind == "into":
            below = self.node("Add", [self.node("Sigmoid", [x.name]), self.weight(0.5)])
            y = self.node("Div", [self.weight(self.per_channel(x)), below])
        elif kind == "power":
            y = self.node("Pow", [self.node("Tanh", [x.name]), self.weight(self.pick([2.0, 3.0]))])
        else:
            if self.opset < 10 or not x.exact or self.dtype == np.float16:
                return
            y = self.node("Mod", [x.name, self.weight(0.7)], fmod=1)
        self.add(y, x)

    def binary(self) -> None:
        x = self.any_value()
        y = self.like(x)
        op = self.pick(["Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"][: 7 - (self.dtype == np.float64)])
        names = [x.name, y.name]
        if op in ("Max", "Min", "Sum", "Mean") and self.coin():
            names.append(self.pick([self.like(x).name, self.weight(self.per_channel(x))]))
        made = self.node(op, names)
        self.add(self.settle(made) if op in ("Mul", "Sum") else made, x)

    def broadcast(self) -> None:
        """One of the two has one position only, or one channel only, or lacks axes."""
        x = self.a_map()
        kind = self.pick(["position", "channel", "row"])
        if kind == "position":
            y = self.reduce(self.pick(["ReduceMean", "ReduceMax"]), x.name, [2, 3])
        elif kind == "channel":
            y = self.mix(x, 1)
        else:
            y = self.reduce("ReduceMax", x.name, [2])
        op = self.pick(["Add", "Sub", "Mul", "Max"])
        inputs = [x.name, y]
        self.add(self.settle(self.node(op, inputs if self.coin() else inputs[::-1])), x)

    def outer(self) -> None:
        """Channels against positions: both operands are broadcast."""
        x = self.a_map()
        row = self.reduce("ReduceMean", x.name, [2])
        column = self.reduce("ReduceMean", x.name, [3])
        self.add(self.settle(self.node(self.pick(["Add", "Mul"]), [row, column])), x)

    def expand(self) -> None:
        if self.opset < 8:
            return
        x = self.a_map()
        pooled = self.reduce("ReduceMean", x.name, [2, 3])
        height, width = x.size(2), x.size(3)
        if self.coin(0.3):  # to a computed shape
            y = self.node("Expand", [pooled, self.node("Shape", [x.name])])
            self.add(self.node("Add", [x.name, y]), x)
        elif height is not None and width is not None:
            shape = self.pick([(1, x.channels, height, width), (x.channels, height, width), (height, width)])
            self.add(self.node("Expand", [pooled, self.ints(*shape)]), x)
        else:
            one = self.mix(x, 1)
            self.add(self.node("Expand", [one, self.ints(1, 3, 1, 1)]), x.resized(1, 3))

    def weight_that_is_an_output(self) -> None:
        """A constant that callers see keeps its shape, whatever happens to the node that reads it."""
        x = self.any_value()
        name = self.weight(self.per_channel(x))
        self.add(self.node("Mul", [x.name, name]), x, exact=x.exact)
        shape = self.weights[name].shape
        self.outputs[name] = Value(name, (shape, shape), 0)

    def tap(self) -> None:
        """What is in the middle is an output as well."""
        value = self.values[-1]
        if value.name != "X" and self.coin(0.3):
            self.outputs[value.name] = value
