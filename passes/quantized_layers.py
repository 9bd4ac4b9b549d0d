"""The layers of quantized graphs, whichever way they are written, as the 8-bit operators know them.

Two forms are read, those that ONNX Runtime's quantizer and PyTorch's exporter write:

- QDQ: ``Conv``, ``Gemm`` or ``MatMul`` of what DequantizeLinear made of integers, then perhaps Relu or Clip,
  then QuantizeLinear. A product that nobody quantizes again stays float32.
- operators of integers: ``QLinearConv``, ``QLinearMatMul``, ``QGemm``, and ``ConvInteger`` and
  ``MatMulInteger`` with the Cast and the Mul by its scales that make float32 of it.

A weight is an integer less its zero point: that is what is zero or not, and it has to fit int8.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from scalpel_graph import autotune, cost, layout, ops, qlinear_ops
from scalpel_graph.cost import LayerWork
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.passes.base import PassContext, Refusal, Skip
from scalpel_graph.passes.matching import (
    attribute,
    is_quantization,
    is_standard,
    optional_constant,
    optional_input,
    per_channel,
    why_not_constant,
)
from scalpel_graph.passes.quantized_tensors import Weight, centred, matrix_of, real_tensor, weight_of
from scalpel_graph.passes.sparse_layers import (
    Decisions,
    conv_work,
    has_quantized_weight,
    has_quantized_weight_alone,
    matrix_work,
)
from scalpel_graph.report import Candidate, LayerDecision
from scalpel_graph.target import CpuTarget

_EIGHT_BITS = (TensorProto.UINT8, TensorProto.INT8)
_MICROSOFT = "com.microsoft"
#: A bias whose scale differs from that of the sums by no more than rounding is taken as it is.
_SAME_SCALE = 1e-5
_INT32 = np.iinfo(np.int32)


@dataclass(frozen=True)
class QuantizedLayer:
    """A layer of 8-bit integers.

    Attributes:
        node: the operator that multiplies; what reports call the layer.
        through: it and the nodes behind it that the sparse operator stands for, in order.
        op_type: of the sparse operator.
        work: what it has to compute.
        weights: ``[M, K]`` int8, zero points subtracted.
        key: equal for two layers whose ``weights`` are the same numbers in the same order.
        inputs: of the sparse operator, but for the weight: tensors, and arrays that are no tensors yet.
        attributes: of the sparse operator.
        bounds: of a Relu or Clip that saturation does not do already, in integers of the output; None for
            none.
    """

    node: gs.Node
    through: tuple[gs.Node, ...]
    op_type: str
    work: LayerWork
    weights: Array
    key: tuple[Any, ...]
    inputs: Mapping[str, gs.Tensor | Array]
    attributes: Mapping[str, Any]
    bounds: tuple[int, int] | None = None


def decide(graph: ModelGraph, context: PassContext) -> Decisions[QuantizedLayer]:
    """Chooses dense or a group shape for every quantized layer of the graph."""
    decisions = Decisions[QuantizedLayer]()
    nodes = [node for node in graph.nodes if is_quantized(node)]
    shapes = graph.assumed_shapes(context.dimensions) if nodes else {}
    target = context.target
    assert isinstance(target, CpuTarget)
    described: list[QuantizedLayer] = []
    for node in nodes:
        try:
            if graph.opset < ops.MIN_OPSET:
                raise Refusal(f"the model is of opset {graph.opset}; sparse operators need {ops.MIN_OPSET}")
            described.append(describe(graph, node, shapes))
        except Refusal as refusal:
            decisions.skipped.append(Skip(node_label(node), str(refusal)))
    if described and target.quantized is None:
        reason = (
            f"kept dense: target {target.name} has no prices for quantized layers;"
            " scalpel-calibrate finds them"
        )
        decisions.skipped += [Skip(node_label(layer.node), reason) for layer in described]
        return decisions
    network_bytes = sum({layer.key: layer.weights.size for layer in described}.values())
    together = [replace(layer, work=replace(layer.work, network_bytes=network_bytes)) for layer in described]
    _choose(graph, together, target, shapes=shapes, context=context, into=decisions)
    return decisions


def _choose(
    graph: ModelGraph,
    layers: Sequence[QuantizedLayer],
    target: CpuTarget,
    *,
    shapes: Mapping[str, tuple[int, ...]],
    context: PassContext,
    into: Decisions[QuantizedLayer],
) -> None:
    """Each layer's candidate, those of Conv together: what a change of layout takes counts as well."""
    if not layers:
        return
    assert target.quantized is not None
    margin = target.margin if context.tuner is None else autotune.MARGIN
    verb = "predicted" if context.tuner is None else "measured"
    ways_of: dict[tuple[Any, ...], list[Candidate]] = {}
    times: dict[int, layout.ConvTimes] = {}
    for layer in layers:
        known = (layer.key, layer.op_type, layer.work)
        if known not in ways_of:
            ways_of[known] = _candidates(layer, target, context)
        ways = ways_of[known]
        if layer.work.is_conv:
            best = cost.fastest_sparse(ways)
            dense_us = (1 - margin) * ways[0].predicted_us
            times[id(layer.node)] = layout.ConvTimes(dense_us, None if best is None else best.predicted_us)
    if context.tuner is not None:
        context.tuner.save()
    copy_us = partial(cost.quantized_reorder_us, prices=target.quantized, threads=context.threads)
    sparse_convs = layout.choose_sparse(
        graph, times, target.block, shapes, copy_us, quantized=True, pool_us=cost.quantized_pool_us
    )
    for layer in layers:
        ways = ways_of[layer.key, layer.op_type, layer.work]
        alone = cost.choose(ways, margin)
        best = cost.fastest_sparse(ways)
        chosen = alone
        if layer.work.is_conv:
            chosen = best if best is not None and id(layer.node) in sparse_convs else ways[0]
        nonzero = float(np.count_nonzero(layer.weights)) / layer.weights.size
        reason = _reason(layer, ways, alone, chosen, nonzero=nonzero, verb=verb)
        label = node_label(layer.node)
        into.layers.append(LayerDecision(label, layer.node.op, chosen, nonzero, list(ways), reason))
        if chosen.decision == "dense":
            into.skipped.append(Skip(label, reason))
        else:
            into.sparse.append((layer, chosen))


