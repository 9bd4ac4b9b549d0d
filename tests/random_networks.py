"""Random networks of the layers that passes rewrite, in every arrangement that ONNX allows and people use."""

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

Dim = int | str

#: Of the operator sets, with the IR version that each needs at least.
_OPSETS = {
    7: 3, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 13: 7, 14: 7, 15: 8, 16: 8, 17: 8, 18: 8, 19: 9, 20: 9, 21: 10,
    22: 10, 23: 11, 24: 12, 25: 13,
}  # fmt: skip
_NAMES = ("layer", "model/layer_{}/conv", "two words {}", "größe.{}", "ünï:{}", "{}", "a,b={};")
_FLOATS = {np.float32: TensorProto.FLOAT, np.float16: TensorProto.FLOAT16, np.float64: TensorProto.DOUBLE}


def random_network(seed: int) -> ModelProto:
    """A valid model; the same one for the same seed. Its first input has an open batch for most seeds."""
    return _Network(seed).build()


class _Network:
    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.opset = self.pick(sorted(_OPSETS))
        self.dtype = self.pick([np.float32] * 10 + [np.float16, np.float64])
        self.batch: Dim = self.pick(["N", "N", 1, 2])
        self.naming = self.pick(_NAMES)
        self.nodes: list[NodeProto] = []
        self.weights: dict[str, np.ndarray] = {}
        self.constants: set[str] = set()
        self.shapes: dict[str, tuple[Dim, ...]] = {}
        self.extra_inputs: list[str] = []
        self.count = 0

    # -- helpers --------------------------------------------------------------------------------------------

    def pick(self, choices: Sequence[Any]) -> Any:
        return choices[int(self.rng.integers(len(choices)))]

    def chance(self, probability: float) -> bool:
        return bool(self.rng.random() < probability)

    def name(self, what: str) -> str:
        self.count += 1
        return self.naming.format(f"{what}{self.count}") + (
            "" if "{" in self.naming else f"{what}{self.count}"
        )

    def add(
        self, op: str, inputs: Sequence[str], shape: tuple[Dim, ...], outputs: int = 1, **attributes: Any
    ) -> str:
        names = [self.name("t") for _ in range(outputs)]
        label = self.pick([self.name("n"), self.name("n"), ""])
        self.nodes.append(helper.make_node(op, list(inputs), names, name=label, **attributes))
        self.shapes[names[0]] = shape
        return names[0]

    def weight(self, values: np.ndarray, computed: bool = True) -> str:
        """A constant: an initializer, a Constant node, or computed from one."""
        values = values.astype(self.dtype)
        kind = self.rng.random()
        if computed and kind < 0.05:
            name = self.initializer(values)
            return self._constant_node("Identity", [name])
        if computed and kind < 0.1:
            half = self.initializer(values / 2)
            return self._constant_node("Add", [half, half])
        if computed and kind < 0.15 and values.ndim == 2:
            return self._constant_node("Transpose", [self.initializer(values.T)], perm=[1, 0])
        if kind < 0.2:
            return self._constant_node("Constant", [], value=numpy_helper.from_array(values, ""))
        return self.initializer(values)

    def initializer(self, values: np.ndarray) -> str:
        name = self.name("w")
        self.weights[name] = np.ascontiguousarray(values).reshape(values.shape)
        return name

    def _constant_node(self, op: str, inputs: list[str], **attributes: Any) -> str:
        name = self.name("c")
        self.nodes.append(helper.make_node(op, inputs, [name], **attributes))
        return name

    def pruned(self, shape: tuple[int, ...], fan_in: int) -> np.ndarray:
        """Weights with zeros in groups, in rows, alone, everywhere or nowhere."""
        values = self.rng.standard_normal(shape)
        M, K = shape[0], prod(shape[1:])
        density = self.pick([0.0, 0.05, 0.2, 0.5, 1.0, 0.2, 0.2])
        r, c = self.pick([(1, 1), (1, 8), (4, 1), (8, 1), (M, 1), (1, K)])
        kept = self.rng.random((-(-M // r), -(-K // c))) < density
        mask = np.kron(kept, np.ones((r, c)))[:M, :K]
        return values * mask.reshape(shape) / np.sqrt(max(fan_in * max(density, 0.05), 1))

    def shared_or_pruned(self, shape: tuple[int, ...], fan_in: int) -> str:
        same = [name for name, values in self.weights.items() if values.shape == shape]
        if same and self.chance(0.3):
            return self.pick(same)
        return self.weight(self.pruned(shape, fan_in))

    def vector(self, *shape: int) -> str:
        return self.weight(self.rng.standard_normal(shape))

    def tensors(self, rank: int) -> list[str]:
        return [name for name, shape in self.shapes.items() if len(shape) == rank]

    # -- the network ----------------------------------------------------------------------------------------

    def build(self) -> ModelProto:
        channels = self.pick([1, 3, 4, 8, 12])
        is_float = self.dtype == np.float32
        shape: tuple[Dim, ...] = self.pick(
            [
                (self.batch, channels, 9, 9),
                (self.batch, channels, 8, 8),
                (self.batch, channels, 8, "W"),
                (self.batch, channels, 10),
                (self.batch, 16),
                (self.batch, 24),
                (self.batch, 5, 16),
            ][0 if is_float else 4 :]
        )
        self.shapes["x"] = shape
        current = "x"
        for _ in range(int(self.rng.integers(1, 16))):
            if self.chance(0.15):
                current = self.pick(list(self.shapes))
            current = self.step(current)
        return self._model(current)

    def step(self, x: str) -> str:
        rank = len(self.shapes[x])
        if self.dtype != np.float32:  # ONNX Runtime has few operators of other types
            few = [self.gemm, self.matmul, self.residual_gemm] if rank == 2 else [self.matmul]
            return self.pick([*few, self.add_constant, self.add_tensor])(x) or x
        always = [self.activation, self.activation, self.batchnorm, self.add_constant, self.add_tensor,
                  self.no_op, self.twice, self.concat, self.split, self.branch, self.outer]  # fmt: skip
        by_rank = {
            2: [self.gemm] * 5 + [self.matmul] * 3 + [self.to_rank_3, self.residual_gemm],
            3: [self.matmul] * 4 + [self.conv] * 3 + [self.flatten, self.swap],
            4: [self.conv] * 7 + [self.pool, self.pool, self.conv_transpose, self.flatten, self.matmul],
            1: [],
        }
        for _ in range(20):
            made = self.pick(always + by_rank.get(rank, []))(x)
            if made is not None:
                return str(made)
        return x

    # -- layers ---------------------------------------------------------------------------------------------

    def conv(self, x: str) -> str | None:
        shape = self.shapes[x]
        if any(isinstance(dim, int) and dim < 3 for dim in shape[2:]) or not isinstance(shape[1], int):
            return None
        C, spatial = shape[1], len(shape) - 2
        group = self.pick([1, 1, 1, 1, C, 2 if C % 2 == 0 else 1])
        M = group * self.pick([1, 2, 4, 8])
        kernel = [self.pick([1, 1, 3, 2]) for _ in range(spatial)]
        strides = [self.pick([1, 1, 1, 2]) for _ in range(spatial)]
        attributes: dict[str, Any] = {}
        pads, dilations = [0] * 2 * spatial, [1] * spatial
        mode = self.pick(["none", "pads", "pads", "SAME_UPPER", "SAME_LOWER", "VALID", "dilated"])
        if mode == "pads":
            pads = [int(n) for n in self.rng.integers(0, 3, 2 * spatial)]
            attributes["pads"] = pads
        elif mode == "dilated":
            dilations = [self.pick([1, 2]) for _ in range(spatial)]
            attributes["dilations"] = dilations
        elif mode != "none":
            attributes["auto_pad"] = mode
        if any(n != 1 for n in strides) or self.chance(0.3):
            attributes["strides"] = strides
        if group != 1 or self.chance(0.3):
            attributes["group"] = group
        if self.chance(0.5):
            attributes["kernel_shape"] = kernel
        sizes: list[Dim] = []
        for axis, (size, k, stride, dilation) in enumerate(
            zip(shape[2:], kernel, strides, dilations, strict=True)
        ):
            if not isinstance(size, int):
                # Its own name for each formula, so that equal names mean equal sizes.
                formula = (mode, k, stride, dilation, pads[axis], pads[spatial + axis])
                sizes.append(f"{size}'{formula}")
                continue
            if mode.startswith("SAME"):
                sizes.append(-(-size // stride))
                continue
            room = size + pads[axis] + pads[spatial + axis] - dilation * (k - 1) - 1
            if room < 0:
                return None
            sizes.append(room // stride + 1)
        inputs = [x, self.shared_or_pruned((M, C // group, *kernel), C // group * prod(kernel))]
        if self.chance(0.6):
            inputs.append(self.vector(M))
        return self.add("Conv", inputs, (shape[0], M, *sizes), **attributes)

    def conv_transpose(self, x: str) -> str | None:
        shape = self.shapes[x]
        if not all(isinstance(dim, int) for dim in shape[1:]):
            return None
        group = self.pick([1, 1, 2 if int(shape[1]) % 2 == 0 else 1])
        M = self.pick([2, 4])
        weight = self.weight(self.pruned((int(shape[1]), M, 2, 2), int(shape[1])))
        inputs = [x, weight] + ([self.vector(M * group)] if self.chance(0.5) else [])
        sizes = [int(dim) + 1 for dim in shape[2:]]
        return self.add("ConvTranspose", inputs, (shape[0], M * group, *sizes), group=group)

    def gemm(self, x: str) -> str | None:
        N, K = self.shapes[x]
        if not isinstance(K, int):
            return None
        M = self.pick([1, 8, 16, 24, 17])
        attributes: dict[str, Any] = {}
        if self.chance(0.6):
            attributes["transB"] = 1
            weight = self.shared_or_pruned((M, K), K)
        else:
            weight = self.shared_or_pruned((K, M), K)
        if self.chance(0.15):
            x = self.add("Transpose", [x], (K, N), perm=[1, 0])
            attributes["transA"] = 1
        if self.chance(0.2):
            attributes["alpha"] = self.pick([0.5, 2.0, -1.0, 0.0])
        if self.chance(0.2):
            attributes["beta"] = self.pick([0.5, 2.0, 0.0])
        inputs = [x, weight]
        if self.opset < 11 or self.chance(0.7):
            inputs.append(self.vector(*self.pick([(M,), (M,), (M,), (1, M), (1,), (1, 1), ()])))
        return self.add("Gemm", inputs, (N, M), **attributes)

    def residual_gemm(self, x: str) -> str | None:
        """Gemm with a computed C."""
        N, K = self.shapes[x]
        if not isinstance(K, int):
            return None
        other = self.pick(self.tensors(2))
        M = self.shapes[other][1]
        if self.shapes[other][0] != N or not isinstance(M, int):
            return None
        return self.add("Gemm", [x, self.shared_or_pruned((M, K), K), other], (N, M), transB=1)

    def matmul(self, x: str) -> str | None:
        *rows, K = self.shapes[x]
        if not isinstance(K, int):
            return None
        M = self.pick([8, 16, 5])
        y = self.add("MatMul", [x, self.shared_or_pruned((K, M), K)], (*rows, M))
        if self.chance(0.6):
            bias = self.vector(*self.pick([(M,), (1, M), (1,), ()]))
            y = self.add("Add", self.pick([[y, bias], [bias, y]]), (*rows, M))
        return y

    def batchnorm(self, x: str) -> str | None:
        shape = self.shapes[x]
        if len(shape) < 2 or not isinstance(shape[1], int):
            return None
        C = shape[1]
        inputs = [x, self.vector(C), self.vector(C), self.vector(C)]
        inputs.append(self.weight(self.rng.random(C) + 0.1, computed=False))
        return self.add("BatchNormalization", inputs, shape, epsilon=self.pick([1e-5, 1e-3]))

    # -- other operators ------------------------------------------------------------------------------------

    def activation(self, x: str) -> str:
        shape = self.shapes[x]
        op = self.pick(["Relu", "Relu", "Clip", "Clip", "LeakyRelu", "Sigmoid", "Tanh"])
        if op != "Clip":
            return self.add(op, [x], shape)
        low, high = self.pick([(0.0, 6.0), (-1.0, 1.0), (0.0, None), (None, 0.5), (None, None), (1.0, -1.0)])
        if low == 1.0 and self.opset < 12:
            high = 2.0  # before opset 12, bounds that cross are refused
        if self.opset < 11:
            bounds = {key: value for key, value in (("min", low), ("max", high)) if value is not None}
            return self.add("Clip", [x], shape, **bounds)
        inputs = [x, *("" if v is None else self.weight(np.array(v), computed=False) for v in (low, high))]
        if self.chance(0.1) and self.dtype == np.float32 and low is not None:
            inputs[1] = self.extra_input(())
        return self.add("Clip", inputs, shape)

    def extra_input(self, shape: tuple[Dim, ...]) -> str:
        name = self.name("in")
        self.extra_inputs.append(name)
        self.shapes[name] = shape
        return name

    def add_constant(self, x: str) -> str:
        shape = self.shapes[x]
        fixed = [dim if isinstance(dim, int) else 1 for dim in shape]
        choices: list[tuple[int, ...]] = [(), (1,)][: len(shape) + 1]
        if len(shape) > 1:
            choices += [(1, fixed[1], *[1] * (len(shape) - 2)), (fixed[1], *[1] * (len(shape) - 2))] * 2
            choices += [(fixed[-1],), (1, *fixed[1:])]
        constant = self.vector(*self.pick(choices))
        op = self.pick(["Add", "Add", "Add", "Mul", "Sub"])
        return self.add(op, self.pick([[x, constant], [constant, x]]), shape)

    def add_tensor(self, x: str) -> str:
        """A residual, or something broadcast that only looks like one."""
        shape = self.shapes[x]
        same = [name for name, other in self.shapes.items() if other == shape and name != x]
        if same and self.chance(0.8):
            other = self.pick(same)
            return self.add("Add", self.pick([[x, other], [other, x]]), shape)
        if len(shape) == 4 and self.chance(0.5):
            pooled = self.add("GlobalAveragePool", [x], (*shape[:2], 1, 1))
            return self.add("Add", [pooled, x], shape)
        narrow = tuple(dim if dim in ("N", "W") or i == 0 else 1 for i, dim in enumerate(shape))
        return self.add("Add", self.pick([[x, e := self.extra_input(narrow)], [e, x]]), shape)

    def twice(self, x: str) -> str:
        return self.add(self.pick(["Add", "Mul"]), [x, x], self.shapes[x])

    def no_op(self, x: str) -> str:
        op = self.pick(["Identity", "Dropout"])
        return self.add(op, [x], self.shapes[x])

    def concat(self, x: str) -> str | None:
        shape = self.shapes[x]
        if len(shape) < 2:
            return None
        fitting = [
            name
            for name, other in self.shapes.items()
            if len(other) == len(shape)
            and other[0] == shape[0]
            and other[2:] == shape[2:]
            and isinstance(other[1], int)
        ]
        if not isinstance(shape[1], int) or not fitting:
            return None
        parts = [x] + [self.pick(fitting) for _ in range(int(self.rng.integers(0, 3)))]
        total = sum(int(self.shapes[part][1]) for part in parts)
        return self.add("Concat", parts, (shape[0], total, *shape[2:]), axis=1) if total < 64 else None

    def split(self, x: str) -> str | None:
        shape = self.shapes[x]
        if len(shape) < 2 or not isinstance(shape[1], int) or shape[1] % 2 or self.opset >= 18:
            return None
        half = (shape[0], shape[1] // 2, *shape[2:])
        first = self.add("Split", [x], half, outputs=2, axis=1)
        self.shapes[self.nodes[-1].output[1]] = half
        return first

    def pool(self, x: str) -> str | None:
        shape = self.shapes[x]
        if any(isinstance(dim, str) or dim < 2 for dim in shape[2:]):
            return None
        op = self.pick(["MaxPool", "AveragePool"])
        sizes = [(int(dim) - 2) // 2 + 1 for dim in shape[2:]]
        return self.add(op, [x], (*shape[:2], *sizes), kernel_shape=[2, 2], strides=[2, 2])

    def flatten(self, x: str) -> str | None:
        shape = self.shapes[x]
        if not all(isinstance(dim, int) for dim in shape[1:]) or prod(int(d) for d in shape[1:]) > 1024:
            return None
        return self.add("Flatten", [x], (shape[0], prod(int(dim) for dim in shape[1:])), axis=1)

    def to_rank_3(self, x: str) -> str | None:
        N, K = self.shapes[x]
        if not isinstance(K, int) or K % 4:
            return None
        target = self.initializer(np.array([0, 4, K // 4]))
        return self.add("Reshape", [x, target], (N, 4, K // 4))

    def swap(self, x: str) -> str:
        shape = self.shapes[x]
        return self.add("Transpose", [x], (shape[0], shape[2], shape[1]), perm=[0, 2, 1])

    def branch(self, x: str) -> str | None:
        """An If whose branches read names of the graph around it, weights among them."""
        if self.chance(0.7) or self.opset < 11:
            return None
        kind = _FLOATS[self.dtype]
        same = [name for name, other in self.shapes.items() if other == self.shapes[x]]
        other = self.pick(same)
        vectors = [
            name for name, values in self.weights.items() if values.size == 1 and values.dtype == self.dtype
        ]
        addend = self.pick(vectors) if vectors else other
        if addend != other and len(self.weights[addend].shape) > len(self.shapes[x]):
            addend = other
        graphs = []
        for op, inputs in (("Mul", [x, other]), ("Add", [x, addend])):
            out = self.name("b")
            value = helper.make_tensor_value_info(out, kind, None)
            graphs.append(helper.make_graph([helper.make_node(op, inputs, [out])], "branch", [], [value]))
        condition = self.name("if")
        self.weights[condition] = np.array(self.chance(0.5))
        return self.add("If", [condition], self.shapes[x], then_branch=graphs[0], else_branch=graphs[1])

    def outer(self, x: str) -> str | None:
        """A Loop whose body adds a tensor of the graph around it."""
        if self.chance(0.7) or self.opset < 11:
            return None
        kind = _FLOATS[self.dtype]
        i, go, state, on, out = (self.name(part) for part in ("i", "go", "s", "on", "o"))
        body = helper.make_graph(
            [helper.make_node("Identity", [go], [on]), helper.make_node("Mul", [state, x], [out])],
            "body",
            [
                helper.make_tensor_value_info(i, TensorProto.INT64, []),
                helper.make_tensor_value_info(go, TensorProto.BOOL, []),
                helper.make_tensor_value_info(state, kind, None),
            ],
            [
                helper.make_tensor_value_info(on, TensorProto.BOOL, []),
                helper.make_tensor_value_info(out, kind, None),
            ],
        )
        trips = self.name("trips")
        self.weights[trips] = np.array(2)
        return self.add("Loop", [trips, "", self.add("Tanh", [x], self.shapes[x])], self.shapes[x], body=body)

    # -- the model ------------------------------------------------------------------------------------------

    def _model(self, last: str) -> ModelProto:
        kind = _FLOATS[self.dtype]
        made = [name for node in self.nodes for name in node.output if name in self.shapes]
        outputs = [last] if last in made else []
        outputs += [name for name in made if name not in outputs and self.chance(0.1)]
        outputs = outputs or [self.add("Identity", ["x"], self.shapes["x"])]
        values = [
            helper.make_tensor_value_info(
                name, kind, [None if unknown else _symbol(dim) for dim in self.shapes[name]]
            )
            for name in outputs
            for unknown in [self.chance(0.2)]
        ]
        floats = [name for name, array in self.weights.items() if array.dtype == self.dtype]
        if floats and self.chance(0.1):
            name = self.pick(floats)
            values.append(helper.make_tensor_value_info(name, kind, self.weights[name].shape))
        inputs = [
            helper.make_tensor_value_info(name, kind, [_symbol(dim) for dim in self.shapes[name]])
            for name in ["x", *self.extra_inputs]
        ]
        ir_version = max(_OPSETS[self.opset], int(self.rng.integers(3, 11)))
        listed: list[str] = []
        if ir_version < 4:
            listed = list(self.weights)
        elif self.chance(0.1) and floats:
            listed = [self.pick(floats)]  # a default that callers may replace
        for name in listed:
            array = self.weights[name]
            inputs.append(
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape)
            )
        graph = helper.make_graph(
            self.nodes,
            "random",
            inputs,
            values,
            [numpy_helper.from_array(array, name) for name, array in self.weights.items()],
        )
        return helper.make_model(
            graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=ir_version
        )


def _symbol(dim: Dim) -> Dim | None:
    """Sizes that follow from an open one have no name of their own."""
    return None if isinstance(dim, str) and "'" in dim else dim
