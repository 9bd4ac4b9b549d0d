"""Normalisations, reductions and what else works across channels or positions."""

import numpy as np

from tests.scalpel_graph.channels.random_network.base import Base, mapped, since


class Across(Base):
    """Operations that combine elements."""

    def batch_norm(self) -> None:
        x = self.recent(lambda value: value.axis == 1)
        assert x is not None
        parameters = [self.sparse(x.channels), self.normal(x.channels), self.normal(x.channels)]
        variance = self.rng.random(x.channels) + 0.5
        inputs = [x.name, *map(self.weight, parameters), self.weight(variance)]
        self.add(self.node("BatchNormalization", inputs), x)

    def instance_norm(self) -> None:
        x = self.a_map(self.pick([1, 2]))
        inputs = [x.name, self.weight(self.sparse(x.channels)), self.weight(self.sparse(x.channels))]
        self.add(self.node("InstanceNormalization", inputs, epsilon=0.1), x)

    @since(21)
    def group_norm(self) -> None:
        x = self.a_map()
        groups = self.pick([g for g in range(1, x.channels + 1) if x.channels % g == 0])
        inputs = [x.name, self.weight(self.sparse(x.channels)), self.weight(self.sparse(x.channels))]
        self.add(self.node("GroupNormalization", inputs, num_groups=groups, epsilon=0.1), x)

    @since(17)
    def layer_norm(self) -> None:
        x = self.tokens()
        inputs = [x.name, self.weight(self.sparse(x.channels)), self.weight(self.sparse(x.channels))]
        self.add(self.node("LayerNormalization", inputs[: 2 + self.coin()], epsilon=0.1), x)

    @since(23)
    def rms_norm(self) -> None:
        x = self.tokens()
        inputs = [x.name, self.weight(self.sparse(x.channels))]
        self.add(self.node("RMSNormalization", inputs, epsilon=0.1), x)

    def decomposed_rms_norm(self) -> None:
        """As exporters write it: by a quotient, or by a product with what is computed of it."""
        x = self.recent(lambda value: value.rank > 2)
        assert x is not None
        two = self.weight(2.0)
        square = self.node(*self.pick([("Mul", [x.name, x.name]), ("Pow", [x.name, two])]))
        mean = self.reduce("ReduceMean", square, [x.axis])
        root = self.node("Sqrt", [self.node("Add", [mean, self.weight(0.1)])])
        kind = self.pick(["quotient", "product", "reciprocal"])
        if kind == "quotient":
            y = self.node("Div", [x.name, root])
        elif kind == "product":
            y = self.node("Mul", [x.name, self.node("Div", [self.weight(1.0), root])])
        else:
            y = self.node("Mul", [x.name, self.node("Reciprocal", [root])])
        if self.coin():
            y = self.node("Mul", [y, self.weight(self.per_channel(x))])
        self.add(y, x)

    def decomposed_layer_norm(self) -> None:
        x = self.tokens()
        centred = self.node("Sub", [x.name, self.reduce("ReduceMean", x.name, [2])])
        variance = self.reduce("ReduceMean", self.node("Mul", [centred, centred]), [2])
        root = self.node("Sqrt", [self.node("Add", [variance, self.weight(0.1)])])
        y = self.node("Mul", [self.node("Div", [centred, root]), self.weight(self.sparse(x.channels))])
        self.add(self.node("Add", [y, self.weight(self.sparse(x.channels))]), x)

    def unit_length(self) -> None:
        """x / max(‖x‖, ε), as exporters write it."""
        x = self.recent(lambda value: value.rank > 2)
        assert x is not None
        norm = self.node("Max", [self.reduce("ReduceL2", x.name, [x.axis]), self.weight(0.1)])
        self.add(self.node("Div", [x.name, norm]), x)

    def lrn(self) -> None:
        x = self.a_map()
        self.add(self.node("LRN", [x.name], size=self.pick([1, 3, 5]), alpha=2.0), x)

    def lp_norm(self) -> None:
        """Kept from zero, where it is as steep as can be: one more channel is never zero."""
        x = self.a_map()
        if x.channels < 16:
            padded = self._with_ones(x.name)
            y = self.node("LpNormalization", [padded], axis=1, p=self.pick([1, 2]))
            self.add(y, x.resized(1, x.channels + 1))

    def _with_ones(self, x: str) -> str:
        one = self.reduce("ReduceMax", x, [1])
        one = self.node("Add", [self.node("Abs", [one]), self.weight(0.5)])
        return str(self.node("Concat", [x, one], axis=1))

    def softmax_of_channels(self) -> None:
        x = self.recent(lambda value: value.rank > 1)
        assert x is not None
        self.add(self.softmax(x, x.axis, self.pick(["Softmax", "LogSoftmax"])), x)

    def softmax_of_positions(self) -> None:
        x = self.a_map()
        self.add(self.softmax(x, self.pick([2, 3])), x)

    def reduce_and_spread(self) -> None:
        """Over positions or over channels, and added again."""
        x = self.recent(lambda value: value.rank > 2)
        assert x is not None
        op = self.pick(["ReduceMean", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceL1"])
        axes = [x.axis] if self.coin() else [axis for axis in range(1, x.rank) if axis != x.axis]
        y = self.reduce(op, x.name, axes)
        self.add(self.settle(self.node("Add", [x.name, y])), x)

    def reduce_smoothly(self) -> None:
        """Reductions that are steep at zero, kept from it."""
        x = self.recent(lambda value: value.rank > 2)
        assert x is not None
        axes = [x.axis] if self.coin() else [axis for axis in range(1, x.rank) if axis != x.axis]
        op = self.pick(["ReduceSumSquare", "ReduceLogSumExp", "ReduceProd", "ReduceLogSum", "ReduceL2"])
        y = self.settle(x.name)
        if op in ("ReduceLogSum", "ReduceL2"):
            y = self.node("Exp", [y])
        self.add(self.settle(self.node("Add", [x.name, self.reduce(op, y, axes)])), x)

    def reduce_away(self) -> None:
        """Positions or a volume's depth vanish, without a trace."""
        x = self.a_map(self.pick([2, 3]))
        op = self.pick(["ReduceMean", "ReduceMax"])
        if x.rank == 5:
            self.add(self.reduce(op, x.name, [2], keepdims=0), mapped(x, lambda s: (*s[:2], *s[3:])))
        elif self.coin():
            self.add(self.reduce(op, x.name, [self.pick([-1, 3])], keepdims=0), mapped(x, lambda s: s[:3]))
        else:
            self.add(self.reduce(op, x.name, [2, 3], keepdims=0), mapped(x, lambda s: s[:2]))

    def pool(self) -> None:
        x = self.a_map(self.pick([2, 2, 1, 3]))
        axes = x.rank - 2
        op = self.pick(["MaxPool", "AveragePool", "LpPool"])
        stride = self.pick([1, 1, 2])
        extra = {"count_include_pad": int(self.coin())} if op == "AveragePool" else {}
        y = x.name
        if op == "LpPool":  # it is steep at zero
            y = self.node("Exp", [self.settle(y)])
        ceil = {"ceil_mode": 1} if self.opset >= 10 and op == "MaxPool" and self.coin(0.3) else {}
        y = self.node(
            op, [y], kernel_shape=[3] * axes, pads=[1] * (2 * axes), strides=[stride] * axes, **extra, **ceil
        )
        up = stride - 1 if ceil else 0

        def after(shape: tuple[int, ...]) -> tuple[int, ...]:
            sizes = []
            for n in shape[2:]:
                made = (n - 1 + up) // stride + 1
                sizes.append(made - 1 if (made - 1) * stride >= n + 1 else made)
            return (*shape[:2], *sizes)

        self.add(y, mapped(x, after))

    def global_pool(self) -> None:
        x = self.a_map(None)
        pools = ["GlobalAveragePool", "GlobalMaxPool"]
        op = self.pick([*pools, "GlobalLpPool"] if self.opset < 22 else pools)  # what ONNX Runtime has
        y = self.node("Exp", [self.settle(x.name)]) if op == "GlobalLpPool" else x.name
        self.add(self.node("Add", [x.name, self.settle(self.node(op, [y]))]), x)

    @since(11)
    def cumulate(self) -> None:
        if self.dtype == np.float16:
            return
        x = self.a_map()
        axis = self.weight(np.int64(self.pick([1, 2, 3])))
        self.add(self.settle(self.node("CumSum", [x.name, axis])), x)

    @since(11)
    def top(self) -> None:
        """The largest of each row of positions, whose places rounding does not change."""
        x = self.a_map()
        if min(shape[3] for shape in x.shapes) >= 2:
            y, _ = self.node("TopK", [x.name, self.ints(2)], 2, axis=3)
            self.add(y, x.resized(3, 2))
