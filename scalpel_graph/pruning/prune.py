"""Prunes a model: nodes first, then each layer that has zeros of its own or lost nodes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto

from scalpel_graph import group_csr
from scalpel_graph.pruning.fit import Without
from scalpel_graph.pruning.layers import UnsuitableLayer, WeightLayer
from scalpel_graph.pruning.network import Network, Request
from scalpel_graph.pruning.node_scores import second_order
from scalpel_graph.pruning.nodes import choose_nodes, take_out, that_can_be_cut_out
from scalpel_graph.pruning.progress import Progress
from scalpel_graph.pruning.reconstruct import Job, reconstruct
from scalpel_graph.pruning.report import LayerReport
from scalpel_graph.pruning.structure import Groups, Mask, NofM
from scalpel_graph.pruning.techniques import Plan
from scalpel_graph.pruning.weights import Weights
from scalpel_graph.report import BeforeAfter

#: Methods that choose by magnitude even where inputs are given.
_BY_MAGNITUDE = ("magnitude", "optimized")

Planner = Callable[[Network], Mapping[str, Plan]]


@dataclass(frozen=True)
class Pruned:
    """A pruned model.

    Attributes:
        model: it, as large as before: zeros are all there is of pruning.
        layers: every Conv, Gemm and MatMul, in graph order.
        size_bytes: of the weights of these: dense, and in the form that they would be stored in.
        weights: of these: how many are not zero.
    """

    model: ModelProto
    layers: list[LayerReport]
    size_bytes: BeforeAfter
    weights: BeforeAfter


def prune_model(
    model: ModelProto, request: Request, progress: Progress, planner: Planner = Network.plans
) -> Pruned:
    """Prunes a model, which is not changed.

    Args:
        model: any ONNX model with its weights loaded.
        request: what is asked for.
        progress: is told what is being done.
        planner: chooses the technique and the sparsity of each layer.

    Raises:
        InputError: an option or a recipe does not suit the model.
    """
    progress.say("looking at the layers")
    network = Network(model, request)
    plans = planner(network)
    weights = Weights(model)
    gone = _choose_nodes(network, plans, progress)
    dead: dict[str, Mask] = {}
    if gone.any():
        for layer in network.own:
            mask = network.nodes.dead(layer, gone)
            if mask.any():
                dead[layer.name] = mask
                take_out(weights, layer, mask, network.nodes.dead_rows(layer, gone))
    by_magnitude: list[Job] = []
    fitted: list[Job] = []
    for sharers in network.sharers():
        layer = sharers[0]
        chosen = plans.get(layer.name, Plan(layer))
        if chosen.structure is None and layer.name not in dead:
            continue
        rows = np.zeros(layer.shape[0], dtype=np.bool_)
        if layer.name in dead:
            rows = network.nodes.dead_rows(layer, gone)
        job = Job(sharers, chosen.structure, chosen.sparsity, dead.get(layer.name), rows)
        settings = network.settings.get(layer.name, request.settings)
        goes_by_data = request.calibration is not None and settings.method not in _BY_MAGNITUDE
        (fitted if goes_by_data else by_magnitude).append(job)
    errors: dict[str, float] = {}
    for job in by_magnitude:
        errors |= _prune_by_magnitude(network, weights, job)
    if fitted:
        assert request.calibration is not None
        with progress.counted("fitting layers", len(fitted)) as done:
            errors |= reconstruct(
                model, weights, fitted, request.calibration, threads=request.threads, done=done
            )
    return _result(network, plans, weights, gone, errors)


def _choose_nodes(network: Network, plans: Mapping[str, Plan], progress: Progress) -> Mask:
    """``[nodes]``: which go."""
    fractions = network.fractions(plans)
    if not any(0 < fraction < 1 for fraction in fractions.values()):
        return np.zeros(0, dtype=np.bool_)
    request, nodes = network.request, network.nodes
    methods = {network.settings[name].method for name, part in fractions.items() if 0 < part < 1}
    gone = choose_nodes(nodes, network.node_magnitudes, fractions)
    if request.calibration is None or not methods - set(_BY_MAGNITUDE) or not gone.any():
        return _cut_out(network, gone)
    kinds = np.unique(nodes.kind[gone])
    competing = np.flatnonzero(np.isin(nodes.kind, kinds))
    readers = [
        layer
        for layer in network.own
        if layer.name in nodes.read and np.isin(nodes.read[layer.name], competing).any()
    ]
    with progress.counted("weighing nodes", len(readers)) as done:
        scores = second_order(
            network.model,
            nodes,
            readers,
            network.weights,
            request.calibration,
            threads=request.threads,
            done=done,
        )
    return _cut_out(network, choose_nodes(nodes, scores, fractions))


def _cut_out(network: Network, gone: Mask) -> Mask:
    model, understood = network.model, network.request.understood
    return that_can_be_cut_out(network.nodes, gone, model, network.own, understood)


def _prune_by_magnitude(network: Network, weights: Weights, job: Job) -> dict[str, float]:
    layer = job.layer
    matrix = weights.matrix(layer)
    dead = np.zeros(matrix.shape, dtype=np.bool_) if job.dead is None else job.dead
    settings = network.settings.get(layer.name, network.request.settings)
    drop = Without(job.structure, dead).drop(matrix, job.sparsity, settings.importance)
    weights.write(job.sharers, np.where(drop, matrix.dtype.type(0), matrix))
    squares = network.weights.matrix(layer).astype(np.float64) ** 2
    error = float(squares[drop].sum() / max(squares.sum(), 1e-30))
    return {sharer.name: error for sharer in job.sharers}


def _result(
    network: Network,
    plans: Mapping[str, Plan],
    weights: Weights,
    gone: Mask,
    errors: Mapping[str, float],
) -> Pruned:
    reports = []
    sizes, counts = [0, 0], [0, 0]
    counted: set[str] = set()
    for layer in network.found:
        if isinstance(layer, UnsuitableLayer):
            reports.append(_left(layer.name, layer.op, layer.reason))
            continue
        matrix = weights.matrix(layer)
        chosen = plans.get(layer.name, Plan(layer, reason=network.left.get(layer.name, "")))
        report, size = _layer_report(network, layer, chosen, matrix, gone=gone, error=errors.get(layer.name))
        reports.append(report)
        if layer.weight not in counted:
            counted.add(layer.weight)
            before = network.weights.matrix(layer)
            sizes[0] += network.weight_bytes(layer) * before.size
            sizes[1] += size
            counts[0] += int(np.count_nonzero(before))
            counts[1] += int(np.count_nonzero(matrix))
    return Pruned(weights.model, reports, BeforeAfter(*sizes), BeforeAfter(*counts))


def _left(name: str, op: str, reason: str) -> LayerReport:
    return LayerReport(name, op, "none", None, 0.0, 1.0, None, BeforeAfter(0, 0), None, None, None, reason)


def _layer_report(
    network: Network,
    layer: WeightLayer,
    chosen: Plan,
    matrix: group_csr.Array,
    *,
    gone: Mask,
    error: float | None,
) -> tuple[LayerReport, int]:
    """What became of a layer, and the bytes of its weights."""
    M, K = layer.shape
    rows_gone = int(network.nodes.dead_rows(layer, gone).sum()) if gone.any() else 0
    # Rows and columns that nodes leave empty are cut out; what is left is stored densely or in groups.
    width, height = int(matrix.any(axis=0).sum()), M - rows_gone
    weight_bytes = network.weight_bytes(layer)
    size = weight_bytes * (height * width if gone.any() and error is not None else M * K)
    structure, speed = chosen.structure, network.request.speed
    dense_us = None if speed is None else speed.dense_us(layer.name)
    after_us = dense_us
    group_shape = group_density = None
    technique, asked, reason = "none", 0.0, chosen.reason
    if rows_gone:
        technique, asked = "node", chosen.nodes
    elif error is not None and structure is None:
        technique, reason = "node", "loses the inputs that others' nodes were"
    elif chosen.nodes:
        reason = "no nodes went: layers that share them keep theirs, or they could not be cut out"
    if speed is not None and technique == "node":
        after_us = speed.narrower_us(layer.name, height / M, width / K)
    if isinstance(structure, Groups):
        technique, group_shape, asked = "group", structure.shape, chosen.sparsity
        group_density = structure.density(matrix)
        n_groups = round(group_density * -(-M // group_shape[0]) * -(-K // group_shape[1]))
        size = min(size, group_csr.encoded_bytes((M, K), group_shape, n_groups, weight_bytes))
        if speed is not None and dense_us is not None:
            sparse_us = speed.sparse_us(layer.name, group_shape, group_density)
            if sparse_us is not None and speed.pays(layer.name, group_shape, group_density):
                after_us = sparse_us
    elif isinstance(structure, NofM):
        technique, asked = str(structure), chosen.sparsity
        # Two bits say which of four.
        index_bits = structure.n * max(1, (structure.m - 1).bit_length())
        size = M * -(-K // structure.m) * (structure.n * weight_bytes * 8 + index_bits) // 8
    density = float(np.count_nonzero(matrix) / matrix.size)
    nodes = BeforeAfter(M, M - rows_gone)
    report = LayerReport(
        layer.name, layer.op, technique, group_shape, asked, density, group_density, nodes, error,
        dense_us, after_us, reason,
    )  # fmt: skip
    return report, size
