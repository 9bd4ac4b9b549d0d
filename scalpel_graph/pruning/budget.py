"""Chooses the sparsity of each layer for a speed-up or a size that is asked for, at the least error.

Each layer may stay as it is or get zeros in groups of one of several shapes and densities. Of each way the
cost model says what it takes, or the format how many bytes it has, and `curves` what it loses; `allocation`
chooses. Nodes, which tie layers together, go evenly instead: in one part everywhere, as large as it takes.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
from onnx import ModelProto

from scalpel_graph import group_csr
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning import curves
from scalpel_graph.pruning.allocation import Choice, choose
from scalpel_graph.pruning.group_shape import why_straddles
from scalpel_graph.pruning.layers import WeightLayer
from scalpel_graph.pruning.network import Network
from scalpel_graph.pruning.nodes import choose_nodes
from scalpel_graph.pruning.progress import Progress
from scalpel_graph.pruning.prune import prune_model
from scalpel_graph.pruning.reconstruct import by_group, moments_of_original
from scalpel_graph.pruning.settings import Settings
from scalpel_graph.pruning.structure import Groups
from scalpel_graph.pruning.techniques import Plan

#: Parts of the groups that may stay.
_DENSITIES = tuple(
    round(1 - sparsity, 3)
    for sparsity in (
        0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.825, 0.85, 0.875, 0.9, 0.92, 0.94, 0.95, 0.96,
        0.97, 0.98, 0.985,
    )
)  # fmt: skip
#: Shapes of a layer that are compared: those that are fastest at this density, and how many.
_USUAL_DENSITY = 0.2
_SHAPES = 3
#: Times that a prediction is corrected by a measurement, and how near is near enough.
_CORRECTIONS = 4
_CLOSE = 0.02
#: Parts of the nodes that may go; more leaves no network.
_MOST_NODES = 0.98

Cost = Callable[[WeightLayer, GroupShape | None, float], float | None]


class Budget:
    """What is to be reached.

    Args:
        speedup: of all layers together, as predicted; None if bytes count.
        size: part of the bytes of all layers; None if time counts.
        progress: is told what is being done.
        measure: times a pruned model, once optimized, against the original: the prediction is corrected until
            that speed-up is what is asked for. None goes by the prediction.
    """

    def __init__(
        self,
        speedup: float | None,
        size: float | None,
        progress: Progress,
        measure: Callable[[ModelProto], float] | None = None,
    ) -> None:
        self._speedup, self._size, self._progress, self._measure = speedup, size, progress, measure
        self._wanted = 1 / speedup if speedup is not None else size or 1.0

    def plans(self, network: Network) -> dict[str, Plan]:
        """A technique and a sparsity for each layer.

        Raises:
            InputError: it cannot be reached, or a method has no sparsity to choose.
        """
        layers = [(layer, network.settings[name]) for name, layer in network.layers.items()]
        ways = {_way(network, settings) for _, settings in layers if settings.method != "none"}
        if ways == {"nodes"}:
            return self._corrected(network, lambda part: self._nodes(network, part))
        if ways == {"groups"} or not ways:
            options = self._options(network)
            return self._corrected(network, lambda part: self._chosen(options, part))
        raise InputError(
            f"{self._name} chooses among groups or among nodes, not for methods of both kinds; give"
            " --sparsity and --nodes instead"
        )

    def _corrected(self, network: Network, plans_for: Callable[[float], dict[str, Plan]]) -> dict[str, Plan]:
        """The plans for the part of time or bytes that is wanted, corrected by measurements."""
        part = self._wanted
        plans = plans_for(part)
        if self._measure is None or self._speedup is None:
            return plans
        by_magnitude = replace(network.request, calibration=None)
        for number in range(1, _CORRECTIONS + 1):
            self._progress.say(f"timing, {number} of at most {_CORRECTIONS}")
            pruned = prune_model(network.model, by_magnitude, Progress(), partial(_as_planned, plans))
            error = self._measure(pruned.model) / self._speedup
            if abs(error - 1) <= _CLOSE:
                break
            part = min(part * error, 1.0)
            plans = plans_for(part)
        return plans

    @property
    def _name(self) -> str:
        return "--speedup" if self._speedup is not None else "--size"

    def _options(self, network: Network) -> "_Options":
        cost = self._cost_of(network)
        total = fixed = 0.0
        layers, costs, plans = [], [], []
        for layer in _distinct(network):
            dense = cost(layer, None, 1.0)
            if dense is None:
                continue
            total += dense
            ways = self._ways(network, layer, cost) if layer.name in network.layers else []
            if not ways:
                fixed += dense
                continue
            if not network.is_fixed(layer.name):
                ways.insert(0, (Plan(layer, reason="stays dense: others lose less for the same gain"), dense))
            layers.append(layer)
            plans.append([way for way, _ in ways])
            costs.append([taken for _, taken in ways])
        errors = _Curves(network, self._progress).errors(layers, plans)
        choices = [
            [Choice(taken, error) for taken, error in zip(*both, strict=True)]
            for both in zip(costs, errors, strict=True)
        ]
        return _Options(plans, choices, total, fixed)

    def _chosen(self, options: "_Options", part: float) -> dict[str, Plan]:
        budget = part * options.total - options.fixed
        chosen = choose(options.choices, budget) if budget > 0 else None
        if chosen is None:
            raise InputError(self._out_of_reach(options.total, options.least))
        picked = [ways[number] for ways, number in zip(options.plans, chosen, strict=True)]
        return {
            way.layer.name: replace(way, reason=way.reason or "chosen by error and cost") for way in picked
        }

    def _out_of_reach(self, total: float, least: float) -> str:
        if self._speedup is not None:
            return (
                f"--speedup {self._speedup:g} is out of reach: with nearly all weights gone these layers are"
                f" predicted to be {total / max(least, 1e-9):.2f} times faster"
            )
        return f"--size {self._size:g} is out of reach: the least is {least / max(total, 1e-9):.3f}"

    def _cost_of(self, network: Network) -> Cost:
        if self._size is not None:
            return partial(_stored_bytes, network)
        speed = network.request.speed
        if speed is None:
            works = network.request.works

            def products(layer: WeightLayer, shape: GroupShape | None, density: float) -> float | None:
                work = works.get(layer.name)
                return None if work is None else work.macs * density

            return products

        def predicted(layer: WeightLayer, shape: GroupShape | None, density: float) -> float | None:
            if shape is None:
                return speed.dense_us(layer.name)
            # A layer that is not clearly faster sparse stays dense, whatever its zeros.
            pays = network.is_fixed(layer.name) or speed.pays(layer.name, shape, density)
            return speed.sparse_us(layer.name, shape, density) if pays else None

        return predicted

    def _ways(self, network: Network, layer: WeightLayer, cost: Cost) -> list[tuple[Plan, float]]:
        """The plans to choose from for a layer, and what each takes; none if it has to stay dense."""
        settings = network.settings[layer.name]
        if settings.method == "none" or layer.depthwise:
            return []
        densities: Sequence[float] = _DENSITIES
        if network.is_fixed(layer.name):
            assert settings.sparsity is not None
            densities = (1 - settings.sparsity,)
        found = []
        for shape in _shapes(network, layer, settings, cost):
            for density in densities:
                taken = cost(layer, shape, density)
                if taken is not None:
                    structure = Groups(shape, network.order(layer))
                    found.append((Plan(layer, structure, 1 - density), taken))
        return found

    def _nodes(self, network: Network, wanted: float) -> dict[str, Plan]:
        """Nodes go in the same part everywhere: the least part that reaches what is asked for."""
        low, high = 0.0, _MOST_NODES
        least = self._part_left(network, high)
        if least > wanted:
            raise InputError(
                f"{self._name} {self._speedup or self._size:g} is out of reach: with nearly all nodes gone"
                f" {least:.1%} are left"
            )
        for _ in range(20):
            middle = (low + high) / 2
            if self._part_left(network, middle) <= wanted:
                high = middle
            else:
                low = middle
        return network.with_settings(nodes=high).plans()

    def _part_left(self, network: Network, fraction: float) -> float:
        """The part of bytes, or of time, that is left without a fraction of all nodes."""
        nodes, speed, works = network.nodes, network.request.speed, network.request.works
        plans = network.with_settings(nodes=fraction).plans()
        gone = choose_nodes(nodes, network.node_magnitudes, network.fractions(plans))
        before = after = 0.0
        for layer in network.own:
            M, K = layer.shape
            outputs = 1 - float(nodes.dead_rows(layer, gone).mean())
            inputs = 1.0
            if layer.name in nodes.read:
                numbers = nodes.read[layer.name]
                inputs = 1 - float(((numbers >= 0) & np.append(gone, False)[numbers]).mean())
            if self._size is not None:
                dense, narrow = float(M * K), M * K * outputs * inputs
            elif speed is not None:
                dense = speed.dense_us(layer.name) or 0.0
                narrow = speed.narrower_us(layer.name, outputs, inputs) or 0.0
            else:
                work = works.get(layer.name)
                dense = 0.0 if work is None else float(work.macs)
                narrow = dense * outputs * inputs
            before += dense
            after += narrow
        return after / max(before, 1e-30)


@dataclass(frozen=True)
class _Options:
    """What there is to choose from.

    Attributes:
        plans: of each layer.
        choices: of each layer, what each of its plans takes and loses.
        total: what all layers take as they are.
        fixed: what layers take that stay as they are.
    """

    plans: Sequence[Sequence[Plan]]
    choices: Sequence[Sequence[Choice]]
    total: float
    fixed: float

    @property
    def least(self) -> float:
        """What all layers take at least."""
        return self.fixed + sum(min(choice.cost for choice in layer) for layer in self.choices)


class _Curves:
    """Errors of the ways that layers may take."""

    def __init__(self, network: Network, progress: Progress) -> None:
        self._network, self._progress = network, progress

    def errors(self, layers: Sequence[WeightLayer], plans: Sequence[Sequence[Plan]]) -> list[list[float]]:
        """For each layer the error of each of its plans."""
        network, data = self._network, self._network.request.calibration
        if data is None:
            return [
                _by_shape(
                    ways,
                    lambda shape, densities, layer=layer: curves.by_magnitude(  # type: ignore[misc]
                        network.weights.matrix(layer), shape, densities
                    ),
                )
                for layer, ways in zip(layers, plans, strict=True)
            ]
        found = []
        with self._progress.counted("estimating errors", len(layers)) as done:
            moments = moments_of_original(
                network.model, layers, network.weights.matrix, data, threads=network.request.threads
            )
            for (layer, sums), ways in zip(moments, plans, strict=True):
                cost = sums.cost(by_group(layer, network.weights.matrix(layer)))
                found.append(
                    _by_shape(
                        ways,
                        lambda shape, densities, cost=cost: curves.by_fit(  # type: ignore[misc]
                            cost, shape, densities
                        ),
                    )
                )
                done(layer.name)
        return found


def _as_planned(plans: dict[str, Plan], network: Network) -> dict[str, Plan]:
    """A planner that has its plans already."""
    return plans


def _by_shape(
    ways: Sequence[Plan], errors: Callable[[GroupShape, Sequence[float]], Sequence[float]]
) -> list[float]:
    """The error of each plan, asked for together for those of one group shape."""
    found = [0.0] * len(ways)
    shapes: dict[GroupShape, list[int]] = {}
    for number, way in enumerate(ways):
        if isinstance(way.structure, Groups):
            shapes.setdefault(way.structure.shape, []).append(number)
    for shape, numbers in shapes.items():
        for number, error in zip(
            numbers, errors(shape, [1 - ways[n].sparsity for n in numbers]), strict=True
        ):
            found[number] = error
    return found


def _way(network: Network, settings: Settings) -> str:
    """What a method takes away: ``groups``, ``nodes``, or its own name where it has no sparsity to choose."""
    if settings.method == "auto":
        return "nodes" if network.request.kind == "gpu" else "groups"
    if settings.method in ("magnitude", "optimized", "group", "obs"):
        return "groups"
    return "nodes" if settings.method == "node" else settings.method


def _shapes(network: Network, layer: WeightLayer, settings: Settings, cost: Cost) -> Sequence[GroupShape]:
    """The group shapes to compare for a layer."""
    if settings.method in ("magnitude", "optimized", "obs"):
        return [(1, 1)]
    if settings.group_shape is not None:
        return [] if why_straddles(layer, settings.group_shape) else [settings.group_shape]
    speed = network.request.speed
    if speed is None:
        return [(1, 2) if network.request.kind == "mcu" else (1, 8)]
    shapes = list(speed.group_shapes(layer.name))
    return sorted(shapes, key=lambda shape: cost(layer, shape, _USUAL_DENSITY) or 0.0)[:_SHAPES]


def _stored_bytes(network: Network, layer: WeightLayer, shape: GroupShape | None, density: float) -> float:
    M, K = layer.shape
    if shape is None:
        return float(network.weight_bytes(layer) * M * K)
    groups = round(density * -(-M // shape[0]) * -(-K // shape[1]))
    return float(group_csr.encoded_bytes((M, K), shape, groups, network.weight_bytes(layer)))


def _distinct(network: Network) -> list[WeightLayer]:
    """The layers in their order, of those that share weights the first."""
    return [sharers[0] for sharers in network.sharers()]
