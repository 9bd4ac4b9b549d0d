"""Dead channels that stay, because the groups behind them would fall apart.

Where a channel goes, every later one moves up by one, and groups that were zero as a whole then straddle two
that were not: of `1×8` groups of which one in ten is kept, nearly one in five is after a single column has
gone. So, on a target with sparse kernels, a layer keeps its dead inputs, or its dead outputs too, where the
cost model predicts it to be slower without them. On a microcontroller, dead inputs and outputs of a
layer that will be sparse go where they are dead by whole groups: a row without weights costs little there.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial

import numpy as np

from scalpel_graph import cost, group_csr
from scalpel_graph.channels.analysis import Analysis, Pin
from scalpel_graph.channels.conv import ConvRule
from scalpel_graph.channels.gemm_matmul import GemmRule, MatMulRule
from scalpel_graph.channels.liveness import Decision
from scalpel_graph.channels.slots import BoolArray, IntArray
from scalpel_graph.channels_last import AS_GIVEN, column_orders
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.mcu.network import SIMD_WIDTH
from scalpel_graph.passes import sparse_layers
from scalpel_graph.passes.base import PassContext, Refusal
from scalpel_graph.passes.quantized_model import dtype_of
from scalpel_graph.passes.sparse_layers import Layer
from scalpel_graph.pruning.structure import Groups
from scalpel_graph.target import CpuTarget, McuTarget

_LayerRule = ConvRule | GemmRule | MatMulRule

_REASON = "without them its groups of zeros would fall apart"
#: A layer may get slower by this much, for what its neighbours gain.
_TOLERANCE = 1.01
#: A microcontroller's layer with no larger part of its groups will be sparse; and in blocks of rows, where
#: these are hardly more.
_SPARSE = 0.5
_BLOCKS = 1.25


def keep_aligned(graph: ModelGraph, analysis: Analysis, decision: Decision, context: PassContext) -> None:
    """Holds the dead slots of layers that would be slower without them.

    Args:
        graph: what ``analysis`` is of.
        analysis: the facts.
        decision: what has to stay; is changed.
        context: whose target and sizes the cost model is asked about.
    """
    target = context.target
    if isinstance(target, McuTarget):
        _keep_whole_groups(graph, analysis, decision, context)
    if not isinstance(target, CpuTarget) or decision.live.all():
        return
    time = partial(_time, target=target, threads=context.threads)
    layers = [
        (rule, layer)
        for rule, layer in _layers(graph, analysis, context)
        if _loses_channels(rule, decision) and _is_sparse(layer, target, context.threads)
    ]
    before: dict[int, float] = {}
    while decision.hold(_falling_apart(layers, decision, time, before)):
        pass


def _keep_whole_groups(
    graph: ModelGraph, analysis: Analysis, decision: Decision, context: PassContext
) -> None:
    """Holds what is dead of a microcontroller's sparse layers and shares a group with something living."""
    if decision.live.all():
        return
    assert context.quantization is not None  # the API gives it to every such target
    c = SIMD_WIDTH[dtype_of(graph, context.quantization.dtype)]
    orders = column_orders(graph, context.dimensions)
    together: list[tuple[str, IntArray, IntArray]] = []
    for rule, layer in _layers(graph, analysis, context):
        label, (M, K) = node_label(layer.node), layer.weights.shape
        order = orders.get(label, AS_GIVEN)
        by_rows = {r: Groups((r, c), order).density(layer.weights) for r in (4, 2, 1)}
        if by_rows[1] <= _SPARSE:
            r = next(r for r, density in by_rows.items() if density <= _BLOCKS * by_rows[1])
            columns = rule.x.slots.repeat(K // len(rule.x.slots))
            together.append((label, columns, order.columns(K, c).reshape(-1, c)))
            together.append((label, rule.y.slots, AS_GIVEN.columns(M, r).reshape(-1, r)))

    def sharing() -> Iterator[Pin]:
        for label, slots, groups in together:
            stays, there = decision.stays(slots)[groups], groups >= 0
            living = np.any(stays & there, axis=1, keepdims=True)
            dead = groups[living & ~stays & there]
            yield Pin(slots[dead], label, _REASON)

    while decision.hold(sharing()):
        pass


def _loses_channels(rule: _LayerRule, decision: Decision) -> bool:
    return not (decision.stays(rule.x.slots).all() and decision.stays(rule.y.slots).all())


def _is_sparse(layer: Layer, target: CpuTarget, threads: int) -> bool:
    """Whether a layer would become sparse as it is: only then it has groups that matter."""
    ways = cost.candidates(layer.work, layer.weights, target, threads)
    return cost.choose(ways, target.margin).decision == "group_csr"


def _falling_apart(
    layers: list[tuple[_LayerRule, Layer]],
    decision: Decision,
    time: Callable[[Layer, BoolArray | None, BoolArray | None], float],
    before: dict[int, float],
) -> Iterator[Pin]:
    """The dead inputs, or those and the dead outputs, of layers that would be slower without them.

    Args:
        layers: which to look at.
        decision: what stays so far.
        time: of a layer with some of its inputs and outputs.
        before: of layers with all of them, by `id` of the node; is filled in.
    """
    for rule, layer in layers:
        inputs, outputs = decision.stays(rule.x.slots), decision.stays(rule.y.slots)
        if (inputs.all() and outputs.all()) or not (inputs.any() and outputs.any()):
            continue
        if id(layer.node) not in before:
            before[id(layer.node)] = time(layer, None, None)
        most = _TOLERANCE * before[id(layer.node)]
        if time(layer, inputs, outputs) <= most:
            continue
        slots = rule.x.slots[~inputs]
        if not len(slots) or time(layer, None, outputs) > most:
            slots = np.concatenate([slots, rule.y.slots[~outputs]])
        yield Pin(slots, node_label(layer.node), _REASON)


def _layers(graph: ModelGraph, analysis: Analysis, context: PassContext) -> list[tuple[_LayerRule, Layer]]:
    """The layers that could be sparse and are not cut into groups of channels."""
    shapes = graph.assumed_shapes(context.dimensions)
    rules: list[_LayerRule] = []
    layers: list[Layer] = []
    for rule in analysis.rules:
        if not isinstance(rule, _LayerRule) or rule.node.op not in ("Conv", "Gemm", "MatMul"):
            continue
        if (isinstance(rule, MatMulRule) and rule.side != 1) or rule.node.attrs.get("group", 1) != 1:
            continue
        try:
            layers.append(sparse_layers.describe(graph, rule.node, shapes))
        except Refusal:
            continue
        rules.append(rule)
    return list(zip(rules, sparse_layers.in_one_network(layers, context.weights), strict=True))


def _time(
    layer: Layer, inputs: BoolArray | None, outputs: BoolArray | None, *, target: CpuTarget, threads: int
) -> float:
    """Predicted microseconds of a layer with some of its inputs and outputs (None: all).

    Every group shape counts, also one that stores as much as the dense weight: without its zeros a layer
    must not look slower because that shape is no longer worth it.
    """
    weights, work = layer.weights, layer.work
    if outputs is not None and not outputs.all():
        weights = weights[outputs]
    if inputs is not None and not inputs.all():
        weights = weights[:, np.repeat(inputs, weights.shape[1] // len(inputs))]
    M, K = weights.shape
    work = replace(work, M=M, K=K)
    return min(
        [
            cost.dense_us(work, target, threads),
            *(
                cost.sparse_us(
                    work, shape, group_csr.density(weights, cost.runs_as(work, shape)), target, threads
                )
                for shape in (kernel.group_shape for kernel in target.kernels)
            ),
        ]
    )
