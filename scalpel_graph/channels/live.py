"""Which slots are live while that is being decided: class by class."""

import numpy as np

from scalpel_graph.channels.slots import BoolArray, IntArray


class Live:
    """A set of classes of slots that only grows.

    Args:
        class_of: ``[slots]``: the class of each.
        live: ``[slots]``: what is in it to begin with, whose classes then are; None for nothing.
    """

    def __init__(self, class_of: IntArray, live: BoolArray | None = None) -> None:
        self._class_of = class_of
        self._live_class: BoolArray = np.zeros(len(class_of), dtype=np.bool_)
        if live is not None:
            self._live_class[class_of[live]] = True

    def __getitem__(self, slots: IntArray) -> BoolArray:
        """Which of some slots are live; of the shape of ``slots``."""
        return np.asarray(self._live_class[self._class_of[slots]])

    def revive(self, slots: IntArray) -> None:
        """Puts the classes of some slots in."""
        self._live_class[self._class_of[slots]] = True

    def of_all(self) -> BoolArray:
        """``[slots]``. It takes time in proportion to the whole graph: not for each rule."""
        return np.asarray(self._live_class[self._class_of])