def _candidates(layer: QuantizedLayer, target: CpuTarget, context: PassContext) -> list[Candidate]:
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
    )


def _reason(
    layer: QuantizedLayer,
    ways: Sequence[Candidate],
    alone: Candidate,
    chosen: Candidate,
    *,
    nonzero: float,
    verb: str,
) -> str:
    dense, best = ways[0].predicted_us, cost.fastest_sparse(ways)
    weights = f"{nonzero:.0%} of weights are not at their zero point"
    if chosen.decision == "group_csr":
        r, c = chosen.group_shape or (1, 1)
        ratio = dense / chosen.predicted_us
        stored = f"int8 in {r}×{c} groups, {chosen.density:.0%} stored"
        if ratio >= 1:
            return f"{stored}, {verb} {ratio:.1f}× faster than dense"
        return f"{stored}: saves layout changes between sparse neighbours"
    if best is None:
        if layer.work.is_depthwise:
            return "kept dense: a depthwise Conv has one input channel a group, nothing to skip"
        return f"kept dense: {weights}, or there is too little to skip"
    if alone.decision == "group_csr":
        return "kept dense: sparse would be faster by itself, but not with the layout changes at its borders"
    ratio = best.predicted_us / dense
    if ratio >= 1.05:
        return f"kept dense: {weights}, dense is {verb} {ratio:.1f}× faster"
    return f"kept dense: {weights}, sparse is not {verb} to be clearly faster"


def is_quantized(node: gs.Node) -> bool:
    """Whether a node is a layer that computes with integers, or with what was made of integers."""
    if is_standard(node, "QLinearConv", "QLinearMatMul", "MatMulInteger", "ConvInteger"):
        return True
    if node.domain == _MICROSOFT and node.op == "QGemm":
        return True
    has_weight = is_standard(node, "Conv", "Gemm", "MatMul") and has_quantized_weight(node)
    return has_weight and not has_quantized_weight_alone(node)


