"""MatMul with several constant matrices: one for each head, group or expert, on either side.

Features go as in a MatMul with one matrix, if they are zero, or unused, in all of them; constants that are
not zero stay. A matrix goes with what it is multiplied by.
"""

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.constants import Constants, numpy_type, slices
from scalpel_graph.channels.needs import Needs
from scalpel_graph.channels.quantized import RULES as WITH_ONE_MATRIX
from scalpel_graph.channels.rule import Kept, Read, Refusal, Rule, take
from scalpel_graph.channels.slots import Axis, Slots
from scalpel_graph.graph import ModelGraph


class BatchedMatMulRule(Rule):
    """MatMul of a variable and a constant of rank 3 or more."""

    def describe(self) -> None:
        """See the module's docstring."""
        self.side = 0 if self.input_constant(0) is not None else 1
        matrices = self.weight(self.side, "matrix")
        given, self.made = self.axes(self.node.inputs[1 - self.side]), self.axes(self.node.outputs[0])
        if len(given) < 2:
            raise Refusal("its input is a vector")
        rank = len(self.made)
        # Counted from the end: where the variable is summed over, where it goes on, and where features come.
        summed, rows, columns = (-2, -1, -2) if self.side == 0 else (-1, -2, -1)
        x, y = given[summed], self.made[columns]
        outputs, inputs = matrices.shape[columns], matrices.shape[-3 - columns]
        if x is None or y is None or (y.size, x.size) != (outputs, inputs):
            raise Refusal("the number of its features is not known")
        self.x, self.y, self.inputs_axis = x, y, matrices.ndim - 3 - columns
        self.couple(given[rows], self.made[rows])
        #: Axes that number matrices, by their axis of the constant.
        self.batch: dict[int, Axis] = {}
        self.pairs: list[tuple[Axis, Axis]] = []
        for index in range(rank - 2):
            axis, place = self.made[index], matrices.ndim - rank + index
            if axis is None:
                continue
            if rank - index > len(given):
                self.free.append(axis.slots)
            else:
                source = given[index - rank]
                if source is None or source.size != axis.size:
                    continue  # left unnamed, which keeps it: each matrix gets the same input
                self.couple(source, axis)
                self.pairs.append((source, axis))
            if place >= 0 and matrices.shape[place] == axis.size:
                self.batch[place] = axis
        needs = (matrices != 0).any(axis=tuple(range(matrices.ndim - 2)))
        self.needs = Needs.of(needs if self.side == 0 else needs.T)  # [outputs, inputs]
        why = "they hold a non-zero constant, which several matrices read"
        self.reads.append(Read(x.slots, y.slots, self.needs, why=why))

    def constants(self, constants: Constants) -> None:
        """Zeros make zeros, on either side."""
        if numpy_type(self.graph, self.node.outputs[0]) is None:
            return
        for source, target in self.pairs:
            zero = constants.known[source.slots] & (constants.value[source.slots] == 0)
            constants.set(target.slots, zero, np.zeros(target.size))
        matrices = self.weight(self.side, "matrix")
        for place, axis in self.batch.items():
            known, value = slices(matrices, place)
            zero = (known & (value == 0)) | constants.known[axis.slots]
            constants.set(axis.slots, zero, np.zeros(axis.size))
        varied = ~(constants.known[self.x.slots] & (constants.value[self.x.slots] == 0))
        zero = ~self.needs.outputs_of(varied)
        constants.set(self.y.slots, zero, np.zeros(self.y.size))

    def shrink(self, kept: Kept) -> None:
        """Slices the matrices."""
        matrices = self.weight(self.side, "matrix")
        smaller = take(matrices, kept.of(self.x), self.inputs_axis)
        outputs_axis = 2 * matrices.ndim - 3 - self.inputs_axis
        smaller = take(smaller, kept.of(self.y), outputs_axis)
        for place, axis in self.batch.items():
            smaller = take(smaller, kept.of(axis), place)
        if smaller.shape != matrices.shape:
            kept.replace(self.graph, self.node, self.side, smaller)


def _rule(graph: ModelGraph, node: gs.Node, slots: Slots) -> Rule:
    """MatMul has several constant matrices, or one, or none."""
    constants = [tensor for tensor in node.inputs if isinstance(tensor, gs.Constant)]
    if len(constants) == 1 and len(constants[0].shape) > 2:
        return BatchedMatMulRule(graph, node, slots)
    return WITH_ONE_MATRIX["MatMul"](graph, node, slots)


RULES: dict[str, Callable[[ModelGraph, gs.Node, Slots], Rule]] = {"MatMul": _rule}
