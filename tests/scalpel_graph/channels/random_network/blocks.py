"""Topologies people build: residual and dense blocks, gates, attention, feed-forward blocks."""

from tests.scalpel_graph.channels.random_network.base import Value, mapped
from tests.scalpel_graph.channels.random_network.layers import Layers


class Blocks(Layers):
    """Operations that add several nodes which belong together."""

    def residual(self) -> None:
        x, inner = self.a_map(), self.width()
        y = self.node("Relu", [self._conv_of_3(x, inner)])
        y = self._conv_of_3(Value(y, x.resized(1, inner), 1), x.channels)
        self.add(self.node("Relu", [self.node("Add", [y, x.name])]), x)

    def _conv_of_3(self, x: Value, made: int, **attributes: int) -> str:
        inputs = x.channels // attributes.get("group", 1)
        kernel = self.kernel(made, inputs, 3, 3, fan_in=inputs * 9)
        bias = [self.weight(self.sparse(made))] if self.coin() else []
        return str(self.node("Conv", [x.name, kernel, *bias], pads=[1] * 4, **attributes))

    def inverted_residual(self) -> None:
        x = self.a_map()
        inner = 2 * x.channels
        y = Value(self.node("Relu", [self.mix(x, inner)]), x.resized(1, inner), 1)
        y = Value(self.node("Relu", [self._conv_of_3(y, inner, group=inner)]), y.shapes, 1)
        self.add(self.node("Add", [self.mix(y, x.channels), x.name]), x)

    def dense_block(self) -> None:
        """DenseNet: every layer sees what all before it made."""
        x = self.a_map()
        for _ in range(2):
            if x.channels > 12:
                break
            made = self.width(3)
            y = self.node("Relu", [self._conv_of_3(x, made)])
            joined = x.resized(1, x.channels + made)
            x = Value(self.node("Concat", [x.name, y], axis=1), joined, 1)
        self.add(x.name, x)

    def squeeze_excite(self) -> None:
        x = self.a_map()
        pooled = mapped(x, lambda s: (s[0], s[1], 1, 1))
        y = Value(self.node("GlobalAveragePool", [x.name]), pooled, 1)
        inner = self.width(4)
        y = Value(self.node("Relu", [self.mix(y, inner)]), y.resized(1, inner), 1)
        gate = self.node(self.pick(["Sigmoid", "HardSigmoid"]), [self.mix(y, x.channels)])
        self.add(self.node("Mul", [x.name, gate]), x)

    def gated_unit(self) -> None:
        """GLU: one half gates the other."""
        x = self.any_value()
        made = self.width(6)
        y = self.mix(x, 2 * made)
        a, b = self.split_into(y, x.axis, [made, made])
        self.add(self.node("Mul", [a, self.node("Sigmoid", [b])]), x.resized(x.axis, made), x.axis)

    def self_gated(self) -> None:
        """SiLU, as exporters write it."""
        x = self.any_value()
        self.add(self.node("Mul", [x.name, self.node("Sigmoid", [x.name])]), x)

    def feed_forward(self) -> None:
        x = self.tokens()
        inner = self.width(12)
        y = self.node("Add", [self.mix(x, inner), self.weight(self.sparse(inner))])
        y = self.node(self.pick(["Relu", "Sigmoid", "Tanh"]), [y])
        y = self.mix(Value(y, x.resized(2, inner), 2), x.channels)
        self.add(self.node("Add", [x.name, y]), x)

    def attention(self) -> None:
        """Whole heads go through Reshape, Transpose and two products of variables."""
        x = self.tokens()
        heads, size = self.pick([1, 2, 3]), self.width(4)
        packed = self.coin(0.3)
        if packed:
            y = self.mix(x, 3 * heads * size)
            q, k, v = self.split_into(y, 2, [heads * size] * 3)
        else:
            q, k, v = (self.mix(x, heads * size) for _ in range(3))
        if self.coin():
            q = self.node("Add", [q, self.weight(self.sparse(heads * size))])
        parts = []
        for part, perm in ((q, [0, 2, 1, 3]), (k, [0, 2, 3, 1]), (v, [0, 2, 1, 3])):
            y = self.reshape(part, 0, 0, heads, -1 if self.coin() else size)
            parts.append(self.node("Transpose", [y], perm=perm))
        scores = self.node("Mul", [self.node("MatMul", parts[:2]), self.weight(size**-0.5)])
        scores = self.node("Softmax", [scores], axis=3)
        y = self.node("Transpose", [self.node("MatMul", [scores, parts[2]])], perm=[0, 2, 1, 3])
        y = self.reshape(y, 0, 0, heads * size)
        y = self.mix(Value(y, x.resized(2, heads * size), 2), x.channels)
        self.add(self.node("Add", [x.name, y]), x)

    def channels_last(self) -> None:
        x, made = self.a_map(), self.width()
        y = self.node("Transpose", [x.name], perm=[0, 2, 3, 1])
        y = self.node("MatMul", [y, self.kernel(x.channels, made, fan_in=x.channels)])
        if self.coin():
            y = self.node("Add", [y, self.weight(self.sparse(made))])
        self.add(self.node("Transpose", [y], perm=[0, 3, 1, 2]), x.resized(1, made))

    def vectors(self) -> None:
        """Fully connected layers."""
        x = self.gemm()
        name = self.node("Relu", [x.name])
        self.gemm(Value(name, x.shapes, 1))
