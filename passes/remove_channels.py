"""Removes the channels that cannot matter: constant ones, and ones that nothing reads.

The analysis, its rules and its notion of exact are in `scalpel_graph.channels`. Repeated until nothing goes
any more. Masks of which only ones are left go as well.

The bodies of If, Loop and Scan are looked into like the rest of the graph.

Where the target wants widths of a multiple (`Target.round_channels_to`, `round_features_to`), dead channels
make up for what is missing (`scalpel_graph.channels.widths`); where it has sparse kernels, they stay if
groups of zeros would fall apart without them (`scalpel_graph.passes.group_alignment`).
"""

from collections.abc import Iterator, Mapping

from scalpel_graph.bodies import close_bodies, open_bodies
from scalpel_graph.channels.analysis import analyse
from scalpel_graph.channels.explain import kept_channels
from scalpel_graph.channels.liveness import decide
from scalpel_graph.channels.producers import Producer, producers
from scalpel_graph.channels.registry import MIN_OPSET
from scalpel_graph.channels.shrink import drop_masks_of_ones, shrink
from scalpel_graph.channels.shuffle import Shuffles
from scalpel_graph.channels.substitute import substitute_constants
from scalpel_graph.channels.widths import dead_outputs, forget, round_up
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.clean_up import remove_dead
from scalpel_graph.passes.group_alignment import keep_aligned
from scalpel_graph.report import BeforeAfter, RemovedNodes


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
        before = producers(graph, context.dimensions)
        shuffles = Shuffles(graph)
        changed: dict[str, None] = {}
        while True:
            analysis = analyse(graph)
            substituted = substitute_constants(graph, analysis)
            if substituted:
                changed.update((node_label(node), None) for node in substituted)
                changed.update((label, None) for label in remove_dead(graph))
                continue
            decision = decide(analysis)
            dead = dead_outputs(analysis, decision)
            round_up(analysis, decision, context.target)
            keep_aligned(graph, analysis, decision, context)
            forgetful = forget(graph, analysis, decision)
            if forgetful:
                changed.update((node_label(node), None) for node in forgetful)
                continue
            if decision.live.all():
                dropped = drop_masks_of_ones(graph)
                if not dropped:
                    break
                changed.update((node_label(node), None) for node in dropped)
                continue
            nodes = shrink(graph, analysis, decision)
            changed.update((node_label(node), None) for node in nodes)
            graph.remove(*decision.gone)
        shuffles.restore()
        result.rewritten += changed
        after = producers(graph, context.dimensions) if changed else before
        close_bodies(graph, changed=bool(changed))
        for label, reason in kept_channels(analysis, decision):
            result.skip(label, reason)
        context.removed_nodes += _compared(before, after, dead)
        return result


def _compared(
    before: Mapping[str, Producer], after: Mapping[str, Producer], dead: Mapping[str, int]
) -> Iterator[RemovedNodes]:
    """The layers that make or read fewer channels, or could have made fewer.

    Args:
        before, after: by label, the layers; those that are missing after are gone.
        dead: by label, the outputs of layers that stayed though nothing needs them.
    """
    nothing = Producer(0, 0, 0)
    for label, old in before.items():
        new = after.get(label, nothing)
        possible = new.channels - dead.get(label, 0)
        if new != old or possible != new.channels:
            yield RemovedNodes(
                name=label,
                before=old.channels,
                after=new.channels,
                possible=possible,
                parameters=BeforeAfter(old.parameters, new.parameters),
                macs=BeforeAfter(old.macs, new.macs),
            )
