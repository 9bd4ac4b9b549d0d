"""States the shape of a Reshape as a constant where it only copies sizes of tensors.

Exporters write ``x.view(x.size(0), -1)`` as ``Reshape(x, Concat(Gather(Shape(x), 0), [-1]))``. An entry that
is the size of the same axis of ``x`` is 0 in ONNX, one of known size is that number, and a single one that is
neither can be inferred (-1). Without the detour shape inference sees through the Reshape, and so do the
passes that ask for sizes.
"""

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.clean_up import remove_dead
from scalpel_graph.passes.matching import attribute, is_standard

_INFERRED = -1
_COPIED = 0


class FoldShapes(Pass):
    """Replaces computed shapes of Reshape by constants."""

    name = "fold-shapes"
    summary = "state computed shapes of Reshape as constants"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        for node in graph.nodes:
            if not is_standard(node, "Reshape") or attribute(node, "allowzero", 0) or len(node.inputs) < 2:
                continue
            maker = node.inputs[1].inputs[0] if node.inputs[1].inputs else None
            if maker is None or not is_standard(maker, "Concat"):
                continue
            entries = _entries(graph, node, maker)
            if entries is None:
                result.skip(node_label(node), "its shape is computed from more than sizes")
                continue
            values = np.array(entries, dtype=np.int64)
            node.inputs[1] = graph.add_constant(f"{node_label(node)}_shape", values)
            result.rewritten.append(node_label(node))
        if result.rewritten:
            result.rewritten += remove_dead(graph)
        return result


def _entries(graph: ModelGraph, node: gs.Node, concat: gs.Node) -> list[int] | None:
    """The constant shape that does the same; None if there is none."""
    entries: list[int] = []
    for part in concat.inputs:
        values, length = graph.constant(part), graph.shape(part)
        if values is not None:
            entries += [int(value) for value in values]
        elif length == (1,):
            size = _size(graph, part, node.inputs[0], len(entries))
            entries.append(_INFERRED if size is None else size)
        else:
            return None
    return entries if entries.count(_INFERRED) <= 1 else None


def _size(graph: ModelGraph, part: gs.Tensor, source: gs.Tensor, place: int) -> int | None:
    """A computed entry: its value if known, 0 if it is that of axis ``place`` of ``source``, else None."""
    origin = _origin(graph, part)
    if origin is None:
        return None
    tensor, axis = origin
    shape, given = graph.shape(tensor), graph.shape(source)
    if shape is None or not -len(shape) <= axis < len(shape):
        return None
    size = shape[axis]
    if isinstance(size, int) and size > 0:
        return size
    if given is None or place >= len(given):
        return None
    same = tensor is source and axis % len(shape) == place
    return _COPIED if same or (isinstance(size, str) and size == given[place]) else None


def _origin(graph: ModelGraph, part: gs.Tensor) -> tuple[gs.Tensor, int] | None:
    """The tensor and axis whose size a tensor of one element is, if that is all it is."""
    node = part.inputs[0] if part.inputs else None
    while node is not None and is_standard(node, "Unsqueeze", "Squeeze"):
        node = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    if node is None or not is_standard(node, "Gather"):
        return None
    index = graph.constant(node.inputs[1])
    shape = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
    if index is None or index.size != 1 or shape is None or not is_standard(shape, "Shape"):
        return None
    if attribute(shape, "start", 0) or "end" in shape.attrs:
        return None
    return shape.inputs[0], int(index.reshape(-1)[0])
