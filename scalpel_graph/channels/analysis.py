"""What is known about the channels of a graph before anything is decided: rules, constants, classes."""

import itertools
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.constants import Constants
from scalpel_graph.channels.registry import rule_for
from scalpel_graph.channels.rule import Refusal, Rule
from scalpel_graph.channels.slots import BoolArray, IntArray, Slots, classes
from scalpel_graph.graph import ModelGraph, node_label


@dataclass(frozen=True)
class Pin:
    """Slots that stay whatever they hold.

    Attributes:
        slots: which.
        node: label of what keeps them.
        reason: why, for a person.
    """

    slots: IntArray
    node: str
    reason: str


@dataclass(frozen=True)
class Analysis:
    """The facts about a graph that liveness and shrinking work with.

    Attributes:
        slots: the numbers of all slots.
        rules: of the nodes that have one, in topological order.
        constants: what slots always hold.
        class_of: ``[slots]``: the class of each; slots of one class go or stay together.
        pins: slots that stay.
    """

    slots: Slots
    rules: list[Rule]
    constants: Constants
    class_of: IntArray
    pins: list[Pin]


#: Assumptions about states of loops are given up slot by slot this many times, then axis by axis.
_ROUNDS = 8


def analyse(graph: ModelGraph) -> Analysis:
    """Looks at every node in topological order. Takes time linear in the number of slots.

    The bodies of If, Loop and Scan are part of the graph where they are open (`scalpel_graph.bodies`). Of the
    states of loops the most is assumed at first, and all is looked at again with less where that is wrong.
    """
    slots = Slots(graph)
    varies = np.zeros(slots.count, dtype=np.bool_)
    for number in itertools.count():
        analysis = _look(graph, slots, Constants(slots.count, varies))
        wrong = [rule.wrong(analysis.constants) for rule in analysis.rules]
        found = np.concatenate([np.zeros(0, dtype=np.int64), *wrong])
        if not len(found):
            break
        varies[found] = True
        for axis in slots.axes if number >= _ROUNDS else ():
            varies[axis.slots] |= np.isin(axis.slots, found).any()
    return analysis


def _look(graph: ModelGraph, slots: Slots, constants: Constants) -> Analysis:
    rules: list[Rule] = []
    pins = _pins_of_the_model(graph, slots)
    touched = np.zeros(slots.count, dtype=np.bool_)
    for node in graph.nodes:
        named: list[IntArray] = []
        try:
            rule = rule_for(graph, node, slots)
        except Refusal as refusal:
            reason = str(refusal)
        else:
            rule.constants(constants)
            reason = rule.why_left
            rules.append(rule)
            named = _named(rule)
        for part in named:
            touched[part] = True
        left = _unnamed(node, slots, touched)
        if left is not None:
            pins.append(Pin(left, node_label(node), reason))
        for part in named:
            touched[part] = False
    pairs = [pair for rule in rules for pair in rule.couplings]
    left_slots = np.concatenate([pair[0] for pair in pairs]) if pairs else np.zeros(0, dtype=np.int64)
    right_slots = np.concatenate([pair[1] for pair in pairs]) if pairs else np.zeros(0, dtype=np.int64)
    return Analysis(slots, rules, constants, classes(slots.count, left_slots, right_slots), pins)


def _pins_of_the_model(graph: ModelGraph, slots: Slots) -> list[Pin]:
    """Inputs, outputs and what subgraphs read."""
    pins = []
    for axis in slots.axes:
        if graph.is_output(axis.tensor):
            reason = "it is an output of the model"
        elif graph.is_pinned(axis.tensor):
            reason = "a subgraph reads it"
        elif not axis.tensor.inputs:
            reason = "it is an input of the model"
        else:
            continue
        pins.append(Pin(axis.slots, axis.tensor.name, reason))
    return pins


def _named(rule: Rule) -> list[IntArray]:
    """Every slot that a rule says something about."""
    parts = [part for pair in rule.couplings for part in pair]
    for read in rule.reads:
        parts += [read.inputs, read.outputs]
    return parts + rule.free


def _unnamed(node: gs.Node, slots: Slots, touched: BoolArray) -> IntArray | None:
    """The slots of a node's inputs and outputs that are not touched."""
    parts = []
    for tensor in (*node.inputs, *node.outputs):
        for axis in slots.of(tensor) or ():
            if axis is not None:
                rest = np.flatnonzero(~touched[axis.start : axis.start + axis.size])
                if len(rest):
                    parts.append(rest + axis.start)
    return np.concatenate(parts) if parts else None
