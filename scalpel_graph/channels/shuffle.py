"""Channel shuffles, fused heads and Slices with steps, seen as what they are: channels in another order.

``[N, g·n, H, W]`` as ``[N, g, n, H, W]``, transposed, and back: a slot is a place along one axis, and the
axes in between have no place for a channel. So while channels are analysed and removed, a Gather of the
channels stands for such a chain of nodes, however it is written (`regroup`). Afterwards the chain comes back
as it was if no channel was lost on the way, with other sizes if what is left is a shuffle of fewer channels;
otherwise the Gather stays.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from scalpel_graph.channels.regroup import Digit, Digits, View, places, reordered_axis, whole
from scalpel_graph.channels.rule import Refusal
from scalpel_graph.channels.shape import StatedSize, stated_sizes
from scalpel_graph.channels.slots import IntArray
from scalpel_graph.graph import ModelGraph, Shape, node_label

#: What a chain is made of.
_MOVES = {"Reshape", "Flatten", "Transpose", "Squeeze", "Unsqueeze", "Gather", "Split"}

#: Chains of more nodes are not looked for.
_LONGEST = 16


@dataclass(frozen=True)
class _Step:
    """A node of a chain, and how the axes of its input and an output index what the chain begins with."""

    node: gs.Node
    before: View
    after: View
    output: int = 0


@dataclass(frozen=True)
class _End:
    """A tensor that holds channels in another order.

    Attributes:
        steps: the nodes that make it, the first of all chains first.
        axis: of the channels, in what the chain begins with.
        channels: ``[channels of the tensor]``: which they are there.
        regroups: whether the last node joins the channels with other axes besides, and has to stay for that.
        apart: where the channels are cut and the axes in another order besides: with the axes of the tensor
            in the order of what the chain begins with.
        order: the Transpose that puts them in their own.
    """

    steps: tuple[_Step, ...]
    axis: int
    channels: IntArray
    regroups: bool = False
    apart: View | None = None
    order: tuple[int, ...] = ()


@dataclass
class _Links:
    """What a node was connected to before it was set aside."""

    node: gs.Node
    inputs: list[gs.Tensor]
    outputs: list[gs.Tensor]


@dataclass
class _Shuffle:
    """Chains from one tensor, set aside, and what stands for them.

    Attributes:
        source: what they begin with.
        ends: what they make.
        gathers: for each end, the node that stands for its chain.
        stand_ins: the gathers, and nodes behind them.
        links: the nodes set aside, in the order of the graph: the chains, and what computed shapes for them.
        shapes: of all that the chains and their stand-ins read or make, when they were set aside.
        sizes: what the Reshapes of the chains state; None where they compute it.
    """

    source: gs.Tensor
    ends: list[_End]
    gathers: list[gs.Node] = field(default_factory=list)
    stand_ins: list[gs.Node] = field(default_factory=list)
    links: list[_Links] = field(default_factory=list)
    shapes: dict[str, Shape | None] = field(default_factory=dict)
    sizes: dict[int, list[StatedSize] | None] = field(default_factory=dict)


class Shuffles:
    """The channel shuffles of a graph.

    Args:
        graph: is changed: Gathers stand for the shuffles.
    """

    def __init__(self, graph: ModelGraph) -> None:
        self._graph = graph
        self._order = list(graph.nodes)
        self._rank = {id(node): rank for rank, node in enumerate(self._order)}
        self._given = {id(t) for node in self._order for t in node.inputs if not t.inputs}
        self._found = list(_find(graph))
        for shuffle in self._found:
            self._stand_in(shuffle)
        if self._found:
            self._set_aside()

    def restore(self) -> None:
        """Puts chains of nodes back where they do what their stand-ins do."""
        if not self._found:
            return
        present = {id(node) for node in self._graph.nodes}
        back: list[gs.Node] = []
        smaller: list[tuple[_Shuffle, dict[Digit, int]]] = []
        for shuffle in self._found:
            sizes = self._sizes_now(shuffle, present)
            for link in shuffle.links:
                link.node.inputs.clear()
            if sizes is None:
                continue
            source = shuffle.gathers[0].inputs[0]
            for node in shuffle.stand_ins:
                present.discard(id(node))
                node.inputs.clear()
                node.outputs.clear()
            for link in shuffle.links:
                link.node.inputs.extend([source if t is shuffle.source else t for t in link.inputs])
                link.node.outputs.extend(link.outputs)
                back.append(link.node)
            smaller.append((shuffle, sizes))
        self._reorder([node for node in self._graph.nodes if id(node) in present], back)
        for shuffle, sizes in smaller:
            _resize(self._graph, shuffle, sizes)

    # -- setting aside --------------------------------------------------------------------------------------

    def _stand_in(self, shuffle: _Shuffle) -> None:
        """Makes the nodes that stand for chains; they have no outputs yet."""
        graph = self._graph
        for end in shuffle.ends:
            last = end.steps[-1].node
            label = node_label(last)
            for step in end.steps:
                for tensor in (*step.node.inputs, *step.node.outputs):
                    shuffle.shapes[tensor.name] = graph.shape(tensor)
                if step.node.op == "Reshape":
                    try:
                        rank = len(step.after.axes)
                        shuffle.sizes[id(step.node)] = stated_sizes(graph, step.node, rank)
                    except Refusal:
                        shuffle.sizes[id(step.node)] = None
            gather = gs.Node(
                "Gather",
                graph.unique_name(f"{label}_channels") if end.regroups or end.apart else last.name,
                attrs={"axis": end.axis},
                inputs=[shuffle.source, graph.add_constant(f"{label}_order", end.channels)],
            )
            shuffle.gathers.append(gather)
            shuffle.stand_ins.append(gather)
            self._rank[id(gather)] = self._rank[id(last)]
            if end.apart is not None or end.regroups:
                ordered = graph.add_variable(f"{label}_ordered", shuffle.source)
                graph.resize(ordered, end.axis, len(end.channels))
                gather.outputs.append(ordered)
            if end.apart is not None:
                for node in _cut_and_transpose(graph, end, ordered):
                    shuffle.stand_ins.append(node)
                    self._rank[id(node)] = self._rank[id(last)]
            elif end.regroups:
                attributes = dict(last.attrs)
                if last.op == "Flatten":
                    attributes["axis"] = _flatten_axis(last, end.steps[-1].before)
                again = gs.Node(last.op, last.name, attrs=attributes, inputs=[ordered, *last.inputs[1:]])
                shuffle.stand_ins.append(again)
                self._rank[id(again)] = self._rank[id(last)]

    def _set_aside(self) -> None:
        """Takes the chains out of the graph, with what only they read, and puts in what stands for them."""
        owner: dict[int, _Shuffle] = {}
        for shuffle in self._found:
            for end in shuffle.ends:
                owner.update((id(step.node), shuffle) for step in end.steps)
        for node in reversed(self._order):
            if id(node) not in owner:
                readers = [owner.get(id(reader)) for tensor in node.outputs for reader in tensor.outputs]
                alone = all(reader is readers[0] for reader in readers)
                if alone and all(self._is_only_a_shape(tensor) for tensor in node.outputs):
                    owner.update((id(node), shuffle) for shuffle in readers[:1] if shuffle is not None)
        for node in self._order:
            if id(node) in owner:
                shuffle = owner[id(node)]
                shuffle.links.append(_Links(node, list(node.inputs), list(node.outputs)))
                for tensor in node.inputs:
                    shuffle.shapes[tensor.name] = self._graph.shape(tensor)
        for shuffle in self._found:
            for link in shuffle.links:
                link.node.outputs.clear()
                # Constants that they share with other nodes go on being shared.
                link.node.inputs.clear()
                link.node.inputs.extend([t for t in link.inputs if isinstance(t, gs.Constant)])
            makers = [node for node in shuffle.stand_ins if not node.outputs]
            made = {id(link.node): link.outputs for link in shuffle.links}
            for end, maker in zip(shuffle.ends, makers, strict=True):
                maker.outputs.append(made[id(end.steps[-1].node)][end.steps[-1].output])
        stand_ins = [node for shuffle in self._found for node in shuffle.stand_ins]
        self._reorder([node for node in self._order if id(node) not in owner], stand_ins)

    def _is_only_a_shape(self, tensor: gs.Tensor) -> bool:
        return self._graph.type(tensor) == TensorProto.INT64 and not self._graph.is_pinned(tensor)

    def _reorder(self, nodes: list[gs.Node], more: list[gs.Node]) -> None:
        """Makes these the nodes of the graph, in the order they had; new ones follow what they followed."""
        ranked, rank = [], -1
        for node in nodes:
            rank = max(rank, self._rank.get(id(node), rank))
            ranked.append((rank, node))
        ranked += [(self._rank[id(node)], node) for node in more]
        self._graph.arrange([node for _, node in sorted(ranked, key=lambda entry: entry[0])])

    # -- coming back ----------------------------------------------------------------------------------------

    def _sizes_now(self, shuffle: _Shuffle, present: set[int]) -> dict[Digit, int] | None:
        """The new sizes of digits with which the chains do what their stand-ins do.

        Empty if they do as they were; None if they cannot.
        """
        graph = self._graph
        if any(id(node) not in present for node in shuffle.stand_ins):
            return None
        gathers = shuffle.gathers
        source = gathers[0].inputs[0]
        if any(gather.inputs[0] is not source for gather in gathers):
            return None
        made = {id(tensor) for link in shuffle.links for tensor in link.outputs}
        for link in shuffle.links:
            for tensor in link.inputs:
                if tensor is shuffle.source or id(tensor) in made or isinstance(tensor, gs.Constant):
                    continue
                if graph.shape(tensor) != shuffle.shapes[tensor.name] or not self._is_there(tensor, present):
                    return None
        before, after = shuffle.shapes[shuffle.source.name], graph.shape(source)
        if before is None or after is None:
            return None
        axis = shuffle.ends[0].axis
        if any(a != b for i, (a, b) in enumerate(zip(before, after, strict=True)) if i != axis):
            return None
        if after[axis] == before[axis]:
            orders = [graph.constant(gather.inputs[1]) for gather in gathers]
            same = all(
                order is not None and np.array_equal(order, end.channels)
                for order, end in zip(orders, shuffle.ends, strict=True)
            )
            return {} if same else None
        return _smaller(graph, shuffle)

    def _is_there(self, tensor: gs.Tensor, present: set[int]) -> bool:
        """Whether a tensor is an input of the model, or still made by a node."""
        return id(tensor) in self._given or (bool(tensor.inputs) and id(tensor.inputs[0]) in present)


def _find(graph: ModelGraph) -> Iterator[_Shuffle]:
    """The shuffles, in the order of the graph; their chains have no node in common."""
    taken: set[int] = set()
    for node in graph.nodes:
        if id(node) in taken or not _is_standard(node, {"Reshape", "Slice"}):
            continue
        source = node.inputs[0]
        shape = graph.shape(source)
        if shape is None or 0 in shape or isinstance(source, gs.Constant):
            continue
        start = whole(shape)
        ends = _strided(graph, node, shape) if node.op == "Slice" else _follow(graph, node, start, start, ())
        if ends and len({end.axis for end in ends}) == 1:
            yield _Shuffle(source, ends)
            taken |= {id(step.node) for end in ends for step in end.steps}


def _strided(graph: ModelGraph, node: gs.Node, shape: Shape) -> list[_End] | None:
    """What a Slice takes that leaves out channels between, or turns them round; None for any other."""
    bounds = [graph.constant(tensor) for tensor in node.inputs[1:]]
    if len(bounds) != 4 or any(values is None or len(values) != 1 for values in bounds):
        return None
    first, end, axis, step = (int(values[0]) for values in bounds if values is not None)
    size = shape[axis] if -len(shape) <= axis < len(shape) else None
    if step in (0, 1) or not isinstance(size, int):
        return None
    channels = np.arange(size)[first:end:step]
    if not channels.size:
        return None
    steps = (_Step(node, whole(shape), whole(shape)),)
    return [_End(steps, axis % len(shape), channels)]


def _follow(
    graph: ModelGraph, node: gs.Node, view: View, start: View, before: tuple[_Step, ...]
) -> list[_End] | None:
    """The ends of the chains that go through a node; None if some element is put to another use.

    Args:
        graph: the graph.
        node: reads ``view``.
        view: of what the chains begin with.
        start: the same, as it is.
        before: the steps that lead to ``node``.
    """
    made = _views_behind(graph, node, view) if len(before) < _LONGEST else None
    if made is None:
        return None
    ends: list[_End] = []
    for index, part in enumerate(made):
        found = _ends_of(graph, (*before, _Step(node, view, part, index)), start)
        if found is None:
            return None
        ends += found
    return ends


def _ends_of(graph: ModelGraph, steps: tuple[_Step, ...], start: View) -> list[_End] | None:
    """The ends of the chains that begin with some steps."""
    node, view, made = steps[-1].node, steps[-1].before, steps[-1].after
    output = node.outputs[steps[-1].output]
    axis = reordered_axis(made, start)
    if axis is not None and _has_axes_of(made, start):
        return [_End(steps, axis, places(made, axis))]
    ends: list[_End] = []
    if not graph.is_pinned(output) and output.outputs:
        for reader in output.outputs:
            further = _follow(graph, reader, made, start, steps) if reader.inputs[0] is output else None
            if further is None:
                break
            ends += further
        else:
            return ends
    if (
        axis is not None
        and node.op in ("Reshape", "Flatten")
        and _copies_whole_axes(graph, node, view, start)
    ):
        return [_End(steps, axis, places(made, axis), regroups=True)]
    return _part_of_channels(steps, start)


def _part_of_channels(steps: tuple[_Step, ...], start: View) -> list[_End] | None:
    """The end of a chain that has picked, cut and transposed some channels: queries, keys or values."""
    view = steps[-1].after
    if not any(step.node.op in ("Gather", "Split") for step in steps):
        return None
    keys = [(axis[0].axis, -axis[0].stride) if axis else (-1, 0) for axis in view.axes]
    places_of = sorted(range(len(keys)), key=lambda index: keys[index])
    apart = view.transposed(places_of)
    axis = reordered_axis(apart, start)
    if axis is None:
        return None
    for index, digits in enumerate(apart.axes):
        known = all(isinstance(digit.size, int) for digit in digits)
        stays = digits == view.axes[index] and index < axis and digits == start.axes[index]
        if not known and not stays:
            return None
    order = tuple(places_of.index(index) for index in range(len(keys)))
    return [_End(steps, axis, places(apart, axis), apart=apart, order=order)]


def _cut_and_transpose(graph: ModelGraph, end: _End, ordered: gs.Tensor) -> list[gs.Node]:
    """The nodes that make an end of its channels: a Reshape and a Transpose, which has no output yet."""
    assert end.apart is not None
    last = end.steps[-1]
    label = node_label(last.node)
    cut = graph.add_variable(f"{label}_cut", last.node.outputs[last.output])
    sizes = []
    for index, digits in enumerate(end.apart.axes):
        size, unknown = _size(digits, {})
        sizes.append(0 if unknown else size)
        if not unknown:
            graph.resize(cut, index, size)
    target = graph.add_constant(f"{label}_sizes", np.array(sizes, dtype=np.int64))
    return [
        gs.Node("Reshape", graph.unique_name(f"{label}_cut"), inputs=[ordered, target], outputs=[cut]),
        gs.Node("Transpose", last.node.name, attrs={"perm": list(end.order)}, inputs=[cut]),
    ]


def _views_behind(graph: ModelGraph, node: gs.Node, view: View) -> list[View] | None:
    """What a node makes of a view; None if it does not only move elements, or it is not certain how."""
    if not _is_standard(node, _MOVES) or any(not tensor.name for tensor in node.outputs):
        return None
    if node.op != "Split":
        made = _view_behind(graph, node, view)
        return None if made is None else [made]
    axis = int(node.attrs.get("axis", 0)) % len(view.axes)
    views = []
    for index, tensor in enumerate(node.outputs):
        shape, picked = graph.shape(tensor), view.picked(axis, index)
        if shape is None or shape[axis] != 1 or picked is None:
            return None
        views.append(View((*picked.axes[:axis], (), *picked.axes[axis:]), picked.starts))
    return views


def _view_behind(graph: ModelGraph, node: gs.Node, view: View) -> View | None:
    """What a node with one output makes of a view, as `_views_behind`."""
    rank = len(view.axes)
    shape = graph.shape(node.outputs[0])
    if node.op == "Transpose":
        return view.transposed(node.attrs.get("perm", list(reversed(range(rank)))))
    if shape is None:
        return None
    if node.op in ("Reshape", "Flatten"):
        return view.reshaped(shape)
    if node.op == "Gather":
        index, axis = graph.constant(node.inputs[1]), int(node.attrs.get("axis", 0)) % rank
        if index is None or index.ndim or isinstance(node.inputs[0], gs.Constant):
            return None
        size = 1
        for digit in view.axes[axis]:
            size *= digit.size if isinstance(digit.size, int) else 0
        return view.picked(axis, int(index) % size) if size else None
    given = node.attrs.get("axes")
    if given is None and len(node.inputs) > 1:
        given = graph.constant(node.inputs[1])
    if given is None:
        return None
    if node.op == "Squeeze":
        return view.without({int(axis) % rank for axis in given})
    new = {int(axis) % len(shape) for axis in given}
    stay = iter(view.axes)
    return View(tuple(() if i in new else next(stay) for i in range(len(shape))), view.starts)


def _has_axes_of(view: View, start: View) -> bool:
    """Whether each axis holds digits of the same axis of the source only."""
    return len(view.axes) == len(start.axes) and all(
        digit.axis == index for index, axis in enumerate(view.axes) for digit in axis
    )


def _flatten_axis(node: gs.Node, view: View) -> int:
    """Before which axis of a view a Flatten cuts, counted from the front."""
    axis = int(node.attrs.get("axis", 1))
    return axis + len(view.axes) if axis < 0 else axis


def _copies_whole_axes(graph: ModelGraph, node: gs.Node, view: View, start: View) -> bool:
    """Whether a Reshape or Flatten does the same to the ordered source as to what it reads."""
    if node.op == "Flatten":
        axis = _flatten_axis(node, view)
        return view.axes[:axis] == start.axes[:axis]
    if node.attrs.get("allowzero", 0):
        return False
    try:
        sizes = stated_sizes(graph, node, len(graph.shape(node.outputs[0]) or ()))
    except Refusal:
        return False
    return all(
        index < min(len(view.axes), len(start.axes)) and view.axes[index] == start.axes[index]
        for index, size in enumerate(sizes)
        if size.value == 0
    )


def _smaller(graph: ModelGraph, shuffle: _Shuffle) -> dict[Digit, int] | None:
    """The sizes of the digits that make a chain the shuffle that its Gather is now; None without them."""
    if all(end.apart is not None for end in shuffle.ends):
        return _fewer_heads(graph, shuffle)
    if len(shuffle.stand_ins) != 1:
        return None
    (end,) = shuffle.ends
    digits = [digit for digit in end.steps[-1].after.digits if digit.axis == end.axis]
    channels = graph.constant(shuffle.gathers[0].inputs[1])
    if len(digits) != 2 or channels is None or len(channels) < 2:
        return None
    count, inner = len(channels), int(channels[1])
    if not 1 < inner < count or count % inner:
        return None
    if not np.array_equal(channels, np.arange(count).reshape(-1, inner).T.reshape(-1)):
        return None
    now = dict(zip(digits, (inner, count // inner), strict=True))
    now[Digit(end.axis, 1, len(end.channels))] = count
    return now if all(_can_state(shuffle, step, end.axis, now) for step in end.steps) else None


def _fewer_heads(graph: ModelGraph, shuffle: _Shuffle) -> dict[Digit, int] | None:
    """The sizes of the digits where each part of the channels has lost as many heads; None elsewhere."""
    first = shuffle.ends[0]
    before = shuffle.shapes[shuffle.source.name]
    digits = [d for axis in first.apart.axes for d in axis if d.axis == first.axis] if first.apart else []
    if len(digits) != 2 or before is None or digits[1].stride != 1 or digits[0].stride != digits[1].size:
        return None
    heads, features = digits
    channels, width, left = before[first.axis], len(first.channels), set()
    for number, end in enumerate(shuffle.ends):
        gather, cut, _ = shuffle.stand_ins[3 * number : 3 * number + 3]
        sizes, order = graph.constant(cut.inputs[1]), graph.constant(gather.inputs[1])
        if end.apart is None or (heads,) not in end.apart.axes or sizes is None or order is None:
            return None
        left.add(int(sizes[end.apart.axes.index((heads,))]))
        part = int(end.channels[0]) // width * len(order)
        if not np.array_equal(order, part + np.arange(len(order))):
            return None
    if len(left) != 1 or not isinstance(channels, int) or not isinstance(features.size, int):
        return None
    (count,) = left
    parts = channels // width
    now = {heads: count, features: features.size, Digit(first.axis, width, parts): parts}
    now[Digit(first.axis, 1, channels)] = parts * count * features.size
    steps = (step for end in shuffle.ends for step in end.steps)
    return now if all(_can_state(shuffle, step, first.axis, now) for step in steps) else None


def _can_state(shuffle: _Shuffle, step: _Step, axis: int, now: dict[Digit, int]) -> bool:
    """Whether a node does with digits of other sizes what it did, once the shape it states is changed."""
    if any(digit.axis == axis and digit not in now for digit in step.after.digits):
        return False
    if step.node.op != "Reshape":
        return True
    stated = shuffle.sizes[id(step.node)]
    if stated is None:
        return False
    for index, entry in enumerate(stated):
        size = _size(step.after.axes[index], now)
        if entry.value == 0:
            if size != _size(step.before.axes[index], now):
                return False
            continue
        changes = entry.value != -1 and size != _size(step.after.axes[index], {})
        if changes and (entry.value is None or size[1]):
            return False
    return True


def _size(digits: Digits, now: dict[Digit, int]) -> tuple[int, Digits]:
    """The size of an axis, with some sizes of digits ``now``: a number, and the digits of unknown size."""
    known = 1
    for digit in digits:
        size = now.get(digit, digit.size)
        known *= size if isinstance(size, int) else 1
    return known, tuple(digit for digit in digits if not isinstance(digit.size, int))


def _resize(graph: ModelGraph, shuffle: _Shuffle, now: dict[Digit, int]) -> None:
    """Tells the Reshapes of a chain, and what is known of its tensors, the sizes that digits have now."""
    steps = {(id(step.node), step.output): step for end in shuffle.ends for step in end.steps}
    for step in steps.values() if now else ():
        stated = shuffle.sizes.get(id(step.node)) or []
        for index, digits in enumerate(step.after.axes):
            size, unknown = _size(digits, now)
            if size == _size(digits, {})[0] or unknown:
                continue
            graph.resize(step.node.outputs[step.output], index, size)
            if stated and (stated[index].value or -1) != -1:
                entry = stated[index]
                values = np.array(graph.constant(entry.node.inputs[entry.index]))
                values[entry.place] = size
                graph.set_constant(entry.node, entry.index, values)


def _is_standard(node: gs.Node, ops: set[str]) -> bool:
    return node.op in ops and (node.domain or "") in ("", "ai.onnx")
