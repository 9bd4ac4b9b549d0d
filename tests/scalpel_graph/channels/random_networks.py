"""Random networks with dead channels: every operator that has a rule, and some that have none."""

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

#: Activations that stay finite, with their attributes.
_ACTIVATIONS = (
    ("Relu", {}), ("Sigmoid", {}), ("Tanh", {}), ("LeakyRelu", {"alpha": 0.2}), ("HardSwish", {}),
    ("Softplus", {}), ("Elu", {}), ("Abs", {}), ("Neg", {}), ("HardSigmoid", {}), ("Erf", {}),
    ("Identity", {}), ("Softsign", {}),
)  # fmt: skip
_SIZE = 6


class RandomNetwork:
    """Grows a network, node by node; ``model()`` gives it.

    Args:
        seed: of everything.
        depth: how many operations.
        static: whether the batch has a fixed size.
    """

    def __init__(self, seed: int, depth: int, static: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights, self.outputs = [], [], []
        self.batch = 2 if static else "N"
        self.maps: list[tuple[str, int]] = [("X", 4)]  # [batch, channels, 6, 6]
        self.vectors: list[tuple[str, int]] = []  # [batch, features]
        for _ in range(depth):
            getattr(self, self.rng.choice(_OPERATIONS))()
        last, channels = self.maps[-1]
        self.outputs.append((last, [self.batch, channels, _SIZE, _SIZE]))
        self.gemm_end()

    def model(self) -> ModelProto:
        outputs = [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in dict(self.outputs).items()
        ]
        x = helper.make_tensor_value_info("X", TensorProto.FLOAT, [self.batch, 4, _SIZE, _SIZE])
        graph = helper.make_graph(self.nodes, "random", [x], outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    # -- parts ----------------------------------------------------------------------------------------------

    def node(self, op, inputs, outputs=1, **attributes):
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def weight(self, values):
        name = f"w{len(self.weights)}"
        values = np.asarray(values)
        if values.dtype == np.float64:
            values = values.astype(np.float32)
        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def normal(self, *shape):
        return self.rng.standard_normal(shape)

    def kernel(self, *shape, fan_in):
        """Weights of which whole rows and whole columns are zero."""
        values = self.normal(*shape) / np.sqrt(fan_in)
        values[self.rng.random(shape[0]) < self.share()] = 0
        values[:, self.rng.random(shape[1]) < self.share()] = 0
        return self.weight(values)

    def share(self):
        return self.rng.choice([0.0, 0.3, 0.7, 1.0], p=[0.4, 0.3, 0.25, 0.05])

    def sparse(self, *shape):
        values = self.normal(*shape)
        values[self.rng.random(shape) < self.share()] = 0
        return values

    def coin(self):
        return bool(self.rng.integers(2))

    def a_map(self):
        recent = self.maps[-4:] if self.rng.random() < 0.8 else self.maps
        return recent[self.rng.integers(len(recent))]

    def add(self, name, channels):
        self.maps.append((name, channels))

    def same_width(self):
        """Two maps of the same number of channels; a Conv makes the second one if there is none."""
        x, channels = self.a_map()
        others = [name for name, width in self.maps if width == channels and name != x]
        if others and self.coin():
            return x, others[self.rng.integers(len(others))], channels
        return x, self._conv(*self.a_map(), channels), channels

    def _conv(self, x, channels, made, kernel=None, **attributes):
        kernel = kernel or int(self.rng.choice([1, 3]))
        inputs = [x, self.kernel(made, channels, kernel, kernel, fan_in=channels * kernel * kernel)]
        if self.coin():
            inputs.append(self.weight(self.sparse(made)))
        return self.node("Conv", inputs, pads=[kernel // 2] * 4, **attributes)

    # -- operations -----------------------------------------------------------------------------------------

    def conv(self):
        made = int(self.rng.integers(1, 9))
        self.add(self._conv(*self.a_map(), made), made)

    def grouped_conv(self):
        x, channels = self.a_map()
        groups = [g for g in range(1, channels + 1) if channels % g == 0]
        group = int(self.rng.choice(groups))
        made = group * int(self.rng.integers(1, 4))
        weight = self.kernel(made, channels // group, 3, 3, fan_in=channels // group * 9)
        inputs = [x, weight, self.weight(self.sparse(made))][: 2 + self.coin()]
        self.add(self.node("Conv", inputs, pads=[1] * 4, group=group), made)

    def conv_transpose(self):
        x, channels = self.a_map()
        made = int(self.rng.integers(1, 6))
        weight = self.kernel(channels, made, 3, 3, fan_in=channels * 9)
        self.add(self.node("ConvTranspose", [x, weight], pads=[1] * 4), made)

    def activation(self):
        x, channels = self.a_map()
        op, attributes = _ACTIVATIONS[self.rng.integers(len(_ACTIVATIONS))]
        self.add(self.node(op, [x], **attributes), channels)

    def clip(self):
        x, channels = self.a_map()
        bounds = [self.weight(np.float32(self.rng.normal())), self.weight(np.float32(3))]
        self.add(self.node("Clip", [x, *bounds]), channels)

    def mask(self):
        x, channels = self.a_map()
        shape = [(1, channels, 1, 1), (channels, 1, 1)][self.rng.integers(2)]
        values = (self.rng.random(shape) < 0.6).astype(np.float32)
        inputs = [x, self.weight(values if self.coin() else values * self.normal(*shape))]
        self.add(self.node("Mul", inputs if self.coin() else inputs[::-1]), channels)

    def where(self):
        x, channels = self.a_map()
        condition = self.weight(self.rng.random((channels, 1, 1)) < 0.6)
        self.add(self.node("Where", [condition, x, self.weight(np.float32(self.rng.integers(2)))]), channels)

    def batch_norm(self):
        x, channels = self.a_map()
        parameters = [self.sparse(channels), self.normal(channels), self.normal(channels)]
        variance = self.rng.random(channels) + 0.5
        self.add(
            self.node("BatchNormalization", [x, *map(self.weight, parameters), self.weight(variance)]),
            channels,
        )

    def instance_norm(self):
        x, channels = self.a_map()
        inputs = [x, self.weight(self.sparse(channels)), self.weight(self.sparse(channels))]
        self.add(self.node("InstanceNormalization", inputs, epsilon=0.1), channels)

    def prelu(self):
        x, channels = self.a_map()
        self.add(self.node("PRelu", [x, self.weight(self.normal(channels, 1, 1))]), channels)

    def shift(self):
        x, channels = self.a_map()
        op = str(self.rng.choice(["Add", "Sub", "Max", "Min"]))
        shape = [(), (1,), (channels, 1, 1), (1, channels, 1, 1), (channels, _SIZE, 1)][self.rng.integers(5)]
        constant = self.weight(np.asarray(self.normal(*shape), dtype=np.float32))
        self.add(self.node(op, [x, constant] if self.coin() else [constant, x]), channels)

    def binary(self):
        x, y, channels = self.same_width()
        op = str(self.rng.choice(["Add", "Sub", "Mul", "Max", "Min", "Sum", "Mean"]))
        made = self.node(op, [x, y])
        self.add(self.node("Tanh", [made]) if op == "Mul" else made, channels)

    def residual(self):
        x, channels = self.a_map()
        inner = int(self.rng.integers(1, 9))
        y = self.node("Relu", [self._conv(x, channels, inner)])
        self.add(self.node("Add", [self._conv(y, inner, channels), x]), channels)

    def concat(self):
        parts = [self.a_map() for _ in range(self.rng.integers(1, 4))]
        if sum(width for _, width in parts) <= 16:
            self.add(self.node("Concat", [n for n, _ in parts], axis=1), sum(width for _, width in parts))

    def split(self):
        x, channels = self.a_map()
        if channels < 2:
            return
        first = int(self.rng.integers(1, channels))
        sizes = self.weight(np.array([first, channels - first]))
        a, b = self.node("Split", [x, sizes], outputs=2, axis=1)
        self.add(a, first)
        self.add(b, channels - first)

    def slice(self):
        x, channels = self.a_map()
        start = int(self.rng.integers(channels))
        end = int(self.rng.integers(start + 1, channels + 1))
        bounds = [self.weight(np.array([value])) for value in (start, end, 1)]
        self.add(self.node("Slice", [x, *bounds]), end - start)

    def gather(self):
        x, channels = self.a_map()
        indices = self.rng.integers(-channels, channels, size=self.rng.integers(1, channels + 2))
        self.add(self.node("Gather", [x, self.weight(indices)], axis=1), len(indices))

    def pool(self):
        x, channels = self.a_map()
        op = str(self.rng.choice(["MaxPool", "AveragePool"]))
        counted = {"count_include_pad": int(self.coin())} if op == "AveragePool" else {}
        self.add(self.node(op, [x], kernel_shape=[3, 3], pads=[1] * 4, **counted), channels)

    def gate(self):
        x, channels = self.a_map()
        y = self.node("GlobalAveragePool", [x])
        y = self.node("Relu", [self._conv(y, channels, 2, kernel=1)])
        y = self.node("Sigmoid", [self._conv(y, 2, channels, kernel=1)])
        self.add(self.node("Mul", [x, y]), channels)

    def shuffle(self):
        x, channels = self.a_map()
        if channels % 2 == 0:
            y = self.node("Reshape", [x, self.weight(np.array([0, 2, channels // 2, _SIZE, _SIZE]))])
            y = self.node("Transpose", [y], perm=[0, 2, 1, 3, 4])
            self.add(self.node("Reshape", [y, self.weight(np.array([0, channels, _SIZE, _SIZE]))]), channels)

    def channels_last(self):
        x, channels = self.a_map()
        made = int(self.rng.integers(1, 9))
        y = self.node("Transpose", [x], perm=[0, 2, 3, 1])
        y = self.node("MatMul", [y, self.kernel(channels, made, fan_in=channels)])
        if self.coin():
            y = self.node("Add", [y, self.weight(self.sparse(made))])
        self.add(self.node("Transpose", [y], perm=[0, 3, 1, 2]), made)

    def pad_and_cut(self):
        x, channels = self.a_map()
        fill = self.weight(np.float32(self.rng.integers(2)))
        y = self.node("Pad", [x, self.weight(np.array([0, 0, 1, 1, 0, 0, 1, 1])), fill])
        weight = self.kernel(channels, channels, 3, 3, fan_in=channels * 9)
        self.add(self.node("Conv", [y, weight]), channels)

    def barrier(self):
        x, channels = self.a_map()
        op, attributes = [
            ("LRN", {"size": int(self.rng.choice([3, 5])), "alpha": 2.0}),
            ("Softmax", {"axis": 1}),
            ("CumSum", {}),
            ("LpNormalization", {"axis": 1, "p": int(self.rng.integers(1, 3))}),
        ][self.rng.integers(4)]
        if op == "CumSum":
            x = self.node("CumSum", [x, self.weight(np.int64(1))])
            self.add(self.node("Tanh", [x]), channels)
        else:
            self.add(self.node(op, [x], **attributes), channels)

    def reduce_and_spread(self):
        x, channels = self.a_map()
        op = str(self.rng.choice(["ReduceMean", "ReduceMax", "ReduceL2"]))
        y = self.node(op, [x], axes=[2, 3] if self.coin() else [1])
        self.add(self.node("Tanh", [self.node("Add", [x, y])]), channels)

    def gemm(self):
        x, channels = self.a_map()
        features = channels
        if self.coin():
            x = self.node("GlobalAveragePool", [x])
        else:
            features *= _SIZE * _SIZE
        x = self.node("Flatten", [x])
        made = int(self.rng.integers(1, 9))
        self.vectors.append((self._gemm(x, features, made), made))

    def _gemm(self, x, features, made):
        transposed = self.coin()
        shape = (made, features) if transposed else (features, made)
        inputs = [x, self.kernel(*shape, fan_in=features)]
        if self.coin():
            inputs.append(self.weight(self.sparse(*[(made,), (1, made), (1,)][self.rng.integers(3)])))
        scale = {"alpha": 0.5, "beta": 2.0} if self.coin() else {}
        return self.node("Gemm", inputs, transB=int(transposed), **scale)

    def attention(self):
        """Two heads over the 36 positions."""
        x, channels = self.a_map()
        heads = []
        flat = self.node("Reshape", [x, self.weight(np.array([0, channels, _SIZE * _SIZE]))])
        flat = self.node("Transpose", [flat], perm=[0, 2, 1])
        for perm in ([0, 2, 1, 3], [0, 2, 3, 1], [0, 2, 1, 3]):
            y = self.node("MatMul", [flat, self.kernel(channels, 6, fan_in=channels)])
            y = self.node("Reshape", [y, self.weight(np.array([0, 0, 2, 3]))])
            heads.append(self.node("Transpose", [y], perm=perm))
        scores = self.node("Softmax", [self.node("MatMul", heads[:2])], axis=-1)
        y = self.node("Transpose", [self.node("MatMul", [scores, heads[2]])], perm=[0, 2, 1, 3])
        y = self.node("Reshape", [y, self.weight(np.array([0, 0, 6]))])
        y = self.node("MatMul", [y, self.kernel(6, channels, fan_in=6)])
        y = self.node("Transpose", [y], perm=[0, 2, 1])
        y = self.node("Reshape", [y, self.weight(np.array([0, channels, _SIZE, _SIZE]))])
        self.add(self.node("Add", [x, y]), channels)

    def quantized_conv(self):
        """Weights of 8 bits; activations are not rounded, for that would enlarge differences."""
        x, channels = self.a_map()
        made = int(self.rng.integers(1, 9))
        scale, zero = self.rng.random(made) * 0.01 + 0.001, self.rng.integers(-9, 10, made)
        weight = self.rng.integers(-128, 128, (made, channels, 1, 1))
        for axis, size in enumerate((made, channels)):
            dead = self.rng.random(size) < self.share()
            np.moveaxis(weight, axis, 0)[dead] = 0
        weight = np.clip(weight + zero.reshape(-1, 1, 1, 1), -128, 127)
        inputs = [weight.astype(np.int8), np.float32(scale), zero.astype(np.int8)]
        y = self.node("DequantizeLinear", [self.weight(values) for values in inputs], axis=0)
        bias = [self.node("DequantizeLinear", [self.weight(self.rng.integers(-9, 10, made).astype(np.int32)),
                                               self.weight(np.float32(0.1))])]  # fmt: skip
        self.add(self.node("Conv", [x, y, *bias[: self.coin()]]), made)

    def einsum(self):
        x, channels = self.a_map()
        made = int(self.rng.integers(1, 9))
        kernel = self.kernel(made, channels, fan_in=channels)
        self.add(self.node("Einsum", [x, kernel], equation="nchw,kc->nkhw"), made)

    def repeat(self):
        x, channels = self.a_map()
        y = self.node("GlobalMaxPool", [x])
        kind = self.rng.integers(4)
        if kind == 0 and channels <= 8:
            y = self.node("Tile", [x, self.weight(np.array([1, 2, 1, 1]))])
            self.add(y, 2 * channels)
        elif kind == 1:
            self.add(self.node("Expand", [y, self.weight(np.array([1, channels, _SIZE, _SIZE]))]), channels)
        elif kind == 2 and channels <= 4:
            y = self.node("SpaceToDepth", [x], blocksize=2)
            y = self.node(
                "Conv", [y, self.kernel(4, 4 * channels, 1, 1, fan_in=4 * channels)], pads=[1, 1, 2, 2]
            )
            self.add(y, 4)
        else:
            self.add(self.node("Tanh", [self.node("CumSum", [x, self.weight(np.int64(3))])]), channels)

    def layer_norm(self):
        x, channels = self.a_map()
        y = self.node("Transpose", [x], perm=[0, 2, 3, 1])
        inputs = [y, self.weight(self.sparse(channels)), self.weight(self.sparse(channels))]
        y = self.node("LayerNormalization", inputs[: 2 + self.coin()], epsilon=0.1)
        self.add(self.node("Transpose", [y], perm=[0, 3, 1, 2]), channels)

    def recurrent(self):
        """Positions as the sequence."""
        x, channels = self.a_map()
        op, gates = [("LSTM", 4), ("GRU", 3), ("RNN", 1)][self.rng.integers(3)]
        hidden, directions = int(self.rng.integers(1, 7)), int(self.rng.integers(1, 3))
        blocks = [self.normal(directions, gates, hidden, size) / 3 for size in (channels, hidden)]
        blocks.append(self.sparse(directions, 2, gates, hidden))
        dead = self.rng.random(hidden) < self.share()
        blocks[0][:, -1, dead] = blocks[1][:, -1, dead] = 0
        blocks[2].reshape(directions, 2, gates, hidden)[:, :, -1, dead] = 0
        blocks[1][..., self.rng.random(hidden) < self.share()] = 0
        w, r, b = blocks
        inputs = [
            self.node(
                "Transpose", [self.node("Reshape", [x, self.weight(np.array([0, 0, -1]))])], perm=[2, 0, 1]
            ),
            self.weight(w.reshape(directions, -1, channels)),
            self.weight(r.reshape(directions, -1, hidden)),
            self.weight(b.reshape(directions, -1)),
        ]
        direction = "bidirectional" if directions == 2 else str(self.rng.choice(["forward", "reverse"]))
        inputs = inputs[: 3 + self.coin()]
        y = self.node(op, inputs, hidden_size=hidden, direction=direction)
        y = self.node("ReduceSum", [y, self.weight(np.array([1]))], keepdims=0)
        y = self.node("Transpose", [y], perm=[1, 2, 0])
        self.add(self.node("Reshape", [y, self.weight(np.array([0, hidden, _SIZE, _SIZE]))]), hidden)

    def tap(self):
        name, channels = self.maps[-1]
        if name != "X" and self.rng.random() < 0.3:
            self.outputs.append((name, [self.batch, channels, _SIZE, _SIZE]))

    def gemm_end(self):
        self.gemm()
        x, features = self.vectors[-1]
        x = self._gemm(self.node("Relu", [x]), features, 3)
        self.outputs.append((x, [self.batch, 3]))


_OPERATIONS = [
    name
    for name, value in vars(RandomNetwork).items()
    if callable(value)
    and not name.startswith("_")
    and name not in ("model", "node", "weight", "normal", "kernel", "share", "sparse", "coin", "a_map", "add",
                     "same_width", "gemm_end")
]  # fmt: skip
