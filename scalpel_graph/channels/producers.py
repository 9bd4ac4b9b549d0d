"""How large each layer with weights is: what the report says of layers before and after channels go."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from scalpel_graph import stats
from scalpel_graph.channels.dequantized import DOMAINS, dequantized
from scalpel_graph.graph import ModelGraph, node_label


@dataclass(frozen=True)
class Producer:
    """A layer with constant weights.

    Attributes:
        channels: output channels, neurons, or hidden units.
        parameters: elements of its floating-point constants.
        macs: multiply-accumulates of one run; 0 where sizes are not known.
    """

    channels: int
    parameters: int
    macs: int


def producers(graph: ModelGraph, dimensions: Mapping[str, int]) -> dict[str, Producer]:
    """By its label, every layer with constant weights.

    Args:
        graph: what to look at.
        dimensions: sizes of symbolic dimensions; a symbol that is not there counts as 1.
    """
    shapes = graph.assumed_shapes(dimensions)
    found = {}
    for node in graph.nodes:
        channels = _CHANNELS.get(node.op) if (node.domain or "") in DOMAINS else None
        if channels is None:
            continue
        operands = [node.inputs[0], node.inputs[stats.WEIGHT_PLACES.get(node.op, 1)]]
        given = [_shape(graph, tensor) for tensor in operands]
        weight = given[0] or given[1] if node.op == "MatMul" else given[1]
        if weight is None or len(weight) < 2:
            continue
        x, second = (of or shapes.get(tensor.name) for of, tensor in zip(given, operands, strict=True))
        y = shapes.get(node.outputs[0].name)
        found[node_label(node)] = Producer(
            channels(node, weight),
            sum(
                _elements(graph, tensor, place in stats.INTEGER_DATA.get(node.op, ()))
                for place, tensor in enumerate(node.inputs)
            ),
            0
            if x is None or second is None or y is None
            else stats.macs(node.op, x, second, y, domain=node.domain or ""),
        )
    return found


def _shape(graph: ModelGraph, tensor: gs.Tensor) -> Sequence[int] | None:
    """The shape of a constant, or of what DequantizeLinear makes of one; None for variables."""
    if isinstance(tensor, gs.Constant):
        return tuple(tensor.shape)
    found = dequantized(graph, tensor)
    return None if found is None else found.stored.shape


def _elements(graph: ModelGraph, tensor: gs.Tensor, is_data: bool) -> int:
    """How many floating-point numbers, or integers that stand for some, a constant holds."""
    counts = is_data or graph.type(tensor) in stats.FLOATS or not isinstance(tensor, gs.Constant)
    return math.prod(_shape(graph, tensor) or (0,)) if counts else 0


def _hidden_units(node: gs.Node, weight: Sequence[int]) -> int:
    return int(node.attrs["hidden_size"])


_CHANNELS: dict[str, Callable[[gs.Node, Sequence[int]], int]] = {
    "Conv": lambda node, shape: shape[0],
    "ConvTranspose": lambda node, shape: shape[1] * int(node.attrs.get("group", 1)),
    "Gemm": lambda node, shape: shape[0 if node.attrs.get("transB", 0) else 1],
    "MatMul": lambda node, shape: shape[-2 if isinstance(node.inputs[0], gs.Constant) else -1],
    "ConvInteger": lambda node, shape: shape[0],
    "MatMulInteger": lambda node, shape: shape[-1],
    "QGemm": lambda node, shape: shape[0 if node.attrs.get("transB", 0) else 1],
    "QLinearConv": lambda node, shape: shape[0],
    "QLinearMatMul": lambda node, shape: shape[-1],
    "LSTM": _hidden_units,
    "GRU": _hidden_units,
    "RNN": _hidden_units,
}
