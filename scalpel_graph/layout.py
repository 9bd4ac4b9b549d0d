"""Which Conv layers to make sparse, once the layout changes between them are paid for.

ONNX Runtime runs dense Conv and pooling in a blocked layout (NCHWc) and copies a tensor wherever one side is
blocked and the other plain. Our kernels work on plain NCHW, as does every operator it does not know in
blocked form. So a layer that is a little faster sparse can slow the network down, and a few of them in a row
can pay where one does not.

The choice for all layers together is a minimum cut (the standard construction for two labels and costs
between neighbours; Greig, Porteous and Seheult, 1989): each node is on the plain or on the blocked side; a
Conv costs its predicted sparse or dense time there; a tensor costs one copy if its producer and any reader
are on different sides. Element-wise operators follow: blocked only if all their inputs are. The cut is the
exact optimum of that model, found by Dinic's algorithm.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

import onnx_graphsurgeon as gs

from scalpel_graph.graph import ModelGraph

#: Operators that ONNX Runtime always blocks, and those it keeps blocked where their inputs are.
_POOLS = {"MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"}
_FOLLOWERS = {
    "Add", "BatchNormalization", "Clip", "Concat", "Elu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mul",
    "Relu", "Sigmoid", "Sum", "Tanh",
}  # fmt: skip
#: Those of them whose first input alone is activations.
_PARAMETERS_BEHIND = {"BatchNormalization", "Clip", "QuantizeLinear", "DequantizeLinear"}
#: Those that hand on the layout of integers beside them.
_QUANTIZED_FOLLOWERS = {
    "AveragePool", "DequantizeLinear", "GlobalAveragePool", "QLinearAdd", "QLinearAveragePool",
    "QLinearConcat", "QLinearGlobalAveragePool", "QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid",
    "QuantizeLinear",
}  # fmt: skip

_NANOSECONDS = 1000
_INFINITE = 1 << 60


@dataclass(frozen=True)
class ConvTimes:
    """Predicted microseconds of one Conv; ``sparse_us`` is None where it cannot be sparse."""

    dense_us: float
    sparse_us: float | None


def is_blocked_conv(weight_shape: tuple[int, ...], group: int, block: int) -> bool:
    """Whether ONNX Runtime runs a dense Conv of this weight in its blocked layout, if it has one."""
    if len(weight_shape) != 4 or block == 1:
        return False
    outputs, inputs = weight_shape[:2]
    if group == 1:
        return inputs < block or inputs % 4 == 0
    if inputs == 1 and outputs == group:
        return outputs % 4 == 0
    return outputs % group == 0 and inputs % block == 0 and (outputs // group) % block == 0


def reads_plain(weight_shape: tuple[int, ...], group: int, block: int) -> bool:
    """Whether that Conv reads its input in the plain layout all the same (few input channels)."""
    return group == 1 and weight_shape[1] < block


def choose_sparse(
    graph: ModelGraph,
    times: Mapping[int, ConvTimes],
    block: int,
    shapes: Mapping[str, tuple[int, ...]],
    copy_us: Callable[[int], float],
    *,
    quantized: bool = False,
    pool_us: Callable[[int], float] = lambda elements: 0.0,
) -> set[int]:
    """Chooses the Conv nodes to make sparse.

    Args:
        graph: the model.
        times: by ``id(node)``: each Conv that has a sparse candidate; all others are dense.
        block: channels in a block of ONNX Runtime's layout; 1 where it has none.
        shapes: of tensors, with sizes assumed for symbols (`ModelGraph.assumed_shapes`).
        copy_us: microseconds to change the layout of a tensor of so many elements.
        quantized: whether these are the Conv of integers: all that stay dense are computed channels last,
            whatever their sizes, and that layout goes through the conversions around them.
        pool_us: microseconds that MaxPool of integers takes longer in the plain layout, which it is computed
            in where its input has that, for windows of so many elements together.

    Returns:
        ``id(node)`` of the nodes to make sparse.
    """
    if not any(time.sparse_us is not None for time in times.values()):
        return set()
    if block == 1 and not quantized:
        return {key for key, time in times.items() if (time.sparse_us or _INFINITE) < time.dense_us}
    cut = _MinimumCut()
    plain, blocked = cut.vertex(), cut.vertex()
    sides: dict[int, int] = {}
    local: set[int] = set()
    plain_readers: set[int] = set()
    for node in graph.nodes:
        key = id(node)
        if (node.domain or "") not in (("", "ai.onnx", "com.microsoft") if quantized else ("", "ai.onnx")):
            continue
        if quantized and node.op == "ConvInteger":  # which stays in the plain layout
            time = times.get(key)
            if time is not None and time.sparse_us is not None and time.sparse_us < time.dense_us:
                local.add(key)
        elif quantized and node.op in ("Conv", "QLinearConv"):
            sides[key] = cut.conv(plain, blocked, times.get(key))
        elif node.op == "Conv":
            weight, group = graph.shape(node.inputs[1]), int(node.attrs.get("group", 1))
            dims = tuple(dim for dim in weight or () if isinstance(dim, int))
            time = times.get(key)
            if weight is None or len(dims) != len(weight) or not is_blocked_conv(dims, group, block):
                if time is not None and time.sparse_us is not None and time.sparse_us < time.dense_us:
                    local.add(key)
                continue
            if reads_plain(dims, group, block):
                plain_readers.add(key)
            sides[key] = cut.conv(plain, blocked, time)
        elif quantized and node.op == "MaxPool":
            if len(node.outputs) == 1:
                sides[key] = cut.conv(plain, blocked, ConvTimes(0.0, pool_us(_window_elements(node, shapes))))
                _follow(cut, plain, sides, node.inputs[:1], sides[key])
        elif node.op in _POOLS and not quantized:
            shape = shapes.get(node.inputs[0].name, ())
            if len(shape) == 4 and shape[1] % block == 0 and len(node.outputs) == 1:
                sides[key] = cut.vertex()
                cut.edge(sides[key], blocked, _INFINITE)
        elif node.op in _FOLLOWERS or (quantized and node.op in _QUANTIZED_FOLLOWERS):
            sides[key] = cut.vertex()
            given = node.inputs[:1] if node.op in _PARAMETERS_BEHIND else node.inputs
            activations = [tensor for tensor in given if tensor.inputs or not quantized]
            _follow(cut, plain, sides, activations, sides[key])
    for node in graph.nodes:
        for tensor in node.outputs:
            side = sides.get(id(node), plain)
            readers = {
                plain if id(reader) in plain_readers else sides.get(id(reader), plain)
                for reader in tensor.outputs
            }
            if graph.is_pinned(tensor):
                readers.add(plain)
            _charge(cut, side, readers - {side}, _copy_cost(tensor, shapes, copy_us))
    for tensor in graph.gs.inputs:
        readers = {sides[id(r)] for r in tensor.outputs if id(r) in sides and id(r) not in plain_readers}
        _charge(cut, plain, readers, _copy_cost(tensor, shapes, copy_us))
    plain_side = cut.source_side(plain, blocked)
    return local | {key for key in times if key in sides and sides[key] in plain_side}


def _follow(
    cut: "_MinimumCut", plain: int, sides: Mapping[int, int], inputs: Sequence[gs.Tensor], vertex: int
) -> None:
    """Only what reads nothing but the blocked layout is computed in it."""
    for tensor in inputs:
        maker = tensor.inputs[0] if len(tensor.inputs) == 1 else None
        cut.edge(plain if maker is None else sides.get(id(maker), plain), vertex, _INFINITE)


def _window_elements(pool: gs.Node, shapes: Mapping[str, tuple[int, ...]]) -> int:
    window: tuple[int, ...] = tuple(pool.attrs.get("kernel_shape", ()))
    return prod(shapes.get(pool.outputs[0].name, ())) * prod(window)


def _copy_cost(
    tensor: gs.Tensor, shapes: Mapping[str, tuple[int, ...]], copy_us: Callable[[int], float]
) -> int:
    return round(copy_us(prod(shapes.get(tensor.name, ()))) * _NANOSECONDS)


def _charge(cut: "_MinimumCut", maker: int, readers: set[int], cost: int) -> None:
    """One copy if the maker is on one side and any reader on the other, either way round."""
    if not readers:
        return
    to_plain, to_blocked = cut.vertex(), cut.vertex()
    for reader in readers:
        cut.edge(reader, to_plain, _INFINITE)
        cut.edge(to_blocked, reader, _INFINITE)
    cut.edge(to_plain, maker, cost)
    cut.edge(maker, to_blocked, cost)


class _MinimumCut:
    """A directed graph with capacities. An edge costs its capacity if it leads from the source's side."""

    def __init__(self) -> None:
        self._edges: list[list[int]] = []
        self._to: list[int] = []
        self._capacity: list[int] = []

    def vertex(self) -> int:
        self._edges.append([])
        return len(self._edges) - 1

    def conv(self, plain: int, blocked: int, time: ConvTimes | None) -> int:
        """A vertex for a Conv, which takes its time on either side; one without a time is blocked."""
        vertex = self.vertex()
        sparse_us = None if time is None else time.sparse_us
        self.edge(plain, vertex, 0 if time is None else round(time.dense_us * _NANOSECONDS))
        self.edge(vertex, blocked, _INFINITE if sparse_us is None else round(sparse_us * _NANOSECONDS))
        return vertex

    def edge(self, a: int, b: int, capacity: int) -> None:
        for start, end, size in ((a, b, capacity), (b, a, 0)):
            self._edges[start].append(len(self._to))
            self._to.append(end)
            self._capacity.append(size)

    def source_side(self, source: int, sink: int) -> set[int]:
        """The vertices on the source's side of a minimum cut, as few as possible."""
        while True:
            level = self._levels(source)
            if sink not in level:
                return set(level)
            self._block_flow(source, sink, level)

    def _levels(self, source: int) -> dict[int, int]:
        level, queue = {source: 0}, deque([source])
        while queue:
            vertex = queue.popleft()
            for edge in self._edges[vertex]:
                if self._capacity[edge] and self._to[edge] not in level:
                    level[self._to[edge]] = level[vertex] + 1
                    queue.append(self._to[edge])
        return level

    def _block_flow(self, source: int, sink: int, level: Mapping[int, int]) -> None:
        """Depth-first augmenting paths, each edge given up once; without recursion: networks are deep."""
        next_edge = [0] * len(self._edges)
        path: list[int] = []
        vertex = source
        while True:
            if vertex == sink:
                amount = min(self._capacity[edge] for edge in path)
                for edge in path:
                    self._capacity[edge] -= amount
                    self._capacity[edge ^ 1] += amount
                path, vertex = [], source
                continue
            edges = self._edges[vertex]
            while next_edge[vertex] < len(edges):
                edge = edges[next_edge[vertex]]
                end = self._to[edge]
                if self._capacity[edge] and level.get(end) == level[vertex] + 1:
                    break
                next_edge[vertex] += 1
            else:
                if not path:
                    return
                next_edge[self._to[path[-1] ^ 1]] += 1
                vertex = self._to[path.pop() ^ 1]
                continue
            path.append(edge)
            vertex = end