def describe(graph: ModelGraph, node: gs.Node, shapes: Mapping[str, tuple[int, ...]]) -> QuantizedLayer:
    """Looks at a node that `is_quantized`.

    Args:
        graph: the model.
        node: the layer.
        shapes: of tensors, with sizes assumed for symbols (`ModelGraph.assumed_shapes`).

    Raises:
        Refusal: it has to stay dense.
    """
    by_operator = {
        "Conv": _qdq, "Gemm": _qdq, "MatMul": _qdq,
        "QLinearConv": _qlinear_conv, "QLinearMatMul": _qlinear_matmul, "QGemm": _qgemm,
        "MatMulInteger": _integer, "ConvInteger": _integer,
    }  # fmt: skip
    layer = by_operator[node.op](graph, node, shapes)
    if not layer.weights.any():
        raise Refusal("all its weights are zero")
    return replace(layer, work=replace(layer.work, quantized=True, value_bytes=1))


# -- QDQ ----------------------------------------------------------------------------------------------------


def _qdq(graph: ModelGraph, node: gs.Node, shapes: Mapping[str, tuple[int, ...]]) -> QuantizedLayer:
    x = real_tensor(node.inputs[0])
    if x is None:
        raise Refusal(f"its weight is quantized, its input {node.inputs[0].name!r} is not")
    inputs = _x_inputs(graph, x.integers, x.scale, x.zero_point)
    if node.op == "Conv":
        weight = weight_of(graph, node.inputs[1], 0)
        work, attributes = conv_work(graph, node, weight.values, shapes, x=x.integers, y=node.outputs[0])
        matrix = weight.values.reshape(work.M, -1)
        op_type = qlinear_ops.CONV
    else:
        _check_gemm(node)
        weight, matrix = matrix_of(graph, node)
        work = matrix_work(node.op, matrix, x.integers, shapes)
        attributes = {"weight_shape": list(matrix.shape)}
        op_type = qlinear_ops.GEMM
    through, output, bounds = through_quantize(graph, node)
    inputs["w_scale"] = weight.scale
    real_bias = _real_bias(graph, node, work.M)
    key = (*weight.key, matrix.shape)
    if output is None:
        added, bias = _added_bias(graph, node, work)
        total = np.zeros(work.M) if real_bias is None else real_bias[0]
        inputs["bias"] = (total + bias).astype(np.float32)
        op_type = qlinear_ops.CONV_TO_FLOAT if work.is_conv else qlinear_ops.GEMM_TO_FLOAT
        return QuantizedLayer(node, (node, *added), op_type, work, matrix, key, inputs, attributes)
    scale, zero_point = output
    inputs["bias"] = integer_bias(inputs, weight.scale, real_bias, work.M)
    inputs["y_scale"] = scale
    inputs["y_zero_point"] = zero_point
    _check_types(inputs)
    return QuantizedLayer(node, through, op_type, work, matrix, key, inputs, attributes, bounds)


def _check_gemm(node: gs.Node) -> None:
    if node.op not in ("Gemm", "QGemm"):
        return
    if attribute(node, "transA", 0):
        raise Refusal("it transposes its input (transA)")
    if attribute(node, "alpha", 1.0) != 1.0 or attribute(node, "beta", 1.0) != 1.0:
        raise Refusal("its alpha or beta is not 1")


def _x_inputs(
    graph: ModelGraph, integers: gs.Tensor, scale: gs.Tensor, zero_point: gs.Tensor | None
) -> dict[str, gs.Tensor | Array]:
    kind = graph.type(integers)
    if kind is None and zero_point is not None:
        kind = graph.type(zero_point)
    if kind not in _EIGHT_BITS:
        name = "of an unknown type" if kind is None else TensorProto.DataType.Name(kind).lower()
        raise Refusal(f"its input is {name}, not 8-bit")
    found = {"X": integers, "x_scale": one_number(graph, scale, "scale of its input")}
    if zero_point is None:
        return {**found, "x_zero_point": np.zeros((), np.uint8 if kind == TensorProto.UINT8 else np.int8)}
    return {**found, "x_zero_point": one_number(graph, zero_point, "zero point of its input")}


