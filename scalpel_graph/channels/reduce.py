"""Reductions: the axes that stay keep their slots; a sum over slots can do without those that are zero.

So can a mean, which then is multiplied by the share of the slots that are left.
"""

import math

import numpy as np

from scalpel_graph.channels.constants import Constants, numpy_type
from scalpel_graph.channels.rule import Kept, Read, Refusal, Rule
from scalpel_graph.channels.slots import Axis

#: Reductions to which a zero contributes nothing, and those that hand on what is everywhere the same.
_SUMS = ("ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare")
_MEANS = ("ReduceMean", "ReduceMax", "ReduceMin")


class ReduceRule(Rule):
    """All of ONNX's reductions along constant axes."""

    def describe(self) -> None:
        """See the module's docstring."""
        node = self.node
        self.fragile = node.op in ("ReduceLogSum", "ReduceLogSumExp")
        axes, made = self.axes(node.inputs[0]), self.axes(node.outputs[0])
        rank = len(axes)
        reduced = {int(axis) % rank for axis in self._reduced(rank)}
        keeps = bool(node.attrs.get("keepdims", 1))
        self.pairs = []
        self.summed: list[Axis] = []
        kept = [index for index in range(rank) if index not in reduced]
        for place, index in enumerate(kept):
            a, b = axes[index], made[index if keeps else place]
            if a is not None and b is not None and a.size == b.size:
                self.couple(a, b)
                self.pairs.append((a, b))
        # Any axis of the output will do: all that is left of it needs all that is summed.
        outputs = next((axis.slots for axis in made if axis is not None), None)
        is_mean = node.op == "ReduceMean" and numpy_type(self.graph, node.outputs[0]) is not None
        if (node.op in _SUMS or is_mean) and outputs is not None:
            for index in reduced:
                axis = axes[index]
                if axis is not None:
                    self.summed.append(axis)
                    why = "their non-zero constant counts in its sum"
                    self.reads.append(Read(axis.slots, outputs, None, why=why))

    def _reduced(self, rank: int) -> list[int]:
        if "axes" in self.node.attrs:
            return list(self.node.attrs["axes"])
        if self.has_input(1):
            values = self.input_constant(1)
            if values is None:
                raise Refusal("its axes are not constant")
            return values.reshape(-1).tolist() or self._all(rank)
        return self._all(rank)

    def _all(self, rank: int) -> list[int]:
        return [] if self.node.attrs.get("noop_with_empty_axes", 0) else list(range(rank))

    def constants(self, constants: Constants) -> None:
        """Zero stays zero in sums, everything what it is in means and extremes."""
        if numpy_type(self.graph, self.node.outputs[0]) is None or self.node.op not in (*_SUMS, *_MEANS):
            return
        for a, b in self.pairs:
            known, value = constants.known[a.slots], constants.value[a.slots]
            constants.set(
                b.slots, known if self.node.op in _MEANS else known & (value == 0), np.asarray(value)
            )

    def shrink(self, kept: Kept) -> None:
        """Of a mean of n slots m are left: it is m/n of theirs."""
        share = math.prod(kept.live[axis.slots].mean() for axis in self.summed)
        dtype = numpy_type(self.graph, self.node.outputs[0])
        if self.node.op == "ReduceMean" and share < 1:
            self.put_behind("Mul", "share", np.array(share, dtype=dtype))


RULES = dict.fromkeys((*_SUMS, *_MEANS, "ReduceProd", "ReduceLogSum", "ReduceLogSumExp"), ReduceRule)
