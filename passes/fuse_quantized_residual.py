"""Adds another quantized tensor inside the sparse convolution.

``Quantize(Dequantize(y) + Dequantize(z))``, where ``y`` is what a ``QLinearGroupCsrConv`` makes, is one
``QLinearGroupCsrConvAdd`` with the residual ``z`` (`scalpel_graph.qlinear_ops`): it rounds the product to the
scale of ``y`` before it adds, as the two operators do. ``z`` must provably have the shape of ``y``, nobody
else may read ``y`` or the sum, and all three are of one type. A Relu or Clip between the sum and its
QuantizeLinear is treated as that behind a layer. ``QLinearAdd`` is fused alike.

``GroupCsrIntegerToFloat(x, W, b) + z`` is the same operator with the residual ``z``, under the same
conditions.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph import ops, qlinear_ops
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.matching import is_standard
from scalpel_graph.passes.quantized_layers import one_number, real_tensor, through_quantize
from scalpel_graph.passes.sparse_layers import Refusal, same_shape
from scalpel_graph.passes.substitute_quantized import constant, put

_INPUTS = qlinear_ops.inputs(qlinear_ops.CONV)
_SCALE, _ZERO_POINT = _INPUTS.index("y_scale"), _INPUTS.index("y_zero_point")


@dataclass(frozen=True)
class _Sum:
    """The addition behind a convolution.

    Attributes:
        through: its nodes, in order, the last of which makes the integers.
        residual: the other operand, with scale and zero point.
        is_first: whether that is the first operand.
        scale, zero_point: of the sum.
        bounds: see `scalpel_graph.passes.quantized_layers.QuantizedLayer`.
    """

    through: tuple[gs.Node, ...]
    residual: tuple[gs.Tensor, Array, Array]
    is_first: bool
    scale: Array
    zero_point: Array
    bounds: tuple[int, int] | None


class FuseQuantizedResidual(Pass):
    """Merges the sum of two quantized tensors into the sparse convolution that makes one of them."""

    name = "fuse-quantized-residual"
    summary = "merge the sum with a quantized tensor into the sparse convolution before it"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        shared: dict[Any, Any] = {}
        # From the end: of two convolutions that are added the later one takes the other as its residual.
        for node in reversed(list(graph.nodes)):
            if node.domain == ops.DOMAIN and node.op == qlinear_ops.TO_FLOAT:
                _add_to_product(graph, node, result)
            if node.domain != ops.DOMAIN or node.op != qlinear_ops.CONV:
                continue
            try:
                found = _sum_behind(graph, node)
            except Refusal as refusal:
                result.skip(node_label(node), str(refusal))
                continue
            if found is not None:
                result.rewritten.append(node_label(found.through[0]))
                _fuse(graph, node, found, shared)
        return result


def _add_to_product(graph: ModelGraph, node: gs.Node, result: PassResult) -> None:
    """Takes the Add behind a product of float32 into it, if nobody else reads that."""
    place = qlinear_ops.inputs(qlinear_ops.TO_FLOAT).index("residual")
    product = node.outputs[0]
    add = graph.sole_consumer(product)
    taken = graph.constant(node.inputs[place])
    if add is None or not is_standard(add, "Add") or taken is None or taken.ndim or taken.any():
        return
    other = add.inputs[1] if add.inputs[0] is product else add.inputs[0]
    if not same_shape(graph, product, other):
        reason = f"{other.name!r} is not known to have the shape of {product.name!r}"
        result.skip(node_label(node), reason)
        return
    inputs = list(node.inputs)
    inputs[place] = other
    result.rewritten.append(node_label(add))
    graph.remove(node)
    graph.replace(add, node)
    node.inputs.extend(inputs)


def _sum_behind(graph: ModelGraph, node: gs.Node) -> _Sum | None:
    """The addition that is all that reads a convolution; None if it is something else.

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
    elif is_standard(reader, "DequantizeLinear"):
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


def _fuse(graph: ModelGraph, conv: gs.Node, found: _Sum, shared: dict[Any, Any]) -> None:
    label = node_label(conv)
    given = dict(zip(_INPUTS, conv.inputs, strict=True))
    given["product_scale"], given["product_zero_point"] = given["y_scale"], given["y_zero_point"]
    given["residual"] = found.residual[0]
    for name, value in (
        ("residual_scale", found.residual[1]),
        ("residual_zero_point", found.residual[2]),
        ("y_scale", found.scale),
        ("y_zero_point", found.zero_point),
    ):
        given[name] = constant(graph, f"{label}_{name}", np.asarray(value), shared)
    node = gs.Node(
        op=qlinear_ops.CONV_ADD,
        name=conv.name,
        domain=ops.DOMAIN,
        inputs=[given[name] for name in qlinear_ops.inputs(qlinear_ops.CONV_ADD)],
        attrs={**conv.attrs, "residual_first": int(found.is_first)},
    )
    put(
        graph,
        (conv, *found.through),
        node,
        bounds=found.bounds,
        dtype=found.zero_point.dtype,
        shared=shared,
    )