def one_number(graph: ModelGraph, tensor: gs.Tensor, what: str) -> Array:
    """A constant scale or zero point, as a scalar.

    Raises:
        Refusal: it is something else; ``what`` says what it should be.
    """
    values = graph.constant(tensor)
    if values is None:
        raise Refusal(why_not_constant(graph, what, tensor))
    if values.size != 1:
        raise Refusal(f"the {what} is not one number")
    if values.dtype not in (np.float32, np.uint8, np.int8):
        raise Refusal(f"the {what} is {values.dtype}")
    return values.reshape(())


def through_quantize(
    graph: ModelGraph, node: gs.Node
) -> tuple[tuple[gs.Node, ...], tuple[Array, Array] | None, tuple[int, int] | None]:
    """The nodes from a layer to the QuantizeLinear behind it, its scale and zero point, and bounds of its
    integers.

    The second is None where the output of the layer is not just made integers of, perhaps behind a Relu or
    Clip. The third is None where saturation does what these do.

    Raises:
        Refusal: it is not made integers of 8 bits, with one constant scale and zero point.
    """
    through = [node]
    low, high = -np.inf, np.inf
    while True:
        reader = graph.sole_consumer(through[-1].outputs[0])
        if reader is None:
            return tuple(through), None, None
        through.append(reader)
        if is_standard(reader, "Relu"):
            low, high = max(low, 0.0), max(high, 0.0)
        elif is_standard(reader, "Clip"):
            limits = _clip_limits(graph, reader)
            if limits is None:
                return tuple(through), None, None
            low, high = (min(max(bound, limits[0]), limits[1]) for bound in (low, high))
        else:
            break
    if not is_quantization(reader, "QuantizeLinear") or reader.inputs[0] is not through[-2].outputs[0]:
        return tuple(through), None, None
    scale = one_number(graph, reader.inputs[1], "scale of its output")
    zero_point = optional_input(reader, 2)
    zero = (
        np.zeros((), np.uint8)
        if zero_point is None
        else one_number(graph, zero_point, "zero point of its output")
    )
    if zero.dtype not in (np.uint8, np.int8):
        raise Refusal(f"its output is {zero.dtype}, not 8-bit")
    ends = np.iinfo(zero.dtype)
    bounds = []
    for bound, least in ((low, ends.min), (high, ends.max)):
        steps = (
            np.rint(np.float32(bound) / scale) + np.float32(zero) if np.isfinite(bound) else np.float32(least)
        )
        bounds.append(int(np.clip(steps, ends.min, ends.max)))
    free = bounds == [ends.min, ends.max]
    return tuple(through), (scale, zero), None if free else (bounds[0], bounds[1])


def _clip_limits(graph: ModelGraph, node: gs.Node) -> tuple[float, float] | None:
    """Of a Clip with constant bounds."""
    limits = []
    for index, name, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        if name in node.attrs:
            limits.append(float(node.attrs[name]))
        elif optional_input(node, index) is None:
            limits.append(default)
        else:
            value = optional_constant(graph, node, index)
            if value is None or value.size != 1:
                return None
            limits.append(float(value.reshape(())))
    return limits[0], limits[1]


def _real_bias(graph: ModelGraph, node: gs.Node, M: int) -> tuple[Array, Array | None, Array | None] | None:
    """The bias of a Conv or Gemm in real numbers (double), and its integers and their scale where it has
    some."""
    tensor = optional_input(node, 2)
    if tensor is None:
        return None
    real = real_tensor(tensor)
    values = graph.constant(tensor if real is None else real.integers)
    if values is None:
        raise Refusal(why_not_constant(graph, "bias", tensor))
    vector = per_channel(values, M, 2, -1) if node.op == "Gemm" else values.reshape(-1)
    if vector is None or vector.shape != (M,):
        raise Refusal(f"bias {tensor.name!r} has shape {list(values.shape)}, not [{M}]")
    if real is None:
        return vector.astype(np.float64), None, None
    scale = graph.constant(real.scale)
    zero = np.zeros(1, np.int32) if real.zero_point is None else graph.constant(real.zero_point)
    if scale is None or zero is None or scale.size not in (1, M) or zero.any():
        raise Refusal(f"bias {tensor.name!r} has no constant scale for each output, or a zero point")
    steps = np.broadcast_to(scale.reshape(-1), (M,)).astype(np.float64)
    return vector * steps, vector, steps


