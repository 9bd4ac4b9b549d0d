"""Makes a quantized layer sparse where its zeros pay.

A layer of 8-bit integers (`scalpel_graph.passes.quantized_layers`) becomes ``QLinearGroupCsrConv`` or
``-Gemm``, or, where its output is not quantized, ``GroupCsrConvIntegerToFloat`` or ``-Gemm-``, of the same
integers (`scalpel_graph.qlinear_ops`); the QuantizeLinear behind it goes into it, and what is read and what
is made stay quantized. A weight is zero where it is at its zero point, and nothing is rounded anew but a bias
of real numbers. A Relu or Clip that saturation does not do already becomes a Clip of integers: quantizing is
monotone, so it may as well come first.

Whether and in which group shape is the cost model's choice, recorded for every layer that could be sparse.
"""

from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph import group_csr, ops, qlinear_ops
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.passes import quantized_layers
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.quantized_layers import QuantizedLayer
from scalpel_graph.report import Candidate

_Shared = dict[Any, Any]


class SubstituteQuantized(Pass):
    """Replaces quantized layers by their sparse operators, where the cost model says so."""

    name = "substitute-quantized"
    summary = "make quantized layers sparse where the cost model says that it pays"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        decisions = quantized_layers.decide(graph, context)
        result.skipped += decisions.skipped
        context.layers += decisions.layers
        shared: _Shared = {}
        for layer, candidate in decisions.sparse:
            result.rewritten.append(node_label(layer.node))
            _substitute(graph, layer, candidate, shared)
        return result


def constant(graph: ModelGraph, hint: str, values: Array, shared: _Shared) -> gs.Constant:
    """A constant; those of equal numbers are one."""
    key = (values.dtype.str, values.shape, values.tobytes())
    if key not in shared:
        shared[key] = graph.add_constant(hint, values)
    found = shared[key]
    assert isinstance(found, gs.Constant)
    return found


def put(
    graph: ModelGraph,
    through: tuple[gs.Node, ...],
    node: gs.Node,
    *,
    bounds: tuple[int, int] | None,
    dtype: np.dtype[Any],
    shared: _Shared,
) -> None:
    """Puts a node in the place of the last of several, behind which is a Clip if there are bounds."""
    label = node_label(through[0])
    last = through[-1]
    for other in reversed(through[:-1]):
        graph.remove(other)
    if bounds is None:
        graph.replace(last, node)
        return
    unbounded = graph.add_variable(f"{label}_unbounded", like=last.outputs[0])
    limits = [
        constant(graph, f"{label}_{name}", np.array(bound, dtype), shared)
        for name, bound in zip(("min", "max"), bounds, strict=True)
    ]
    clip = gs.Node(op="Clip", name=graph.unique_name(f"{label}_clip"), inputs=[unbounded, *limits])
    graph.replace(last, clip)
    node.outputs.append(unbounded)
    graph.insert_before(clip, node)


def _substitute(graph: ModelGraph, layer: QuantizedLayer, candidate: Candidate, shared: _Shared) -> None:
    """Puts the sparse node in the layer's place. ``shared`` holds the constants made so far."""
    shape = candidate.group_shape
    assert shape is not None
    label = node_label(layer.node)
    arrays = shared.get((layer.key, shape))
    if arrays is None:
        matrix = group_csr.encode(np.ascontiguousarray(layer.weights), shape)
        arrays = {
            "values": graph.add_constant(f"{label}_values", matrix.values),
            "row_offsets": graph.add_constant(f"{label}_row_offsets", matrix.row_offsets),
            "column_indices": graph.add_constant(f"{label}_column_indices", matrix.column_indices),
        }
        shared[layer.key, shape] = arrays
    given = {"residual": np.zeros((), np.float32), **layer.inputs, **arrays}
    inputs = []
    for name in qlinear_ops.inputs(layer.op_type):
        value = given[name]
        is_tensor = isinstance(value, gs.Tensor)
        inputs.append(value if is_tensor else constant(graph, f"{label}_{name}", value, shared))
    node = gs.Node(
        op=layer.op_type, name=layer.node.name, domain=ops.DOMAIN, inputs=inputs, attrs=dict(layer.attributes)
    )
    zero_point = layer.inputs.get("y_zero_point")
    dtype = np.dtype(np.uint8) if zero_point is None else zero_point.dtype
    put(graph, layer.through, node, bounds=layer.bounds, dtype=dtype, shared=shared)
