"""What of a graph could become sparse, and which of it should: shared by the passes that ask.

Every Conv, Gemm and MatMul is described as a matrix ``W[M, K]`` with its bias, or refused with the reason why
it has to stay dense; `decide` then asks the cost model about all of them together.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from math import prod
from typing import Any, Generic, TypeVar

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from scalpel_graph import autotune, cost, gpu_cost, layout
from scalpel_graph.cost import LayerWork
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.passes.base import PassContext, Refusal, Skip
from scalpel_graph.passes.matching import (
    MOVES,
    attribute,
    is_quantization,
    is_standard,
    optional_input,
    per_channel,
    why_not_constant,
)
from scalpel_graph.passes.quantized_tensors import matrix_of
from scalpel_graph.report import Candidate, LayerDecision
from scalpel_graph.target import CpuTarget, GpuTarget
from scalpel_graph.value_types import Storage, ValueType, dtype, storage


@dataclass(frozen=True)
class Layer:
    """A layer with constant float32 weights.

    Attributes:
        node: it.
        work: what it has to compute.
        weights: ``[M, K]``, a view of the initializer where that is possible.
        key: equal for two layers whose ``weights`` are the same numbers in the same order.
        bias: ``[M]``; None for none.
        residual: a tensor of the output's shape that is added; None for none.
        attributes: what the sparse operator needs beside the activation.
        storage: what the sparse operator's values are stored as.
    """

    node: gs.Node
    work: LayerWork
    weights: Array
    key: tuple[Any, ...]
    bias: Array | None
    residual: gs.Tensor | None
    attributes: Mapping[str, Any]
    storage: Storage = field(default_factory=Storage)


_Layer = TypeVar("_Layer")


@dataclass
class Decisions(Generic[_Layer]):
    """What the cost model says of all layers of a kind in a graph.

    Attributes:
        sparse: the layers to substitute, each with the candidate to take, in graph order.
        layers: an entry of the report for each layer that a choice was made about.
        skipped: layers that stay dense, and why.
    """

    sparse: list[tuple[_Layer, Candidate]] = field(default_factory=list)
    layers: list[LayerDecision] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)


def decide(graph: ModelGraph, context: PassContext) -> Decisions[Layer]:
    """Chooses dense or a group shape for every layer of the graph."""
    decisions = Decisions[Layer]()
    is_cpu = isinstance(context.target, CpuTarget)
    nodes = [
        node
        for node in graph.nodes
        if is_standard(node, "Conv", "Gemm", "MatMul")
        and (not has_quantized_weight(node) or (is_cpu and has_quantized_weight_alone(node)))
    ]
    shapes = graph.assumed_shapes(context.dimensions) if nodes else {}
    described: list[Layer] = []
    for node in nodes:
        try:
            described.append(describe(graph, node, shapes))
        except Refusal as refusal:
            decisions.skipped.append(Skip(node_label(node), str(refusal)))
    together = in_one_network(described, context.weights)
    if isinstance(context.target, GpuTarget):
        _decide_on_gpu(together, context.target, decisions)
    else:
        assert isinstance(context.target, CpuTarget)
        _decide_on_cpu(together, context.target, graph=graph, shapes=shapes, context=context, into=decisions)
    return decisions


def _decide_on_gpu(described: Sequence[Layer], target: GpuTarget, decisions: Decisions[Layer]) -> None:
    """Each layer by itself: only matrix products of few rows, which changes of layout are no part of."""
    for layer in described:
        why_not = gpu_cost.why_dense(layer.work)
        if why_not:
            decisions.skipped.append(Skip(node_label(layer.node), f"kept dense: {why_not}"))
            continue
        ways = gpu_cost.candidates(layer.work, layer.weights, target)
        chosen = cost.choose(ways, target.margin)
        nonzero = float(np.count_nonzero(layer.weights)) / layer.weights.size
        best = cost.fastest_sparse(ways)
        if best is None:
            reason = f"kept dense: {nonzero:.0%} of weights are non-zero, no sparse form is smaller"
        elif chosen.decision == "dense":
            reason = f"kept dense: {nonzero:.0%} of weights are non-zero, sparse is not predicted to pay"
        else:
            r, c = chosen.group_shape or (1, 1)
            ratio = ways[0].predicted_us / chosen.predicted_us
            reason = f"{r}×{c} groups, {chosen.density:.0%} stored, predicted {ratio:.1f}× faster than dense"
        _note(decisions, layer, chosen, density=nonzero, ways=ways, reason=reason)


def _note(
    decisions: Decisions[Layer],
    layer: Layer,
    chosen: Candidate,
    *,
    density: float,
    ways: Sequence[Candidate],
    reason: str,
) -> None:
    label = node_label(layer.node)
    values = layer.storage if chosen.decision == "group_csr" else Storage()
    decisions.layers.append(LayerDecision(label, layer.node.op, chosen, density, list(ways), reason, values))
    if chosen.decision == "dense":
        decisions.skipped.append(Skip(label, reason))
    else:
        decisions.sparse.append((layer, chosen))


def _decide_on_cpu(
    described: Sequence[Layer],
    target: CpuTarget,
    *,
    graph: ModelGraph,
    shapes: Mapping[str, tuple[int, ...]],
    context: PassContext,
    into: Decisions[Layer],
) -> None:
    margin = target.margin if context.tuner is None else autotune.MARGIN
    layers: list[tuple[Layer, list[Candidate]]] = []
    conv_times: dict[int, layout.ConvTimes] = {}
    ways_of: dict[tuple[Any, ...], list[Candidate]] = {}
    for layer in described:
        known = (layer.key, layer.work)
        if known not in ways_of:
            ways_of[known] = _candidates(layer, context, target)
        ways = ways_of[known]
        layers.append((layer, ways))
        if layer.work.is_conv:
            best = cost.fastest_sparse(ways)
            dense_us = (1 - margin) * ways[0].predicted_us
            conv_times[id(layer.node)] = layout.ConvTimes(
                dense_us, None if best is None else best.predicted_us
            )
    if context.tuner is not None:
        context.tuner.save()
    copy_us = partial(cost.reorder_us, target=target, threads=context.threads)
    sparse_convs = layout.choose_sparse(graph, conv_times, target.block, shapes, copy_us)
    verb = "predicted" if context.tuner is None else "measured"
    for layer, ways in layers:
        alone = cost.choose(ways, margin)
        chosen = alone
        if layer.work.is_conv:
            best = cost.fastest_sparse(ways)
            chosen = best if best is not None and id(layer.node) in sparse_convs else ways[0]
        reason = _reason(layer, ways, alone, chosen, target=target, verb=verb)
        density = float(np.count_nonzero(layer.weights)) / layer.weights.size
        _note(into, layer, chosen, density=density, ways=ways, reason=reason)


def _candidates(layer: Layer, context: PassContext, target: CpuTarget) -> list[Candidate]:
    ways = cost.candidates(layer.work, layer.weights, target, context.threads)
    if context.tuner is None:
        return ways
    return context.tuner.retime(
        ways,
        layer.work,
        layer.weights,
        attributes=layer.attributes,
        threads=context.threads,
        name=node_label(layer.node),
        value_type=layer.storage.type,
    )


def _reason(
    layer: Layer,
    ways: list[Candidate],
    alone: Candidate,
    chosen: Candidate,
    *,
    target: CpuTarget,
    verb: str,
) -> str:
    dense = ways[0].predicted_us
    best = cost.fastest_sparse(ways)
    if chosen.decision == "group_csr":
        r, c = chosen.group_shape or (1, 1)
        ratio = dense / chosen.predicted_us
        kept = f"; values stay float32: {layer.storage.reason}" if layer.storage.reason else ""
        stored = f"{r}×{c} groups, {chosen.density:.0%} stored"
        if layer.work.is_depthwise:
            return f"depthwise, in our kernels: saves layout changes between sparse neighbours{kept}"
        if ratio >= 1:
            return f"{stored}, {verb} {ratio:.1f}× faster than dense{kept}"
        return f"{stored}: saves layout changes between sparse neighbours{kept}"
    nonzero = np.count_nonzero(layer.weights) / layer.weights.size
    if best is None:
        if not target.kernels:
            return f"kept dense: target {target.name} has no sparse kernels to choose from"
        if layer.work.is_depthwise:
            return "kept dense: a depthwise Conv has one input channel a group, nothing to skip"
        if layer.work.is_conv and target.min_columns > layer.work.K:
            return f"kept dense: {layer.work.K} multiply-adds per output are too few to skip any"
        return f"kept dense: {nonzero:.0%} of weights are non-zero, no sparse form is smaller"
    if alone.decision == "group_csr":
        return "kept dense: sparse would be faster by itself, but not with the layout changes at its borders"
    ratio = best.predicted_us / dense
    if ratio >= 1.05:
        return f"kept dense: {nonzero:.0%} of weights are non-zero, dense is {verb} {ratio:.1f}× faster"
    return f"kept dense: {nonzero:.0%} of weights are non-zero, sparse is not {verb} to be clearly faster"


def in_one_network(layers: Sequence[Layer], weights: ValueType) -> list[Layer]:
    """The layers, with what depends on more than each alone.

    Args:
        layers: of one network. All their weights together are what caches have to hold.
        weights: what values are to be stored as.
    """
    network_bytes = sum({layer.key: layer.work.weight_bytes for layer in layers}.values())
    storages: dict[tuple[Any, ...], Storage] = {}
    together = []
    for layer in layers:
        if layer.key not in storages:
            storages[layer.key] = _storage(layer, weights)
        stored = storages[layer.key]
        value_bytes = dtype(stored.type).itemsize
        work = replace(layer.work, network_bytes=network_bytes, value_bytes=value_bytes)
        together.append(replace(layer, work=work, storage=stored))
    return together


def _storage(layer: Layer, wanted: ValueType) -> Storage:
    """What a layer's values are to be stored as: integers stay so."""
    if layer.storage.type == "int8":
        return layer.storage
    if wanted == "int8" and layer.work.is_conv:
        return Storage(reason="there is no Conv of int8 weights and float32 activations")
    return storage(layer.weights, wanted)


