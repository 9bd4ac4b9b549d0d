"""Makes a layer sparse where its zeros pay.

``Conv(x, W, b)``, ``Gemm(x, W, b)`` and ``MatMul(x, W)`` become ``GroupCsrConv`` or ``GroupCsrGemm`` of
``x`` and the group-CSR form of ``W`` (`scalpel_graph.ops`): the products with stored zeros are the only ones
left out. ``alpha`` and ``beta`` of Gemm are multiplied into weight and bias. What is stored can be rounded to
16 bits, or to integers of 8 (`scalpel_graph.value_types`); products then become ``GroupCsrScaledGemm``, as
they do where DequantizeLinear makes ``W`` of constant integers.

Whether and in which group shape is the cost model's choice (`scalpel_graph.cost`, `scalpel_graph.layout`); it
is recorded for every layer with constant float32 weights.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph import group_csr, ops
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.passes import sparse_layers, sparse_node
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.sparse_layers import Layer
from scalpel_graph.report import Candidate, LayerDecision
from scalpel_graph.value_types import Storage


class SubstituteGroupCsr(Pass):
    """Replaces layers by their sparse operators, where the cost model says so."""

    name = "substitute-group-csr"
    summary = "make layers sparse where the cost model says that it pays"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        decisions = sparse_layers.decide(graph, context)
        result.skipped += decisions.skipped
        if decisions.sparse and graph.opset < ops.MIN_OPSET:
            reason = f"the model is of opset {graph.opset}; sparse operators need {ops.MIN_OPSET}"
            decisions.layers = [_kept_dense(layer, reason) for layer in decisions.layers]
            for layer, _ in decisions.sparse:
                result.skip(node_label(layer.node), reason)
            decisions.sparse = []
        context.layers += decisions.layers
        if not decisions.sparse:
            return result
        none = sparse_node.none(graph)
        shared: dict[Any, dict[str, gs.Tensor]] = {}
        for layer, candidate in decisions.sparse:
            label = node_label(layer.node)
            _substitute(graph, layer, candidate, none, shared)
            result.rewritten.append(label)
        return result


def _kept_dense(decision: LayerDecision, reason: str) -> LayerDecision:
    if decision.chosen.decision == "dense":
        return decision
    return replace(decision, chosen=decision.candidates[0], reason=f"kept dense: {reason}", values=Storage())


def _substitute(
    graph: ModelGraph,
    layer: Layer,
    candidate: Candidate,
    none: gs.Constant,
    shared: dict[Any, dict[str, gs.Tensor]],
) -> None:
    """Puts the sparse node in the layer's place. ``shared`` holds the arrays of weights encoded so far."""
    node, shape = layer.node, candidate.group_shape
    assert shape is not None
    arrays = shared.get((layer.key, shape))
    if arrays is None:
        matrix = group_csr.encode(layer.storage.values(layer.weights), shape)
        name = node.inputs[1].name
        arrays = {
            "values": graph.add_constant(f"{name}_values", matrix.values),
            "row_offsets": graph.add_constant(f"{name}_row_offsets", matrix.row_offsets),
            "column_indices": graph.add_constant(f"{name}_column_indices", matrix.column_indices),
        }
        if layer.storage.scale is not None:
            arrays["w_scale"] = graph.add_constant(f"{name}_scale", layer.storage.scale.copy())
        shared[layer.key, shape] = arrays
    bias: gs.Tensor = none
    if layer.bias is not None:
        given = node.inputs[2]
        values = graph.constant(given)
        unchanged = values is not None and np.array_equal(values, layer.bias)
        bias = given if unchanged else graph.add_constant(f"{node_label(node)}_bias", layer.bias)
    inputs = {
        "X": node.inputs[0],
        **arrays,
        "bias": bias,
        "residual": none if layer.residual is None else layer.residual,
    }
    product = ops.GEMM if layer.storage.scale is None else ops.SCALED_GEMM
    op_type = ops.CONV if layer.work.is_conv else product
    graph.replace(node, sparse_node.make(op_type, node.name, inputs, layer.attributes))
