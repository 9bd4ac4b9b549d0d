"""Embeddings: Gather of rows, or of other parts, of a constant table."""

from collections.abc import Callable

import onnx_graphsurgeon as gs

from scalpel_graph.channels.concat_split import GatherRule
from scalpel_graph.channels.constants import Constants, numpy_type, slices
from scalpel_graph.channels.rule import Kept, Rule, take
from scalpel_graph.channels.slots import Axis, Slots
from scalpel_graph.graph import ModelGraph


class EmbeddingRule(Rule):
    """What is picked goes with the indices; a feature of the table goes where nothing needs it."""

    def describe(self) -> None:
        """See the class."""
        indices, output = self.node.inputs[1], self.node.outputs[0]
        table = self.input_constant(0)
        assert table is not None
        made = self.axes(output)
        rank = len(made) - table.ndim + 1
        along = int(self.node.attrs.get("axis", 0)) % table.ndim
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
        if table is None or numpy_type(self.graph, self.node.outputs[0]) is None:
            return
        for index, axis in self.features:
            constants.set(axis.slots, *slices(table, index))

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
