"""Adds another tensor inside the sparse operator.

``Add(GroupCsr(x, W, b), z) = GroupCsr(x, W, b, residual=z)`` where ``z`` provably has the shape of the
product: an Add that broadcasts is no residual. The operator must have no other reader, and neither a residual
nor an activation yet (an activation comes after the residual). It moves to the place of the Add, where ``z``
is there.
"""

from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.matching import is_standard
from scalpel_graph.passes.sparse_layers import same_shape
from scalpel_graph.passes.sparse_node import RESIDUAL, is_sparse, may_take_more


class FuseResidual(Pass):
    """Merges an Add of two tensors into the sparse operator that makes one of them."""

    name = "fuse-residual"
    summary = "merge the Add of another tensor into the sparse operator before it"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        for node in list(graph.nodes):
            if not is_standard(node, "Add"):
                continue
            reasons = []
            for product, other in ((node.inputs[0], node.inputs[1]), (node.inputs[1], node.inputs[0])):
                layer = product.inputs[0] if len(product.inputs) == 1 else None
                if layer is None or not is_sparse(layer):
                    continue
                if graph.sole_consumer(product) is None:
                    reasons.append(f"{node_label(layer)} is read elsewhere as well")
                elif not may_take_more(graph, layer):
                    reasons.append(f"{node_label(layer)} already adds a residual or has an activation")
                elif not same_shape(graph, product, other):
                    reasons.append(f"{other.name!r} is not known to have the shape of {product.name!r}")
                else:
                    result.rewritten.append(node_label(node))
                    inputs = list(layer.inputs)
                    inputs[RESIDUAL] = other
                    graph.remove(layer)
                    graph.replace(node, layer)
                    layer.inputs.extend(inputs)
                    reasons = []
                    break
            for reason in reasons:
                result.skip(node_label(node), reason)
        return result