def has_quantized_weight_alone(node: gs.Node) -> bool:
    """Whether a product has a weight of integers, but activations of real numbers."""
    if not is_standard(node, "Gemm", "MatMul") or not has_quantized_weight(node):
        return False
    tensor = node.inputs[0]
    while len(tensor.inputs) == 1 and is_standard(tensor.inputs[0], *MOVES):
        tensor = tensor.inputs[0].inputs[0]
    return not (len(tensor.inputs) == 1 and is_quantization(tensor.inputs[0], "DequantizeLinear"))


def has_quantized_weight(node: gs.Node) -> bool:
    """Whether a Conv, Gemm or MatMul multiplies by what was made of integers: other passes know about
    those."""
    tensor = node.inputs[1]
    while len(tensor.inputs) == 1 and is_standard(tensor.inputs[0], "Transpose"):
        tensor = tensor.inputs[0].inputs[0]
    return len(tensor.inputs) == 1 and is_quantization(tensor.inputs[0], "DequantizeLinear")


def describe(graph: ModelGraph, node: gs.Node, shapes: Mapping[str, tuple[int, ...]]) -> Layer:
    """Looks at a Conv, Gemm or MatMul.

    Args:
        graph: the model.
        node: the layer.
        shapes: of tensors, with sizes assumed for symbols (`ModelGraph.assumed_shapes`).

    Raises:
        Refusal: it has to stay dense.
    """
    tensor = node.inputs[1]
    if has_quantized_weight_alone(node):
        return _with_integers(graph, node, shapes)
    kind = graph.type(tensor) or graph.type(node.inputs[0])
    if kind is not None and kind != TensorProto.FLOAT:
        raise Refusal(f"weight is {TensorProto.DataType.Name(kind).lower()}, not float32")
    weight = graph.constant(tensor)
    if weight is None:
        raise Refusal(why_not_constant(graph, "weight", tensor))
    if weight.size == 0:
        raise Refusal("weight has no elements")
    if not weight.any():
        raise Refusal("all its weights are zero")
    by_operator = {"Conv": _conv, "Gemm": _gemm, "MatMul": _matmul}
    return by_operator[node.op](graph, node, weight, shapes)


