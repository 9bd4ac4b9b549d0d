"""Widths that hardware likes: dead channels that stay, so that a layer's width is a multiple.

A step between decision and shrinking. What stays dead may hold anything, since nothing needs it: `forget`
has those who would read it multiply it by zero, and masks let it pass, which makes them masks of ones.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.across_channels import LpNormRule
from scalpel_graph.channels.analysis import Analysis, Pin
from scalpel_graph.channels.control_flow import BodyRule
from scalpel_graph.channels.conv import ConvRule, ConvTransposeRule
from scalpel_graph.channels.elementwise import MulRule
from scalpel_graph.channels.gemm_matmul import GemmRule, MatMulRule
from scalpel_graph.channels.liveness import Decision
from scalpel_graph.channels.rule import Kept, Rule
from scalpel_graph.channels.slots import Axis, BoolArray, IntArray
from scalpel_graph.graph import ModelGraph, node_label

#: Rules of layers whose weights are plain constants: those of quantized layers are made by another node.
_FORGETFUL = (ConvRule, ConvTransposeRule, GemmRule, MatMulRule)


def round_up(analysis: Analysis, decision: Decision, multiple: int) -> Decision:
    """Keeps dead slots that make the width of each layer a multiple, or what it was if that is less.

    Classes are kept whole, so that layers whose channels go together stay alike. Where one class holds
    several channels of a layer, or groups have to stay equally wide, the next multiple is tried.

    Args:
        analysis: the facts.
        decision: what has to stay.
        multiple: what layers' widths are to be divisible by.

    Returns:
        the decision, with further slots live and held.
    """
    if multiple == 1:
        return decision
    class_of = analysis.class_of
    live_class: BoolArray = np.zeros(analysis.slots.count, dtype=np.bool_)
    live_class[class_of[decision.live]] = True
    barred = _classes_of_empty_axes(analysis, decision.live)
    held: dict[int, Pin] = {}
    changed = True
    while changed:
        changed = False
        turns = _turns(analysis, live_class[class_of])
        for layer, axis in _layers(analysis):
            live = live_class[class_of[axis.slots]]
            missing = min(-int(np.count_nonzero(live)) % multiple, int(np.count_nonzero(~live)))
            if not live.any() or not missing:
                continue
            dead = axis.slots[~live & ~barred[class_of[axis.slots]]]
            dead = dead[np.argsort(turns[class_of[dead]], kind="stable")]
            _, first = np.unique(class_of[dead], return_index=True)
            chosen = dead[np.sort(first)][:missing]
            if len(chosen):
                changed = True
                live_class[class_of[chosen]] = True
                reason = f"the target wants widths that are multiples of {multiple}"
                before = held.get(id(layer))
                slots = chosen if before is None else np.concatenate([before.slots, chosen])
                held[id(layer)] = Pin(slots, node_label(layer.node), reason)
        for rule in analysis.rules:
            slots = rule.widths(live_class[class_of])
            if len(slots):
                changed = True
                live_class[class_of[slots]] = True
    return replace(decision, live=live_class[class_of], held=[*decision.held, *held.values()])


def forget(graph: ModelGraph, analysis: Analysis, decision: Decision) -> list[gs.Node]:
    """Makes it not matter what the slots hold that stay though nothing needs them.

    Layers that would read them get weights of zero for them, and their constants in the bias; masks get ones.
    Slots that something else reads, such as a sum or a normalisation over channels, stay what they were.

    Args:
        graph: what ``analysis`` is of.
        analysis: the facts.
        decision: what stays, and which of it is only held.

    Returns:
        the nodes that were changed.
    """
    if not decision.held:
        return []
    class_of = analysis.class_of
    held: BoolArray = np.zeros(analysis.slots.count, dtype=np.bool_)
    for pin in decision.held:
        held[class_of[pin.slots]] = True
    for rule in analysis.rules:
        if isinstance(rule, LpNormRule):  # it goes without zeros because they are zeros
            for source, _ in rule.couplings:
                held[class_of[source]] = False
        if isinstance(rule, BodyRule):  # without its mask a state might grow in every iteration, to infinity
            for slots in rule.states():
                held[class_of[slots]] = False
        for read in rule.reads:
            if read.needs is None or type(rule) not in _FORGETFUL:
                held[class_of[read.inputs]] = False
                if read.factors is not None:
                    held[class_of[read.factors]] = False
    idle = held[class_of]
    kept = Kept(~idle, analysis.constants)
    changed = []
    for rule in analysis.rules:
        if _forget_mask(graph, rule, kept) or _forget_inputs(graph, rule, idle, kept):
            changed.append(rule.node)
    return changed


def dead_outputs(analysis: Analysis, decision: Decision) -> dict[str, int]:
    """By its label, how many output channels of each layer nothing needs."""
    return {
        node_label(layer.node): int(np.count_nonzero(~decision.live[axis.slots]))
        for layer, axis in _layers(analysis)
    }


def _layers(analysis: Analysis) -> Iterator[tuple[Rule, Axis]]:
    """The layers with constant weights, and the axis of what they make."""
    for rule in analysis.rules:
        if isinstance(rule, ConvRule | GemmRule) or (isinstance(rule, MatMulRule) and rule.side is not None):
            yield rule, rule.y


def _classes_of_empty_axes(analysis: Analysis, live: BoolArray) -> BoolArray:
    """``[slots]``: classes with a slot on an axis that goes as a whole."""
    barred: BoolArray = np.zeros(len(live), dtype=np.bool_)
    for axis in analysis.slots.axes:
        if not live[axis.start : axis.start + axis.size].any():
            barred[analysis.class_of[axis.slots]] = True
    return barred


def _turns(analysis: Analysis, live: BoolArray) -> IntArray:
    """``[slots]``: by class, when to keep a dead slot: of the groups of a Conv, one from each in turn."""
    turns: IntArray = np.zeros(len(live), dtype=np.int64)
    for rule in analysis.rules:
        if isinstance(rule, ConvRule) and rule.group > 1 and rule.inputs.shape[1] > 1:
            for slots in (rule.inputs, rule.outputs):
                turn = np.cumsum(~live[slots], axis=1)
                np.maximum.at(turns, analysis.class_of[slots], turn)
    return turns


def _forget_mask(graph: ModelGraph, rule: Rule, kept: Kept) -> bool:
    """Puts ones for the zeros that a Mul by a constant has for idle slots; says whether it had some."""
    if not isinstance(rule, MulRule):
        return False
    found = False
    for position, tensor in enumerate(rule.node.inputs):
        values = graph.constant(tensor)
        if values is None:
            continue
        idle = np.zeros(values.shape, dtype=np.bool_)
        for index, made in enumerate(rule.made):
            place = index - len(rule.made) + values.ndim
            if made is not None and place >= 0 and values.shape[place] == made.size:
                along = [1] * values.ndim
                along[place] = made.size
                idle |= ~kept.live[made.slots].reshape(along)
        if (idle & (values == 0)).any():
            kept.replace(
                graph, rule.node, position, np.where(idle & (values == 0), 1, values).astype(values.dtype)
            )
            found = True
    return found


def _forget_inputs(graph: ModelGraph, rule: Rule, idle: BoolArray, kept: Kept) -> bool:
    """Has a layer not read its idle inputs; says whether it did."""
    reads = rule.reads if type(rule) in _FORGETFUL else []
    if not any(read.needs is not None and read.needs[:, idle[read.inputs]].any() for read in reads):
        return False
    if isinstance(rule, ConvRule):
        _forget_inputs_of_conv(graph, rule, kept)
        return True
    assert isinstance(rule, GemmRule | MatMulRule)
    index = 1 if isinstance(rule, GemmRule) or rule.side is None else rule.side
    before = rule.weight(index, "weight")
    inputs_axis = rule.inputs_axis if isinstance(rule, GemmRule) else 1 - index
    # Without its idle inputs, all else as it is, the layer has their constants in its bias.
    alone = np.ones(len(kept.live), dtype=np.bool_)
    alone[rule.x.slots] = kept.live[rule.x.slots]
    rule.shrink(Kept(alone, kept.constants))
    after = np.zeros(before.shape, dtype=before.dtype)
    np.moveaxis(after, inputs_axis, 0)[kept.live[rule.x.slots]] = np.moveaxis(
        rule.weight(index, "weight"), inputs_axis, 0
    )
    graph.set_constant(rule.node, index, after)
    return True


def _forget_inputs_of_conv(graph: ModelGraph, rule: ConvRule, kept: Kept) -> None:
    live = kept.live[rule.inputs]  # [group, inputs of a group]
    bias = rule.folded_bias(kept, live)
    if bias is not None and bias is not rule.input_constant(2):
        kept.replace(graph, rule.node, 2, bias)
    weight = rule.weight(1, "weight")
    kernel = (1,) * (weight.ndim - 2)
    if rule.transposed:
        mask = live.reshape(-1, 1, *kernel)
    else:
        mask = np.repeat(live, weight.shape[0] // rule.group, axis=0).reshape(*weight.shape[:2], *kernel)
    kept.replace(graph, rule.node, 1, np.where(mask, weight, np.zeros((), weight.dtype)))
