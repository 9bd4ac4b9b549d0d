"""A network as pruning sees it: its layers, what is asked of each, its nodes, and the technique each gets."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from onnx import ModelProto

from scalpel_graph.channels_last import AS_GIVEN, ChannelsLast
from scalpel_graph.cost import LayerWork
from scalpel_graph.graph import ModelGraph
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning.importance import count_of, least_important
from scalpel_graph.pruning.layers import UnsuitableLayer, WeightLayer, weight_layers
from scalpel_graph.pruning.nodes import Nodes, Understand, find_nodes, magnitudes
from scalpel_graph.pruning.recipe import Recipe
from scalpel_graph.pruning.samples import Samples
from scalpel_graph.pruning.selection import check_pattern, matches
from scalpel_graph.pruning.settings import Settings
from scalpel_graph.pruning.speed import Speed
from scalpel_graph.pruning.structure import Groups
from scalpel_graph.pruning.techniques import Facts, Kind, Plan, plan
from scalpel_graph.pruning.weights import Weights

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        kind: of the target.
        settings: for all layers.
        recipe: for some.
        exclude: patterns of the names of layers to leave alone.
        calibration: inputs to fit on; None to go by magnitude.
        threads: of ONNX Runtime.
        speed: the cost model; None for targets without.
        works: by name, what layers have to compute; those whose sizes are not known are missing.
        understood: makes a graph of a model in which shapes are known as far as they can be.
        orders: by name, the order in which the target stores the columns of a layer; ONNX's where it is
            missing.
        quantized: names of the layers whose weights are integers of 8 bits.
    """

    kind: Kind
    settings: Settings
    recipe: Recipe
    exclude: Sequence[str] = ()
    calibration: Samples | None = None
    threads: int = 1
    speed: Speed | None = None
    works: Mapping[str, LayerWork] = field(default_factory=dict)
    understood: Understand = ModelGraph
    orders: Mapping[str, ChannelsLast] = field(default_factory=dict)
    quantized: frozenset[str] = frozenset()