def integer_bias(
    inputs: Mapping[str, gs.Tensor | Array],
    w_scale: Array,
    bias: tuple[Array, Array | None, Array | None] | None,
    M: int,
) -> Array:
    """The bias at the scale of the sums; ONNX Runtime rounds one of real numbers alike.

    Args:
        inputs: of the sparse operator, ``x_scale`` among them.
        w_scale: ``[M]``, or a scalar.
        bias: in real numbers; and its integers and their scale where it has some. None for none.
        M: outputs.

    Raises:
        Refusal: it does not fit int32.
    """
    if bias is None:
        return np.zeros(M, np.int32)
    x_scale = inputs["x_scale"]
    assert isinstance(x_scale, np.ndarray)
    steps = np.broadcast_to(x_scale * w_scale, (M,)).astype(np.float64)
    real, integers, scale = bias
    if (
        integers is not None
        and scale is not None
        and integers.dtype == np.int32
        and np.allclose(scale, steps, rtol=_SAME_SCALE, atol=0)
    ):
        return np.ascontiguousarray(integers)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        rounded = np.rint(real / steps)
    if not (np.isfinite(rounded).all() and rounded.min() >= _INT32.min and rounded.max() <= _INT32.max):
        raise Refusal("its bias does not fit int32 at the scale of its sums")
    return rounded.astype(np.int32)


def _check_types(inputs: Mapping[str, gs.Tensor | Array]) -> None:
    x, y = inputs["x_zero_point"], inputs["y_zero_point"]
    assert isinstance(x, np.ndarray) and isinstance(y, np.ndarray)
    if x.dtype != y.dtype:
        raise Refusal(f"its input is {x.dtype}, its output {y.dtype}")


def _added_bias(graph: ModelGraph, node: gs.Node, work: LayerWork) -> tuple[tuple[gs.Node, ...], Array]:
    """The Add of one number for each output behind a product, and the numbers; nothing and zeros if it is
    another."""
    reader = graph.sole_consumer(node.outputs[0])
    if reader is not None and is_standard(reader, "Add"):
        other = reader.inputs[1] if reader.inputs[0] is node.outputs[0] else reader.inputs[0]
        vector = _by_output(graph, graph.constant(other), node.outputs[0], work)
        if vector is not None and vector.dtype == np.float32:
            return (reader,), vector
    return (), np.zeros(work.M, np.float32)


def _by_output(graph: ModelGraph, values: Array | None, y: gs.Tensor, work: LayerWork) -> Array | None:
    """``[M]`` of what gives each output of a layer a number of its own, or all the same, else None."""
    if values is None:
        return None
    if work.is_conv:
        axes = len(work.kernel)
        return per_channel(values, work.M, axes + 2, -1 - axes)
    rank = graph.shape(y)
    return None if rank is None else per_channel(values, work.M, len(rank), -1)


# -- operators of integers ----------------------------------------------------------------------------------


def _weight_of(graph: ModelGraph, node: gs.Node, first: int, axis: int) -> Weight:
    """The weight whose integers, scale and zero point are three inputs in a row."""
    tensor = node.inputs[first]
    values = graph.constant(tensor)
    if values is None:
        raise Refusal(why_not_constant(graph, "weight", tensor))
    return centred(
        graph,
        values,
        tensor,
        scale=node.inputs[first + 1],
        zero_point=optional_input(node, first + 2),
        axis=axis,
    )


def _qlinear_conv(graph: ModelGraph, node: gs.Node, shapes: Mapping[str, tuple[int, ...]]) -> QuantizedLayer:
    weight = _weight_of(graph, node, 3, 0)
    inputs = _x_inputs(graph, node.inputs[0], node.inputs[1], node.inputs[2])
    work, attributes = conv_work(graph, node, weight.values, shapes, x=node.inputs[0], y=node.outputs[0])
    inputs["w_scale"] = weight.scale
    inputs["bias"] = _given_bias(graph, node, 8, work.M)
    _add_output(graph, node, 6, inputs)
    matrix = weight.values.reshape(work.M, -1)
    return QuantizedLayer(
        node, (node,), qlinear_ops.CONV, work, matrix, (*weight.key, matrix.shape), inputs, attributes
    )


