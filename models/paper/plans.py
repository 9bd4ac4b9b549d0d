"""What exactly is pruned of a network for a target and a technique: the recipe and the cost model."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx

from models.paper.recipes import Groups, Pruning
from scalpel_graph.api import layer_works, understood
from scalpel_graph.channels_last import AS_GIVEN, ChannelsLast, column_orders
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning import WeightLayer, structure, weight_layers
from scalpel_graph.pruning.selection import matches
from scalpel_graph.pruning.speed import Speed
from scalpel_graph.target import CpuTarget, load_target

_SINGLE: GroupShape = (1, 1)
#: The paper's microcontroller counts 16 bits for a weight, and for the index of a group.
_SMALLER = 0.5


@dataclass(frozen=True)
class Plan:
    """What is pruned.

    Attributes:
        nodes: the part of each layer's nodes that goes.
        shapes: of the groups of each layer that loses some.
        rate: the part of all weights of those layers that goes, or of each layer's.
        orders: of the columns that each layer's groups are cut from; PyTorch's and ONNX's for layers that are
            missing.
    """

    nodes: Mapping[str, float]
    shapes: Mapping[str, GroupShape]
    rate: float | Mapping[str, float] = 0.0
    orders: Mapping[str, ChannelsLast] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        """Whether nothing is pruned."""
        return not self.nodes and not self.shapes

    def groups(self, layer: str) -> structure.Groups:
        """Those of a layer that loses some."""
        return structure.Groups(self.shapes[layer], self.orders.get(layer, AS_GIVEN))


def plan(model: onnx.ModelProto, pruning: Pruning, technique: str, target: str) -> Plan:
    """Chooses layers and group shapes.

    Args:
        model: the dense network.
        pruning: what the recipe says.
        technique: ``optimized`` leaves out layers that are not faster sparse; others prune all.
        target: ``mcu``, ``cpu`` (the profile of this machine) or ``gpu``.
    """
    groups = pruning.groups
    if groups is None:
        return Plan(pruning.nodes, {})
    layers = {layer.name: layer for layer in weight_layers(model) if isinstance(layer, WeightLayer)}
    speed = _speed(model) if target == "cpu" else None
    shapes = {}
    for name, layer in layers.items():
        rate = groups.rate if isinstance(groups.rate, float) else groups.rate.get(name, 0.0)
        if not rate or not matches(name, groups.layers) or matches(name, groups.exclude):
            continue
        shape = _shape(groups, name, 1 - rate, speed)
        if shape is None or (technique == "optimized" and not _pays(layer, 1 - rate, target, speed)):
            continue
        shapes[name] = shape
    if not shapes:
        return Plan(pruning.nodes, {})
    rates = groups.rate if isinstance(groups.rate, float) else {name: groups.rate[name] for name in shapes}
    return Plan(pruning.nodes, shapes, rates, _orders(model, shapes) if target == "mcu" else {})


def restricted(target: CpuTarget, shapes: set[GroupShape], *, forced: bool = False) -> CpuTarget:
    """A profile that knows only some group shapes.

    Args:
        target: the profile.
        shapes: to keep.
        forced: take the fastest of them even where dense is faster.
    """
    kernels = tuple(kernel for kernel in target.kernels if kernel.group_shape in shapes)
    if forced:
        return replace(target, kernels=kernels, margin=-1e9, min_columns=1)
    return replace(target, kernels=kernels)


def cpu() -> CpuTarget:
    """The profile of this machine.

    Raises:
        InputError: there is none.
    """
    target = load_target("cpu")
    assert isinstance(target, CpuTarget)
    return target


def _speed(model: onnx.ModelProto) -> Speed:
    return Speed(cpu(), layer_works(understood(model, expand_lrn=True), {}))


def _orders(model: onnx.ModelProto, shapes: Mapping[str, GroupShape]) -> dict[str, ChannelsLast]:
    """Of the layers whose groups are not the same in every order."""
    orders = column_orders(understood(model), {})
    return {name: orders[name] for name, shape in shapes.items() if shape[1] > 1 and orders[name].places > 1}


def _shape(groups: Groups, name: str, density: float, speed: Speed | None) -> GroupShape | None:
    if groups.shape is not None:
        return groups.shape
    if speed is None:
        raise InputError(f"no cost model chooses the groups of {name!r}: only cpu has one")
    shape = speed.best_shape(name, density)
    return shape if shape is not None and speed.pays(name, shape, density) else None


def _pays(layer: WeightLayer, density: float, target: str, speed: Speed | None) -> bool:
    """Whether single weights pay: by the cost model; by size on ``mcu``; never on ``gpu``."""
    if speed is not None:
        return speed.pays(layer.name, _SINGLE, density)
    return target == "mcu" and density < _SMALLER