class Network:
    """The layers of a model, and what is to become of them.

    Attributes:
        model: the model; it is not changed.
        request: what is asked for.
        found: every Conv, Gemm and MatMul, in graph order.
        layers: by name, those that have weights to prune and are not excluded.
        settings: what is asked of each of these.
        own: layers that share their weights with no other: nodes are made and read by them.
        left: by name, why a layer is left alone whatever is asked.
        weights: the weights as they are.

    Raises:
        InputError: a pattern matches no layer.
    """

    def __init__(self, model: ModelProto, request: Request) -> None:
        self.model, self.request = model, request
        self.found = list(weight_layers(model))
        names = [layer.name for layer in self.found]
        exclude = (*request.exclude, *request.recipe.exclude)
        for pattern in request.exclude:
            check_pattern(pattern, names)
        request.recipe.check(names)
        self.layers: dict[str, WeightLayer] = {}
        self.left: dict[str, str] = {}
        for layer in self.found:
            if isinstance(layer, UnsuitableLayer):
                self.left[layer.name] = layer.reason
            elif matches(layer.name, exclude):
                self.left[layer.name] = "excluded"
            else:
                self.layers[layer.name] = layer
        suitable = [layer for layer in self.found if isinstance(layer, WeightLayer)]
        uses = Counter(layer.weight for layer in suitable)
        named = Counter(names)
        self.own = [layer for layer in suitable if uses[layer.weight] == 1 and named[layer.name] == 1]
        for name in [name for name in self.layers if named[name] > 1]:
            self.left[name] = "another node has the same name: name them apart"
            del self.layers[name]
        self.settings = {name: request.recipe.settings_of(name, request.settings) for name in self.layers}
        self.weights = Weights(model)

    @cached_property
    def nodes(self) -> Nodes:
        """The nodes that can go."""
        return find_nodes(self.model, self.own, self.request.understood)

    @cached_property
    def node_magnitudes(self) -> np.typing.NDArray[np.float64]:
        """``[nodes]``: their importance by their weights alone."""
        return magnitudes(self.nodes, self.own, self.weights, self.request.settings.importance)

    def plans(self) -> dict[str, Plan]:
        """The technique of each layer, by its name.

        Raises:
            InputError: a method needs what is not given.
        """
        facts = Facts(
            self.request.kind, self.request.speed, self._why_no_nodes, self._group_loss, self._node_loss,
            self.order,
        )  # fmt: skip
        layers = [(layer, self.settings[name]) for name, layer in self.layers.items()]
        return {chosen.layer.name: chosen for chosen in plan(layers, facts)}

    def order(self, layer: WeightLayer) -> ChannelsLast:
        """The order in which the target stores the columns of a layer."""
        return self.request.orders.get(layer.name, AS_GIVEN)

    def weight_bytes(self, layer: WeightLayer) -> int:
        """Of one of a layer's weights, as it is to be stored."""
        return 1 if layer.name in self.request.quantized else _FLOAT_BYTES

    def is_fixed(self, name: str) -> bool:
        """Whether the recipe gives this layer in particular a sparsity."""
        return any(
            "sparsity" in values and matches(name, [pattern])
            for pattern, values in self.request.recipe.layers.items()
        )

    def with_settings(self, *, nodes: float) -> "Network":
        """The same network, of which another part of nodes is to go, except where the recipe gives one."""
        other = copy(self)
        other.nodes = self.nodes  # found once
        other.node_magnitudes = self.node_magnitudes
        request = replace(self.request, settings=replace(self.request.settings, nodes=nodes))
        other.request = request
        other.settings = {name: request.recipe.settings_of(name, request.settings) for name in self.layers}
        return other

    def sharers(self) -> list[list[WeightLayer]]:
        """The layers whose weights may change, those together that read one tensor in one way.

        In the order of the first. Excluded layers are among them that may lose inputs.
        """
        together: defaultdict[tuple[str, bool], list[WeightLayer]] = defaultdict(list)
        own = {layer.name for layer in self.own}
        for layer in self.found:
            if isinstance(layer, WeightLayer) and (layer.name in self.layers or layer.name in own):
                together[layer.weight, layer.transposed].append(layer)
        return list(together.values())

    def fractions(self, plans: Mapping[str, Plan]) -> dict[str, float]:
        """By layer, what part of its nodes is to go. A depthwise Conv only hands nodes on, and has no say."""
        fractions = {name: chosen.nodes for name, chosen in plans.items()}
        fractions |= {name: np.inf for name, layer in self.layers.items() if layer.depthwise}
        return fractions

    def _why_no_nodes(self, layer: WeightLayer) -> str:
        if layer not in self.own:
            return "another layer has the same weights"
        return self.nodes.why.get(layer.name, "")

    def _group_loss(self, layer: WeightLayer, shape: GroupShape, sparsity: float) -> float:
        matrix = self.weights.matrix(layer).astype(np.float64)
        drop = Groups(shape, self.order(layer)).drop(matrix, sparsity, self.settings[layer.name].importance)
        return float((matrix[drop] ** 2).sum() / max((matrix**2).sum(), 1e-30))

    def _node_loss(self, layer: WeightLayer, fraction: float) -> float:
        numbers = self.nodes.made[layer.name]
        own = np.unique(numbers[numbers >= 0])
        gone = np.zeros(self.nodes.count, dtype=np.bool_)
        gone[own] = least_important(self.node_magnitudes[own], count_of(len(own), fraction))
        lost = total = 0.0
        for reader in self.own:
            if reader.name in self.nodes.read and np.isin(self.nodes.read[reader.name], own).any():
                squares = self.weights.matrix(reader).astype(np.float64) ** 2
                columns = self.nodes.dead_columns(reader, gone)
                lost += float(squares[columns].sum())
                total += float(squares.sum())
        return lost / max(total, 1e-30)