def _with_integers(graph: ModelGraph, node: gs.Node, shapes: Mapping[str, tuple[int, ...]]) -> Layer:
    """A product whose weight is made of constant integers: these are stored, whatever else is."""
    found, matrix = matrix_of(graph, node)
    if not matrix.any():
        raise Refusal("all its weights are zero")
    if attribute(node, "alpha", 1.0) != 1.0:
        raise Refusal("its alpha is not 1")
    scale = np.broadcast_to(found.scale, matrix.shape[:1])
    weights = matrix.astype(np.float32) * scale[:, np.newaxis]
    by_operator = {"Gemm": _gemm, "MatMul": _matmul}
    tensor = weights if attribute(node, "transB", 0) else weights.T
    layer = by_operator[node.op](graph, node, tensor, shapes)
    return replace(layer, key=(*found.key, *layer.key), storage=Storage("int8", scale=scale))


def _conv(graph: ModelGraph, node: gs.Node, weight: Array, shapes: Mapping[str, tuple[int, ...]]) -> Layer:
    work, attributes = conv_work(graph, node, weight, shapes, x=node.inputs[0], y=node.outputs[0])
    bias = _vector(graph, optional_input(node, 2), work.M)
    return Layer(node, work, weight.reshape(work.M, -1), (node.inputs[1].name,), bias, None, attributes)


