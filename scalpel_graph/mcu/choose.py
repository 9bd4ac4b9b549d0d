"""Dense or which group shape, for each layer with weights: what is predicted to take least time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from scalpel_graph import group_csr
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.mcu import cost
from scalpel_graph.mcu.network import Clip, Dtype, Flatten, IntegerLayer, Multiply, Network, hwc_columns
from scalpel_graph.mcu.program import Unsupported, border, layer_code
from scalpel_graph.report import Candidate, Decision, LayerDecision
from scalpel_graph.target import McuTarget

#: Group shapes that there are kernels for.
SHAPES: Mapping[Dtype, tuple[GroupShape, ...]] = {
    "q15": ((1, 2), (2, 2), (4, 2)),
    "int8": ((1, 4), (2, 4), (4, 4)),
    "int8x16": ((1, 4), (2, 4), (4, 4)),
}


@dataclass(frozen=True)
class Choice:
    """One layer as it is best stored."""

    layer: Multiply
    candidates: tuple[Candidate, ...]
    chosen: Candidate


def choose(network: Network, target: McuTarget) -> tuple[Network, list[LayerDecision]]:
    """Chooses for all layers, and the order in which activations are flattened before them.

    Raises:
        Unsupported: a layer does not fit the kernels in any form.
    """
    layers = {layer.output: layer for layer in network.layers}
    decisions: dict[str, Choice] = {}
    for layer in network.layers:
        if isinstance(layer, Multiply):
            decisions[layer.output] = _choose(network, layer, target)
            layers[layer.output] = decisions[layer.output].layer
    for layer in network.layers:
        if isinstance(layer, Flatten):
            _choose_order(network, layer, target, layers, decisions)
    chosen = replace(network, layers=tuple(layers[layer.output] for layer in network.layers))
    return chosen, [_decision(choice) for choice in decisions.values()]


def _choose(network: Network, layer: Multiply, target: McuTarget) -> Choice:
    ways: list[tuple[Multiply, Candidate]] = []
    problem: Unsupported | None = None
    for shape in (None, *_shapes(network, layer)):
        way = replace(layer, group_shape=shape)
        try:
            time = cost.microseconds(layer_code(network, way), target)
        except Unsupported as error:
            problem = error
            continue
        density = 1.0 if shape is None else _density(network, layer, shape)
        decision: Decision = "dense" if shape is None else "group_csr"
        ways.append((way, Candidate(decision, shape, density, time)))
    if not ways:
        assert problem is not None
        raise Unsupported(f"node {layer.name!r}: {problem}")
    best = min(ways, key=lambda item: (_weighed(item[1], target), item[1].density))
    return Choice(best[0], tuple(candidate for _, candidate in ways), best[1])


def _weighed(candidate: Candidate, target: McuTarget) -> float:
    """Its time, in which a sparse one has to be clearly better."""
    margin = 0.0 if candidate.decision == "dense" else target.margin
    return candidate.predicted_us / (1 - margin)


def _shapes(network: Network, layer: Multiply) -> tuple[GroupShape, ...]:
    """The group shapes that a layer can have."""
    channels = network.values[layer.inputs[0]].shape[0]
    if layer.window.group > 1 and layer.window.group in (channels, len(layer.weights)):
        return ()  # depthwise: nothing to skip
    return SHAPES[network.dtype]


def _density(network: Network, layer: Multiply, shape: GroupShape) -> float:
    """Of the groups that the device stores."""
    weights = layer.weights
    if layer.op == "Conv":
        x = network.values[layer.inputs[0]]
        channels = x.shape[0] // layer.window.group
        _, wide_channels = border(layer, x, shape[1])
        run = channels if wide_channels != x.shape[0] else channels * layer.window.kernel[1]
        by_run = weights.reshape(len(weights), -1, run)
        weights = np.pad(by_run, ((0, 0), (0, 0), (0, -run % shape[1]))).reshape(len(weights), -1)
    return group_csr.density(weights, shape)


def _choose_order(
    network: Network,
    layer: Flatten,
    target: McuTarget,
    layers: dict[str, IntegerLayer],
    decisions: dict[str, Choice],
) -> None:
    """Has the readers of a flattened image take it channels last, where that is better than moving it.

    Groups of weights that were pruned in ONNX's order would fall apart in the other.
    """
    readers = list(_readers(layer.output, network, layers))
    channels = network.values[layer.inputs[0]].shape[0]
    if len(network.values[layer.inputs[0]].shape) == 1 or not all(isinstance(r, Multiply) for r in readers):
        return
    by_order = {
        reader.output: _choose(
            network, replace(reader, weights=hwc_columns(reader.weights, channels)), target
        )
        for reader in readers
        if isinstance(reader, Multiply)
    }
    moving = cost.microseconds(layer_code(network, layer), target)
    moved = moving + sum(decisions[name].chosen.predicted_us for name in by_order)
    if sum(choice.chosen.predicted_us for choice in by_order.values()) <= moved:
        layers[layer.output] = replace(layer, planar=False)
        for name, choice in by_order.items():
            layers[name] = choice.layer
            decisions[name] = choice


def _readers(
    name: str, network: Network, layers: Mapping[str, IntegerLayer]
) -> Iterator[IntegerLayer | None]:
    """What reads a value, through layers to which its order is nothing; None for the network's caller."""
    if name == network.output:
        yield None
    for reader in layers.values():
        if name in reader.inputs:
            if isinstance(reader, Clip):
                yield from _readers(reader.output, network, layers)
            else:
                yield reader


def _decision(choice: Choice) -> LayerDecision:
    layer, chosen = choice.layer, choice.chosen
    dense = next((c for c in choice.candidates if c.decision == "dense"), None)
    density = float(np.count_nonzero(layer.weights)) / layer.weights.size
    if chosen.decision == "group_csr":
        r, c = chosen.group_shape or (1, 1)
        reason = f"{r}×{c} groups, {chosen.density:.0%} stored"
        if dense is not None and chosen.predicted_us > 0:
            reason += f", predicted {dense.predicted_us / chosen.predicted_us:.1f}× faster than dense"
    elif len(choice.candidates) == 1:
        reason = "kept dense: there is no sparse kernel for it"
    else:
        reason = f"kept dense: {density:.0%} of weights are non-zero, sparse is not predicted to be faster"
    return LayerDecision(layer.name, layer.op, chosen, density, list(choice.candidates), reason)
