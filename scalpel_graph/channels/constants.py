"""Constants per slot: what a channel always holds, where that is known."""

from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs
from onnx import TensorProto

from scalpel_graph.channels.slots import BoolArray, IntArray
from scalpel_graph.evaluate import evaluate
from scalpel_graph.graph import ModelGraph
from scalpel_graph.group_csr import Array

Float64Array = npt.NDArray[np.float64]


_FLOATS: dict[int, np.dtype[np.floating]] = {
    int(TensorProto.FLOAT): np.dtype(np.float32),
    int(TensorProto.DOUBLE): np.dtype(np.float64),
    int(TensorProto.FLOAT16): np.dtype(np.float16),
    int(TensorProto.BFLOAT16): np.dtype(ml_dtypes.bfloat16),
}

_INTEGERS: dict[int, np.dtype[np.integer]] = {
    int(TensorProto.INT8): np.dtype(np.int8),
    int(TensorProto.UINT8): np.dtype(np.uint8),
    int(TensorProto.INT16): np.dtype(np.int16),
    int(TensorProto.UINT16): np.dtype(np.uint16),
    int(TensorProto.INT32): np.dtype(np.int32),
}


class Constants:
    """For every slot, whether all its elements are one known finite number, and which.

    Attributes:
        known: ``[slots]``.
        value: ``[slots]`` float64, which holds every number of a narrower type exactly; 0 where not known.
        varies: ``[slots]``: of the states of loops, what is known to change from one iteration to the next.
    """

    def __init__(self, count: int, varies: BoolArray) -> None:
        self.varies = varies
        self.known: BoolArray = np.zeros(count, dtype=np.bool_)
        self.value: Float64Array = np.zeros(count)

    def set(self, slots: IntArray, known: BoolArray, value: Array) -> None:
        """Notes the constants of some slots; what is not finite counts as unknown."""
        known = known & np.isfinite(value)
        self.known[slots] = known
        self.value[slots] = np.where(known, value, 0.0)

    def copy(self, source: IntArray, target: IntArray) -> None:
        """Slots ``target`` hold what the slots ``source`` hold."""
        self.known[target] = self.known[source]
        self.value[target] = self.value[source]


def slices(values: Array, axis: int) -> tuple[BoolArray, Float64Array]:
    """Which slices of an array along an axis hold one number only, and that number: two arrays ``[size]``."""
    size = values.shape[axis]
    if values.size == 0:
        return np.zeros(size, dtype=np.bool_), np.zeros(size)
    others = tuple(index for index in range(values.ndim) if index != axis)
    low = values.min(axis=others)
    return low == values.max(axis=others), low.astype(np.float64)


def numpy_type(graph: ModelGraph, tensor: gs.Tensor) -> np.dtype[np.floating] | None:
    """The floating-point type of a tensor; None for others."""
    return _FLOATS.get(graph.type(tensor) or 0)


def element_type(graph: ModelGraph, tensor: gs.Tensor) -> np.dtype[Any] | None:
    """The type of a tensor whose every number is a float64: `numpy_type`, or integers; None for others."""
    kind = graph.type(tensor) or 0
    return _INTEGERS.get(kind) or _FLOATS.get(kind)


def is_float(values: Array) -> bool:
    """Whether an array is of a type that `numpy_type` knows."""
    return values.dtype in _FLOATS.values()


def first_output(graph: ModelGraph, node: gs.Node, feeds: Mapping[str, Array]) -> Array | None:
    """The first output of a node for given inputs, as ONNX Runtime computes it; None where it cannot.

    ONNX Runtime has few operators of bfloat16 for CPUs: they are computed in float32, and rounded.

    Args:
        graph: the node's graph.
        node: the node.
        feeds: by name, every input of the node that is not left out.
    """
    output = node.outputs[0].name
    wider = {
        name: value.astype(np.float32) if value.dtype == ml_dtypes.bfloat16 else value
        for name, value in feeds.items()
    }
    try:
        result = np.asarray(evaluate(graph, [node], [output], wider)[output])
    except Exception:  # whatever the reason, the channel then counts as not constant
        return None
    dtype = numpy_type(graph, node.outputs[0])
    return result if dtype is None else result.astype(dtype)
