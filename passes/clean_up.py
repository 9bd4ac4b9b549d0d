"""Takes out what does nothing.

- Nodes that hand on their input: ``Identity``; ``Dropout`` in inference; ``Cast`` to the type it has
  already; ``Transpose`` that keeps the order; ``Concat``, ``Sum``, ``Max``, ``Min``, ``Mean`` of one tensor,
  ``Split`` into one; ``Pad`` by nothing. Whatever read ``f(x) = x`` reads ``x``.
- Nodes whose results nobody reads. Operators of unknown domains stay: they may do something beside.
- Initializers that nothing reads.

Names of the model's inputs and outputs never change: where ``x`` is made by a node and ``f(x)`` is an output,
that node makes the output itself; where ``x`` must keep its name as well, the node stays.
"""

import onnx_graphsurgeon as gs

from scalpel_graph import ops
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.matching import (
    attribute,
    is_quantization,
    is_standard,
    only_first_output_read,
    optional_constant,
    optional_input,
)

#: Domains whose operators do nothing but compute their outputs.
_PURE_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", ops.DOMAIN)


class CleanUp(Pass):
    """Removes no-op nodes, dead nodes and unused initializers."""

    name = "clean-up"
    summary = "take out nodes that do nothing, dead nodes and unused initializers"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        passed_by = []
        for node in list(graph.nodes):
            if not _hands_on_its_input(graph, node):
                continue
            if _bypass(graph, node):
                result.rewritten.append(node_label(node))
                passed_by.append(node)
            else:
                result.skip(node_label(node), "its input and its output both have names that must stay")
        graph.remove(*passed_by)
        result.rewritten += remove_dead(graph)
        result.rewritten += graph.remove_unused_initializers()
        return result


def _hands_on_its_input(graph: ModelGraph, node: gs.Node) -> bool:
    if not only_first_output_read(graph, node):
        return False
    if is_standard(node, "Identity"):
        return True
    if is_standard(node, "Dropout"):
        return _is_inference_dropout(graph, node)
    if is_standard(node, "Concat", "Sum", "Max", "Min", "Mean"):
        return len(node.inputs) == 1
    if is_standard(node, "Split"):
        return len(node.outputs) == 1
    if is_standard(node, "Cast"):
        return bool(graph.type(node.inputs[0]) == node.attrs.get("to"))
    if is_standard(node, "Transpose"):
        order = node.attrs.get("perm")
        return order is not None and list(order) == list(range(len(order)))
    if is_standard(node, "Pad"):
        pads = node.attrs.get("pads", node.attrs.get("paddings"))
        if pads is None:
            pads = optional_constant(graph, node, 1)
        return pads is not None and len(pads) > 0 and not any(pads)
    return False


def _is_inference_dropout(graph: ModelGraph, node: gs.Node) -> bool:
    if graph.opset < 7:
        return bool(attribute(node, "is_test", 0))
    if optional_input(node, 2) is None:
        return True
    training = optional_constant(graph, node, 2)
    return training is not None and not training.any()


def _bypass(graph: ModelGraph, node: gs.Node) -> bool:
    """Makes everything that reads the node's output read its input; False if names forbid it."""
    before, after = node.inputs[0], node.outputs[0]
    if not graph.is_pinned(after):
        graph.redirect(after, before)
        return True
    if graph.is_pinned(before) or len(before.inputs) != 1:
        return False
    maker = before.inputs[0]
    node.outputs.clear()
    maker.outputs[next(i for i, tensor in enumerate(maker.outputs) if tensor is before)] = after
    graph.redirect(before, after)
    return True


def remove_dead(graph: ModelGraph) -> list[str]:
    """Removes the nodes whose results nobody reads; returns their labels."""
    removed: list[str] = []
    while True:
        dead: list[gs.Node] = []
        gone: set[int] = set()
        for node in reversed(graph.nodes):
            read = any(
                graph.is_pinned(tensor) or any(id(reader) not in gone for reader in tensor.outputs)
                for tensor in node.outputs
                if tensor.name
            )
            pure = (node.domain or "") in _PURE_DOMAINS
            pure = pure or is_quantization(node, "QuantizeLinear", "DequantizeLinear")
            if not read and node.outputs and pure:
                dead.append(node)
                gone.add(id(node))
        if not dead:
            return removed
        removed += [node_label(node) for node in reversed(dead)]
        graph.remove(*dead)
