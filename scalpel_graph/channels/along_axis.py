"""Operators that work along one axis, and those that make several slots of one.

CumSum, ArgMax, ArgMin and TopK depend on every slot along their axis, which stays whole; the others pass.
What Expand, Tile and SpaceToDepth make of one slot goes together.
"""

import numpy as np

from scalpel_graph.channels.concat_split import MovingRule
from scalpel_graph.channels.constants import Constants
from scalpel_graph.channels.rule import Kept, Read, Refusal, Rule
from scalpel_graph.channels.slots import Axis, IntArray


class AlongAxisRule(Rule):
    """Common part: couples all axes but one; zero stays zero if ``keeps_zero``."""

    keeps_zero = False

    def describe(self) -> None:
        """See the class."""
        x = self.axes(self.node.inputs[0])
        along = self.along()
        if not -len(x) <= along < len(x):
            raise Refusal(f"it has no axis {along}")
        self.pairs: list[tuple[Axis, Axis]] = []
        rest = [axis for index, axis in enumerate(x) if index != along % len(x)]
        for tensor in self.node.outputs:
            if not tensor.name:
                continue
            made = self.axes(tensor)
            if len(made) == len(x):
                made = [axis for index, axis in enumerate(made) if index != along % len(x)]
            for a, b in zip(rest, made, strict=True):
                if a is not None and b is not None and a.size == b.size:
                    self.couple(a, b)
                    self.pairs.append((a, b))

    def along(self) -> int:
        """The axis."""
        return int(self.node.attrs.get("axis", 0))

    def constants(self, constants: Constants) -> None:
        """See the class."""
        for a, b in self.pairs if self.keeps_zero else ():
            known = constants.known[a.slots] & (constants.value[a.slots] == 0)
            constants.set(b.slots, known, np.zeros(b.size))


class CumSumRule(AlongAxisRule):
    """CumSum along a constant axis."""

    keeps_zero = True

    def along(self) -> int:
        """The second input."""
        axis = self.input_constant(1)
        if axis is None:
            raise Refusal("its axis is not constant")
        return int(axis.reshape(-1)[0])


class TopKRule(AlongAxisRule):
    """TopK, along the last axis by default."""

    def along(self) -> int:
        """The attribute."""
        return int(self.node.attrs.get("axis", -1))


class ExpandRule(Rule):
    """Expand to a constant shape."""

    def describe(self) -> None:
        """An axis of one slot, where it is repeated, is needed for any of the slots that are made of it."""
        self.shape = self.input_constant(1)
        if self.shape is None:
            raise Refusal("its shape is computed")
        x, self.made = self.axes(self.node.inputs[0]), self.axes(self.node.outputs[0])
        self.copies: list[tuple[IntArray, IntArray]] = []
        for made in self.made:
            if made is None:
                continue
            place = made.index - len(self.made) + len(x)
            given = x[place] if place >= 0 else None
            if place < 0:
                self.free.append(made.slots)
            elif given is not None and given.size == made.size:
                self.couple(given, made)
                self.copies.append((given.slots, made.slots))
            elif given is not None:
                self.reads.append(Read(given.slots, made.slots, None, largest=-1))
                self.copies.append((np.repeat(given.slots, made.size), made.slots))

    def constants(self, constants: Constants) -> None:
        """Copies hold what the original holds."""
        for source, target in self.copies:
            constants.copy(source, target)

    def shrink(self, kept: Kept) -> None:
        """States the new sizes, but for those that say to leave an axis as it is."""
        assert self.shape is not None
        shape = np.array(self.shape)
        for made in self.made:
            indices = kept.of(made)
            place = -1 if made is None else made.index - len(self.made) + len(shape)
            if indices is not None and place >= 0 and shape[place] != 1:
                shape[place] = len(indices)
        if not np.array_equal(shape, self.shape):
            kept.replace(self.graph, self.node, 1, shape)


class TileRule(MovingRule):
    """Tile: every slot goes with all its copies."""

    def connect(self) -> None:
        """See `MovingRule`."""
        repeats = self.input_constant(1)
        if repeats is None:
            raise Refusal("its repeats are not constant")
        x, y = self.axes(self.node.inputs[0]), self.axes(self.node.outputs[0])
        for a, b, times in zip(x, y, repeats.tolist(), strict=True):
            if a is not None and b is not None and b.size == a.size * times:
                self.moves.append((np.tile(a.slots, times), b.slots))


class SpaceToDepthRule(MovingRule):
    """SpaceToDepth: every place in a block has all channels."""

    def connect(self) -> None:
        """See `MovingRule`."""
        node = self.node
        size = int(node.attrs["blocksize"]) ** 2
        self.move(self.slots.axis(node.inputs[0], 0), self.slots.axis(node.outputs[0], 0))
        x, y = self.slots.axis(node.inputs[0], 1), self.slots.axis(node.outputs[0], 1)
        if x is not None and y is not None and y.size == x.size * size:
            self.moves.append((np.tile(x.slots, size), y.slots))


RULES = {
    "CumSum": CumSumRule,
    "ArgMax": AlongAxisRule,
    "ArgMin": AlongAxisRule,
    "TopK": TopKRule,
    "Expand": ExpandRule,
    "Tile": TileRule,
    "SpaceToDepth": SpaceToDepthRule,
}