def _qlinear_matmul(
    graph: ModelGraph, node: gs.Node, shapes: Mapping[str, tuple[int, ...]]
) -> QuantizedLayer:
    matrix, inputs, key = _right_side(graph, node)
    work = matrix_work("MatMul", matrix, node.inputs[0], shapes)
    inputs["bias"] = np.zeros(work.M, np.int32)
    _add_output(graph, node, 6, inputs)
    attributes = {"weight_shape": list(matrix.shape)}
    return QuantizedLayer(node, (node,), qlinear_ops.GEMM, work, matrix, key, inputs, attributes)


def _qgemm(graph: ModelGraph, node: gs.Node, shapes: Mapping[str, tuple[int, ...]]) -> QuantizedLayer:
    _check_gemm(node)
    matrix, inputs, key = _right_side(graph, node)
    work = matrix_work("Gemm", matrix, node.inputs[0], shapes)
    bias = _given_bias(graph, node, 6, work.M)
    attributes = {"weight_shape": list(matrix.shape)}
    if optional_input(node, 7) is None:
        x_scale, w_scale = inputs["x_scale"], inputs["w_scale"]
        assert isinstance(x_scale, np.ndarray) and isinstance(w_scale, np.ndarray)
        inputs["bias"] = (bias * (x_scale * w_scale)).astype(np.float32)
        op_type = qlinear_ops.GEMM_TO_FLOAT
    else:
        inputs["bias"] = bias
        _add_output(graph, node, 7, inputs)
        op_type = qlinear_ops.GEMM
    return QuantizedLayer(node, (node,), op_type, work, matrix, key, inputs, attributes)


def _right_side(
    graph: ModelGraph, node: gs.Node
) -> tuple[Array, dict[str, gs.Tensor | Array], tuple[Any, ...]]:
    """The matrix of a product, the inputs so far, and what says which matrix it is."""
    is_rows = bool(attribute(node, "transB", 0))
    values = graph.constant(node.inputs[3])
    if values is not None and values.ndim != 2:
        raise Refusal(f"its weight has rank {values.ndim}; only matrices can be sparse")
    weight = _weight_of(graph, node, 3, 0 if is_rows else 1)
    inputs = _x_inputs(graph, node.inputs[0], node.inputs[1], optional_input(node, 2))
    inputs["w_scale"] = weight.scale
    matrix = weight.values if is_rows else weight.values.T
    return matrix, inputs, (*weight.key, matrix.shape)


def _given_bias(graph: ModelGraph, node: gs.Node, index: int, M: int) -> Array:
    tensor = optional_input(node, index)
    if tensor is None:
        return np.zeros(M, np.int32)
    values = graph.constant(tensor)
    if values is None:
        raise Refusal(why_not_constant(graph, "bias", tensor))
    vector = per_channel(values, M, 2, -1)
    if vector is None or vector.dtype != np.int32:
        raise Refusal(f"bias {tensor.name!r} is not one int32 for each output")
    return vector


def _add_output(graph: ModelGraph, node: gs.Node, index: int, inputs: dict[str, gs.Tensor | Array]) -> None:
    inputs["y_scale"] = one_number(graph, node.inputs[index], "scale of its output")
    tensor = optional_input(node, index + 1)
    zero_point = inputs["x_zero_point"]
    assert isinstance(zero_point, np.ndarray)
    missing = np.zeros((), zero_point.dtype)
    inputs["y_zero_point"] = (
        missing if tensor is None else one_number(graph, tensor, "zero point of its output")
    )
    _check_types(inputs)


