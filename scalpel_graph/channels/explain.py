"""Why channels that hold a constant are still there: a reason for each node that keeps some."""

from collections import Counter

import numpy as np

from scalpel_graph.channels.analysis import Analysis
from scalpel_graph.channels.slots import BoolArray, IntArray
from scalpel_graph.graph import node_label


def kept_constants(analysis: Analysis, live: BoolArray) -> list[tuple[str, str]]:
    """Pairs of a node's label and a clause that says how many constant channels it keeps, and why.

    A channel counts where its constant ends: at a node that cannot do without it, or that mixes it with one
    that is not constant.
    """
    stuck = live & analysis.constants.known
    reasons: Counter[tuple[str, str]] = Counter()
    for pin in analysis.pins:
        if pin.reason:
            reasons[pin.node, pin.reason] += int(np.count_nonzero(stuck[pin.slots]))
    for rule in analysis.rules:
        label = node_label(rule.node)
        for read in rule.reads:
            refused = stuck[read.inputs] & ~read.takes(analysis.constants)
            if read.needs is not None:
                refused &= read.needs.any(axis=0)
            reasons[label, read.why] += int(np.count_nonzero(refused))
        mixed = _mixed(rule.couplings, stuck, analysis.constants.known)
        reasons[label, "mixes a constant with what is not constant"] += mixed
        reasons[label, "needs groups of one size"] += int(np.count_nonzero(stuck[rule.widths(live)]))
    return [
        (label, f"keeps {_channels(count)} that never change: it {why}")
        for (label, why), count in reasons.items()
        if count
    ]


def _mixed(couplings: list[tuple[IntArray, IntArray]], stuck: BoolArray, known: BoolArray) -> int:
    return sum(int(np.count_nonzero(stuck[source] & ~known[target])) for source, target in couplings)


def _channels(count: int) -> str:
    return "a channel" if count == 1 else f"{count:,} channels"
