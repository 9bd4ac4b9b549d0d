"""If, Loop and Scan, with bodies that are part of the graph (`scalpel_graph.bodies`).

What a body computes has rules of its own, node by node; here slots of tensors go together that are one value
inside and outside:

- If: an output, and what each branch has for it. It is constant where both hold the same number.
- Loop and Scan: a state before the first iteration, at the beginning and at the end of each, and after the
  last one. It is constant where it starts as a number that an iteration leaves as it is: assumed of all that
  start as one, and taken back where an iteration makes something else of it, until all that is assumed holds.
- What Loop and Scan collect of all iterations has one more axis outside, and so has what Scan hands out.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.bodies import MARKER, Owner
from scalpel_graph.channels.constants import Constants, Float64Array, slices
from scalpel_graph.channels.rule import Kept, Refusal, Rule, take
from scalpel_graph.channels.slots import Axis, BoolArray, IntArray


@dataclass(frozen=True)
class _End:
    """A tensor that holds a value inside or outside of a body.

    Attributes:
        tensor: which.
        position: which input of the owner it is; None for what is none.
        extra: the axis that it has more than inside.
    """

    tensor: gs.Tensor
    position: int | None = None
    extra: int | None = None

    def axis(self, index: int) -> int:
        """Its axis that is axis ``index`` inside."""
        return index if self.extra is None or index < self.extra else index + 1


@dataclass(frozen=True)
class _Strand:
    """The places of one value.

    Attributes:
        sources: where it is computed: of If in each branch, of a state before and in every iteration.
        entry: the input of a body that it comes in by.
        exit: the owner's output that it comes out of.
    """

    sources: tuple[_End, ...]
    entry: _End | None = None
    exit: _End | None = None

    @property
    def ends(self) -> list[_End]:
        """All places, one that is always a variable first."""
        there = [end for end in (self.exit, self.entry) if end is not None and end.tensor.name]
        return there + [end for end in self.sources if end.tensor.name]


@dataclass(frozen=True)
class _Line:
    """One axis of a strand whose size is the same everywhere.

    Attributes:
        strand: which.
        index: the axis inside.
        axes: of the strand's ends; None for constants.
    """

    strand: _Strand
    index: int
    axes: list[Axis | None]

    @property
    def reference(self) -> Axis | None:
        """An axis of a variable; None if all are constants."""
        return next((axis for axis in self.axes if axis is not None), None)

    def axis_of(self, end: _End | None) -> Axis | None:
        """The axis of one end."""
        ends = self.strand.ends
        return next((axis for other, axis in zip(ends, self.axes, strict=True) if other is end), None)


class _ControlRule(Rule):
    """Common part."""

    why_left = "their size is not known to be the same inside and outside of its body"
    can_go = False

    def lines(self) -> Iterator[_Line]:
        """Every axis of every strand that is the same everywhere."""
        assert self.graph.bodies is not None
        owner = self.graph.bodies.owner(self.node)
        for strand in _STRANDS[owner.node.op](self, owner):
            ranks = {self._rank(end) for end in strand.ends}
            if len(ranks) != 1 or None in ranks:
                continue
            for index in range(ranks.pop() or 0):
                places = [(end.tensor, end.axis(index)) for end in strand.ends]
                shapes = [(self.graph.shape(tensor) or ())[place] for tensor, place in places]
                if isinstance(shapes[0], int) and shapes[0] > 0 and len(set(shapes)) == 1:
                    axes = [
                        None if isinstance(tensor, gs.Constant) else self.slots.axis(tensor, place)
                        for tensor, place in places
                    ]
                    yield _Line(strand, index, axes)

    def _rank(self, end: _End) -> int | None:
        """How many axes a value has inside."""
        shape = self.graph.shape(end.tensor)
        return None if shape is None else len(shape) - (end.extra is not None)

    def known(self, line: _Line, end: _End, constants: Constants) -> tuple[BoolArray, Float64Array]:
        """What one end holds along a line."""
        axis = line.axis_of(end)
        if axis is not None:
            return constants.known[axis.slots], constants.value[axis.slots]
        values = self.graph.constant(end.tensor)
        assert values is not None
        known, value = slices(values, end.axis(line.index))
        return known & (values.dtype.kind == "f"), value

    def cut(self, line: _Line, kept: Kept) -> None:
        """Slices the sources that are constants."""
        indices = kept.of(line.reference)
        for end in line.strand.sources if indices is not None else ():
            owner = self._owner()
            if end.position is None or not end.tensor.name:
                continue
            tensor = owner.node.inputs[end.position]
            values = self.graph.constant(tensor)
            if values is None:
                continue
            smaller = take(values, indices, end.axis(line.index))
            if end.position < owner.arity:
                kept.replace(self.graph, owner.node, end.position, smaller)
            else:  # a body has its outputs to itself
                self.graph.set_constant(owner.node, end.position, smaller)

    def _owner(self) -> Owner:
        assert self.graph.bodies is not None
        return self.graph.bodies.owner(self.node)


class BodyRule(_ControlRule):
    """The marker of a body, which makes the body's inputs."""

    def describe(self) -> None:
        """The slots are those of the owner's strands."""
        own = {id(tensor) for tensor in self.node.outputs}
        self.own = [
            line for line in self.lines() if line.strand.entry and id(line.strand.entry.tensor) in own
        ]
        for line in self.own:
            entry = line.axis_of(line.strand.entry)
            assert entry is not None
            self.free.append(entry.slots)

    def states(self) -> list[IntArray]:
        """The slots of states, as an iteration is given them."""
        entries = (line.axis_of(line.strand.entry) for line in self.own if len(line.strand.sources) > 1)
        return [axis.slots for axis in entries if axis is not None]

    def constants(self, constants: Constants) -> None:
        """What comes in from outside, unless it is a state that is known to change."""
        for line in self.own:
            entry = line.axis_of(line.strand.entry)
            assert entry is not None
            known, value = self.known(line, line.strand.sources[0], constants)
            constants.set(entry.slots, known & ~constants.varies[entry.slots], value)

    def wrong(self, constants: Constants) -> IntArray:
        """States that an iteration changes."""
        changed = [np.zeros(0, dtype=np.int64)]
        for line in self.own:
            entry = line.axis_of(line.strand.entry)
            for end in line.strand.sources[1:]:
                assert entry is not None
                known, value = self.known(line, end, constants)
                stays = known & (value == constants.value[entry.slots])
                changed.append(entry.slots[constants.known[entry.slots] & ~stays])
        return np.concatenate(changed)

    def shrink(self, kept: Kept) -> None:
        """Slices what comes in and is constant."""
        for line in self.own:
            self.cut(line, kept)