def _integer(graph: ModelGraph, node: gs.Node, shapes: Mapping[str, tuple[int, ...]]) -> QuantizedLayer:
    """ConvInteger or MatMulInteger, and what makes float32 of its sums."""
    tensor = node.inputs[1]
    values = graph.constant(tensor)
    if values is None:
        raise Refusal(why_not_constant(graph, "weight", tensor))
    is_conv = node.op == "ConvInteger"
    if not is_conv and values.ndim != 2:
        raise Refusal(f"its weight has rank {values.ndim}; only matrices can be sparse")
    cast = graph.sole_consumer(node.outputs[0])
    scaled = None
    if cast is not None and is_standard(cast, "Cast") and cast.attrs.get("to") == TensorProto.FLOAT:
        scaled = graph.sole_consumer(cast.outputs[0])
    if cast is None or scaled is None or not is_standard(scaled, "Mul"):
        raise Refusal("its sums are not multiplied by their scale right behind it")
    zero_point = optional_input(node, 3)
    steps = gs.Constant(f"{tensor.name}/scale", np.ones((), np.float32))
    weight = centred(graph, values, tensor, scale=steps, zero_point=zero_point, axis=0 if is_conv else 1)
    if is_conv:
        work, attributes = conv_work(graph, node, weight.values, shapes, x=node.inputs[0], y=node.outputs[0])
        matrix, op_type = weight.values.reshape(work.M, -1), qlinear_ops.CONV_TO_FLOAT
    else:
        matrix, op_type = weight.values.T, qlinear_ops.GEMM_TO_FLOAT
        work = matrix_work("MatMul", matrix, node.inputs[0], shapes)
        attributes = {"weight_shape": list(matrix.shape)}
    factor = scaled.inputs[1] if scaled.inputs[0] is cast.outputs[0] else scaled.inputs[0]
    x_scale, w_scale = _two_scales(graph, factor, scaled.outputs[0], work)
    added, bias = _added_bias(graph, scaled, work)
    inputs = {
        "X": node.inputs[0], "x_scale": x_scale, "x_zero_point": _given_zero_point(graph, node),
        "w_scale": w_scale, "bias": np.ascontiguousarray(bias),
    }  # fmt: skip
    return QuantizedLayer(
        node, (node, cast, scaled, *added), op_type, work, matrix, (*weight.key, matrix.shape), inputs,
        attributes,
    )  # fmt: skip


def _given_zero_point(graph: ModelGraph, node: gs.Node) -> gs.Tensor | Array:
    """Of the input of a ConvInteger or MatMulInteger; perhaps computed."""
    kind = graph.type(node.inputs[0])
    if kind not in _EIGHT_BITS:
        raise Refusal("the type of its input is not known to be 8-bit")
    tensor = optional_input(node, 2)
    if tensor is None:
        return np.zeros((), np.uint8 if kind == TensorProto.UINT8 else np.int8)
    constant = graph.constant(tensor)
    if constant is not None:
        if constant.size != 1:
            raise Refusal("it has a zero point for each row of its input")
        return constant.reshape(())
    if graph.shape(tensor) != ():
        raise Refusal("the zero point of its input is not known to be a scalar")
    return tensor


def _two_scales(
    graph: ModelGraph, factor: gs.Tensor, y: gs.Tensor, work: LayerWork
) -> tuple[gs.Tensor | Array, Array]:
    """What sums are multiplied by: a scalar, perhaps computed, and a constant, a scalar or one for each
    output."""
    constant = graph.constant(factor)
    if constant is not None:
        return np.ones((), np.float32), _row_scales(graph, constant, y, work)
    maker = factor.inputs[0] if len(factor.inputs) == 1 else None
    if maker is not None and is_standard(maker, "Mul"):
        for one, other in (maker.inputs, reversed(maker.inputs)):
            steps = graph.constant(other)
            if steps is not None and graph.shape(one) == () and graph.type(one) == TensorProto.FLOAT:
                return one, _row_scales(graph, steps, y, work)
    if graph.shape(factor) == () and graph.type(factor) == TensorProto.FLOAT:
        return factor, np.ones((), np.float32)
    raise Refusal("the scale of its sums is not a scalar times one constant for each output")


def _row_scales(graph: ModelGraph, values: Array, y: gs.Tensor, work: LayerWork) -> Array:
    vector = values if values.size == 1 else _by_output(graph, values, y, work)
    if vector is None or vector.dtype != np.float32:
        raise Refusal("the scales of its weight are not one float32 for each output")
    return vector.reshape(()) if vector.size == 1 else np.ascontiguousarray(vector)
