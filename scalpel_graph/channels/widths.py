"""Widths that hardware likes: dead channels that stay, so that a layer's width is a multiple.

A step between decision and shrinking. What stays dead may hold anything, since nothing needs it: `forget`
has those who would read it multiply it by zero, and masks let it pass, which makes them masks of ones.
"""

from collections.abc import Iterator

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.across_channels import LpNormRule
from scalpel_graph.channels.analysis import Analysis, Pin
from scalpel_graph.channels.concat_split import GatherRule, SliceRule
from scalpel_graph.channels.control_flow import BodyRule
from scalpel_graph.channels.conv import ConvRule, ConvTransposeRule
from scalpel_graph.channels.elementwise import ElementwiseRule, MulRule, WhereRule
from scalpel_graph.channels.gemm_matmul import GemmRule, MatMulRule
from scalpel_graph.channels.liveness import Decision
from scalpel_graph.channels.recurrent import GruRule, LstmRule, RecurrentRule, RnnRule
from scalpel_graph.channels.rule import Kept, Rule
from scalpel_graph.channels.slots import Axis, BoolArray, IntArray
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.target import Target

#: Rules of layers whose weights are plain constants: those of quantized layers are made by another node.
_FORGETFUL = (ConvRule, ConvTransposeRule, GemmRule, MatMulRule, LstmRule, GruRule, RnnRule)


def round_up(analysis: Analysis, decision: Decision, target: Target) -> None:
    """Holds dead slots that make the width of a layer a multiple, or what it was if that is less.

    Classes are kept whole, so that layers whose channels go together stay alike. A layer of which too little
    is needed for that to be faster gets no wider than it has to be, nor does one whose classes do not add up
    to what is missing.

    Args:
        analysis: the facts.
        decision: what has to stay; is changed.
        target: says of what widths are to be multiples, and from which share of that on.
    """
    barred = _classes_of_empty_axes(analysis, decision.live) | _classes_left_out(analysis)
    while decision.hold(_missing(analysis, decision, target, barred)):
        pass


def _missing(analysis: Analysis, decision: Decision, target: Target, barred: BoolArray) -> Iterator[Pin]:
    """For each layer the dead slots that its width lacks."""
    class_of = analysis.class_of
    turns = _turns(analysis, decision)
    for layer, axis in layers(analysis):
        multiple = target.round_channels_to if isinstance(layer, ConvRule) else target.round_features_to
        live = decision.stays(axis.slots)
        needed = int(np.count_nonzero(live))
        missing = min(-needed % multiple, axis.size - needed)
        if not missing or needed < target.round_from * (needed + missing):
            continue
        dead = axis.slots[~live & ~barred[class_of[axis.slots]]]
        dead = dead[np.argsort(turns[class_of[dead]], kind="stable")]
        chosen = _fitting(class_of[dead], missing)
        if chosen.any():
            reason = f"the target wants widths that are multiples of {multiple}"
            yield Pin(dead[chosen], node_label(layer.node), reason)


def _fitting(class_of: IntArray, missing: int) -> BoolArray:
    """Of slots of these classes, the first whole classes that are ``missing`` slots; none if none are."""
    _, first, number, sizes = np.unique(class_of, return_index=True, return_inverse=True, return_counts=True)
    taken: BoolArray = np.zeros(len(sizes), dtype=np.bool_)
    for place in np.argsort(first):
        if sizes[place] <= missing:
            taken[place] = True
            missing -= int(sizes[place])
    return taken[number] if not missing else np.zeros(len(class_of), dtype=np.bool_)


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
    class_of = analysis.class_of
    held: BoolArray = np.zeros(analysis.slots.count, dtype=np.bool_)
    held[class_of[decision.live & ~decision.needed]] = True
    if not held.any():
        return []
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
        for layer, axis in layers(analysis)
    }


def layers(analysis: Analysis) -> Iterator[tuple[Rule, Axis]]:
    """The layers with constant weights, and the axis of what they make."""
    for rule in analysis.rules:
        if isinstance(rule, ConvRule | GemmRule) or (isinstance(rule, MatMulRule) and rule.side is not None):
            yield rule, rule.y
        elif isinstance(rule, RecurrentRule):
            yield rule, rule.units[0]


