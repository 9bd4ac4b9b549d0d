"""Does without dead slots: the rules slice weights and adjust attributes, tensors get their new sizes."""

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.analysis import Analysis
from scalpel_graph.channels.liveness import Decision
from scalpel_graph.channels.rule import Kept
from scalpel_graph.graph import ModelGraph


def shrink(graph: ModelGraph, analysis: Analysis, decision: Decision) -> list[gs.Node]:
    """Rewrites the graph to compute live slots only.

    Args:
        graph: what ``analysis`` is of.
        analysis: the facts.
        decision: what stays.

    Returns:
        the nodes that compute, or read, fewer slots than before, those that are gone among them.
    """
    kept = Kept(decision.live, analysis.constants)
    gone = {id(node) for node in decision.gone}
    resized: set[int] = set()
    for axis in analysis.slots.axes:
        indices = kept.of(axis)
        if indices is not None:
            resized.add(id(axis.tensor))
            if len(indices):
                graph.resize(axis.tensor, axis.index, len(indices))
    changed = list(decision.gone)
    for rule in analysis.rules:
        if id(rule.node) not in gone and any(
            id(tensor) in resized for tensor in (*rule.node.inputs, *rule.node.outputs)
        ):
            changed.append(rule.node)
            rule.shrink(kept)
    return changed


def drop_masks_of_ones(graph: ModelGraph) -> list[gs.Node]:
    """Takes out every Mul by ones only, and every Gather of all slots in order; returns the nodes."""
    dropped = []
    for node in list(graph.nodes):
        source = _handed_on(graph, node)
        if source is not None and not _has_to_be_made(graph, node.outputs[0]):
            graph.redirect(node.outputs[0], source)
            dropped.append(node)
    graph.remove(*dropped)
    return dropped


def _has_to_be_made(graph: ModelGraph, tensor: gs.Tensor) -> bool:
    """Whether a tensor cannot be replaced by what is handed on: bodies make their outputs themselves."""
    return graph.is_pinned(tensor) or (graph.bodies is not None and graph.bodies.is_output(tensor))


def _handed_on(graph: ModelGraph, node: gs.Node) -> gs.Tensor | None:
    """The input that a mask of ones hands on; None for any other node."""
    if (node.domain or "") not in ("", "ai.onnx"):
        return None
    if node.op == "Mul" and graph.opset >= 7:
        for mask, other in (node.inputs, reversed(node.inputs)):
            values = graph.constant(mask)
            if values is not None and (values == 1).all() and _same_shape(graph, other, node.outputs[0]):
                return other
    if node.op == "Gather":
        indices, shape = graph.constant(node.inputs[1]), graph.shape(node.inputs[0])
        if indices is not None and shape is not None and indices.ndim == 1:
            size = shape[int(node.attrs.get("axis", 0))]
            if size == len(indices) and np.array_equal(indices, np.arange(len(indices))):
                return node.inputs[0]
    return None


def _same_shape(graph: ModelGraph, a: gs.Tensor, b: gs.Tensor) -> bool:
    left, right = graph.shape(a), graph.shape(b)
    return left is not None and left == right and None not in left
