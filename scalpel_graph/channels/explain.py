"""Why channels that cannot matter are still there: a reason for each node that keeps some."""

from collections import Counter

import numpy as np

from scalpel_graph.channels.analysis import Analysis
from scalpel_graph.channels.liveness import Decision
from scalpel_graph.channels.quantize_linear import DequantizeRule
from scalpel_graph.channels.rule import Rule
from scalpel_graph.channels.slots import BoolArray
from scalpel_graph.graph import node_label


def kept_channels(analysis: Analysis, decision: Decision) -> list[tuple[str, str]]:
    """Pairs of a node's label and a clause that says how many dead channels it keeps, and why.

    A channel that always holds one number counts where it ends: at the node that cannot do without it, or
    that combines it with others that vary.
    """
    stuck = decision.needed & analysis.constants.known
    for rule in analysis.rules:
        if isinstance(rule, DequantizeRule) and rule.data is not None:
            for axis in rule.made:  # a stored constant is no channel
                if axis is not None:
                    stuck[axis.slots] = False
    reasons: Counter[tuple[str, str]] = Counter()
    for pin in analysis.pins:
        reasons[pin.node, pin.reason] += int(np.count_nonzero(stuck[pin.slots]))
    for rule in analysis.rules:
        label = node_label(rule.node)
        for read in rule.reads:
            refused = np.isin(read.inputs, read.required(decision.needed[read.outputs], analysis.constants))
            reasons[label, read.why] += int(np.count_nonzero(refused & stuck[read.inputs]))
        mixed = _mixed(rule, stuck, analysis.constants.known)
        reasons[label, rule.why_varied] += mixed
    for pin in decision.held:
        reasons[pin.node, pin.reason] += len(pin.slots)
    return [
        (label, f"keeps {'a channel' if count == 1 else f'{count:,} channels'} that cannot matter: {why}")
        for (label, why), count in reasons.items()
        if count
    ]


def _mixed(rule: Rule, stuck: BoolArray, known: BoolArray) -> int:
    """How many slots go in as constants and do not come out as one."""
    made = {
        axis.start for tensor in rule.node.outputs for axis in rule.slots.of(tensor) or () if axis is not None
    }
    return sum(
        int(np.count_nonzero(stuck[source] & ~known[target]))
        for source, target in rule.couplings
        if len(target) and int(target[0]) in made
    )
