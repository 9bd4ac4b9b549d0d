"""Adds another tensor inside the sparse layer of integers.

``Quantize(Dequantize(y) + Dequantize(z))``, where ``y`` is what a ``QLinearGroupCsrConv`` or
``QLinearGroupCsrGemm`` makes, is one ``QLinearGroupCsrConvAdd`` or ``-GemmAdd`` with the residual ``z``
(`scalpel_graph.qlinear_ops`): it rounds the product to the scale of ``y`` before it adds, as the two
operators do. ``QLinearAdd`` is fused alike. ``Quantize(y + Dequantize(z))``, where a
``GroupCsrConvIntegerToFloat`` or ``-Gemm-`` makes ``y``, is the same operator without that rounding; only its
bias is rounded, to the scale of its sums.

``z`` must provably have the shape of ``y``, nobody else may read ``y`` or the sum, and all three are of one
type. A Relu or Clip between the sum and its QuantizeLinear is treated as that behind a layer.

``y + z`` of real numbers, where a ``GroupCsrConvIntegerToFloat`` or ``-Gemm-`` makes ``y``, is the same
operator with the residual ``z``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph import ops, qlinear_ops
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.passes.base import Pass, PassContext, PassResult, Refusal
from scalpel_graph.passes.matching import is_quantization, is_standard
from scalpel_graph.passes.quantized_layers import integer_bias, one_number, through_quantize
from scalpel_graph.passes.quantized_tensors import real_tensor
from scalpel_graph.passes.sparse_layers import same_shape
from scalpel_graph.passes.substitute_quantized import constant, put

# The same of a Conv and a product.
_INPUTS = qlinear_ops.inputs(qlinear_ops.GEMM)
_SCALE, _ZERO_POINT = _INPUTS.index("y_scale"), _INPUTS.index("y_zero_point")


@dataclass(frozen=True)
class _Sum:
    """The addition behind a layer.

    Attributes:
        through: its nodes, in order, the last of which makes the integers.
        residual: the other operand, with scale and zero point.
        is_first: whether that is the first operand.
        scale, zero_point: of the sum.
        bounds: see `scalpel_graph.passes.quantized_layers.QuantizedLayer`.
        bias: of a layer that made float32, at the scale of its sums; None for others.
    """

    through: tuple[gs.Node, ...]
    residual: tuple[gs.Tensor, Array, Array]
    is_first: bool
    scale: Array
    zero_point: Array
    bounds: tuple[int, int] | None
    bias: Array | None = None


class FuseQuantizedResidual(Pass):
    """Merges the sum of two quantized tensors into the sparse layer that makes one of them."""

    name = "fuse-quantized-residual"
    summary = "merge the sum with a quantized tensor into the sparse layer before it"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        shared: dict[Any, Any] = {}
        # From the end: of two layers that are added the later one takes the other as its residual.
        for node in reversed(list(graph.nodes)):
            if node.domain != ops.DOMAIN or node.op not in (*qlinear_ops.ADDING, *qlinear_ops.TO_FLOAT):
                continue
            is_float = node.op in qlinear_ops.TO_FLOAT
            if is_float and not _has_room(graph, node):
                continue
            try:
                found = (_sum_of_real_numbers if is_float else _sum_behind)(graph, node)
            except Refusal as refusal:
                if not is_float or not _add_to_float(graph, node, result):
                    result.skip(node_label(node), str(refusal))
                continue
            if found is not None:
                result.rewritten.append(node_label(found.through[0]))
                _fuse(graph, node, found, shared)
        return result


def _has_room(graph: ModelGraph, node: gs.Node) -> bool:
    """Whether a layer that makes float32 has no residual yet."""
    residual = graph.constant(node.inputs[qlinear_ops.inputs(node.op).index("residual")])
    return residual is not None and not residual.ndim and not residual.any()


def _add_to_float(graph: ModelGraph, node: gs.Node, result: PassResult) -> bool:
    """Takes the Add behind a layer that makes float32 into it, if nobody else reads that.

    Returns:
        Whether it did.
    """
    place = qlinear_ops.inputs(node.op).index("residual")
    product = node.outputs[0]
    add = graph.sole_consumer(product)
    assert add is not None  # or there would be no refusal
    other = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
    if not same_shape(graph, product, other):
        return False
    inputs = list(node.inputs)
    inputs[place] = other
    result.rewritten.append(node_label(add))
    graph.remove(node)
    graph.replace(add, node)
    node.inputs.extend(inputs)
    return True


def _sum_of_real_numbers(graph: ModelGraph, node: gs.Node) -> _Sum | None:
    """The addition that is all that reads a layer that makes float32, where it ends in integers; None if
    something else does.

    Raises:
        Refusal: it adds, but not integers to make integers.
    """
    y = node.outputs[0]
    add = graph.sole_consumer(y)
    if add is None or not is_standard(add, "Add"):
        return None
    given = dict(zip(qlinear_ops.inputs(node.op), node.inputs, strict=True))
    is_first = add.inputs[1] is y
    other = add.inputs[0 if is_first else 1]
    real = real_tensor(other)
    behind, output, bounds = through_quantize(graph, add)
    if real is None or real.zero_point is None or output is None:
        raise Refusal(f"{other.name!r} is not known to have the shape of {y.name!r}")
    x_scale = one_number(graph, given["x_scale"], "scale of its input")
    x_zero = one_number(graph, given["x_zero_point"], "zero point of its input")
    w_scale, bias = graph.constant(given["w_scale"]), graph.constant(given["bias"])
    assert w_scale is not None and bias is not None
    integers = integer_bias({"x_scale": x_scale}, w_scale, (bias.astype(np.float64), None, None), bias.size)
    residual_scale = one_number(graph, real.scale, "scale of the residual")
    residual_zero = one_number(graph, real.zero_point, "zero point of the residual")
    if not x_zero.dtype == residual_zero.dtype == output[1].dtype:
        raise Refusal("the operands of the sum, or the sum, differ in type")
    if not same_shape(graph, y, real.integers):
        raise Refusal(f"{real.integers.name!r} is not known to have the shape of {y.name!r}")
    residual = (real.integers, residual_scale, residual_zero)
    return _Sum(behind, residual, is_first, output[0], output[1], bounds, integers)


def _sum_behind(graph: ModelGraph, node: gs.Node) -> _Sum | None:
    """The addition that is all that reads a layer; None if it is something else.

    Raises:
        Refusal: it cannot be computed with it.
    """
    y = node.outputs[0]
    scale, zero_point = (graph.constant(node.inputs[index]) for index in (_SCALE, _ZERO_POINT))
    reader = graph.sole_consumer(y)
    if reader is None:
        return None
    if reader.domain == "com.microsoft" and reader.op == "QLinearAdd":
        place = next(place for place in (0, 3) if reader.inputs[place] is y)
        other = reader.inputs[3 - place : 6 - place]
        out_scale = one_number(graph, reader.inputs[6], "scale of the sum")
        out_zero = one_number(graph, reader.inputs[7], "zero point of the sum")
        own, residual = reader.inputs[place : place + 3], other
        through, bounds, is_first = (reader,), None, place == 3
    elif is_quantization(reader, "DequantizeLinear"):
        add = graph.sole_consumer(reader.outputs[0])
        if add is None or not is_standard(add, "Add"):
            return None
        is_first = add.inputs[1] is reader.outputs[0]
        real = real_tensor(add.inputs[0 if is_first else 1])
        if real is None:
            raise Refusal("what is added to it is not quantized")
        behind, output, bounds = through_quantize(graph, add)
        if output is None:
            raise Refusal("the sum with it is not quantized")
        out_scale, out_zero = output
        through = (reader, *behind)
        own = list(reader.inputs)
        residual = [real.integers, real.scale, real.zero_point]
    else:
        return None
    if len(own) < 3 or residual[2] is None:
        raise Refusal("an operand of the sum has no zero point")
    if not (_equal(graph, own[1], scale) and _equal(graph, own[2], zero_point)):
        raise Refusal("it is added with another scale or zero point than it was quantized to")
    residual_scale = one_number(graph, residual[1], "scale of the residual")
    residual_zero = one_number(graph, residual[2], "zero point of the residual")
    assert zero_point is not None
    if not zero_point.dtype == residual_zero.dtype == out_zero.dtype:
        raise Refusal("the operands of the sum, or the sum, differ in type")
    if not same_shape(graph, y, residual[0]):
        raise Refusal(f"{residual[0].name!r} is not known to have the shape of {y.name!r}")
    return _Sum(through, (residual[0], residual_scale, residual_zero), is_first, out_scale, out_zero, bounds)


def _equal(graph: ModelGraph, tensor: gs.Tensor, value: Array | None) -> bool:
    found = graph.constant(tensor)
    return found is not None and value is not None and found.size == 1 and bool(found.reshape(()) == value)


def _fuse(graph: ModelGraph, layer: gs.Node, found: _Sum, shared: dict[Any, Any]) -> None:
    label, op_type = node_label(layer), qlinear_ops.adding(layer.op)
    given = dict(zip(qlinear_ops.inputs(layer.op), layer.inputs, strict=True))
    made = {
        "residual_scale": found.residual[1], "residual_zero_point": found.residual[2],
        "y_scale": found.scale, "y_zero_point": found.zero_point,
    }  # fmt: skip
    if found.bias is None:
        given["product_scale"], given["product_zero_point"] = given["y_scale"], given["y_zero_point"]
    else:
        made |= {"bias": found.bias, "product_scale": found.scale, "product_zero_point": found.zero_point}
    for name, value in made.items():
        given[name] = constant(graph, f"{label}_{name}", np.asarray(value), shared)
    given["residual"] = found.residual[0]
    node = gs.Node(
        op=op_type,
        name=layer.name,
        domain=ops.DOMAIN,
        inputs=[given[name] for name in qlinear_ops.inputs(op_type)],
        attrs={
            **layer.attrs,
            "residual_first": int(found.is_first),
            "rounds_product": int(found.bias is None),
        },
    )
    put(
        graph,
        (layer, *found.through),
        node,
        bounds=found.bounds,
        dtype=found.zero_point.dtype,
        shared=shared,
    )
