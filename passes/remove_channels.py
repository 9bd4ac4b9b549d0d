"""Removes the channels that cannot matter: constant ones, and ones that nothing reads.

The analysis, its rules and its notion of exact are in `scalpel_graph.channels`. Repeated until nothing goes
any more. Masks of which only ones are left go as well.

Where the target wants widths of a multiple (`Target.round_channels_to`), dead channels make up for what is
missing (`scalpel_graph.channels.widths`); where it has sparse kernels, they stay if groups of zeros would
fall apart without them (`scalpel_graph.passes.group_alignment`).
"""

from collections.abc import Callable

import onnx_graphsurgeon as gs

from scalpel_graph.channels.analysis import analyse
from scalpel_graph.channels.dequantized import dequantized
from scalpel_graph.channels.explain import kept_channels
from scalpel_graph.channels.liveness import decide
from scalpel_graph.channels.registry import MIN_OPSET
from scalpel_graph.channels.shrink import drop_masks_of_ones, shrink
from scalpel_graph.channels.substitute import substitute_constants
from scalpel_graph.channels.widths import dead_outputs, forget, round_up
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.clean_up import remove_dead
from scalpel_graph.passes.group_alignment import keep_aligned
from scalpel_graph.report import RemovedNodes


class RemoveChannels(Pass):
    """Makes layers narrower by the channels that cannot matter."""

    name = "remove-channels"
    summary = "remove channels that are constant or that nothing reads"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        if graph.opset < MIN_OPSET:
            result.skip(
                graph.name, f"the model is of opset {graph.opset}; removing channels needs {MIN_OPSET}"
            )
            return result
        before = _widths(graph)
        changed: dict[str, None] = {}
        while True:
            analysis = analyse(graph)
            substituted = substitute_constants(graph, analysis)
            if substituted:
                changed.update((node_label(node), None) for node in substituted)
                changed.update((label, None) for label in remove_dead(graph))
                continue
            decision = decide(analysis)
            rounded = round_up(analysis, decision, context.target.round_channels_to)
            rounded = keep_aligned(graph, analysis, rounded, context)
            forgetful = forget(graph, analysis, rounded)
            if forgetful:
                changed.update((node_label(node), None) for node in forgetful)
                continue
            if rounded.live.all():
                break
            nodes = shrink(graph, analysis, rounded)
            changed.update((node_label(node), None) for node in nodes)
            graph.remove(*rounded.gone)
        for node in drop_masks_of_ones(graph):
            changed[node_label(node)] = None
        result.rewritten += changed
        for label, reason in kept_channels(analysis, rounded):
            result.skip(label, reason)
        after, dead = _widths(graph), dead_outputs(analysis, decision)
        for label, width in before.items():
            left = after.get(label, width)
            possible = left - dead.get(label, 0)
            if possible != width:
                context.removed_nodes.append(RemovedNodes(label, width, left, possible))
        return result


def _widths(graph: ModelGraph) -> dict[str, int]:
    """Output channels of every layer with weights, by its label."""
    widths = {}
    for node in graph.nodes:
        outputs, place = _OUTPUTS.get(node.op, (None, 0))
        shape = _weight_shape(graph, node.inputs[place]) if outputs is not None else None
        if outputs is not None and shape is not None and len(shape) > 1:
            widths[node_label(node)] = outputs(node, shape)
    return widths


def _weight_shape(graph: ModelGraph, tensor: gs.Tensor) -> tuple[int, ...] | None:
    """The shape of weights that are constant, or that DequantizeLinear makes of a constant."""
    if isinstance(tensor, gs.Constant):
        return tuple(tensor.shape)
    found = dequantized(graph, tensor)
    return None if found is None else found.stored.shape


_Outputs = Callable[[gs.Node, tuple[int, ...]], int]


def _of_conv(node: gs.Node, shape: tuple[int, ...]) -> int:
    return shape[0]


def _of_gemm(node: gs.Node, shape: tuple[int, ...]) -> int:
    return shape[0 if node.attrs.get("transB", 0) else 1]


def _of_matmul(node: gs.Node, shape: tuple[int, ...]) -> int:
    return shape[-1]


#: By operator, its output channels given the shape of its weights, and which input holds them.
_OUTPUTS: dict[str, tuple[_Outputs, int]] = {
    "Conv": (_of_conv, 1),
    "ConvInteger": (_of_conv, 1),
    "ConvTranspose": (lambda node, shape: shape[1] * int(node.attrs.get("group", 1)), 1),
    "Gemm": (_of_gemm, 1),
    "MatMul": (_of_matmul, 1),
    "MatMulInteger": (_of_matmul, 1),
    "QGemm": (_of_gemm, 3),
    "QLinearConv": (_of_conv, 3),
    "QLinearMatMul": (_of_matmul, 3),
}
