"""Numbers for the slots of a graph: (tensor, axis, index) for every axis of static size of every variable."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from scalpel_graph.channels.dequantized import is_grouped_weight
from scalpel_graph.graph import ModelGraph

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of static size: its slots are ``start`` to ``start + size - 1``."""

    tensor: gs.Tensor
    index: int
    start: int
    size: int

    @property
    def slots(self) -> IntArray:
        """The numbers of its slots."""
        return np.arange(self.start, self.start + self.size)


class Slots:
    """Numbers the slots of all variables; constants have none, for rules see them whole.

    Nor have the integer weights of a grouped Conv (`is_grouped_weight`).

    Attributes:
        count: how many slots there are.
        axes: every numbered axis, in the order of the numbers.
    """

    def __init__(self, graph: ModelGraph) -> None:
        self.count = 0
        self.axes: list[Axis] = []
        self._of: dict[int, list[Axis | None] | None] = {}
        for node in graph.nodes:
            for tensor in (*node.inputs, *node.outputs):
                if tensor.name and not isinstance(tensor, gs.Constant) and id(tensor) not in self._of:
                    self._of[id(tensor)] = self._number(tensor, graph)

    def _number(self, tensor: gs.Tensor, graph: ModelGraph) -> list[Axis | None] | None:
        shape = () if is_grouped_weight(graph, tensor) else graph.shape(tensor)
        if shape is None:
            return None
        axes: list[Axis | None] = []
        for index, size in enumerate(shape):
            if isinstance(size, int) and size > 0:
                axis = Axis(tensor, index, self.count, size)
                self.count += size
                self.axes.append(axis)
                axes.append(axis)
            else:
                axes.append(None)
        return axes

    def of(self, tensor: gs.Tensor) -> list[Axis | None] | None:
        """The axes of a tensor, None for those of unknown size; None if the rank is unknown.

        Constants and absent tensors have no axes.
        """
        return self._of.get(id(tensor), [])

    def axis(self, tensor: gs.Tensor, index: int) -> Axis | None:
        """One axis of a variable, ``index`` counted from either end; None if its size is unknown."""
        axes = self.of(tensor)
        if axes is None or not -len(axes) <= index < len(axes):
            return None
        return axes[index]


def classes(count: int, left: IntArray, right: IntArray) -> IntArray:
    """The class of each number below ``count``: the smallest it is linked to by ``left[i], right[i]``.

    Hooks roots onto smaller neighbours and shortens paths until nothing moves (Shiloach and Vishkin, 1982):
    a number of rounds logarithmic in the length of the longest chain.
    """
    parent = np.arange(count)
    while True:
        a, b = parent[left], parent[right]
        open_ = a != b
        if not open_.any():
            return parent
        left, right, a, b = left[open_], right[open_], a[open_], b[open_]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))
        while True:
            shorter = parent[parent]
            if np.array_equal(shorter, parent):
                break
            parent = shorter