def conv_work(
    graph: ModelGraph,
    node: gs.Node,
    weight: Array,
    shapes: Mapping[str, tuple[int, ...]],
    *,
    x: gs.Tensor,
    y: gs.Tensor,
) -> tuple[LayerWork, dict[str, Any]]:
    """What a Conv has to compute, and the attributes of its sparse operator beside the activation.

    Args:
        graph: the model.
        node: has the attributes of ONNX's Conv.
        weight: ``[M, C / group, kernel...]``.
        shapes: of tensors, with sizes assumed for symbols.
        x, y: its activations.

    Raises:
        Refusal: it has to stay dense.
    """
    spatial = weight.ndim - 2
    if spatial not in (1, 2):
        raise Refusal(f"it is a {spatial}-D convolution; 1-D and 2-D ones can be sparse")
    kernel = weight.shape[2:]
    group = int(attribute(node, "group", 1))
    M, C = weight.shape[0], weight.shape[1] * group
    if M % group or tuple(attribute(node, "kernel_shape", kernel)) != kernel:
        raise Refusal("its attributes contradict the shape of its weight")
    strides = [int(n) for n in attribute(node, "strides", [1] * spatial)]
    dilations = [int(n) for n in attribute(node, "dilations", [1] * spatial)]
    pads = _pads(graph, node, kernel, strides, dilations)
    x_shape, y_shape = shapes.get(x.name), shapes.get(y.name)
    if x_shape is None or y_shape is None:
        raise Refusal("the size of its output is not known; --input-shape may help")
    N = y_shape[0] * prod(y_shape[2:])
    _check_sizes(prod(x_shape), N)
    work = LayerWork(
        op="Conv", M=M, K=weight.size // M, N=N, group=group, kernel=kernel, strides=tuple(strides),
        dilations=tuple(dilations), pads=tuple(pads), in_size=x_shape[2:], out_size=y_shape[2:],
    )  # fmt: skip
    if x_shape[1] != C:
        raise Refusal(f"it reads {x_shape[1]} channels, its weight has {C}")
    attributes = {
        "weight_shape": list(weight.shape),
        "strides": strides, "pads": pads, "dilations": dilations, "group": group,
    }  # fmt: skip
    return work, attributes


