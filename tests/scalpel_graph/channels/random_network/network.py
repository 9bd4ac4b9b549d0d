"""Random networks with dead channels: every operator that has a rule, and some that have none."""

import numpy as np
from onnx import ModelProto, helper

from tests.scalpel_graph.channels.random_network.across import Across
from tests.scalpel_graph.channels.random_network.base import Value, mapped
from tests.scalpel_graph.channels.random_network.blocks import Blocks
from tests.scalpel_graph.channels.random_network.elementwise import Elementwise
from tests.scalpel_graph.channels.random_network.layers import Layers
from tests.scalpel_graph.channels.random_network.moves import Moves

#: Operator sets, and the IR version that each needs.
_OPSETS = {8: 4, 9: 4, 10: 5, 11: 6, 13: 7, 17: 8, 21: 10, 23: 11}
_KINDS = (Layers, Elementwise, Across, Moves, Blocks)
OPERATIONS = {
    kind: [name for name, value in vars(kind).items() if callable(value) and not name.startswith("_")]
    for kind in _KINDS
}
#: What ONNX Runtime computes in float64 on CPUs.
_DOUBLE = {
    "attention", "batch_norm", "batched_matmul", "binary", "broadcast", "cast", "channels_last", "concat",
    "decomposed_layer_norm", "decomposed_rms_norm", "dropout", "einsum", "embedding", "expand",
    "feed_forward", "gated_unit", "gather", "gather_as_mask", "gather_position", "gemm", "layer_norm",
    "mask", "matmul", "matmul_from_the_left", "matmul_of_positions", "outer", "reduce_away", "self_gated",
    "shift", "shuffle", "slice_channels", "slice_positions", "softmax_of_channels", "softmax_of_positions",
    "split", "squeeze_and_back", "tap", "tile", "to_map", "to_tokens", "transpose_positions", "vectors",
    "weight_that_is_an_output", "where", "where_of_variables",
}  # fmt: skip


class RandomNetwork(Elementwise, Across, Moves, Blocks):
    """Grows a network, operation by operation.

    Args:
        seed: of everything.
        depth: how many operations; 1 to 30 if left out, of most networks up to 12.

    Attributes:
        made: the operations it has, by name.
    """

    def __init__(self, seed: int, depth: int | None = None) -> None:
        rng = np.random.default_rng([seed, 1])
        opset = int(rng.choice(list(_OPSETS), p=[0.05, 0.05, 0.05, 0.1, 0.15, 0.25, 0.1, 0.25]))
        dtype = rng.choice([np.float32, np.float16, np.float64], p=[0.9, 0.05, 0.05])
        self.dynamic = bool(rng.random() < 0.6)
        second = (3, 8, 5) if rng.random() < 0.5 else (1, 5, 6)
        super().__init__(seed, opset, dtype, ((2, 6, 6), second if self.dynamic else (2, 6, 6)))
        self.made: list[str] = []
        depth = depth or 1 + seed // 3 % (12 if seed % 3 else 30)
        if dtype == np.float16:
            depth = min(depth, 6)  # its rounding adds up
        while len(self.made) < depth:
            self._operation()
        self._end()

    def _operation(self) -> None:
        kind = _KINDS[int(self.rng.choice(len(_KINDS), p=[0.26, 0.24, 0.16, 0.2, 0.14]))]
        name = (
            "activation" if kind is Elementwise and self.rng.random() < 0.3 else self.pick(OPERATIONS[kind])
        )
        operation = getattr(self, name)
        if not getattr(operation, "since", 7) <= self.opset <= getattr(operation, "until", 99):
            return
        if self.dtype == np.float64 and name not in _DOUBLE:
            return
        before = len(self.nodes)
        operation()
        if len(self.nodes) > before or name == "tap":
            self.made.append(name)

    def _end(self) -> None:
        """The outputs: the last value, and a vector of all that nothing has read."""
        last = self.values[-1]
        if last.name != "X":
            self.outputs[last.name] = last
        read = {name for node in self.nodes for name in node.input}
        left = [value for value in self.values if value.name not in read] or [last]
        if self.coin(0.2):
            left = left[-1:]
        joined = self.node("Concat", [self._pooled(value) for value in left], axis=1)
        width = sum(value.channels for value in left)
        kernel = self.weight(self.normal(width, 3) / np.sqrt(width))
        bias = self.weight(self.normal(3))
        shapes = mapped(self.values[0], lambda s: (s[0], 3))
        y = Value(self.node("Gemm", [joined, kernel, bias]), shapes, 1)
        self.outputs[y.name] = y

    def _pooled(self, x: Value) -> str:
        """``[batch, channels]``."""
        axes = [axis for axis in range(1, x.rank) if axis != x.axis]
        return self.reduce("ReduceMean", x.name, axes, keepdims=0) if axes else x.name

    def model(self) -> ModelProto:
        graph = helper.make_graph(
            self.nodes,
            "random",
            self.inputs(),
            [self.declared(value) for value in self.outputs.values()],
            self.initializers(),
        )
        imports = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=imports, ir_version=_OPSETS[self.opset])

    def feeds(self) -> list[dict[str, np.ndarray]]:
        """Inputs for each run: two where sizes are dynamic."""
        runs = []
        rng = np.random.default_rng([len(self.nodes), 2])
        for run in range(1 + self.dynamic):
            feeds = {"X": rng.standard_normal(self.values[0].shapes[run]).astype(self.dtype)}
            if self.ids is not None:
                feeds["ids"] = rng.integers(0, 7, self.ids.shapes[run])
            runs.append(feeds)
        return runs
