"""Layers with weights: Conv, ConvTranspose, Gemm, MatMul, Einsum, recurrent layers, embeddings."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.scalpel_graph.channels.random_network.base import Base, Value, mapped, since


class Layers(Base):
    """Operations that add a layer."""

    def conv(self, x: Value | None = None, made: int | None = None, **attributes: Any) -> Value | None:
        x = x or self.a_map(self.pick([2, 2, 2, 1, 3]))
        made = made or self.width()
        kernel, sizes, window = self._window(x)
        weight = self.kernel(made, x.channels, *kernel, fan_in=x.channels * int(np.prod(kernel)))
        bias = [self.weight(self.sparse(made))] if self.coin() else []
        name = self.node("Conv", [x.name, weight, *bias], **window, **attributes)
        return self.add(name, mapped(Value(name, sizes, 1), lambda s: (s[0], made, *s[2:])))

    def _window(self, x: Value) -> tuple[list[int], Any, dict[str, Any]]:
        """A kernel's sizes, the shapes after it, and its attributes."""
        axes = x.rank - 2
        smallest = [min(shape[2 + axis] for shape in x.shapes) for axis in range(axes)]
        kernel = [int(self.rng.choice([1, 3, 3, 2])) for _ in range(axes)]
        strides = [1 if self.coin(0.75) else 2 for _ in range(axes)]
        dilations = [2 if k == 3 and self.coin(0.1) else 1 for k in kernel]
        reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
        if self.coin(0.15) and max(dilations) == 1:
            mode = self.pick(["SAME_UPPER", "SAME_LOWER"])
            shapes = mapped(x, lambda s: (*s[:2], *(-(-n // t) for n, t in zip(s[2:], strides, strict=True))))
            return kernel, shapes, {"auto_pad": mode, "strides": strides, "kernel_shape": kernel}
        if self.coin(0.2) and all(n > r for n, r in zip(smallest, reach, strict=True)):
            pads = [0] * (2 * axes)
        elif self.coin(0.15):
            pads = [int(self.rng.integers(r)) for r in reach] + [r - 1 for r in reach]
        else:
            pads = [r // 2 for r in reach] * 2
            pads[axes:] = [r - 1 - p for r, p in zip(reach, pads[:axes], strict=True)]

        def after(shape: Sequence[int]) -> Sequence[int]:
            return (
                *shape[:2],
                *(
                    (n + pads[i] + pads[axes + i] - reach[i]) // strides[i] + 1
                    for i, n in enumerate(shape[2:])
                ),
            )

        attributes = {"pads": pads, "strides": strides, "dilations": dilations, "kernel_shape": kernel}
        return kernel, mapped(x, after), attributes

    def grouped_conv(self) -> None:
        x = self.a_map(self.pick([2, 2, 1, 3]))
        group = int(self.rng.choice([g for g in range(1, x.channels + 1) if x.channels % g == 0]))
        self._grouped(x, group, group * int(self.rng.integers(1, 4)))

    def depthwise_conv(self) -> None:
        x = self.a_map(self.pick([2, 2, 1, 3]))
        self._grouped(x, x.channels, x.channels * int(self.rng.integers(1, 3)))

    def _grouped(self, x: Value, group: int, made: int) -> None:
        kernel, sizes, window = self._window(x)
        inputs = x.channels // group
        weight = self.kernel(made, inputs, *kernel, fan_in=inputs * int(np.prod(kernel)))
        bias = [self.weight(self.sparse(made))] if self.coin() else []
        name = self.node("Conv", [x.name, weight, *bias], group=group, **window)
        self.add(name, mapped(Value(name, sizes, 1), lambda s: (s[0], made, *s[2:])))

    def conv_transpose(self) -> None:
        x = self.a_map(self.pick([2, 2, 1]))
        axes = x.rank - 2
        group = int(self.rng.choice([g for g in (1, 1, 2, x.channels) if x.channels % g == 0]))
        made = group * self.width(4 if group == 1 else 2)
        stride = self.pick([1, 2])
        weight = self.kernel(x.channels, made // group, *[3] * axes, fan_in=x.channels // group * 9)
        bias = [self.weight(self.sparse(made))] if self.coin() else []
        extra = {"output_padding": [1] * axes} if stride == 2 and self.coin() else {}
        name = self.node(
            "ConvTranspose",
            [x.name, weight, *bias],
            pads=[1] * (2 * axes),
            strides=[stride] * axes,
            group=group,
            **extra,
        )
        grown = 1 if extra else 0
        shapes = mapped(x, lambda s: (s[0], made, *((n - 1) * stride + 1 + grown for n in s[2:])))
        self.add(name, shapes)

    @since(13)
    def quantized_conv(self) -> None:
        """Weights of 8 bits; activations are not rounded, for that would enlarge differences."""
        if self.dtype != np.float32:
            return
        x, made = self.a_map(), self.width()
        scale, zero = self.rng.random(made) * 0.01 + 0.001, self.rng.integers(-9, 10, made)
        weight = self.rng.integers(-128, 128, (made, x.channels, 1, 1))
        for axis, size in enumerate((made, x.channels)):
            np.moveaxis(weight, axis, 0)[self.rng.random(size) < self.share()] = 0
        weight = np.clip(weight + zero.reshape(-1, 1, 1, 1), -128, 127)
        inputs = [
            self.weight(weight.astype(np.int8)),
            self.weight(scale),
            self.weight(zero.astype(np.int8)),
        ]
        y = self.node("DequantizeLinear", inputs, axis=0)
        bias = []
        if self.coin():
            values = self.weight(self.rng.integers(-9, 10, made).astype(np.int32))
            bias.append(self.node("DequantizeLinear", [values, self.weight(0.1)]))
        self.add(self.node("Conv", [x.name, y, *bias]), x.resized(1, made))

    def gemm(self, x: Value | None = None, made: int | None = None) -> Value:
        x, made = x or self.vector(), made or self.width()
        transposed = self.coin()
        shape = (made, x.channels) if transposed else (x.channels, made)
        inputs = [x.name, self.kernel(*shape, fan_in=x.channels)]
        if self.coin(0.6) or self.opset < 11:
            inputs.append(self.weight(self.sparse(*self.pick([(made,), (1, made), (1,), ()]))))
        elif self.coin(0.3):
            inputs.append(self.mix(x, made))
        scale = {"alpha": 0.5, "beta": 2.0} if self.coin() else {}
        turned = {"transA": 1} if self.coin(0.2) else {}
        if turned:
            inputs[0] = self.node("Transpose", [x.name], perm=[1, 0])
        name = self.node("Gemm", inputs, transB=int(transposed), **scale, **turned)
        value = Value(name, x.resized(1, made), 1)
        self.values.append(value)
        return value

    def flatten_gemm(self) -> None:
        x = self.a_map()
        height, width = x.size(2), x.size(3)
        if height is None or width is None or height * width > 64:
            return
        features = x.channels * height * width
        name = self.node("Flatten", [x.name]) if self.coin() else self.reshape(x.name, 0, -1)
        self.gemm(Value(name, mapped(x, lambda s: (s[0], features)), 1))

    def matmul(self) -> None:
        x, made = self.tokens(), self.width()
        y = self.node("MatMul", [x.name, self.kernel(x.channels, made, fan_in=x.channels)])
        if self.coin():
            y = self.node("Add", [y, self.weight(self.sparse(made))])
        self.add(y, x.resized(2, made), 2)

    def matmul_from_the_left(self) -> None:
        """The constant comes first: ``[M, C]`` times ``[batch, C, positions]``."""
        x, made = self.a_map(1), self.width()
        y = self.node("MatMul", [self.kernel(made, x.channels, fan_in=x.channels), x.name])
        self.add(y, x.resized(1, made))

    def matmul_of_positions(self) -> None:
        """MLP-Mixer: a constant mixes positions, whose number must be fixed."""
        x = self.tokens()
        size = x.size(1)
        if size is not None and size <= 64:
            made = self.width()
            y = self.node("MatMul", [self.kernel(made, size, fan_in=size), x.name])
            self.add(y, x.resized(1, made), 2)

    def batched_matmul(self) -> None:
        """A matrix for each head: constants of rank 3 and 4, on either side."""
        x = self.tokens()
        heads, inner, made = self.pick([2, 3]), self.width(4), self.width(4)
        y = self.mix(x, heads * inner)
        y = self.reshape(y, 0, 0, heads, inner)
        if self.coin():
            y = self.node("Transpose", [y], perm=[0, 2, 1, 3])
            shape, side = self.pick([(heads, inner, made), (1, heads, inner, made), (1, inner, made)]), 1
        else:
            y = self.node("Transpose", [y], perm=[0, 2, 3, 1])
            shape, side = self.pick([(heads, made, inner), (1, heads, made, inner), (1, made, inner)]), 0
        kernel = self.normal(*shape) / np.sqrt(inner)
        for axis in range(len(shape)):
            np.moveaxis(kernel, axis, 0)[self.rng.random(shape[axis]) < self.share()] = 0
        inputs = [y, self.weight(kernel)]
        y = self.node("MatMul", inputs if side else inputs[::-1])
        y = self.node("Transpose", [y], perm=[0, 2, 1, 3] if side else [0, 3, 1, 2])
        self.add(self.reshape(y, 0, 0, heads * made), x.resized(2, heads * made), 2)

    @since(12)
    def einsum(self) -> None:
        made = self.width()
        if self.coin():
            x = self.a_map()
            kernel = self.kernel(made, x.channels, fan_in=x.channels)
            self.add(self.node("Einsum", [x.name, kernel], equation="nchw,kc->nkhw"), x.resized(1, made))
        else:
            x = self.tokens()
            kernel = self.kernel(x.channels, made, fan_in=x.channels)
            self.add(self.node("Einsum", [x.name, kernel], equation="bti,io->bto"), x.resized(2, made), 2)

    def lstm(self) -> None:
        self._recurrent("LSTM", 4)

    def gru(self) -> None:
        self._recurrent("GRU", 3)

    def rnn(self) -> None:
        self._recurrent("RNN", 1)

    def _recurrent(self, op: str, gates: int) -> None:
        x, hidden, directions = self.tokens(), self.width(6), self.pick([1, 2])
        blocks = [self.normal(directions, gates, hidden, size) / 3 for size in (x.channels, hidden)]
        blocks.append(self.sparse(directions, 2, gates, hidden))
        dead = self.rng.random(hidden) < self.share()
        for block in blocks[:2]:
            block[:, -1, dead] = 0
        blocks[2][:, :, -1, dead] = 0
        blocks[1][..., self.rng.random(hidden) < self.share()] = 0
        blocks[0][..., self.rng.random(x.channels) < self.share()] = 0
        w, r = (self.weight(block.reshape(directions, -1, block.shape[3])) for block in blocks[:2])
        inputs = [self.node("Transpose", [x.name], perm=[1, 0, 2]), w, r]
        inputs += [self.weight(blocks[2].reshape(directions, -1))] if self.coin() else [""]
        inputs += [""]
        batch = x.size(0)
        if batch is not None and self.coin(0.3):
            inputs += [self.weight(self.sparse(directions, batch, hidden)) for _ in range(1 + (op == "LSTM"))]
            if op == "LSTM" and self.coin():
                inputs.append(self.weight(self.sparse(directions, 3 * hidden)))
        while not inputs[-1]:
            inputs.pop()
        direction = "bidirectional" if directions == 2 else self.pick(["forward", "reverse"])
        extra = {"linear_before_reset": int(self.coin())} if op == "GRU" else {}
        states = 2 if op == "LSTM" else 1
        names = self.node(op, inputs, 1 + states, hidden_size=hidden, direction=direction, **extra)
        if self.coin(0.25):  # the last state only, of both directions side by side
            y = self.node("Transpose", [self.pick(names[1:])], perm=[1, 0, 2])
            y = self.reshape(y, 0, -1)
            self.add(y, mapped(x, lambda s: (s[0], directions * hidden)), 1)
        elif self.coin():  # directions side by side
            y = self.node("Transpose", [names[0]], perm=[2, 0, 1, 3])
            y = self.reshape(y, 0, 0, directions * hidden)
            self.add(y, x.resized(2, directions * hidden), 2)
        else:
            y = self.reduce("ReduceSum", names[0], [1], keepdims=0)
            self.add(self.node("Transpose", [y], perm=[1, 0, 2]), x.resized(2, hidden), 2)

    def embedding(self) -> None:
        """Rows of a constant table, picked by an input of the model."""
        if self.ids is None:
            first, second = self.values[0].shapes
            self.ids = Value("ids", ((first[0], first[2]), (second[0], second[2])), 1)
        features = self.width()
        table = self.kernel(7, features, fan_in=1)
        name = self.node("Gather", [table, "ids"], axis=0)
        shapes = tuple((*shape, features) for shape in self.ids.shapes)
        self.add(name, shapes, 2, exact=True)  # type: ignore[arg-type]
