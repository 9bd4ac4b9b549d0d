"""Which slots something needs, and which stay: everything else can go.

Backward from what must stay (`analysis.Pin`): a class with a needed slot is needed; a needed output makes the
inputs needed that it is computed from, except for constants that its node can do without. What is not needed
in the end is not needed by anything that stays, cycles of classes that only need each other included.

Some of what nothing needs is *held* all the same: no axis may be empty, groups have to stay equally wide,
hardware likes certain widths. Of a held slot it does not matter what it holds, as long as it is a finite
number: readers multiply it by zero.
"""

from collections.abc import Iterable

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.analysis import Analysis, Pin
from scalpel_graph.channels.live import Live
from scalpel_graph.channels.slots import Axis, BoolArray, IntArray
from scalpel_graph.graph import node_label


def decide(analysis: Analysis) -> "Decision":
    """Decides what stays: as little as possible, but for axes of which one slot has to."""
    return Decision(analysis)


class Decision:
    """What stays: what is needed, and what is held.

    Attributes:
        live: ``[slots]``: which slots stay. No axis loses all of them but those that ``gone`` nodes make.
        needed: ``[slots]``: which of them hold what they held before.
        gone: nodes that make nothing any more.
        held: slots that nothing needs but that stay, and why.
    """

    live: BoolArray
    needed: BoolArray
    gone: list[gs.Node]

    def __init__(self, analysis: Analysis) -> None:
        """What has to stay, and nothing else."""
        self._analysis = analysis
        self._needed, self._staying = Live(analysis.class_of), Live(analysis.class_of)
        self._reads = [read for rule in reversed(analysis.rules) for read in rule.reads]
        self._seen = [0] * len(self._reads)  # needed outputs when a read was last looked at
        self._rule_of = {id(rule.node): rule for rule in analysis.rules}
        self._fragile = self._fragile_classes()
        self.held: list[Pin] = []
        for pin in analysis.pins:
            self._need(pin.slots)
        self._spread()
        self.hold(())

    def hold(self, wanted: Iterable[Pin]) -> bool:
        """Keeps further slots, with everything that has to stay with them.

        Args:
            wanted: slots, the node that wants them, and why. Taken one by one: `stays` counts those before.

        Returns:
            whether any of them would have gone.
        """
        found = self._hold(wanted)
        while True:
            live = self._staying.of_all()
            empty = self._empty(live)
            gone = self._gone(empty)
            if not self._hold(self._first_slots(empty, gone)) and not self._hold(self._widths()):
                break
        self.live, self.needed = live, self._needed.of_all()
        self.gone = [rule.node for rule in self._analysis.rules if id(rule.node) in gone]
        return found

    def stays(self, slots: IntArray) -> BoolArray:
        """Which of some slots stay, those included that are being held."""
        return self._staying[slots]

    def _hold(self, wanted: Iterable[Pin]) -> bool:
        """Keeps slots and their classes; says whether any of them would have gone."""
        found = False
        for pin in wanted:
            slots = pin.slots[~self.stays(pin.slots)]
            if not len(slots):
                continue
            found = True
            self.held.append(Pin(slots, pin.node, pin.reason))
            self._staying.revive(slots)
            fragile = slots[self._fragile[slots]]
            if len(fragile):
                self._need(fragile)
                self._spread()
        return found

    def _need(self, slots: IntArray) -> None:
        self._needed.revive(slots)
        self._staying.revive(slots)

    def _spread(self) -> None:
        """From outputs to inputs, against the order of the nodes, until nothing changes."""
        constants = self._analysis.constants
        changed = True
        while changed:
            changed = False
            for number, read in enumerate(self._reads):
                needed = self._needed[read.outputs]
                count = int(np.count_nonzero(needed))
                if count > self._seen[number]:
                    self._seen[number] = count
                    self._need(read.required(needed, constants))
                    changed = True

    def _fragile_classes(self) -> Live:
        """The classes with a slot that has to hold what it held."""
        fragile = Live(self._analysis.class_of)
        for rule in self._analysis.rules:
            if rule.fragile:
                for tensor in rule.node.outputs:
                    for axis in self._analysis.slots.of(tensor) or ():
                        if axis is not None:
                            fragile.revive(axis.slots)
        return fragile

    def _empty(self, live: BoolArray) -> list[Axis]:
        """The axes without a live slot."""
        axes = self._analysis.slots.axes
        if not axes:
            return []
        counts = np.add.reduceat(live, [axis.start for axis in axes], dtype=np.int64)
        return [axes[number] for number in np.flatnonzero(counts == 0)]

    def _gone(self, empty: list[Axis]) -> set[int]:
        """The nodes (by `id`) all of whose outputs are empty, and missed by no node that stays.

        Of nodes that can be without single outputs, also these outputs.
        """
        if not empty:
            return set()
        axes: dict[int, set[int]] = {}
        for axis in empty:
            axes.setdefault(id(axis.tensor), set()).add(axis.index)
        gone: set[int] = set()
        for rule in reversed(self._analysis.rules):
            outputs = [tensor for tensor in rule.node.outputs if tensor.name]
            missed_by_none = [
                tensor
                for tensor in outputs
                if id(tensor) in axes
                and all(
                    id(reader) in gone or self._leaves_out(reader, tensor, axes) for reader in tensor.outputs
                )
            ]
            if rule.can_go and len(missed_by_none) == len(outputs):
                gone.add(id(rule.node))
            elif rule.optional_outputs:
                gone.update(id(tensor) for tensor in missed_by_none)
        return gone

    def _leaves_out(self, reader: gs.Node, tensor: gs.Tensor, axes: dict[int, set[int]]) -> bool:
        """Whether a node that stays can do without an input: Concat, of what is empty along its axis."""
        rule = self._rule_of.get(id(reader))
        if rule is None or id(reader.outputs[0]) in axes:
            return False
        return bool(rule.optional_along & axes[id(tensor)])

    def _first_slots(self, empty: list[Axis], gone: set[int]) -> Iterable[Pin]:
        """The first slot of every axis that may not be empty: axes that go together need one between them."""
        for axis in empty:
            maker = axis.tensor.inputs[0]
            leaves = id(maker) in gone or id(axis.tensor) in gone
            if not leaves and not self.stays(axis.slots).any():
                yield Pin(axis.slots[:1], node_label(maker), "a tensor cannot be without channels")

    def _widths(self) -> Iterable[Pin]:
        """What rules ask for."""
        for rule in self._analysis.rules:
            slots = rule.widths(self._staying)
            if len(slots):
                yield Pin(slots, node_label(rule.node), rule.why_held)
