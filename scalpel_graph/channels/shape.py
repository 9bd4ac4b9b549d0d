"""Transpose, Squeeze, Unsqueeze, Flatten, Reshape, Pad, Resize, Softmax, …: slots change place or number.

Reshape and Flatten merge axes or split one. Of merged axes one moves with the result (each of its slots is a
set of places there); of the axes that one is split into, the outermost does. The others stay as they are.
"""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.concat_split import MovingRule
from scalpel_graph.channels.constants import Constants, element_type
from scalpel_graph.channels.rule import Kept, Refusal, Rule
from scalpel_graph.channels.slots import Axis, IntArray
from scalpel_graph.graph import ModelGraph, Shape


class TransposeRule(MovingRule):
    """Transpose: axes in another order."""

    def connect(self) -> None:
        """See `MovingRule`."""
        axes, made = self.axes(self.node.inputs[0]), self.axes(self.node.outputs[0])
        order = self.node.attrs.get("perm", list(reversed(range(len(axes)))))
        for place, index in enumerate(order):
            self.move(axes[index], made[place])


class SqueezeRule(MovingRule):
    """Squeeze of stated axes."""

    def connect(self) -> None:
        """See `MovingRule`; without stated axes, one that shrinks to a single slot would vanish."""
        axes, made = self.axes(self.node.inputs[0]), self.axes(self.node.outputs[0])
        gone = self._stated(len(axes))
        stay = [axis for index, axis in enumerate(axes) if index not in gone]
        for axis, place in zip(stay, made, strict=True):
            self.move(axis, place)

    def _stated(self, rank: int) -> set[int]:
        given = self.node.attrs.get("axes")
        if given is None:
            values = self.input_constant(1)
            if values is None:
                raise Refusal("its axes are not stated")
            given = values.reshape(-1).tolist()
        return {self.place(rank, int(axis)) for axis in given}


class UnsqueezeRule(SqueezeRule):
    """Unsqueeze: new axes of one slot."""

    def connect(self) -> None:
        """See `MovingRule`."""
        axes, made = self.axes(self.node.inputs[0]), self.axes(self.node.outputs[0])
        new = self._stated(len(made))
        self.free += [made[index].slots for index in new if made[index] is not None]  # type: ignore[union-attr]
        stay = [axis for index, axis in enumerate(made) if index not in new]
        for axis, place in zip(axes, stay, strict=True):
            self.move(axis, place)


@dataclass(frozen=True)
class _Block:
    """Neighbouring axes before and after that hold the same elements."""

    before: tuple[int, ...]
    after: tuple[int, ...]


def blocks(before: Shape, after: Shape) -> list[_Block]:
    """Pairs axes of two shapes of the same elements: from the left, then, past unknown sizes, from the right.

    Only what is certain comes out; axes of size 1 are in blocks of their own or with a neighbour.
    """
    found, i, j = _pair(before, after)
    if i == len(before) and j == len(after):
        return found
    rest, k, n = _pair(tuple(reversed(before[i:])), tuple(reversed(after[j:])))
    if len(before) - k < i or len(after) - n < j:
        return found
    for block in rest:
        found.append(
            _Block(
                tuple(sorted(len(before) - 1 - index for index in block.before)),
                tuple(sorted(len(after) - 1 - index for index in block.after)),
            )
        )
    return found


def _pair(before: Shape, after: Shape) -> tuple[list[_Block], int, int]:
    """Blocks from the left, and how many axes of each shape they cover."""
    found = []
    i = j = 0
    while i < len(before) and j < len(after):
        if before[i] == after[j] and before[i] is not None:
            found.append(_Block((i,), (j,)))
            i, j = i + 1, j + 1
            continue
        start_i, start_j = i, j
        left, right = before[i], after[j]
        i, j = i + 1, j + 1
        while isinstance(left, int) and isinstance(right, int) and left != right:
            if left < right:
                size = before[i] if i < len(before) else None
                left = left * size if isinstance(size, int) else None
                i += 1
            else:
                size = after[j] if j < len(after) else None
                right = right * size if isinstance(size, int) else None
                j += 1
        if left is None or left != right:
            return found, start_i, start_j
        found.append(_Block(tuple(range(start_i, i)), tuple(range(start_j, j))))
    return found, i, j


@dataclass(frozen=True)
class StatedSize:
    """An entry of a Reshape's shape: at ``place`` in input ``index`` of ``node``; its value if constant."""

    node: gs.Node
    index: int
    place: int
    value: int | None


