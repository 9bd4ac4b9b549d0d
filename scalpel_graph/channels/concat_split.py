"""Concat, Split, Slice and Gather: they move slots along an axis."""

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.constants import Constants, is_float, slices
from scalpel_graph.channels.rule import Kept, Refusal, Rule, take
from scalpel_graph.channels.slots import Axis, IntArray, Slots
from scalpel_graph.graph import ModelGraph


class MovingRule(Rule):
    """Common part: output slots are copies of input slots.

    Attributes:
        moves: pairs of arrays of slots: where they come from, and where they go.
    """

    def describe(self) -> None:
        """See the module's docstring."""
        self.moves: list[tuple[IntArray, IntArray]] = []
        self.connect()
        self.couplings += self.moves

    def connect(self) -> None:
        """Fills in ``moves``."""
        raise NotImplementedError

    def move(self, a: Axis | None, b: Axis | None) -> None:
        """The slots of one axis are those of another of the same size, in order."""
        if a is not None and b is not None and a.size == b.size:
            self.moves.append((a.slots, b.slots))

    def place(self, rank: int, axis: int) -> int:
        """An axis counted from the front."""
        if not -rank <= axis < rank:
            raise Refusal(f"it has no axis {axis}")
        return axis % rank

    def constants(self, constants: Constants) -> None:
        """A copy holds what the original holds."""
        for source, target in self.moves:
            constants.copy(source, target)


class ConcatRule(MovingRule):
    """Concat: each input has its part of the output's axis; across the axis all go together."""

    def connect(self) -> None:
        """See `MovingRule`."""
        node = self.node
        made = self.axes(node.outputs[0])
        self.axis = self.place(len(made), int(node.attrs["axis"]))
        self.parts: list[tuple[int, Axis, int]] = []  # constants: input, the output's axis, offset in it
        self.optional_along = frozenset({self.axis})
        joined = made[self.axis]
        offset = 0
        for index, tensor in enumerate(node.inputs):
            values = self.graph.constant(tensor)
            if values is None:
                axes = self.axes(tensor)
                part = axes[self.axis]
                if joined is not None and part is not None:
                    self.moves.append((part.slots, joined.slots[offset : offset + part.size]))
                    offset += part.size
            elif joined is not None:
                self.parts.append((index, joined, offset))
                self.free.append(joined.slots[offset : offset + values.shape[self.axis]])
                offset += values.shape[self.axis]
        if joined is not None and offset != joined.size:
            raise Refusal("the sizes of its inputs are not known")
        self.across = [made[index] for index in range(len(made)) if index != self.axis]
        self._connect_across()

    def _connect_across(self) -> None:
        """Along the other axes all inputs go together, where their sizes are known."""
        variables = [tensor for tensor in self.node.inputs if self.graph.constant(tensor) is None]
        for made in self.across:
            if made is None:
                continue
            axes = [self.axes(tensor)[made.index] for tensor in variables]
            if all(axis is not None and axis.size == made.size for axis in axes):
                for axis in axes:
                    self.couple(axis, made)

    def constants(self, constants: Constants) -> None:
        """Also of the inputs that are constants."""
        super().constants(constants)
        for index, joined, offset in self.parts:
            values = self.graph.constant(self.node.inputs[index])
            if values is not None and is_float(values):
                known, value = slices(values, self.axis)
                constants.set(joined.slots[offset : offset + len(known)], known, value)

    def shrink(self, kept: Kept) -> None:
        """Slices the inputs that are constants, leaves out those of which nothing is left."""
        offsets = {index: (joined, offset) for index, joined, offset in self.parts}
        for index, tensor in enumerate(self.node.inputs):
            values = self.graph.constant(tensor)
            if values is None:
                continue
            smaller = values
            if index in offsets:
                joined, offset = offsets[index]
                part = joined.slots[offset : offset + values.shape[self.axis]]
                smaller = np.compress(kept.live[part], smaller, axis=self.axis)
            for made in self.across:
                if made is not None:
                    smaller = take(smaller, kept.of(made), made.index)
            if smaller.shape != values.shape:
                kept.replace(self.graph, self.node, index, smaller)
        for index in reversed(range(len(self.node.inputs))):
            if self._is_empty(kept, self.node.inputs[index]):
                del self.node.inputs[index]

    def _is_empty(self, kept: Kept, tensor: gs.Tensor) -> bool:
        values = self.graph.constant(tensor)
        if values is not None:
            return not values.shape[self.axis]
        indices = kept.of(self.slots.axis(tensor, self.axis))
        return indices is not None and not len(indices)


