"""Brings an older model to the opset that the sparse operators are made of.

Their function bodies need opset 13. A model of an older one is converted by ONNX's version converter, but
only if the cost model finds a layer that would then become sparse; else it keeps its opset.
"""

from scalpel_graph import ops
from scalpel_graph.errors import GraphError
from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes import sparse_layers
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.fold_constants import constants_to_initializers
from scalpel_graph.upgrade import upgrade


class RaiseOpset(Pass):
    """Converts a model of an old opset if a layer of it is worth making sparse."""

    name = "raise-opset"
    summary = f"bring older models to opset {ops.MIN_OPSET} if a layer is worth making sparse"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        if graph.opset >= ops.MIN_OPSET or not sparse_layers.decide(graph, context).sparse:
            return result
        try:
            graph.reset(upgrade(graph.to_light(), ops.MIN_OPSET))
        except GraphError as error:
            result.skip(graph.name, str(error))
            return result
        result.rewritten.append(graph.name)
        constants_to_initializers(graph, result)
        return result