class OwnerRule(_ControlRule):
    """If, Loop or Scan itself, which reads the outputs of its bodies."""

    def describe(self) -> None:
        """Couples the ends of every strand."""
        if self.node.op == "If":
            self.why_varied = "its branches do not hold the same number in them"
        else:
            self.why_varied = "they change from one iteration to the next"
        self.all = list(self.lines())
        for line in self.all:
            for axis in line.axes[1:]:
                self.couple(axis, line.reference)
            if line.reference is not None:
                self.free.append(line.reference.slots)

    def constants(self, constants: Constants) -> None:
        """What all sources hold."""
        for line in self.all:
            made = line.axis_of(line.strand.exit)
            if made is None:
                continue
            known, value = self.known(line, line.strand.sources[0], constants)
            for end in line.strand.sources[1:]:
                other, other_value = self.known(line, end, constants)
                known = known & other & (value == other_value)
            constants.set(made.slots, known, value)

    def shrink(self, kept: Kept) -> None:
        """Slices outputs of bodies that are constants."""
        for line in self.all:
            if line.strand.entry is None:
                self.cut(line, kept)


def _if(rule: Rule, owner: Owner) -> list[_Strand]:
    branches = {body.attribute: body.outputs for body in owner.bodies}
    outputs = list(owner.node.outputs)
    if any(len(positions) != len(outputs) for positions in branches.values()):
        raise Refusal("its branches do not have as many outputs as it has")
    return [
        _Strand(tuple(_given(owner, positions[k]) for positions in branches.values()), exit=_End(tensor))
        for k, tensor in enumerate(outputs)
    ]


def _loop(rule: Rule, owner: Owner) -> list[_Strand]:
    (body,) = owner.bodies
    inputs, outputs = list(body.marker.outputs), list(owner.node.outputs)
    states = owner.arity - 2
    if len(inputs) != 2 + states or len(body.outputs) != 1 + len(outputs) or len(outputs) < states:
        raise Refusal("its body does not have the inputs and outputs that it asks for")
    strands = [
        _Strand(
            (_given(owner, 2 + k), _given(owner, body.outputs[1 + k])),
            _End(inputs[2 + k]),
            _End(outputs[k]),
        )
        for k in range(states)
    ]
    for k in range(states, len(outputs)):
        strands.append(_Strand((_given(owner, body.outputs[1 + k]),), exit=_End(outputs[k], extra=0)))
    return strands


def _scan(rule: Rule, owner: Owner) -> list[_Strand]:
    if rule.graph.opset < 9:
        raise Refusal("before opset 9 it has a batch axis")
    (body,) = owner.bodies
    inputs, outputs = list(body.marker.outputs), list(owner.node.outputs)
    scanned = int(owner.node.attrs["num_scan_inputs"])
    states, collected = owner.arity - scanned, len(outputs) - owner.arity + scanned
    if len(inputs) != owner.arity or len(body.outputs) != len(outputs) or states < 0 or collected < 0:
        raise Refusal("its body does not have the inputs and outputs that it asks for")
    strands = [
        _Strand((_given(owner, k), _given(owner, body.outputs[k])), _End(inputs[k]), _End(outputs[k]))
        for k in range(states)
    ]
    for k, axis in enumerate(owner.node.attrs.get("scan_input_axes", [0] * scanned)):
        position = states + k
        extra = _place(rule, owner.node.inputs[position], axis)
        end = _End(owner.node.inputs[position], position, extra)
        strands.append(_Strand((end,), _End(inputs[position])))
    for k, axis in enumerate(owner.node.attrs.get("scan_output_axes", [0] * collected)):
        tensor = outputs[states + k]
        end = _End(tensor, extra=_place(rule, tensor, axis))
        strands.append(_Strand((_given(owner, body.outputs[states + k]),), exit=end))
    return strands


def _given(owner: Owner, position: int) -> _End:
    return _End(owner.node.inputs[position], position)


def _place(rule: Rule, tensor: gs.Tensor, axis: int) -> int:
    shape = rule.graph.shape(tensor)
    if shape is None:
        raise Refusal(f"the rank of {tensor.name!r} is not known")
    return axis % len(shape)


_STRANDS = {"If": _if, "Loop": _loop, "Scan": _scan}
RULES = {MARKER: BodyRule, **dict.fromkeys(_STRANDS, OwnerRule)}
