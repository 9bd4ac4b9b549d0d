"""Embeddings: Gather of rows, or of other parts, of a constant table."""

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.concat_split import GatherRule
from scalpel_graph.channels.constants import Constants, numpy_type, slices
from scalpel_graph.channels.rule import Kept, Rule, take
from scalpel_graph.channels.slots import Axis, Slots
from scalpel_graph.graph import ModelGraph

#: How many rows are compared at once.
_ROWS = 1024


class EmbeddingRule(Rule):
    """What is picked goes with the indices; a feature of the table goes where nothing needs it."""

    def describe(self) -> None:
        """See the class."""
        indices, output = self.node.inputs[1], self.node.outputs[0]
        table = self.input_constant(0)
        assert table is not None
        made = self.axes(output)
        rank = len(made) - table.ndim + 1
        self.along = along = int(self.node.attrs.get("axis", 0)) % table.ndim
        if self.input_constant(1) is None:
            for given, picked in zip(self.axes(indices), made[along : along + rank], strict=True):
                self.couple(given, picked)
        self.features: list[tuple[int, Axis]] = []  # axis of the table, axis of the output
        for index in range(table.ndim):
            place = index if index < along else index + rank - 1
            axis = made[place]
            if index != along and axis is not None and axis.size == table.shape[index]:
                self.features.append((index, axis))
                self.free.append(axis.slots)

    def constants(self, constants: Constants) -> None:
        """A feature that is the same in all rows is a constant."""
        table = self.input_constant(0)
        if table is None or not table.size or numpy_type(self.graph, self.node.outputs[0]) is None:
            return
        rows = np.moveaxis(table, self.along, 0)
        same = np.ones(rows.shape[1:], dtype=np.bool_)
        for start in range(0, len(rows), _ROWS):
            same &= (rows[start : start + _ROWS] == rows[0]).all(axis=0)
        row = np.where(same, rows[0], np.nan)  # NaN is equal to nothing
        for index, axis in self.features:
            constants.set(axis.slots, *slices(row, index - (index > self.along)))

    def shrink(self, kept: Kept) -> None:
        """Slices the table."""
        table = self.input_constant(0)
        assert table is not None
        smaller = table
        for index, axis in self.features:
            smaller = take(smaller, kept.of(axis), index)
        if smaller.shape != table.shape:
            kept.replace(self.graph, self.node, 0, smaller)


def _rule(graph: ModelGraph, node: gs.Node, slots: Slots) -> Rule:
    """Gather picks channels, or from a table."""
    kind = EmbeddingRule if graph.constant(node.inputs[0]) is not None else GatherRule
    return kind(graph, node, slots)


RULES: dict[str, Callable[[ModelGraph, gs.Node, Slots], Rule]] = {"Gather": _rule}