def _pads(
    graph: ModelGraph, node: gs.Node, kernel: tuple[int, ...], strides: list[int], dilations: list[int]
) -> list[int]:
    """Explicit padding, begins then ends."""
    spatial = len(kernel)
    mode = attribute(node, "auto_pad", "NOTSET")
    if mode == "NOTSET":
        pads = [int(n) for n in attribute(node, "pads", [0] * 2 * spatial)]
        if min(pads) < 0:
            raise Refusal("it pads by a negative number")
        return pads
    if mode == "VALID":
        return [0] * 2 * spatial
    if any(n != 1 for n in dilations):
        raise Refusal(f"auto_pad {mode} with dilations is not defined alike everywhere")
    shape = graph.shape(node.inputs[0])
    begins, ends = [], []
    for axis, (k, stride) in enumerate(zip(kernel, strides, strict=True)):
        size = None if shape is None or len(shape) != spatial + 2 else shape[2 + axis]
        if stride == 1:
            total = k - 1
        elif isinstance(size, int):
            total = max((-(-size // stride) - 1) * stride + k - size, 0)
        else:
            raise Refusal(
                f"auto_pad {mode} with strides depends on the size of the input, which is not fixed"
            )
        less = total // 2
        begins.append(less if mode == "SAME_UPPER" else total - less)
        ends.append(total - less if mode == "SAME_UPPER" else less)
    return begins + ends


def _gemm(graph: ModelGraph, node: gs.Node, weight: Array, shapes: Mapping[str, tuple[int, ...]]) -> Layer:
    if graph.opset < 7:
        raise Refusal("Gemm broadcasts differently before opset 7")
    if attribute(node, "transA", 0):
        raise Refusal("it transposes its input (transA)")
    transposed = bool(attribute(node, "transB", 0))
    matrix = weight if transposed else weight.T
    alpha, beta = float(attribute(node, "alpha", 1.0)), float(attribute(node, "beta", 1.0))
    if alpha != 1.0:
        with np.errstate(over="ignore", invalid="ignore"):
            scaled = (matrix * np.float64(alpha)).astype(np.float32)
        if not np.array_equal(np.isfinite(scaled), np.isfinite(matrix)):
            raise Refusal("its weight times alpha is not finite in float32")
        matrix = scaled
        if not matrix.any():
            raise Refusal("all its weights are zero")
    M = matrix.shape[0]
    bias, residual = _gemm_bias(graph, node, M, beta)
    work = matrix_work(node.op, matrix, node.inputs[0], shapes)
    attributes = {"weight_shape": list(matrix.shape)}
    return Layer(node, work, matrix, (node.inputs[1].name, transposed, alpha), bias, residual, attributes)


def _gemm_bias(
    graph: ModelGraph, node: gs.Node, M: int, beta: float
) -> tuple[Array | None, gs.Tensor | None]:
    """C as a bias for each column, or as a residual of the output's shape."""
    tensor = optional_input(node, 2)
    if tensor is None or beta == 0.0:
        return None, None
    values = graph.constant(tensor)
    if values is not None:
        vector = per_channel(values, M, 2, -1)
        if vector is not None:
            return (vector * np.float64(beta)).astype(np.float32), None
    if beta == 1.0 and same_shape(graph, tensor, node.outputs[0]):
        return None, tensor
    if values is None:
        raise Refusal(why_not_constant(graph, "C", tensor))
    raise Refusal(
        f"C {tensor.name!r} of shape {list(values.shape)} is neither one number a column nor a whole matrix"
    )


def _matmul(graph: ModelGraph, node: gs.Node, weight: Array, shapes: Mapping[str, tuple[int, ...]]) -> Layer:
    if weight.ndim != 2:
        raise Refusal(f"its weight has rank {weight.ndim}; only matrices can be sparse")
    x = graph.shape(node.inputs[0])
    if x is None or len(x) < 2:
        raise Refusal("the rank of its input is not known" if x is None else "its input is a vector")
    work = matrix_work(node.op, weight.T, node.inputs[0], shapes)
    return Layer(
        node,
        work,
        weight.T,
        (node.inputs[1].name, False, 1.0),
        None,
        None,
        {"weight_shape": list(weight.T.shape)},
    )


def matrix_work(op: str, matrix: Array, x: gs.Tensor, shapes: Mapping[str, tuple[int, ...]]) -> LayerWork:
    """What a product of ``x`` with a matrix ``[M, K]`` has to compute.

    Raises:
        Refusal: it has to stay dense.
    """
    x_shape = shapes.get(x.name)
    if x_shape is None:
        raise Refusal("the size of its input is not known; --input-shape may help")
    M, K = matrix.shape
    N = prod(x_shape[:-1])
    _check_sizes(prod(x_shape), N)
    return LayerWork(op=op, M=M, K=K, N=N)


def _check_sizes(elements: int, columns: int) -> None:
    if elements < 1 or columns < 1:
        raise Refusal("its input or output has no elements")


def _vector(graph: ModelGraph, tensor: gs.Tensor | None, M: int) -> Array | None:
    if tensor is None:
        return None
    values = graph.constant(tensor)
    if values is None:
        raise Refusal(why_not_constant(graph, "bias", tensor))
    if values.shape != (M,):
        raise Refusal(f"bias {tensor.name!r} has shape {list(values.shape)}, not [{M}]")
    return values


def same_shape(graph: ModelGraph, a: gs.Tensor, b: gs.Tensor) -> bool:
    """Whether two tensors provably have the same shape: equal numbers, or the same symbol, in each place."""
    left, right = graph.shape(a), graph.shape(b)
    return left is not None and left == right and None not in left