def stated_sizes(graph: ModelGraph, node: gs.Node, rank: int) -> list[StatedSize]:
    """The entries of the shape of a Reshape, one for each axis of its output, of which there are ``rank``.

    Raises:
        Refusal: the shape is neither a constant nor joined from constants and computed sizes for it alone.
    """
    shape = node.inputs[1]
    values = graph.constant(shape)
    if values is not None:
        return [StatedSize(node, 1, place, int(value)) for place, value in enumerate(values)]
    maker = shape.inputs[0] if len(shape.inputs) == 1 else None
    if maker is None or maker.op != "Concat" or graph.sole_consumer(shape) is None:
        raise Refusal("its shape is computed")
    sizes = []
    for index, part in enumerate(maker.inputs):
        values, length = graph.constant(part), graph.shape(part)
        if length is None or len(length) != 1 or not isinstance(length[0], int):
            raise Refusal("its shape is computed")
        for place in range(length[0]):
            sizes.append(StatedSize(maker, index, place, None if values is None else int(values[place])))
    if len(sizes) != rank:
        raise Refusal("its shape is computed")
    return sizes


class ReshapeRule(Rule):
    """Reshape, whose shape is a constant or joined from constants and computed sizes, and Flatten."""

    def describe(self) -> None:
        """See the module's docstring."""
        node = self.node
        before, after = self.axes(node.inputs[0]), self.axes(node.outputs[0])
        self.target = stated_sizes(self.graph, node, len(after)) if node.op == "Reshape" else []
        shapes = [self.graph.shape(tensor) for tensor in (node.inputs[0], node.outputs[0])]
        if shapes[0] is None or shapes[1] is None:
            raise Refusal("its shape is not known")
        self.after = after
        self.merges: list[
            tuple[IntArray, IntArray]
        ] = []  # slots before; the places after of each, a row each
        self.splits: list[tuple[IntArray, IntArray]] = []
        for block in blocks(shapes[0], shapes[1]):
            sources = [
                axis for index in block.before if (axis := before[index]) is not None and axis.size > 1
            ]
            targets = [axis for index in block.after if (axis := after[index]) is not None and axis.size > 1]
            if self.target and targets and self.target[targets[0].index].value is None:
                continue
            if len(targets) == 1 and sources:
                self._merge(sources, targets[0])
            elif len(sources) == 1 and targets:
                self.splits.append((sources[0].slots.reshape(targets[0].size, -1), targets[0].slots))
        for source, places in self.merges:
            self.couplings.append((np.repeat(source, places.shape[1]), places.reshape(-1)))
        for places, target in self.splits:
            self.couplings.append((places.reshape(-1), np.repeat(target, places.shape[1])))

    def _merge(self, sources: list[Axis], target: Axis) -> None:
        moving = self._moving(sources)
        sizes = [axis.size for axis in sources]
        place = sources.index(moving)
        places = np.moveaxis(target.slots.reshape(sizes), place, 0).reshape(moving.size, -1)
        self.merges.append((moving.slots, places))

    def _moving(self, sources: list[Axis]) -> Axis:
        """The outermost axis, or, right behind a Transpose, the one that it took from the channels' place.

        The place is axis 1, but for the hidden units of recurrent layers, which come last.
        """
        maker = self.node.inputs[0].inputs[0] if self.node.inputs[0].inputs else None
        if maker is not None and maker.op == "Transpose" and "perm" in maker.attrs:
            order = list(maker.attrs["perm"])
            origin = maker.inputs[0].inputs[0] if maker.inputs[0].inputs else None
            channels = 3 if origin is not None and origin.op in ("LSTM", "GRU", "RNN") else 1
            return next((axis for axis in sources if order[axis.index] == channels), sources[0])
        return sources[0]

    def constants(self, constants: Constants) -> None:
        """A place holds what the slot it belongs to holds, and a slot what all its places hold."""
        for source, places in self.merges:
            constants.copy(np.repeat(source, places.shape[1]), places.reshape(-1))
        for places, target in self.splits:
            known, value = constants.known[places], constants.value[places]
            constants.set(target, known.all(axis=1) & (value == value[:, :1]).all(axis=1), value[:, 0])

    def shrink(self, kept: Kept) -> None:
        """States the new sizes, unless the shape says to infer them."""
        if not self.target or all(kept.of(axis) is None for axis in self.after):
            return
        changed: dict[tuple[int, int], tuple[gs.Node, int, dict[int, int]]] = {}
        for size, axis in zip(self.target, self.after, strict=True):
            if axis is not None and size.value is not None and size.value != -1:
                entry = changed.setdefault((id(size.node), size.index), (size.node, size.index, {}))
                entry[2][size.place] = int(kept.live[axis.slots].sum())
        for node, index, sizes in changed.values():
            values = np.array(self.graph.constant(node.inputs[index]))
            values[list(sizes)] = list(sizes.values())
            kept.replace(self.graph, node, index, values)


