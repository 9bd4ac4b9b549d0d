"""Does without dead slots: the rules slice weights and adjust attributes, tensors get their new sizes."""

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.analysis import Analysis
from scalpel_graph.channels.dequantized import constant_value, dequantized, maker
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
    """Takes out every node that masks nothing: it hands on an input as it is. Returns the nodes.

    That is a Mul by ones only, a Where that picks the same everywhere, and a Gather or Slice of everything in
    order. With masks that DequantizeLinear makes it goes as well.
    """
    dropped = []
    for node in list(graph.nodes):
        source = _handed_on(graph, node)
        if source is not None and not _has_to_be_made(graph, node.outputs[0]):
            graph.redirect(node.outputs[0], source)
            dropped.append(node)
    masks = [tensor for node in dropped for tensor in node.inputs if dequantized(graph, tensor) is not None]
    makers = [maker(tensor, "DequantizeLinear") for tensor in masks]
    graph.remove(*dropped)
    unread = [
        node
        for node in makers
        if node is not None and not node.outputs[0].outputs and not graph.is_pinned(node.outputs[0])
    ]
    graph.remove(*unread)
    return dropped + unread


def _has_to_be_made(graph: ModelGraph, tensor: gs.Tensor) -> bool:
    """Whether a tensor cannot be replaced by what is handed on: bodies make their outputs themselves."""
    return graph.is_pinned(tensor) or (graph.bodies is not None and graph.bodies.is_output(tensor))


def _handed_on(graph: ModelGraph, node: gs.Node) -> gs.Tensor | None:
    """The input that a node hands on if it masks nothing; None for any other node."""
    if (node.domain or "") not in ("", "ai.onnx"):
        return None
    if node.op == "Mul" and graph.opset >= 7:
        for mask, other in (node.inputs, reversed(node.inputs)):
            values = constant_value(graph, mask)
            if values is not None and (values == 1).all() and _same_shape(graph, other, node.outputs[0]):
                return other
    if node.op == "Where":
        return _picked(graph, node)
    if node.op == "Gather":
        indices, shape = graph.constant(node.inputs[1]), graph.shape(node.inputs[0])
        if indices is not None and shape is not None and indices.ndim == 1:
            size = shape[int(node.attrs.get("axis", 0))]
            if size == len(indices) and np.array_equal(indices, np.arange(len(indices))):
                return node.inputs[0]
    if node.op == "Slice" and _slices_nothing_off(graph, node):
        return node.inputs[0]
    return None


def _picked(graph: ModelGraph, node: gs.Node) -> gs.Tensor | None:
    """The variable that a Where picks everywhere."""
    condition = graph.constant(node.inputs[0])
    if condition is None or not condition.size or (condition != condition.flat[0]).any():
        return None
    picked = node.inputs[1 if condition.flat[0] else 2]
    if graph.constant(picked) is not None or not _same_shape(graph, picked, node.outputs[0]):
        return None
    return picked


def _slices_nothing_off(graph: ModelGraph, node: gs.Node) -> bool:
    """Whether a Slice with steps of 1 takes all of axes whose sizes are known."""
    if graph.opset < 10:
        return False
    given = [graph.constant(tensor) for tensor in node.inputs[1:]]
    shape = graph.shape(node.inputs[0])
    if shape is None:
        return False
    bounds = [values.tolist() for values in given if values is not None]
    if len(bounds) < len(given):
        return False
    starts, ends, *rest = bounds
    axes = rest[0] if rest else range(len(starts))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    return all(
        step == 1 and isinstance(size := shape[axis], int) and slice(start, end).indices(size) == (0, size, 1)
        for start, end, axis, step in zip(starts, ends, axes, steps, strict=True)
    )


def _same_shape(graph: ModelGraph, a: gs.Tensor, b: gs.Tensor) -> bool:
    left, right = graph.shape(a), graph.shape(b)
    return left is not None and left == right and None not in left
