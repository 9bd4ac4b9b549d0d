"""Which technique each layer gets: the target's own, as in the Scalpel paper, or the one that is asked for.

| target | fully connected | convolution |
|---|---|---|
| mcu | SIMD groups 1×2 | SIMD groups 1×2 |
| cpu | groups | groups or nodes: what costs the weights least for the speed that it brings |
| gpu | nodes | nodes |
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from scalpel_graph.channels_last import ChannelsLast
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning.group_shape import why_straddles
from scalpel_graph.pruning.layers import WeightLayer
from scalpel_graph.pruning.settings import Settings
from scalpel_graph.pruning.speed import Speed
from scalpel_graph.pruning.structure import Groups, Structure, parse_n_of_m

Kind = Literal["cpu", "gpu", "mcu"]

#: Group shapes where no cost model chooses: the SIMD width of the target.
_SIMD: dict[str, GroupShape] = {"cpu": (1, 8), "gpu": (1, 8), "mcu": (1, 2)}


@dataclass(frozen=True)
class Plan:
    """What is to become of one layer.

    Attributes:
        layer: it.
        structure: the shape of its zeros; None if it gets none of its own.
        sparsity: fraction of what has that shape.
        nodes: fraction of its nodes that go.
        reason: why this, or why nothing; one clause.
    """

    layer: WeightLayer
    structure: Structure | None = None
    sparsity: float = 0.0
    nodes: float = 0.0
    reason: str = ""

    @property
    def is_idle(self) -> bool:
        """Whether the layer is left alone."""
        return self.structure is None and not self.nodes


@dataclass(frozen=True)
class Facts:
    """What the choice rests on.

    Attributes:
        kind: of the target.
        speed: predictions; None for targets without a cost model.
        why_no_nodes: for a layer, why none of its nodes can go; empty if some can.
        group_loss: the part of a layer's weights, by their squares, that groups of a sparsity take.
        node_loss: the part of the weights that read a layer's nodes which a fraction of its nodes takes.
        order: in which the target stores the columns of a layer.
    """

    kind: Kind
    speed: Speed | None
    why_no_nodes: Callable[[WeightLayer], str]
    group_loss: Callable[[WeightLayer, GroupShape, float], float]
    node_loss: Callable[[WeightLayer, float], float]
    order: Callable[[WeightLayer], ChannelsLast]


def plan(layers: Sequence[tuple[WeightLayer, Settings]], facts: Facts) -> list[Plan]:
    """Chooses a technique for each layer.

    Raises:
        InputError: a method needs what is not given: an amount, or a cost model.
    """
    return [_as_stored(_plan(layer, settings, facts), facts) for layer, settings in layers]


def nodes_for(sparsity: float) -> float:
    """The fraction of nodes that takes about a fraction of weights, where layers lose inputs and outputs."""
    return 1 - math.sqrt(1 - sparsity)


def _plan(layer: WeightLayer, settings: Settings, facts: Facts) -> Plan:
    method = settings.method
    if method == "none":
        return Plan(layer, reason="left alone by the recipe")
    if ":" in method:
        return _n_of_m(layer, method)
    if method in ("magnitude", "obs"):
        return _groups(layer, (1, 1), settings, "single weights")
    if method == "optimized":
        return _optimized(layer, settings, facts)
    if method == "group":
        return _groups(layer, _shape(layer, settings, facts), settings, "groups were asked for")
    if method == "node":
        return _nodes(layer, settings, facts, "nodes were asked for")
    is_conv = layer.op == "Conv"
    if method == "combined":
        if is_conv:
            return _nodes(layer, settings, facts, "a convolution: nodes")
        return _groups(layer, _shape(layer, settings, facts), settings, "fully connected: groups")
    if facts.kind == "gpu":
        return _nodes(layer, settings, facts, "nodes: what is left stays dense, as GPUs like it")
    if facts.kind == "mcu" or not is_conv:
        if settings.sparsity is None:
            return Plan(layer, reason="no sparsity was asked for")
        return _groups(layer, _shape(layer, settings, facts), settings, "groups of the vector unit")
    return _conv_on_cpu(layer, settings, facts)


def _conv_on_cpu(layer: WeightLayer, settings: Settings, facts: Facts) -> Plan:
    if settings.sparsity is None:
        return _nodes(layer, settings, facts, "nodes were asked for")
    shape = _shape(layer, settings, facts)
    groups = _groups(layer, shape, settings, "")
    nodes = _nodes(layer, settings, facts, "")
    density = 1 - settings.sparsity
    pays = facts.speed is None or facts.speed.pays(layer.name, shape, density)
    if nodes.is_idle and groups.is_idle:
        return nodes
    if nodes.is_idle:
        return _because(groups, "groups; no nodes can go" if pays else f"groups: {nodes.reason}")
    if groups.is_idle:
        return _because(nodes, f"nodes: {groups.reason}")
    if not pays:
        return _because(nodes, "nodes: a sparse convolution is not predicted to be faster")
    speed_up = density**-1
    if facts.speed is not None:
        dense, sparse = facts.speed.dense_us(layer.name), facts.speed.sparse_us(layer.name, shape, density)
        speed_up = dense / sparse if dense and sparse else speed_up
    # Nodes save work twice, where they are made and where they are read.
    by_groups = facts.group_loss(layer, shape, settings.sparsity) / math.log(speed_up)
    by_nodes = facts.node_loss(layer, nodes.nodes) / (-2 * math.log(1 - nodes.nodes)) if nodes.nodes else 0.0
    if nodes.nodes and by_nodes < by_groups:
        return _because(nodes, "nodes: they cost less for the speed they bring than groups")
    return _because(groups, "groups: they cost less for the speed they bring than nodes")


def _because(chosen: Plan, reason: str) -> Plan:
    return Plan(chosen.layer, chosen.structure, chosen.sparsity, chosen.nodes, reason)


def _groups(layer: WeightLayer, shape: GroupShape, settings: Settings, reason: str) -> Plan:
    if settings.sparsity is None:
        raise InputError(f"{layer.name!r} is to be pruned: say how much, with a sparsity (--sparsity 0.9)")
    if layer.depthwise:
        return Plan(layer, reason="depthwise: it has few weights to spare")
    if straddles := why_straddles(layer, shape):
        return Plan(layer, reason=straddles)
    return Plan(layer, Groups(shape), settings.sparsity, 0.0, reason)


def _as_stored(chosen: Plan, facts: Facts) -> Plan:
    if not isinstance(chosen.structure, Groups):
        return chosen
    return replace(chosen, structure=replace(chosen.structure, order=facts.order(chosen.layer)))


def _nodes(layer: WeightLayer, settings: Settings, facts: Facts, reason: str) -> Plan:
    fraction = settings.nodes
    if fraction is None:
        if settings.sparsity is None:
            raise InputError(f"{layer.name!r} loses nodes: say how many (--nodes 0.3, or --sparsity 0.9)")
        fraction = nodes_for(settings.sparsity)
    if layer.depthwise:
        return Plan(layer, reason="depthwise: its channels go with those it reads")
    if why := facts.why_no_nodes(layer):
        return Plan(layer, reason=f"no nodes can go: {why}")
    return Plan(layer, None, 0.0, fraction, reason)


def _optimized(layer: WeightLayer, settings: Settings, facts: Facts) -> Plan:
    if facts.speed is None:
        raise InputError(
            "method 'optimized' prunes where the cost model expects a gain, and this target has none; use a"
            " cpu target or another method"
        )
    chosen = _groups(layer, (1, 1), settings, "single weights: predicted to be faster than dense")
    if chosen.structure is not None and not facts.speed.pays(layer.name, (1, 1), 1 - chosen.sparsity):
        return Plan(layer, reason="single weights are not predicted to make it faster")
    return chosen


def _n_of_m(layer: WeightLayer, method: str) -> Plan:
    structure = parse_n_of_m(method).of(layer)
    inputs = layer.shape[1] // structure.positions
    if inputs < structure.m:
        return Plan(layer, reason=f"{inputs} inputs are fewer than {structure.m}")
    return Plan(layer, structure, structure.sparsity, 0.0, f"{method} was asked for")


def _shape(layer: WeightLayer, settings: Settings, facts: Facts) -> GroupShape:
    """The group shape asked for, or the one that suits the layer."""
    if settings.group_shape is not None:
        return settings.group_shape
    best = None
    if facts.speed is not None and settings.sparsity is not None:
        best = facts.speed.best_shape(layer.name, 1 - settings.sparsity)
    if best is None:
        best = _SIMD[facts.kind]
        if why_straddles(layer, best):
            best = (1, best[1])
    return best