class PadRule(MovingRule):
    """Pad: an axis moves as it is, or in between the slots that are added, or without those cut off."""

    def connect(self) -> None:
        """See `MovingRule`."""
        node = self.node
        if self.has_input(3):
            raise Refusal("it states its axes")
        axes, made = self.axes(node.inputs[0]), self.axes(node.outputs[0])
        given = node.attrs.get("pads")
        if given is None:
            given = self.input_constant(1)
        if given is None or len(given) != 2 * len(axes):
            raise Refusal("its padding is not constant")
        self.pads = [int(pad) for pad in given]
        fill = self.input_constant(2) if self.has_input(2) else np.array(node.attrs.get("value", 0.0))
        self.fill = None if fill is None else float(fill.reshape(-1)[0])
        self.is_constant = node.attrs.get("mode", "constant") == "constant"
        self.cuts: list[tuple[int, IntArray, IntArray]] = []  # entry of pads, slots cut off, slots added
        for index, (axis, target) in enumerate(zip(axes, made, strict=True)):
            front, back = self.pads[index], self.pads[index + len(axes)]
            if not front and not back:
                self.move(axis, target)
            elif self.is_constant and axis is not None and target is not None:
                self._move_between(axis, target, front, back)

    def _move_between(self, axis: Axis, made: Axis, front: int, back: int) -> None:
        cut = np.split(axis.slots, [max(-front, 0), axis.size - max(-back, 0)])
        added = np.split(made.slots, [max(front, 0), made.size - max(back, 0)])
        if len(cut[1]) != len(added[1]):
            return
        self.moves.append((cut[1], added[1]))
        for entry, side in ((axis.index, 0), (axis.index + len(self.pads) // 2, 2)):
            self.free += [cut[side], added[side]]
            self.cuts.append((entry, cut[side], added[side]))

    def constants(self, constants: Constants) -> None:
        """A channel stays constant if it is padded with what it holds; added ones hold what fills them."""
        if element_type(self.graph, self.node.outputs[0]) is None:
            return
        rank = len(self.pads) // 2
        for source, target in self.moves:
            index = self._index(target)
            others = [pad for entry, pad in enumerate(self.pads) if entry % rank != index]
            known, value = constants.known[source], constants.value[source]
            kept = not self.is_constant or max(others, default=0) <= 0
            constants.set(target, known & (kept | (value == self.fill)), value)
        if self.fill is not None:
            for _, _, added in self.cuts:
                constants.set(added, np.ones(len(added), dtype=np.bool_), np.full(len(added), self.fill))

    def _index(self, slots: IntArray) -> int:
        """The axis of the output that slots are of."""
        axes = [axis for axis in self.axes(self.node.outputs[0]) if axis is not None]
        return next(axis.index for axis in axes if axis.start <= slots[0] < axis.start + axis.size)

    def shrink(self, kept: Kept) -> None:
        """States how many are added, or cut off."""
        pads = list(self.pads)
        for entry, cut, added in self.cuts:
            pads[entry] = int(kept.live[added].sum()) - int(kept.live[cut].sum())
        if pads == self.pads:
            return
        if "pads" in self.node.attrs:
            self.node.attrs["pads"] = pads
        else:
            kept.replace(self.graph, self.node, 1, np.array(pads, dtype=np.int64))


class ResizeRule(MovingRule):
    """Resize and Upsample that leave batch and channels as they are; zero stays zero.

    With ``nearest`` every constant stays what it is; other modes round, or look outside.
    """

    def connect(self) -> None:
        """See `MovingRule`."""
        node = self.node
        if (
            node.attrs.get("axes") is not None
            or node.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize"
        ):
            raise Refusal("it resizes in an unusual way")
        sizes = self.input_constant(3)
        if self.has_input(3) and sizes is None:
            raise Refusal("its sizes are computed")
        self.sizes = sizes
        if sizes is None:
            scales = self.input_constant(1 if self.graph.opset < 11 or node.op == "Upsample" else 2)
            given = node.attrs.get("scales") if scales is None else scales
            if given is None or any(float(scale) != 1.0 for scale in given[:2]):
                raise Refusal("it resizes channels, or its scales are computed")
        elif node.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
            raise Refusal("it resizes in an unusual way")
        self.made = self.axes(node.outputs[0])
        for index, axis in enumerate(self.axes(node.inputs[0])[:2]):
            self.move(axis, self.made[index])

    def constants(self, constants: Constants) -> None:
        """See the class."""
        every = self.node.attrs.get("mode", "nearest") == "nearest"
        for source, target in self.moves:
            known, value = constants.known[source], constants.value[source]
            constants.set(target, known & (every | (value == 0)), value)

    def shrink(self, kept: Kept) -> None:
        """States the new number of channels."""
        if self.sizes is None or all(kept.of(axis) is None for axis in self.made[:2]):
            return
        sizes = np.array(self.sizes)
        for index, axis in enumerate(self.made[:2]):
            if axis is not None:
                sizes[index] = int(kept.live[axis.slots].sum())
        kept.replace(self.graph, self.node, 3, sizes)


class DepthToSpaceRule(Rule):
    """DepthToSpace: the channels that make up one of the output go together."""

    def describe(self) -> None:
        """See the class."""
        node = self.node
        size = int(node.attrs["blocksize"]) ** 2
        x, y = self.slots.axis(node.inputs[0], 1), self.slots.axis(node.outputs[0], 1)
        if x is None or y is None or x.size != y.size * size:
            raise Refusal("the number of its channels is not known")
        self.couple(self.slots.axis(node.inputs[0], 0), self.slots.axis(node.outputs[0], 0))
        neighbours = node.attrs.get("mode", "DCR") == "CRD"
        self.parts = x.slots.reshape(y.size, size) if neighbours else x.slots.reshape(size, y.size).T
        self.made = y.slots
        self.couplings.append((self.parts.reshape(-1), np.repeat(self.made, size)))

    def constants(self, constants: Constants) -> None:
        """What all parts hold."""
        known, value = constants.known[self.parts], constants.value[self.parts]
        constants.set(self.made, known.all(axis=1) & (value == value[:, :1]).all(axis=1), value[:, 0])


class ShapeRule(Rule):
    """Shape: it looks at no slot. Sizes that Gather does not pick of it may change."""

    def describe(self) -> None:
        """See the class."""
        axes = self.axes(self.node.inputs[0])
        looked_at = self._looked_at(len(axes))
        self.free += [axis.slots for axis in axes if axis is not None and axis.index not in looked_at]

    def _looked_at(self, rank: int) -> set[int]:
        output = self.node.outputs[0]
        if self.graph.is_pinned(output) or {"start", "end"} & set(self.node.attrs):
            return set(range(rank))
        axes: set[int] = set()
        for reader in output.outputs:
            indices = self.graph.constant(reader.inputs[1]) if reader.op == "Gather" else None
            if indices is None or reader.inputs[0] is not output:
                return set(range(rank))
            axes |= {int(index) % rank for index in indices.reshape(-1)}
        return axes


class SoftmaxRule(Rule):
    """Softmax, LogSoftmax and Hardmax: every axis but the one they normalise along."""

    def describe(self) -> None:
        """See the class."""
        axes, made = self.axes(self.node.inputs[0]), self.axes(self.node.outputs[0])
        along = int(self.node.attrs.get("axis", -1 if self.graph.opset >= 13 else 1)) % len(axes)
        if self.graph.opset < 13 and along != len(axes) - 1:
            raise Refusal("it normalises along several axes at once")
        for index, axis in enumerate(axes):
            if index != along:
                self.couple(axis, made[index])


RULES = {
    "Transpose": TransposeRule,
    "Squeeze": SqueezeRule,
    "Unsqueeze": UnsqueezeRule,
    "Flatten": ReshapeRule,
    "Reshape": ReshapeRule,
    "Pad": PadRule,
    "Resize": ResizeRule,
    "Upsample": ResizeRule,
    "DepthToSpace": DepthToSpaceRule,
    "Shape": ShapeRule,
    "Softmax": SoftmaxRule,
    "LogSoftmax": SoftmaxRule,
    "Hardmax": SoftmaxRule,
}
