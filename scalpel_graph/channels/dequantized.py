"""Constants that a graph stores as integers: what DequantizeLinear makes of an initializer."""

from dataclasses import dataclass

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.graph import ModelGraph
from scalpel_graph.group_csr import Array

#: Domains whose QuantizeLinear and DequantizeLinear compute alike; ONNX Runtime's own takes further types.
DOMAINS = ("", "ai.onnx", "com.microsoft")

_SMALL_INTEGERS = (np.dtype(ml_dtypes.int4), np.dtype(ml_dtypes.uint4))


@dataclass(frozen=True)
class Dequantized:
    """A constant ``(stored - zero) · scale``.

    Attributes:
        stored: integers of any type.
        zero: int32, of a shape that is broadcast to that of ``stored``.
        scale: likewise.
    """

    stored: Array
    zero: Array
    scale: Array

    @property
    def integers(self) -> Array:
        """The integers less their zero point: int32."""
        return np.asarray(self.stored.astype(np.int32) - self.zero)

    @property
    def values(self) -> Array:
        """The numbers, of the scale's type, rounded as ONNX Runtime rounds them."""
        return np.asarray(self.integers.astype(self.scale.dtype) * self.scale)

    @property
    def full_scale(self) -> Array:
        """The scale of each number."""
        return np.broadcast_to(self.scale, self.stored.shape)


def is_integer(values: Array) -> bool:
    """Whether an array holds integers, those of four bits included."""
    return values.dtype.kind in "iu" or values.dtype in _SMALL_INTEGERS


def maker(tensor: gs.Tensor, op: str) -> gs.Node | None:
    """The QuantizeLinear or DequantizeLinear that makes a tensor; None if something else does."""
    node = tensor.inputs[0] if tensor.inputs else None
    return node if node is not None and node.op == op and (node.domain or "") in DOMAINS else None


def dequantized(graph: ModelGraph, tensor: gs.Tensor) -> Dequantized | None:
    """What DequantizeLinear makes of constants, also behind Transpose; None for any other tensor."""
    turn = tensor.inputs[0] if tensor.inputs else None
    if turn is not None and turn.op == "Transpose" and not turn.domain:
        found = dequantized(graph, turn.inputs[0])
        if found is None:
            return None
        order = turn.attrs.get("perm")
        parts = (found.stored, found.zero, found.scale)
        return Dequantized(*(np.transpose(part, order) if part.ndim else part for part in parts))
    node = maker(tensor, "DequantizeLinear")
    if node is None or node.attrs.get("block_size", 0):
        return None
    data, scale, *rest = (graph.constant(given) for given in node.inputs if given.name)
    if data is None or scale is None or not is_integer(data):
        return None
    offset = rest[0] if rest else np.zeros_like(scale)
    if offset is None or scale.ndim > 1 or offset.size != scale.size:
        return None
    shape = [1] * data.ndim if scale.size > 1 else []
    if shape:
        shape[int(node.attrs.get("axis", 1)) % data.ndim] = scale.size
    return Dequantized(data, offset.astype(np.int32).reshape(shape), scale.reshape(shape))


def constant_value(graph: ModelGraph, tensor: gs.Tensor) -> Array | None:
    """The value of a constant, stored as it is or as integers; None for any other tensor."""
    values = graph.constant(tensor)
    if values is None:
        found = dequantized(graph, tensor)
        values = None if found is None else found.values
    return values


def is_grouped_weight(graph: ModelGraph, tensor: gs.Tensor) -> bool:
    """Whether a tensor is the weight of one grouped Conv, made of integers for it alone.

    Its second axis has no channels of its own: each group reads others. So the Conv's rule cuts the integers.
    """
    node = maker(tensor, "DequantizeLinear")
    reader = graph.sole_consumer(tensor)
    if node is None or reader is None or reader.op != "Conv" or reader.inputs[1] is not tensor:
        return False
    found = dequantized(graph, tensor)
    if found is None or found.stored.ndim < 3 or found.stored.shape[1] == 1:
        return False
    per_output = found.scale.ndim == 0 or found.scale.shape[0] == found.scale.size
    return per_output and int(reader.attrs.get("group", 1)) > 1