def _classes_of_empty_axes(analysis: Analysis, live: BoolArray) -> BoolArray:
    """``[slots]``: classes with a slot on an axis that goes as a whole."""
    barred: BoolArray = np.zeros(len(live), dtype=np.bool_)
    for axis in analysis.slots.axes:
        if not live[axis.start : axis.start + axis.size].any():
            barred[analysis.class_of[axis.slots]] = True
    return barred


def _turns(analysis: Analysis, decision: Decision) -> IntArray:
    """``[slots]``: by class, when to keep a dead slot: of the groups of a Conv, one from each in turn."""
    turns: IntArray = np.zeros(analysis.slots.count, dtype=np.int64)
    for rule in analysis.rules:
        if isinstance(rule, ConvRule) and rule.group > 1 and rule.inputs.shape[1] > 1:
            for slots in (rule.inputs, rule.outputs):
                turn = np.cumsum(~decision.stays(slots), axis=1)
                np.maximum.at(turns, analysis.class_of[slots], turn)
    return turns


def _classes_left_out(analysis: Analysis) -> BoolArray:
    """``[slots]``: classes that a Gather or Slice does not hand on: without them it can go."""
    left_out: BoolArray = np.zeros(len(analysis.class_of), dtype=np.bool_)
    for rule in analysis.rules:
        if isinstance(rule, GatherRule | SliceRule):
            for slots in rule.free:
                left_out[analysis.class_of[slots]] = True
    return left_out


def _forget_mask(graph: ModelGraph, rule: Rule, kept: Kept) -> bool:
    """Has a mask let its idle slots pass; says whether it did not before.

    A Mul by a constant gets ones for its zeros, the constant condition of a Where picks for them what it
    picks for all others.
    """
    if isinstance(rule, WhereRule):
        return _forget_condition(graph, rule, kept)
    if not isinstance(rule, MulRule):
        return False
    found = False
    for position, tensor in enumerate(rule.node.inputs):
        values = graph.constant(tensor)
        if values is None:
            continue
        zero = _idle_elements(rule, values.shape, kept) & (values == 0)
        if zero.any():
            kept.replace(graph, rule.node, position, np.where(zero, 1, values).astype(values.dtype))
            found = True
    return found


def _forget_condition(graph: ModelGraph, rule: WhereRule, kept: Kept) -> bool:
    condition = graph.constant(rule.node.inputs[0])
    if condition is None:
        return False
    idle = _idle_elements(rule, condition.shape, kept)
    picked = condition[~idle]
    if not picked.size or (picked != picked[0]).any() or (condition == picked[0]).all():
        return False
    kept.replace(graph, rule.node, 0, np.full_like(condition, picked[0]))
    return True


def _idle_elements(rule: ElementwiseRule, shape: tuple[int, ...], kept: Kept) -> BoolArray:
    """Which elements of a constant of this shape meet idle slots only."""
    idle: BoolArray = np.zeros(shape, dtype=np.bool_)
    for index, made in enumerate(rule.made):
        place = index - len(rule.made) + len(shape)
        if made is not None and place >= 0 and shape[place] == made.size:
            along = [1] * len(shape)
            along[place] = made.size
            idle |= ~kept.live[made.slots].reshape(along)
    return idle


def _forget_inputs(graph: ModelGraph, rule: Rule, idle: BoolArray, kept: Kept) -> bool:
    """Has a layer not read its idle inputs; says whether it did."""
    reads = rule.reads if type(rule) in _FORGETFUL else []
    if not any(read.needs is not None and read.needs.outputs_of(idle[read.inputs]).any() for read in reads):
        return False
    if isinstance(rule, ConvRule):
        _forget_inputs_of_conv(graph, rule, kept)
        return True
    if isinstance(rule, RecurrentRule):
        _forget_units(graph, rule, kept)
        index, inputs_axis = 1, 2
    else:
        assert isinstance(rule, GemmRule | MatMulRule)
        index = 1 if isinstance(rule, GemmRule) or rule.side is None else rule.side
        inputs_axis = rule.inputs_axis if isinstance(rule, GemmRule) else 1 - index
    before = rule.weight(index, "weight")
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


def _forget_units(graph: ModelGraph, rule: RecurrentRule, kept: Kept) -> None:
    """Has a recurrent layer not read its idle hidden units, which are zero where it does."""
    weight = rule.weight(2, "R")
    idle = ~kept.live[rule.units[0].slots]
    if weight[:, :, idle].any():
        kept.replace(graph, rule.node, 2, np.where(idle, np.zeros((), weight.dtype), weight))


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
