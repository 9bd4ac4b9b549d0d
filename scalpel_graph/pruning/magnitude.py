"""Magnitude pruning of an ONNX model in aligned groups of any shape."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import onnx

from scalpel_graph import group_csr
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning.group_shape import why_straddles
from scalpel_graph.pruning.importance import IMPORTANCES, Importance, zero_least_important
from scalpel_graph.pruning.layers import UnsuitableLayer, WeightLayer, weight_layers
from scalpel_graph.pruning.selection import check_pattern, matches
from scalpel_graph.pruning.weights import Weights

#: Which layers to prune: patterns of their names (as in a shell: ``*``, ``?``, ``[ab]``), or a predicate.
Selection = Sequence[str] | Callable[[WeightLayer], bool]


@dataclass(frozen=True)
class PrunedLayer:
    """What became of one Conv, Gemm or MatMul.

    Attributes:
        name: the node's name, or its first output where it has none.
        op: ``Conv``, ``Gemm`` or ``MatMul``.
        pruned: whether it was pruned.
        density: fraction of its groups that hold a non-zero weight afterwards; None where it was not pruned.
        reason: why it was not pruned.
    """

    name: str
    op: str
    pruned: bool
    density: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class MagnitudeResult:
    """A pruned model, and every layer of it in graph order, pruned or not."""

    model: onnx.ModelProto
    layers: list[PrunedLayer]


def prune_magnitude(
    model: onnx.ModelProto,
    sparsity: float,
    group_shape: GroupShape,
    *,
    importance: Importance = "rms",
    layers: Selection | None = None,
    exclude: Sequence[str] = (),
    depthwise: bool = False,
) -> MagnitudeResult:
    """Sets the least important groups of weights of each layer to zero.

    A layer is a Conv, a Gemm or a MatMul with a constant right side in the main graph. Its weights are cut
    into aligned groups of ``group_shape`` as group-CSR does (`scalpel_graph.group_csr`), and of ``n`` groups
    the ``floor(sparsity · n)`` least important become zero. What the model computes is otherwise as it was:
    where a pruned layer shares its weights with something that is not pruned, it gets a copy of its own.

    A Conv in several groups is left alone if ``r`` does not divide the output channels of a group: a row
    block would straddle two groups, which the format does not allow.

    Args:
        model: any ONNX model with its weights loaded; it is not changed.
        sparsity: fraction of groups to set to zero in each layer, in [0, 1].
        group_shape: ``(r, c)``: outputs × inputs of one group.
        importance: measure of a group's importance: ``rms``, ``mean`` or ``max``.
        layers: which layers to prune; all by default.
        exclude: patterns of the names of layers to leave alone.
        depthwise: prune Conv with one input channel per group too, though they have few weights to spare.

    Raises:
        InputError: an option is out of range, a pattern matches no layer, or weights are external data and
            not loaded.
    """
    _check_options(sparsity, group_shape, importance)
    found = list(weight_layers(model))
    names = [layer.name for layer in found]
    for pattern in (*exclude, *(layers if isinstance(layers, Sequence) else ())):
        check_pattern(pattern, names)

    outcome: dict[int, PrunedLayer] = {}
    chosen: dict[tuple[str, bool], list[tuple[int, WeightLayer]]] = defaultdict(list)
    for i, layer in enumerate(found):
        reason = _reason_to_leave(layer, group_shape, layers, exclude, depthwise)
        if reason or isinstance(layer, UnsuitableLayer):
            outcome[i] = PrunedLayer(layer.name, layer.op, pruned=False, reason=reason)
        else:
            chosen[layer.weight, layer.transposed].append((i, layer))

    result = Weights(model)
    for sharers in chosen.values():
        layers_alone = [layer for _, layer in sharers]
        pruned = zero_least_important(result.matrix(layers_alone[0]), group_shape, sparsity, importance)
        result.write(layers_alone, pruned)
        density = group_csr.density(pruned, group_shape)
        for i, sharer in sharers:
            outcome[i] = PrunedLayer(sharer.name, sharer.op, pruned=True, density=density)
    return MagnitudeResult(result.model, [outcome[i] for i in range(len(found))])


def _check_options(sparsity: float, group_shape: GroupShape, importance: str) -> None:
    if not 0 <= sparsity <= 1:
        raise InputError(f"sparsity must be between 0 and 1, got {sparsity}")
    if len(group_shape) != 2 or min(group_shape) < 1:
        raise InputError(f"group shape must be two positive numbers such as 4x1, got {group_shape}")
    if importance not in IMPORTANCES:
        raise InputError(f"importance must be one of {', '.join(IMPORTANCES)}, got {importance!r}")


def _reason_to_leave(
    layer: WeightLayer | UnsuitableLayer,
    group_shape: GroupShape,
    selection: Selection | None,
    exclude: Sequence[str],
    depthwise: bool,
) -> str:
    if isinstance(layer, UnsuitableLayer):
        return layer.reason
    if matches(layer.name, exclude):
        return "excluded"
    if selection is not None:
        selected = selection(layer) if callable(selection) else matches(layer.name, selection)
        if not selected:
            return "not selected"
    if layer.depthwise and not depthwise:
        return "depthwise: it has few weights to spare"
    return why_straddles(layer, group_shape)
