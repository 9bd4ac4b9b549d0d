"""Whole nodes (neurons, channels): which a network has, which matter least, and how to write them out.

A node goes by zeros in the weights that make it, in its bias, and in every weight that reads it. Then nothing
reads it, and `scalpel_graph.channels` removes it exactly, whatever lies between. Which weights those are is
found by that same analysis: channels that are added, or otherwise hang together, are one node here.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from scalpel_graph.channels.analysis import Analysis, analyse
from scalpel_graph.channels.conv import ConvRule
from scalpel_graph.channels.gemm_matmul import GemmRule, MatMulRule
from scalpel_graph.channels.liveness import decide
from scalpel_graph.channels.registry import MIN_OPSET
from scalpel_graph.channels.rule import Rule
from scalpel_graph.channels.slots import IntArray
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.pruning.importance import Importance, count_of, least_important
from scalpel_graph.pruning.layers import WeightLayer
from scalpel_graph.pruning.structure import Mask
from scalpel_graph.pruning.weights import Weights

_Scores = npt.NDArray[np.float64]

#: Makes a graph of a model in which shapes are known as far as they can be.
Understand = Callable[[ModelProto], ModelGraph]


@dataclass(frozen=True)
class Nodes:
    """The nodes of a network that can go, by number.

    Attributes:
        count: how many there are.
        made: by layer, the number of the node that each output is: ``[M]``, -1 for one that has to stay.
        read: by layer, the number of the node that each input channel is: ``[groups, C / groups]``, likewise.
        kind: ``[count]``: nodes of one kind are made and read by the same layers, in the same groups of
            these, and compete with each other.
        why: by layer, why none of its outputs can go.
        groups: of each grouped Conv but depthwise ones, how many groups it has.
    """

    count: int
    made: Mapping[str, IntArray]
    read: Mapping[str, IntArray]
    kind: IntArray
    why: Mapping[str, str] = field(default_factory=dict)
    groups: Mapping[str, int] = field(default_factory=dict)

    def dead(self, layer: WeightLayer, gone: Mask) -> Mask:
        """Which weights of a layer are zero without some nodes.

        Args:
            layer: the layer.
            gone: ``[count]``: which nodes go.

        Returns:
            ``[M, K]``.
        """
        return self.dead_columns(layer, gone) | self.dead_rows(layer, gone)[:, None]

    def dead_columns(self, layer: WeightLayer, gone: Mask) -> Mask:
        """``[M, K]``: which weights of a layer read nodes that go."""
        M, K = layer.shape
        dead = np.zeros((layer.group, M // layer.group, K), dtype=np.bool_)
        if layer.name in self.read:
            columns = _chosen(gone, self.read[layer.name])
            dead |= columns.repeat(K // columns.shape[1], axis=1)[:, None, :]
        return dead.reshape(M, K)

    def dead_rows(self, layer: WeightLayer, gone: Mask) -> Mask:
        """``[M]``: which outputs of a layer go."""
        if layer.name not in self.made:
            return np.zeros(layer.shape[0], dtype=np.bool_)
        return _chosen(gone, self.made[layer.name])


def find_nodes(model: ModelProto, layers: Sequence[WeightLayer], understood: Understand) -> Nodes:
    """Finds the nodes that no more than some layers make and read.

    Args:
        model: the model; it is not changed.
        layers: of which weights may become zero: no two share them.
        understood: makes a graph of a model, in which what is constant is folded.
    """
    graph = understood(model)
    if graph.opset < MIN_OPSET:
        reason = f"the model is of opset {graph.opset}; removing channels needs {MIN_OPSET}"
        return Nodes(0, {}, {}, np.zeros(0, np.int64), {layer.name: reason for layer in layers})
    analysis = analyse(graph)
    by_name = {layer.name: layer for layer in layers}
    found = {
        node_label(rule.node): (by_name[node_label(rule.node)], rule)
        for rule in analysis.rules
        if node_label(rule.node) in by_name and _can_be_zeroed(rule)
    }
    makers = {name: analysis.class_of[_outputs(rule)] for name, (_, rule) in found.items()}
    fixed = _Fixed(analysis)
    fixed.by_pins()
    ours = set(found)
    read_by_others = _read_by_others(analysis, ours)
    if (read_by_others & ~fixed.classes).any():
        without = Weights(model)
        for name, (layer, _) in found.items():
            rows = (read_by_others & ~fixed.classes)[makers[name]]
            if rows.any():
                take_out(without, layer, np.broadcast_to(rows[:, None], layer.shape), rows)
        fixed.by_what_is_not_zero(analyse(understood(without.model)), ours)
    numbers = np.full(len(fixed.classes), -1, dtype=np.int64)
    made_by_any = np.concatenate([np.zeros(0, np.int64), *makers.values()])
    free = np.unique(made_by_any[~fixed.classes[made_by_any]])
    inputs = {
        name: analysis.class_of[slots]
        for name, (_, rule) in found.items()
        if (slots := _inputs(rule)) is not None
    }
    # What nobody reads is no choice of ours: it can go as it is.
    read_by_any = np.concatenate([np.zeros(0, np.int64), *(c.reshape(-1) for c in inputs.values())])
    free = free[np.isin(free, read_by_any)]
    numbers[free] = np.arange(len(free))
    made = {name: numbers[slots] for name, slots in makers.items()}
    read = {name: numbers[slots] for name, slots in inputs.items()}
    why = {}
    for layer in layers:
        if layer.name not in found:
            why[layer.name] = "how its outputs are used is not understood"
        elif (made[layer.name] < 0).all():
            stuck = makers[layer.name][fixed.classes[makers[layer.name]]]
            why[layer.name] = fixed.reasons[int(stuck[0])] if len(stuck) else "no layer reads its outputs"
    groups = {
        name: layer.group for name, (layer, _) in found.items() if layer.group > 1 and not layer.depthwise
    }
    return Nodes(len(free), made, read, _kinds(len(free), made, read, groups), why, groups)


def choose_nodes(nodes: Nodes, scores: _Scores, fraction: Mapping[str, float]) -> Mask:
    """Chooses the least important nodes of each kind; one of each stays.

    Args:
        nodes: all.
        scores: ``[count]``: how important each is.
        fraction: by layer, the part of its nodes that goes. Of what several layers make together, as little
            goes as any of them says, and nothing where one is missing.

    Returns:
        ``[count]``: which go.
    """
    asked = np.full(nodes.count, np.inf)
    for name, numbers in nodes.made.items():
        own = np.unique(numbers[numbers >= 0])
        asked[own] = np.minimum(asked[own], fraction.get(name, 0.0))
    gone = np.zeros(nodes.count, dtype=np.bool_)
    members = [np.flatnonzero(nodes.kind == kind) for kind in range(int(nodes.kind.max(initial=-1)) + 1)]
    counts = np.zeros(len(members), dtype=np.int64)
    for kind, own in enumerate(members):
        part = float(asked[own].min())
        counts[kind] = min(count_of(len(own), part), len(own) - 1) if part < 1 else 0
    for own, count in zip(members, _balanced(nodes, counts), strict=True):
        gone[own] = least_important(scores[own], count)
    return gone


def _balanced(nodes: Nodes, counts: IntArray) -> IntArray:
    """``[kinds]``: how many of each go, at most ``counts``, so that groups of a Conv lose equally many."""
    sizes = np.bincount(nodes.kind, minlength=len(counts))
    # For each side of a grouped layer and each of its groups, how many of its channels a node of a kind is.
    sides = []
    for of_layers in (nodes.made, nodes.read):
        for name, groups in nodes.groups.items():
            if name in of_layers:
                rows = of_layers[name].reshape(groups, -1)
                channels = [np.bincount(nodes.kind[row[row >= 0]], minlength=len(counts)) for row in rows]
                sides.append(np.array(channels) / sizes)
    counts = counts.copy()
    changed = True
    while changed:
        changed = False
        for side in sides:
            lost = side @ counts
            for group in np.flatnonzero(lost > lost.min() + 1e-6):
                # Of the kind that loses the largest part, one less.
                parts = np.where(side[group] > 0, counts / sizes, 0)
                counts[int(parts.argmax())] -= 1
                changed = True
    return counts


def that_can_be_cut_out(
    nodes: Nodes, gone: Mask, model: ModelProto, layers: Sequence[WeightLayer], understood: Understand
) -> Mask:
    """Of nodes that are to go, those that `scalpel_graph.channels` can then do without.

    What is left of a grouped Conv has to be equally wide in each group, say; a node that only becomes zero is
    better left as it is.

    Args:
        nodes: all.
        gone: ``[count]``: which are to go.
        model: the model.
        layers: those that make and read them.
        understood: see `find_nodes`.
    """
    gone = gone.copy()
    while gone.any():
        zeroed = Weights(model)
        for layer in layers:
            dead = nodes.dead(layer, gone)
            if dead.any():
                take_out(zeroed, layer, dead, nodes.dead_rows(layer, gone))
        analysis = analyse(understood(zeroed.model))
        live = decide(analysis).live
        stuck = np.zeros(nodes.count, dtype=np.bool_)
        for rule in analysis.rules:
            numbers = nodes.made.get(node_label(rule.node))
            if numbers is not None:
                stuck[numbers[(numbers >= 0) & live[_outputs(rule)]]] = True
        stuck &= gone
        if not stuck.any():
            break
        gone &= ~stuck
    return gone


def magnitudes(
    nodes: Nodes, layers: Sequence[WeightLayer], weights: Weights, importance: Importance = "rms"
) -> _Scores:
    """The importance of each node by its weights alone: what makes it times what reads it.

    The product does not change if the weights in front are scaled by a number and those behind by its
    inverse, as Relu and BatchNormalization allow.

    Args:
        nodes: all.
        layers: those that make and read them.
        weights: of the model.
        importance: root mean square, mean or maximum of magnitudes.
    """
    made, read = _Gathered(nodes.count, importance), _Gathered(nodes.count, importance)
    for layer in layers:
        matrix = np.abs(weights.matrix(layer).astype(np.float64))
        if layer.name in nodes.made and not layer.depthwise:
            made.add(nodes.made[layer.name], matrix * np.abs(weights.batchnorm_gain(layer))[:, None])
        if layer.name in nodes.read:
            numbers = nodes.read[layer.name]
            G, C = numbers.shape
            blocks = matrix.reshape(G, -1, C, matrix.shape[1] // C).transpose(0, 2, 1, 3)
            read.add(numbers.reshape(-1), blocks.reshape(G * C, -1))
    return made.result() * read.result()


class _Gathered:
    """A mean or maximum over what belongs to each node."""

    def __init__(self, count: int, importance: Importance) -> None:
        self._importance = importance
        self._total, self._elements = np.zeros(count), np.zeros(count)

    def add(self, numbers: IntArray, values: Array) -> None:
        """Adds ``values [n, ...]`` of the nodes ``numbers [n]``, where these are not -1."""
        numbers, values = numbers[numbers >= 0], values[numbers >= 0]
        if self._importance == "max":
            np.maximum.at(self._total, numbers, values.max(axis=1, initial=0))
            return
        np.add.at(self._total, numbers, (values**2 if self._importance == "rms" else values).sum(axis=1))
        np.add.at(self._elements, numbers, values.shape[1])

    def result(self) -> _Scores:
        if self._importance == "max":
            return self._total
        mean = self._total / np.maximum(self._elements, 1)
        return np.sqrt(mean) if self._importance == "rms" else mean


def take_out(weights: Weights, layer: WeightLayer, dead: Mask, rows: Mask) -> None:
    """Writes nodes out of a layer: their weights, their bias, and their BatchNormalization become zero.

    Args:
        weights: of the model.
        layer: the layer.
        dead: ``[M, K]``: weights that make or read nodes that go.
        rows: ``[M]``: outputs that go.
    """
    matrix = weights.matrix(layer)
    weights.write([layer], np.where(dead, matrix.dtype.type(0), matrix))
    if rows.any():
        bias = weights.bias(layer)
        if bias is not None and bias[rows].any():
            weights.set_bias(layer, np.where(rows, 0, bias))
        weights.zero_batchnorm(layer, rows)


def _can_be_zeroed(rule: Rule) -> bool:
    if isinstance(rule, MatMulRule):
        return rule.side == 1
    return type(rule) is ConvRule or isinstance(rule, GemmRule)


def _outputs(rule: Rule) -> IntArray:
    assert isinstance(rule, ConvRule | GemmRule | MatMulRule)
    return rule.y.slots


def _inputs(rule: Rule) -> IntArray | None:
    """``[groups, C / groups]``; None for a depthwise Conv, whose inputs and outputs are the same nodes."""
    if isinstance(rule, ConvRule):
        is_depthwise = rule.group > 1 and rule.inputs.shape[1] == 1
        return None if is_depthwise else rule.inputs
    assert isinstance(rule, GemmRule | MatMulRule)
    return rule.x.slots[None]


class _Fixed:
    """The classes of slots that have to stay.

    Attributes:
        classes: ``[slots]``: whether a class has to stay.
        reasons: by class, why.
    """

    def __init__(self, analysis: Analysis) -> None:
        self._analysis = analysis
        self.classes: Mask = np.zeros(analysis.slots.count, dtype=np.bool_)
        self.reasons: dict[int, str] = {}

    def by_pins(self) -> None:
        """What the analysis cannot do without."""
        for pin in self._analysis.pins:
            self._fix(pin.slots, f"{pin.node}: {pin.reason}")

    def by_what_is_not_zero(self, zeroed: Analysis, layers: set[str]) -> None:
        """What other nodes than our layers read, and cannot do without though it is as zero as can be.

        Args:
            zeroed: of the same graph, in which what is read by others is made of zeros.
            layers: names of our layers.
        """
        assert zeroed.slots.count == self._analysis.slots.count  # the same nodes have the same numbers
        for rule in zeroed.rules:
            if node_label(rule.node) not in layers:
                for read in rule.reads:
                    self._fix(
                        read.inputs[~read.takes(zeroed.constants)],
                        f"{rule.node.op} {node_label(rule.node)!r} depends on them even where they are zero",
                    )

    def _fix(self, slots: IntArray, reason: str) -> None:
        classes = np.unique(self._analysis.class_of[slots])
        self.classes[classes] = True
        for number in classes:
            self.reasons.setdefault(int(number), reason)


def _read_by_others(analysis: Analysis, layers: set[str]) -> Mask:
    """``[slots]``: the classes that something else than our layers reads."""
    found: Mask = np.zeros(analysis.slots.count, dtype=np.bool_)
    for rule in analysis.rules:
        for read in rule.reads if node_label(rule.node) not in layers else ():
            for slots in (read.inputs, read.factors):
                if slots is not None:
                    found[analysis.class_of[slots]] = True
    return found


def _kinds(
    count: int,
    made: Mapping[str, IntArray],
    read: Mapping[str, IntArray],
    groups_of: Mapping[str, int],
) -> IntArray:
    kind = np.zeros(count, dtype=np.int64)

    def split(numbers: IntArray, groups: int) -> None:
        """Nodes are of different kinds if one is among ``numbers`` and one not, or in other groups."""
        nonlocal kind
        place = np.zeros(count, dtype=np.int64)
        rows = numbers.reshape(groups, -1)
        for group in range(groups):
            place[rows[group][rows[group] >= 0]] = group + 1
        kind = np.unique(np.stack([kind, place]), axis=1, return_inverse=True)[1].reshape(-1)

    for of_layers in (made, read):
        for name, numbers in of_layers.items():
            split(numbers, groups_of.get(name, 1))
    return kind


def _chosen(gone: Mask, numbers: IntArray) -> Mask:
    """Which of some places hold a node that goes."""
    return np.asarray((numbers >= 0) & np.append(gone, False)[numbers])
