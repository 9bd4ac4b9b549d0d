"""Small questions that several passes ask about nodes."""

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.graph import ModelGraph
from scalpel_graph.group_csr import Array

#: Operators that move numbers about, or take the largest of some.
MOVES = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose", "MaxPool")


def is_standard(node: gs.Node, *op_types: str) -> bool:
    """Whether a node is one of these operators of the standard domain."""
    return (node.domain or "") in ("", "ai.onnx") and node.op in op_types


def is_quantization(node: gs.Node, *op_types: str) -> bool:
    """Whether a node is QuantizeLinear or DequantizeLinear, of the standard domain or ONNX Runtime's own."""
    return (node.domain or "") in ("", "ai.onnx", "com.microsoft") and node.op in op_types


def attribute(node: gs.Node, name: str, default: Any) -> Any:
    """The value of an attribute, or what the operator's specification says it is when absent."""
    return node.attrs.get(name, default)


def optional_input(node: gs.Node, index: int) -> gs.Tensor | None:
    """An input; None where it is left out."""
    if index >= len(node.inputs) or not node.inputs[index].name:
        return None
    return node.inputs[index]


def optional_constant(graph: ModelGraph, node: gs.Node, index: int) -> Array | None:
    """The value of an input, if it is there and constant."""
    tensor = optional_input(node, index)
    return None if tensor is None else graph.constant(tensor)


def only_first_output_read(graph: ModelGraph, node: gs.Node) -> bool:
    """Whether nobody reads the second and later outputs of a node."""
    return not any(tensor.outputs or graph.is_pinned(tensor) for tensor in node.outputs[1:] if tensor.name)


def why_not_constant(graph: ModelGraph, what: str, tensor: gs.Tensor) -> str:
    """A reason for a person: why ``tensor``, the ``what`` of a node, has no fixed value."""
    if graph.is_overridable(tensor):
        return f"{what} {tensor.name!r} is a graph input with a default, which callers may replace"
    if tensor.inputs:
        return f"{what} {tensor.name!r} is computed by {tensor.inputs[0].op}, not constant"
    return f"{what} {tensor.name!r} is not constant"


def why_not_moved(what: str, values: Array) -> str:
    """A reason why arithmetic on ``values`` cannot be done ahead of time; empty if it can.

    In types narrower than float32, sums that are rounded in another order differ by more than a check allows.
    """
    if values.dtype in (np.float32, np.float64):
        return ""
    return f"{what} is {values.dtype}, not float32 or double"


def per_channel(values: Array, channels: int, rank: int, axis: int) -> Array | None:
    """``values`` as ``[channels]`` if adding it to a tensor adds one number to each channel, else None.

    Args:
        values: what is added, to be broadcast.
        channels: size of the channel axis.
        rank: of the tensor it is added to.
        axis: the channel axis, counted from the end (negative).
    """
    if values.ndim > rank:
        return None
    dims = (1,) * (rank - values.ndim) + values.shape
    if any(size != 1 for i, size in enumerate(dims) if i != rank + axis) or dims[axis] not in (1, channels):
        return None
    return np.broadcast_to(values.reshape(-1), (channels,)).copy()
