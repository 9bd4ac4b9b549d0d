"""Puts a constant in the place of a variable that always holds one, where only its values are needed."""

import onnx_graphsurgeon as gs

from scalpel_graph.channels.analysis import Analysis
from scalpel_graph.channels.constants import numpy_type
from scalpel_graph.channels.dequantized import dequantized
from scalpel_graph.channels.elementwise import ElementwiseRule, UnaryRule
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array


def substitute_constants(graph: ModelGraph, analysis: Analysis) -> list[gs.Node]:
    """Gives broadcasting operators constants for operands that are constant in every slot of an axis.

    Only where the other operands alone give the output its shape: what is left of a residual branch that is
    dead as a whole is its bias. Returns the nodes that were changed.
    """
    changed = []
    for rule in analysis.rules:
        if not isinstance(rule, ElementwiseRule) or isinstance(rule, UnaryRule):
            continue
        node = rule.node
        for index, tensor in enumerate(node.inputs):
            others = [other for place, other in enumerate(node.inputs) if place != index]
            values = None if isinstance(tensor, gs.Constant) else _values(graph, analysis, tensor)
            if values is not None and _have_shape(graph, others, node.outputs[0]):
                node.inputs[index] = graph.add_constant(f"{node_label(node)}_constant", values)
                changed.append(node)
                break
    return changed


def _values(graph: ModelGraph, analysis: Analysis, tensor: gs.Tensor) -> Array | None:
    """What a variable always holds, with size 1 along all axes but one; None if it varies."""
    dtype = numpy_type(graph, tensor)
    axes = analysis.slots.of(tensor)
    if dtype is None or axes is None or dequantized(graph, tensor) is not None:
        return None
    for index, axis in enumerate(axes):
        if axis is not None and analysis.constants.known[axis.slots].all():
            shape = [1] * len(axes)
            shape[index] = axis.size
            return analysis.constants.value[axis.slots].astype(dtype).reshape(shape)
    return None


def _have_shape(graph: ModelGraph, tensors: list[gs.Tensor], output: gs.Tensor) -> bool:
    """Whether tensors, one of them a variable, certainly broadcast to the shape of an output."""
    shape = graph.shape(output)
    shapes = [graph.shape(tensor) for tensor in tensors]
    if shape is None or None in shape or all(isinstance(tensor, gs.Constant) for tensor in tensors):
        return False
    given = [s for s in shapes if s is not None]
    return all(
        any(len(s) >= len(shape) - index and s[index - len(shape)] == size for s in given)
        for index, size in enumerate(shape)
    )
