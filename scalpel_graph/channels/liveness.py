"""Which slots something needs: everything else can go.

Backward from what must stay (`analysis.Pin`): a class with a live slot is live; a live output makes the
inputs live that it is computed from, except for constants that its node can do without. What is dead in the
end is not needed by anything that stays, cycles of classes that only need each other included.
"""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.analysis import Analysis, Pin
from scalpel_graph.channels.slots import Axis, BoolArray, IntArray
from scalpel_graph.graph import node_label


@dataclass(frozen=True)
class Decision:
    """What stays.

    Attributes:
        live: ``[slots]``: which slots stay. No axis loses all of them but those that ``gone`` nodes make.
        gone: nodes that make nothing any more.
        held: slots that nothing needs, but that a node cannot be without.
    """

    live: BoolArray
    gone: list[gs.Node]
    held: list[Pin]


def decide(analysis: Analysis) -> Decision:
    """Decides what stays: as little as possible, but for axes of which one slot has to."""
    return _Liveness(analysis).solve()


class _Liveness:
    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._class_of = analysis.class_of
        self._live_class: BoolArray = np.zeros(analysis.slots.count, dtype=np.bool_)
        self._reads = [read for rule in reversed(analysis.rules) for read in rule.reads]
        self._outputs = [self._class_of[read.outputs] for read in self._reads]
        self._held: list[Pin] = []
        self._rule_of = {id(rule.node): rule for rule in analysis.rules}
        self._seen = [0] * len(self._reads)  # live outputs when a read was last looked at

    def solve(self) -> Decision:
        for pin in self._analysis.pins:
            self._revive(pin.slots)
        while True:
            self._spread()
            live = self._live_class[self._class_of]
            empty = self._empty(live)
            gone = self._gone(empty)
            if not self._keep_one(empty, gone) and not self._keep_widths(live):
                nodes = [rule.node for rule in self._analysis.rules if id(rule.node) in gone]
                return Decision(live, nodes, self._held)

    def _revive(self, slots: IntArray) -> None:
        self._live_class[self._class_of[slots]] = True

    def _spread(self) -> None:
        """From outputs to inputs, against the order of the nodes, until nothing changes."""
        constants = self._analysis.constants
        changed = True
        while changed:
            changed = False
            for number, read in enumerate(self._reads):
                live = self._live_class[self._outputs[number]]
                count = int(np.count_nonzero(live))
                if count > self._seen[number]:
                    self._seen[number] = count
                    self._revive(read.required(live, constants))
                    changed = True

    def _empty(self, live: BoolArray) -> list[Axis]:
        """The axes without a live slot."""
        axes = self._analysis.slots.axes
        if not axes:
            return []
        counts = np.add.reduceat(live, [axis.start for axis in axes], dtype=np.int64)
        return [axes[number] for number in np.flatnonzero(counts == 0)]

    def _gone(self, empty: list[Axis]) -> set[int]:
        """The nodes (by `id`) all of whose outputs are empty, and missed by no node that stays."""
        if not empty:
            return set()
        axes: dict[int, set[int]] = {}
        for axis in empty:
            axes.setdefault(id(axis.tensor), set()).add(axis.index)
        gone: set[int] = set()
        for rule in reversed(self._analysis.rules):
            outputs = [tensor for tensor in rule.node.outputs if tensor.name]
            if rule.can_go and all(
                id(tensor) in axes
                and all(
                    id(reader) in gone or self._leaves_out(reader, tensor, axes) for reader in tensor.outputs
                )
                for tensor in outputs
            ):
                gone.add(id(rule.node))
        return gone

    def _leaves_out(self, reader: gs.Node, tensor: gs.Tensor, axes: dict[int, set[int]]) -> bool:
        """Whether a node that stays can do without an input: Concat, of what is empty along its axis."""
        rule = self._rule_of.get(id(reader))
        if rule is None or id(reader.outputs[0]) in axes:
            return False
        return bool(rule.optional_along & axes[id(tensor)])

    def _keep_one(self, empty: list[Axis], gone: set[int]) -> bool:
        """Keeps the first slot of every axis that may not be empty; says whether there was one."""
        kept = False
        for axis in empty:
            if id(axis.tensor.inputs[0]) in gone:
                continue
            kept = True
            # Axes that go together need one slot between them.
            if not self._live_class[self._class_of[axis.slots]].any():
                self._hold(axis.slots[:1], axis.tensor.inputs[0], "a tensor cannot be without channels")
        return kept

    def _keep_widths(self, live: BoolArray) -> bool:
        """Keeps what rules ask for; says whether there was anything."""
        kept = False
        for rule in self._analysis.rules:
            slots = rule.widths(live)
            if len(slots):
                kept = True
                self._hold(slots, rule.node, rule.why_held)
        return kept

    def _hold(self, slots: IntArray, node: gs.Node, reason: str) -> None:
        self._held.append(Pin(slots, node_label(node), reason))
        self._revive(slots)
