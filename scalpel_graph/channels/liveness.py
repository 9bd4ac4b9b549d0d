"""Which slots something needs: everything else can go.

Backward from what must stay (`analysis.Pin`): a class with a live slot is live; a live output makes the inputs
live that it is computed from, except for constants that its node can do without. What is dead in the end is
not needed by anything that stays, cycles of classes that only need each other included.
"""

import numpy as np

from scalpel_graph.channels.analysis import Analysis
from scalpel_graph.channels.slots import BoolArray, IntArray


def live_slots(analysis: Analysis) -> BoolArray:
    """``[slots]``: which slots stay. No axis loses all its slots."""
    return _Liveness(analysis).solve()


class _Liveness:
    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self._class_of = analysis.class_of
        self._live_class: BoolArray = np.zeros(analysis.slots.count, dtype=np.bool_)
        self._reads = [read for rule in reversed(analysis.rules) for read in rule.reads]
        self._outputs = [self._class_of[read.outputs] for read in self._reads]
        self._seen = [0] * len(self._reads)  # live outputs when a read was last looked at

    def solve(self) -> BoolArray:
        for pin in self._analysis.pins:
            self._revive(pin.slots)
        while True:
            self._spread()
            live = self._live_class[self._class_of]
            if not self._keep_one(live) and not self._keep_widths(live):
                return live

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

    def _keep_one(self, live: BoolArray) -> bool:
        """Keeps the first slot of every axis that would be empty; says whether there was one."""
        axes = self._analysis.slots.axes
        if not axes:
            return False
        counts = np.add.reduceat(live, [axis.start for axis in axes], dtype=np.int64)
        empty = np.flatnonzero(counts == 0)
        for number in empty:
            slots = axes[number].slots
            # Axes that go together need one slot between them.
            if not self._live_class[self._class_of[slots]].any():
                self._revive(slots[:1])
        return bool(len(empty))

    def _keep_widths(self, live: BoolArray) -> bool:
        """Keeps what rules ask for; says whether there was anything."""
        wanted = [rule.widths(live) for rule in self._analysis.rules]
        slots = np.concatenate(wanted) if wanted else np.zeros(0, dtype=np.int64)
        self._revive(slots)
        return bool(len(slots))
