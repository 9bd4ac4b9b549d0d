"""What random networks are made of: values of tracked shapes, weights with dead rows, nodes of any opset."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto, helper, numpy_helper

Shape = tuple[int, ...]
Shapes = tuple[Shape, Shape]

#: No value becomes larger than this, for one element of the batch.
_MOST_ELEMENTS = 4000
_MOST_CHANNELS = 16


@dataclass(frozen=True)
class Value:
    """A tensor of the network.

    Attributes:
        name: its name.
        shapes: its shape in the first and in the second run; sizes that differ are dynamic.
        axis: where its channels are.
        exact: whether it is an input but for operators that do not round, so that steps are safe.
    """

    name: str
    shapes: Shapes
    axis: int
    exact: bool = False

    @property
    def channels(self) -> int:
        return self.shapes[0][self.axis]

    @property
    def rank(self) -> int:
        return len(self.shapes[0])

    def size(self, axis: int) -> int | None:
        """A size that is the same in both runs."""
        first, second = (shape[axis] for shape in self.shapes)
        return first if first == second else None

    def resized(self, axis: int, size: int) -> Shapes:
        return tuple((*shape[:axis], size, *shape[axis + 1 :]) for shape in self.shapes)  # type: ignore[return-value]


def mapped(value: Value, change: Callable[[Shape], Sequence[int]]) -> Shapes:
    """The shapes after the same change of both."""
    return tuple(tuple(int(size) for size in change(shape)) for shape in value.shapes)  # type: ignore[return-value]


def since(opset: int) -> Callable[[Any], Any]:
    """Marks an operation that needs at least this opset."""

    def mark(operation: Any) -> Any:
        operation.since = opset
        return operation

    return mark


def until(opset: int) -> Callable[[Any], Any]:
    """Marks an operation that needs at most this opset."""

    def mark(operation: Any) -> Any:
        operation.until = opset
        return operation

    return mark


class Base:
    """Nodes, weights and values; operations are in the classes built on it.

    Args:
        seed: of everything.
        opset: of the model.
        dtype: of every tensor.
        sizes: batch, height and width of the first and of the second run.
    """

    def __init__(self, seed: int, opset: int, dtype: Any, sizes: tuple[Shape, Shape]) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset, self.dtype = opset, np.dtype(dtype)
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.outputs: dict[str, Value] = {}
        self.ids: Value | None = None
        self.values = [Value("X", tuple((n, 4, h, w) for n, h, w in sizes), 1, exact=True)]  # type: ignore[arg-type]

    # -- chance ---------------------------------------------------------------------------------------------

    def coin(self, probability: float = 0.5) -> bool:
        return bool(self.rng.random() < probability)

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def width(self, most: int = 8) -> int:
        return int(self.rng.integers(1, most + 1))

    def normal(self, *shape: int) -> np.ndarray:
        return self.rng.standard_normal(shape)

    def share(self) -> float:
        return float(self.rng.choice([0.0, 0.3, 0.7, 1.0], p=[0.5, 0.3, 0.17, 0.03]))

    def sparse(self, *shape: int) -> np.ndarray:
        values = self.normal(*shape)
        values[self.rng.random(shape) < self.share()] = 0
        return values

    # -- constants ------------------------------------------------------------------------------------------

    def weight(self, values: Any, dtype: Any = None) -> str:
        """A constant of the network's type; integers and truth values stay what they are."""
        values = np.asarray(values)
        if dtype is not None or values.dtype.kind == "f":
            values = values.astype(dtype or self.dtype)
        name = f"w{len(self.weights)}"
        self.weights[name] = values
        return name

    def kernel(self, *shape: int, fan_in: int) -> str:
        """Weights of which whole rows and whole columns are zero; now and then ones that another node has."""
        same = [
            name
            for name, values in self.weights.items()
            if values.shape == shape and len(shape) > 1 and values.dtype == self.dtype
        ]
        if same and self.coin(0.2):
            return self.pick(same)
        values = self.normal(*shape) / np.sqrt(fan_in)
        values[self.rng.random(shape[0]) < self.share()] = 0
        values[:, self.rng.random(shape[1]) < self.share()] = 0
        return self.weight(values)

    def ints(self, *values: int) -> str:
        return self.weight(np.array(values, dtype=np.int64))

    # -- nodes ----------------------------------------------------------------------------------------------

    def node(self, op: str, inputs: Sequence[str], outputs: int = 1, **attributes: Any) -> Any:
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, **attributes))
        return names[0] if outputs == 1 else names

    def reduce(self, op: str, x: str, axes: Sequence[int], keepdims: int = 1) -> str:
        if self.opset >= (13 if op == "ReduceSum" else 18):
            return str(self.node(op, [x, self.ints(*axes)], keepdims=keepdims))
        return str(self.node(op, [x], axes=list(axes), keepdims=keepdims))

    def squeeze(self, op: str, x: str, axes: Sequence[int]) -> str:
        if self.opset >= 13:
            return str(self.node(op, [x, self.ints(*axes)]))
        return str(self.node(op, [x], axes=list(axes)))

    def cut(self, x: str, axis: int, start: int, end: int) -> str:
        if self.opset >= 10:
            return str(self.node("Slice", [x, *(self.ints(value) for value in (start, end, axis))]))
        return str(self.node("Slice", [x], starts=[start], ends=[end], axes=[axis]))

    def split_into(self, x: str, axis: int, sizes: Sequence[int]) -> list[str]:
        if self.opset >= 13:
            made = self.node("Split", [x, self.ints(*sizes)], outputs=len(sizes), axis=axis)
        else:
            made = self.node("Split", [x], outputs=len(sizes), axis=axis, split=list(sizes))
        return made if isinstance(made, list) else [made]

    def reshape(self, x: str, *sizes: int) -> str:
        return str(self.node("Reshape", [x, self.ints(*sizes)]))

    def softmax(self, x: Value, axis: int, op: str = "Softmax") -> str:
        """Along one axis also before opset 13, when it took all from its axis on: there, the last one."""
        if self.opset >= 13 or axis in (-1, x.rank - 1):
            return str(self.node(op, [x.name], axis=axis))
        order = [*(index for index in range(x.rank) if index != axis), axis]
        y = self.node(op, [self.node("Transpose", [x.name], perm=order)], axis=x.rank - 1)
        return str(self.node("Transpose", [y], perm=np.argsort(order).tolist()))

    # -- values ---------------------------------------------------------------------------------------------

    def add(
        self, name: str, shapes: Shapes | Value, axis: int | None = None, exact: bool = False
    ) -> Value | None:
        """A value that later operations may take; None if it is too large for that."""
        if isinstance(shapes, Value):
            shapes, axis = shapes.shapes, shapes.axis if axis is None else axis
        value = Value(name, shapes, 1 if axis is None else axis, exact)
        if max(int(np.prod(shape[1:])) for shape in shapes) > _MOST_ELEMENTS:
            return None
        if value.channels > _MOST_CHANNELS:
            return None
        self.values.append(value)
        return value

    def settle(self, name: str) -> str:
        """Keeps what may grow from doing so."""
        return str(self.node("Tanh", [name]))

    def recent(self, fits: Callable[[Value], bool]) -> Value | None:
        values = [value for value in self.values if fits(value)]
        if not values:
            return None
        return self.pick(values[-4:] if self.coin(0.8) else values)

    def any_value(self) -> Value:
        value = self.recent(lambda value: value.rank > 1)
        assert value is not None
        return value

    def a_map(self, axes: int | None = 2) -> Value:
        """Channels first, with this many spatial axes (or any), made of others if there is none."""
        value = self.recent(
            lambda v: v.axis == 1 and (v.rank == axes + 2 if axes is not None else v.rank > 2)
        )
        if value is not None and (axes == 2 or self.coin(0.8)):
            return value
        if axes == 1:
            x = self.a_map()
            flat = mapped(x, lambda s: (s[0], s[1], s[2] * s[3]))
            return Value(self.reshape(x.name, 0, 0, -1), flat, 1)
        if axes == 3:
            x = self.a_map()
            deep = mapped(x, lambda s: (s[0], s[1], 1, s[2], s[3]))
            return Value(self.squeeze("Unsqueeze", x.name, [2]), deep, 1)
        return value or self.values[0]

    def tokens(self) -> Value:
        """``[batch, positions, features]``."""
        value = self.recent(lambda v: v.rank == 3 and v.axis == 2)
        if value is not None and self.coin(0.8):
            return value
        x = self.a_map(1)
        name = self.node("Transpose", [x.name], perm=[0, 2, 1])
        return Value(name, mapped(x, lambda s: (s[0], s[2], s[1])), 2)

    def vector(self) -> Value:
        """``[batch, features]``."""
        value = self.recent(lambda v: v.rank == 2 and v.axis == 1)
        if value is not None and self.coin(0.8):
            return value
        x = self.a_map()
        if self.dtype == np.float64:
            name = self.reduce(self.pick(["ReduceMean", "ReduceMax"]), x.name, [2, 3])
        else:
            name = self.node(self.pick(["GlobalAveragePool", "GlobalMaxPool"]), [x.name])
        return Value(self.node("Flatten", [name]), mapped(x, lambda s: s[:2]), 1)

    def like(self, x: Value) -> Value:
        """Another value of the same shape, made of ``x`` if there is none."""
        others = [v for v in self.values if v.shapes == x.shapes and v.axis == x.axis and v.name != x.name]
        if others and self.coin(0.6):
            return self.pick(others)
        return Value(self.mix(x, x.channels), x.shapes, x.axis)

    def mix(self, x: Value, made: int) -> str:
        """Every channel made of all: a layer of one position, as a Conv, a Gemm or a MatMul."""
        if x.axis == x.rank - 1 and x.rank > 2:
            return str(self.node("MatMul", [x.name, self.kernel(x.channels, made, fan_in=x.channels)]))
        if x.rank == 2:
            kernel = self.kernel(x.channels, made, fan_in=x.channels)
            bias = [self.weight(self.sparse(made))] if self.coin() or self.opset < 11 else []
            return str(self.node("Gemm", [x.name, kernel, *bias]))
        if self.dtype == np.float64:  # ONNX Runtime has no Conv of doubles
            order = [0, *range(2, x.rank), 1]
            y = self.node("Transpose", [x.name], perm=order)
            y = self.node("MatMul", [y, self.kernel(x.channels, made, fan_in=x.channels)])
            return str(self.node("Transpose", [y], perm=np.argsort(order).tolist()))
        kernel = self.kernel(made, x.channels, *[1] * (x.rank - 2), fan_in=x.channels)
        bias = [self.weight(self.sparse(made))] if self.coin() else []
        return str(self.node("Conv", [x.name, kernel, *bias]))

    def per_channel(self, x: Value, values: np.ndarray | None = None) -> np.ndarray:
        """Numbers for each channel, shaped to be broadcast to ``x``: with or without axes in front."""
        values = self.sparse(x.channels) if values is None else values
        behind = [1] * (x.rank - x.axis - 1)
        front = [1] * x.axis if self.coin() else []
        return values.reshape(*front, -1, *behind)

    # -- the model ------------------------------------------------------------------------------------------

    def declared(self, value: Value) -> Any:
        shape = [value.size(axis) for axis in range(value.rank)]
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        return helper.make_tensor_value_info(value.name, kind, shape)

    def inputs(self) -> list[Any]:
        x = self.values[0]
        names = ["N", "", "H", "W"]
        shape = [x.size(axis) or names[axis] for axis in range(4)]
        kind = helper.np_dtype_to_tensor_dtype(self.dtype)
        inputs = [helper.make_tensor_value_info("X", kind, shape)]
        if self.ids is not None:
            shape = [self.ids.size(axis) or ("N", "T")[axis] for axis in range(2)]
            inputs.append(helper.make_tensor_value_info("ids", TensorProto.INT64, shape))
        return inputs

    def initializers(self) -> list[TensorProto]:
        return [numpy_helper.from_array(values, name) for name, values in self.weights.items()]
