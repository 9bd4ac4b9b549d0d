"""Removes the channels that cannot matter: constant ones, and ones that nothing reads.

The analysis, its rules and its notion of exact are in `scalpel_graph.channels`. Repeated until nothing goes
any more. Masks of which only ones are left go as well.

The bodies of If, Loop and Scan are looked into like the rest of the graph.

Where the target wants widths of a multiple (`Target.round_channels_to`), dead channels make up for what is
missing (`scalpel_graph.channels.widths`); where it has sparse kernels, they stay if groups of zeros would
fall apart without them (`scalpel_graph.passes.group_alignment`).
"""

from collections.abc import Callable

import onnx_graphsurgeon as gs

from scalpel_graph.bodies import close_bodies, open_bodies
from scalpel_graph.channels.analysis import analyse
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
        open_bodies(graph)
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
        after, dead = _widths(graph), dead_outputs(analysis, decision)
        close_bodies(graph, changed=bool(changed))
        for label, reason in kept_channels(analysis, rounded):
            result.skip(label, reason)
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
        outputs = _OUTPUTS.get(node.op)
        weight = graph.constant(node.inputs[1]) if outputs is not None else None
        if outputs is not None and weight is not None and weight.ndim > 1:
            widths[node_label(node)] = outputs(node, weight.shape)
    return widths


_OUTPUTS: dict[str, Callable[[gs.Node, tuple[int, ...]], int]] = {
    "Conv": lambda node, shape: shape[0],
    "ConvTranspose": lambda node, shape: shape[1] * int(node.attrs.get("group", 1)),
    "Gemm": lambda node, shape: shape[0 if node.attrs.get("transB", 0) else 1],
    "MatMul": lambda node, shape: shape[-1],
}
