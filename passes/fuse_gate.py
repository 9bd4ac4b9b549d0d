"""Applies HardSwish, SiLU or GELU inside the sparse operator.

``y · gate(y)`` of a sparse operator's result becomes the operator's ``activation_gate``, whether it is one
node or several (`scalpel_graph.gates`). Bounds that the operator already has come before the gate, as in its
formula.
"""

from scalpel_graph import gates
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.ops import Gate
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.sparse_node import activation, is_sparse, set_activation


class FuseGate(Pass):
    """Merges HardSwish, SiLU and GELU into the sparse operator before them."""

    name = "fuse-gate"
    summary = "merge HardSwish, SiLU and GELU into the sparse operator before them"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        for layer in list(graph.nodes):
            if not is_sparse(layer):
                continue
            found = gates.activation_of(graph, layer.outputs[0])
            low, high, gate = activation(layer)
            if found is None or gate != Gate.NONE:
                continue
            set_activation(layer, low, high, found.gate)
            result.rewritten.append(node_label(found.nodes[-1]))
            output = found.output
            layer.outputs.clear()
            graph.remove(*found.nodes)
            layer.outputs.append(output)
        return result