class SplitRule(MovingRule):
    """Split: each output has its part of the input's axis, and is left out if nothing is left of it."""

    optional_outputs = True

    def connect(self) -> None:
        """See `MovingRule`."""
        node = self.node
        if self.has_input(1) and self.input_constant(1) is None:
            raise Refusal("its sizes are not constant")
        if any(not tensor.name for tensor in node.outputs):
            raise Refusal("it leaves out an output")
        axes = self.axes(node.inputs[0])
        self.axis = self.place(len(axes), int(node.attrs.get("axis", 0)))
        whole = axes[self.axis]
        parts = [self.axes(tensor)[self.axis] for tensor in node.outputs]
        if whole is None or any(part is None for part in parts):
            raise Refusal("the sizes of its outputs are not known")
        offset = 0
        self.parts: list[Axis] = []
        for part in parts:
            assert part is not None
            self.moves.append((whole.slots[offset : offset + part.size], part.slots))
            self.parts.append(part)
            offset += part.size
        if offset != whole.size:
            raise Refusal("the sizes of its outputs are not known")
        for index, axis in enumerate(axes):
            if index != self.axis:
                for tensor in node.outputs:
                    self.move(axis, self.axes(tensor)[index])

    def shrink(self, kept: Kept) -> None:
        """States the new sizes."""
        if all(kept.of(part) is None for part in self.parts):
            return
        sizes = [int(kept.live[part.slots].sum()) for part in self.parts]
        for index in reversed(range(len(sizes))):
            if not sizes[index]:
                del self.node.outputs[index], sizes[index]
        if self.graph.opset < 13:
            self.node.attrs["split"] = sizes
            return
        self.node.attrs.pop("num_outputs", None)
        values = np.array(sizes, dtype=np.int64)
        if self.has_input(1):
            kept.replace(self.graph, self.node, 1, values)
        else:
            self.add_input(1, "split", values)


class GatherRule(MovingRule):
    """Gather of constant indices along an axis: slots it does not pick are not read."""

    def connect(self) -> None:
        """See `MovingRule`."""
        node = self.node
        indices = self.input_constant(1)
        if indices is None:
            raise Refusal("its indices are not constant")
        axes, made = self.axes(node.inputs[0]), self.axes(node.outputs[0])
        self.axis = self.place(len(axes), int(node.attrs.get("axis", 0)))
        for index, axis in enumerate(axes):
            if index != self.axis:
                self.move(axis, made[index if index < self.axis else index + indices.ndim - 1])
        whole = axes[self.axis]
        self.source = self.target = None
        if indices.ndim != 1 or whole is None:
            return
        target = made[self.axis]
        if target is None or target.size != len(indices):
            return
        self.source, self.target = whole, target
        self.picked = np.where(indices < 0, indices + whole.size, indices)
        if ((self.picked < 0) | (self.picked >= whole.size)).any():
            raise Refusal("an index is out of range")
        self.moves.append((whole.slots[self.picked], target.slots))
        self.free.append(np.delete(whole.slots, self.picked))

    def shrink(self, kept: Kept) -> None:
        """Renumbers the indices."""
        if self.source is None or self.target is None:
            return
        if kept.of(self.source) is None and kept.of(self.target) is None:
            return
        number = np.cumsum(kept.live[self.source.slots]) - 1
        picked = number[take(self.picked, kept.of(self.target), 0)]
        before = self.input_constant(1)
        assert before is not None
        kept.replace(self.graph, self.node, 1, picked.astype(before.dtype))


class SliceRule(MovingRule):
    """Slice with constant bounds: slots outside them are not read. Only steps of 1 move slots."""

    def connect(self) -> None:
        """See `MovingRule`."""
        node = self.node
        if self.graph.opset < 10:
            raise Refusal("Slice has its bounds elsewhere before opset 10")
        axes, made = self.axes(node.inputs[0]), self.axes(node.outputs[0])
        starts, ends = self.input_constant(1), self.input_constant(2)
        given, steps = self.input_constant(3), self.input_constant(4)
        if starts is None or ends is None or (self.has_input(3) and given is None):
            raise Refusal("its bounds are not constant")
        if self.has_input(4) and steps is None:
            raise Refusal("its steps are not constant")
        places = list(range(len(starts))) if given is None else [self.place(len(axes), int(a)) for a in given]
        sizes = [1] * len(starts) if steps is None else [int(step) for step in steps]
        self.cuts: list[tuple[int, Axis, Axis, int]] = []  # entry, from, to, start
        for entry, place in enumerate(places):
            whole, part = axes[place], made[place]
            if whole is None or part is None or sizes[entry] != 1:
                continue
            start, end, _ = slice(int(starts[entry]), int(ends[entry])).indices(whole.size)
            if end - start != part.size:
                raise Refusal("its bounds are not what its output's shape says")
            self.moves.append((whole.slots[start:end], part.slots))
            self.free.append(np.delete(whole.slots, np.s_[start:end]))
            self.cuts.append((entry, whole, part, start))
        for index, axis in enumerate(axes):
            if index not in places:
                self.move(axis, made[index])

    def shrink(self, kept: Kept) -> None:
        """Moves the bounds."""
        bounds = [self.input_constant(1), self.input_constant(2)]
        starts, ends = (np.array(bound) for bound in bounds)
        changed = False
        for entry, whole, part, start in self.cuts:
            if kept.of(whole) is None:
                continue
            before = int(kept.live[whole.slots[:start]].sum())
            starts[entry], ends[entry] = before, before + int(kept.live[part.slots].sum())
            changed = True
        if changed:
            kept.replace(self.graph, self.node, 1, starts)
            kept.replace(self.graph, self.node, 2, ends)


RULES: dict[str, Callable[[ModelGraph, gs.Node, Slots], Rule]] = {
    "Concat": ConcatRule,
    "Split": SplitRule,
    "Gather": GatherRule,
    "Slice": SliceRule,
}
