"""Magnitude pruning of an ONNX model in aligned groups of any shape."""

import difflib
import itertools
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import onnx
from onnx import TensorProto, external_data_helper, helper, numpy_helper

from scalpel_graph import group_csr
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning.importance import IMPORTANCES, Importance, zero_least_important
from scalpel_graph.pruning.layers import UnsuitableLayer, WeightLayer, constant_tensors, weight_layers

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
class PruneResult:
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
) -> PruneResult:
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
        _check_pattern(pattern, names)

    outcome: dict[int, PrunedLayer] = {}
    chosen: dict[_Weights, list[tuple[int, WeightLayer]]] = defaultdict(list)
    for i, layer in enumerate(found):
        reason = _reason_to_leave(layer, group_shape, layers, exclude, depthwise)
        if reason or isinstance(layer, UnsuitableLayer):
            outcome[i] = PrunedLayer(layer.name, layer.op, pruned=False, reason=reason)
        else:
            chosen[_Weights(layer.weight, layer.transposed)].append((i, layer))

    result = onnx.ModelProto()
    result.CopyFrom(model)
    tensors = constant_tensors(result.graph)
    uses = Counter(_names_read(result.graph))
    unused_name = _unused_names(result.graph)
    for weights, sharers in chosen.items():
        tensor, layer = tensors[weights.name], sharers[0][1]
        if external_data_helper.uses_external_data(tensor):
            raise InputError(
                f"weights {weights.name!r} of {layer.name!r} are external data that is not loaded: "
                "load it with onnx.load or onnx.load_external_data_for_model"
            )
        matrix = layer.matrix(numpy_helper.to_array(tensor))
        pruned = zero_least_important(matrix, group_shape, sparsity, importance)
        if uses[weights.name] > len(sharers):
            tensor = result.graph.initializer.add(name=unused_name(f"{weights.name}_pruned"))
            if result.ir_version < 4:  # every initializer is listed as an input as well
                result.graph.input.append(
                    helper.make_tensor_value_info(
                        tensor.name, tensors[weights.name].data_type, layer.weight_shape
                    )
                )
            for _, sharer in sharers:
                result.graph.node[sharer.node].input[1] = tensor.name
        _write(tensor, layer, pruned)
        density = group_csr.density(pruned, group_shape)
        for i, sharer in sharers:
            outcome[i] = PrunedLayer(sharer.name, sharer.op, pruned=True, density=density)
    return PruneResult(result, [outcome[i] for i in range(len(found))])


@dataclass(frozen=True)
class _Weights:
    """A tensor read as a matrix in one of two ways."""

    name: str
    transposed: bool


def _check_options(sparsity: float, group_shape: GroupShape, importance: str) -> None:
    if not 0 <= sparsity <= 1:
        raise InputError(f"sparsity must be between 0 and 1, got {sparsity}")
    if len(group_shape) != 2 or min(group_shape) < 1:
        raise InputError(f"group shape must be two positive numbers such as 4x1, got {group_shape}")
    if importance not in IMPORTANCES:
        raise InputError(f"importance must be one of {', '.join(IMPORTANCES)}, got {importance!r}")


def _check_pattern(pattern: str, names: list[str]) -> None:
    if any(_matches(name, [pattern]) for name in names):
        return
    if close := difflib.get_close_matches(pattern, names, n=1):
        hint = f"did you mean {close[0]!r}?"
    elif names:
        hint = f"there are {len(names)}, such as {', '.join(names[:3])}"
    else:
        hint = "the model has none"
    raise InputError(f"no Conv, Gemm or MatMul is called {pattern!r}: {hint}")


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(name == pattern or fnmatchcase(name, pattern) for pattern in patterns)


def _reason_to_leave(
    layer: WeightLayer | UnsuitableLayer,
    group_shape: GroupShape,
    selection: Selection | None,
    exclude: Sequence[str],
    depthwise: bool,
) -> str:
    if isinstance(layer, UnsuitableLayer):
        return layer.reason
    if _matches(layer.name, exclude):
        return "excluded"
    if selection is not None:
        selected = selection(layer) if callable(selection) else _matches(layer.name, selection)
        if not selected:
            return "not selected"
    if layer.depthwise and not depthwise:
        return "depthwise: it has few weights to spare"
    if layer.group > 1 and layer.shape[0] // layer.group % group_shape[0]:
        channels = layer.shape[0] // layer.group
        return f"blocks of {group_shape[0]} rows do not divide the {channels} channels of a group"
    return ""


def _write(tensor: TensorProto, layer: WeightLayer, matrix: group_csr.Array) -> None:
    new = numpy_helper.from_array(layer.tensor(matrix), tensor.name)
    if tensor.HasField("doc_string"):
        new.doc_string = tensor.doc_string
    tensor.CopyFrom(new)


def _names_read(graph: onnx.GraphProto) -> Iterator[str]:
    """Every use of a value by name, in subgraphs too, and the graph's outputs."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _names_read(subgraph)
    yield from (output.name for output in graph.output)


def _unused_names(graph: onnx.GraphProto) -> Callable[[str], str]:
    """A function that makes a name unlike any in the graph, and any that it made before."""
    taken = set(_names_read(graph))
    taken.update(value.name for value in (*graph.input, *graph.initializer))
    taken.update(itertools.chain.from_iterable(node.output for node in graph.node))

    def unused(hint: str) -> str:
        names: Iterable[str] = itertools.chain([hint], (f"{hint}_{i}" for i in itertools.count(1)))
        name = next(name for name in names if name not in taken)
        taken.add(name)
        return name

    return unused
