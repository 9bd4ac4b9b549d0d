"""Applies Relu or Clip inside the sparse operator.

``Relu(y) = clip(y, 0, ∞)`` and ``Clip(y, a, b) = clip(y, a, b)`` become the operator's ``activation_min`` and
``activation_max``. The bounds must be constant, and the operator must have no other reader and no activation
yet. (Clip holds its bounds in attributes before opset 11; sparse operators need a later one.)
"""

import math

import onnx_graphsurgeon as gs

from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.ops import Gate
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.matching import is_standard, optional_input, why_not_constant
from scalpel_graph.passes.sparse_node import NO_ACTIVATION, activation, is_sparse, set_activation


class FuseActivation(Pass):
    """Merges Relu and Clip into the sparse operator before them."""

    name = "fuse-activation"
    summary = "merge Relu and Clip into the sparse operator before them"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        for node in list(graph.nodes):
            if not is_standard(node, "Relu", "Clip"):
                continue
            product = node.inputs[0]
            layer = product.inputs[0] if len(product.inputs) == 1 else None
            if layer is None or not is_sparse(layer):
                continue
            label = node_label(node)
            if graph.sole_consumer(product) is None:
                result.skip(label, f"{node_label(layer)} is read elsewhere as well")
                continue
            if activation(layer) != NO_ACTIVATION:
                result.skip(label, f"{node_label(layer)} already has an activation")
                continue
            limits = bounds(graph, node)
            if isinstance(limits, str):
                result.skip(label, limits)
                continue
            set_activation(layer, *limits, Gate.NONE)
            output = node.outputs[0]
            layer.outputs.clear()
            graph.remove(node)
            layer.outputs.append(output)
            result.rewritten.append(label)
        return result


def bounds(graph: ModelGraph, node: gs.Node) -> tuple[float, float] | str:
    """The activation's bounds, or why they are not to be had."""
    if node.op == "Relu":
        return 0.0, math.inf
    limits = [-math.inf, math.inf]
    for index in (0, 1):
        tensor = optional_input(node, index + 1)
        if tensor is None:
            continue
        value = graph.constant(tensor)
        if value is None:
            return why_not_constant(graph, ("min", "max")[index], tensor)
        if value.size != 1:
            return f"bound {tensor.name!r} has {value.size} elements, not 1"
        limits[index] = float(value.reshape(-1)[0])
        if math.isnan(limits[index]):
            return f"bound {tensor.name!r} is not a number"
    if limits[0] > limits[1]:
        return f"its min {limits[0]:g} is above its max {limits[1]:g}"
    return limits[0], limits[1]
