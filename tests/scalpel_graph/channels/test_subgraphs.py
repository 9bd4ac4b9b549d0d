"""If, Loop and Scan: channels go inside and outside of their bodies, and through their inputs and outputs."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import AttributeProto, GraphProto, ModelProto, helper, numpy_helper, parser

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import EXACT, model, outputs, random, random_feeds, reasons, run

C = 8
DEAD = [1, 4, 6]


def dead(*shape: int, rows: Any = DEAD, seed: int = 0) -> Any:
    values = random(*shape, seed=seed)
    values[rows] = 0
    return values


def bodies_of(graph: GraphProto) -> Iterator[GraphProto]:
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield attribute.g
                yield from bodies_of(attribute.g)


def move_into_bodies(proto: ModelProto, *names: str) -> ModelProto:
    """Makes initializers belong to the innermost bodies that read them, a copy for each."""
    for tensor in list(proto.graph.initializer):
        if tensor.name in names:
            proto.graph.initializer.remove(tensor)
            for body in bodies_of(proto.graph):
                if any(tensor.name in node.input for node in body.node):
                    body.initializer.append(tensor)
    return proto


def weights_left(proto: ModelProto) -> dict[str, tuple[int, ...]]:
    """The shapes of weights, wherever they are, by the names they had."""
    return {
        tensor.name.split("_of_")[0]: tuple(tensor.dims)
        for graph in (proto.graph, *bodies_of(proto.graph))
        for tensor in graph.initializer
    }


def shrink(proto: ModelProto, *feeds: Mapping[str, Any]) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """What is left of the weights, and reasons. Outputs stay for all feeds, and a second run does nothing."""
    first, *rest = feeds or ({},)
    out, records = run(proto, RemoveChannels(), feeds=first)
    for others in rest:
        given = {**random_feeds(proto), **others}
        for before, after in zip(outputs(proto, given), outputs(out, given), strict=True):
            assert before.shape == after.shape
            np.testing.assert_allclose(after, before, rtol=1e-4, atol=1e-4)
    again, again_records = run(out, RemoveChannels(), feeds=first)
    assert not again_records["remove-channels"].modified
    assert again.SerializeToString(deterministic=True) == out.SerializeToString(deterministic=True)
    return weights_left(out), reasons(records["remove-channels"])


BOTH = ({"c": np.array(True)}, {"c": np.array(False)})
COUNTS = tuple({"times": np.array(count)} for count in (0, 1, 3))
IF = "(float[N, 3, 4, 4] X, bool c) => (float[N, 4, 4, 4] Y)"
LOOP = "(float[N, 3, 4, 4] X, int64 times) => (float[N, 4, 4, 4] Y)"


# -- If -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("inside", [False, True], ids=["captured weights", "own weights"])
def test_if_loses_what_is_dead_in_both_branches_or_unread(inside):
    """Of Z channel 2 is dead in both branches, 0 and 5 in one, 3 is unread; A and B lose dead inputs."""
    weights = {
        "W": dead(C, 3, 1, 1),
        "A": dead(6, C, 1, 1, rows=[0, 2], seed=1),
        "B": dead(6, C, 1, 1, rows=[2, 5], seed=2),
        "V": random(4, 6, 1, 1, seed=3),
    }
    weights["V"][:, 3] = 0
    text = f"""{IF} {{
        p = Conv(X, W) r = Relu(p)
        Z = If(c) <then_branch = one () => (a) {{ t = Conv(r, A) a = Relu(t) }},
                   else_branch = two () => (b) {{ t = Conv(r, B) b = Neg(t) }}>
        Y = Conv(Z, V) }}"""
    proto = model(text, weights)
    if inside:
        move_into_bodies(proto, "A", "B")
    left, why = shrink(proto, *BOTH)
    assert {name: shape[:2] for name, shape in left.items()} == {
        "W": (5, 3),
        "A": (4, 5),
        "B": (4, 5),
        "V": (4, 4),
    }
    assert "2 channels" in why["Z"] and "its branches" in why["Z"]


@pytest.mark.parametrize("same", [True, False])
def test_if_is_constant_where_both_branches_hold_the_same(same):
    """Channels 1, 4 and 6 hold sigmoid(bias) in both branches: of one bias, or of two."""
    weights = {
        "A": dead(C, 3, 1, 1),
        "B": dead(C, 3, 1, 1, seed=1),
        "a_bias": random(C, seed=2),
        "b_bias": random(C, seed=2 if same else 3),
        "V": random(4, C, 1, 1, seed=4),
    }
    text = f"""{IF} {{
        Z = If(c) <then_branch = one () => (a) {{ t = Conv(X, A, a_bias) a = Sigmoid(t) }},
                   else_branch = two () => (b) {{ t = Conv(X, B, b_bias) b = Sigmoid(t) }}>
        Y = Conv(Z, V) }}"""
    left, why = shrink(model(text, weights), *BOTH)
    width = 5 if same else C
    assert (left["A"][0], left["B"][0], left["V"][1]) == (width, width, width)
    assert same or "its branches do not hold the same number" in why["Z"]


def test_a_branch_that_holds_a_constant():
    """One branch makes zeros where the other is dead: both an initializer and a Constant node are sliced."""
    zeros = helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(dead(1, C, 4, 4, rows=0)))
    values = random(1, C, 4, 4, seed=5)
    values[:, DEAD] = 0
    text = f"""{IF} {{
        Z = If(c) <then_branch = one () => (float[1, 8, 4, 4] k) {{ }},
                   else_branch = two () => (b) {{ t = Conv(X, B) m = ReduceMean<axes = [0]>(t) b = Relu(m) }}>
        P = Conv(Z, V) Y = Add(P, X4) }}"""
    weights = {"B": dead(C, 3, 1, 1, seed=1), "V": random(4, C, 1, 1, seed=4), "X4": random(2, 4, 4, 4)}
    for node in (False, True):
        proto = model(text, weights)
        branch = next(a.g for n in proto.graph.node for a in n.attribute if a.name == "then_branch")
        if node:
            zeros.attribute[0].t.CopyFrom(numpy_helper.from_array(values, ""))
            branch.node.append(zeros)
        else:
            branch.initializer.append(numpy_helper.from_array(values, "k"))
        onnx.checker.check_model(proto)
        left, _ = shrink(proto, *BOTH)
        assert (left["B"][0], left["V"][1], left["k"][1]) == (5, 5, 5)


def test_a_mask_that_makes_a_body_s_output_stays():
    """A body has to make its outputs itself: what comes from outside cannot be handed on as it is."""
    mask = np.ones((C, 1, 1), dtype=np.float32)
    mask[DEAD] = 0
    weights = {"W": random(C, 3, 1, 1), "M": mask, "V": random(4, C, 1, 1, seed=4)}
    text = f"""{IF} {{
        r = Conv(X, W)
        Z = If(c) <then_branch = one () => (a) {{ a = Mul(r, M) }},
                   else_branch = two () => (b) {{ t = Relu(r) u = Mul(t, M) b = Neg(u) }}>
        Y = Conv(Z, V) }}"""
    proto = model(text, weights)
    left, _ = shrink(proto, *BOTH)
    assert (left["W"][0], left["M"][0], left["V"][1]) == (5, 5, 5)
    out, _ = run(proto, RemoveChannels(), feeds=BOTH[0])
    assert [[node.op_type for node in body.node] for body in bodies_of(out.graph)] == [
        ["Mul"],
        ["Relu", "Neg"],
    ]


def test_widths_of_layers_in_bodies_are_rounded():
    """Of 8 channels 3 are dead: 5 stay, 6 where widths are to be even, all for multiples of 4."""
    weights = {
        "W": random(C, 3, 1, 1), "A": dead(C, C, 1, 1, seed=1), "B": dead(C, C, 1, 1, seed=2),
        "V": random(4, C, 1, 1),
    }  # fmt: skip
    text = f"""{IF} {{
        r = Conv(X, W)
        Z = If(c) <then_branch = one () => (a) {{ a = Conv(r, A) }},
                   else_branch = two () => (b) {{ b = Conv(r, B) }}>
        Y = Conv(Z, V) }}"""
    for multiple, width in ((1, 5), (2, 6), (4, 8)):
        target = replace(EXACT, round_channels_to=multiple, round_from=0.0)
        for feeds in BOTH:
            context = PassContext(target)
            out, _ = run(model(text, weights), RemoveChannels(), context=context, feeds=feeds)
        left = weights_left(out)
        assert (left["A"][0], left["B"][0], left["V"][1]) == (width, width, width)
        removed = {entry.name: (entry.before, entry.after) for entry in context.removed_nodes}
        assert removed.get("Z/then_branch/a", (8, 8)) == removed.get("Z/else_branch/b", (8, 8)) == (8, width)


def test_nested_if():
    weights = {
        "W": dead(C, 3, 1, 1),
        **{name: dead(6, C, 1, 1, rows=[0, number], seed=number) for number, name in enumerate("ABD", 1)},
        "V": random(4, 6, 1, 1, seed=9),
    }
    text = """(float[N, 3, 4, 4] X, bool c, bool d) => (float[N, 4, 4, 4] Y) {
        p = Conv(X, W) r = Relu(p)
        Z = If(c) <then_branch = one () => (a) {
                s = Relu(r)
                t = If(d) <then_branch = three () => (a) { a = Conv(s, A) },
                           else_branch = four () => (a) { a = Conv(r, B) }>
                a = Relu(t) },
            else_branch = two () => (b) { b = Conv(r, D) }>
        Y = Conv(Z, V) }"""
    proto = model(text.replace("three () => (a) { a =", "three () => (u) { u =").replace(
        "four () => (a) { a =", "four () => (u) { u ="), weights)  # fmt: skip
    feeds = [{"c": np.array(c), "d": np.array(d)} for c in (False, True) for d in (False, True)]
    left, _ = shrink(proto, *feeds)
    assert {name: shape[:2] for name, shape in left.items()} == {
        "W": (5, 3), "A": (5, 5), "B": (5, 5), "D": (5, 5), "V": (4, 5),
    }  # fmt: skip


def test_a_weight_that_is_read_inside_and_outside():
    """Copied on change: outside nothing of it is dead, in a branch its outputs are half unread."""
    weights = {"W": random(C, 3, 1, 1), "V": random(4, C, 1, 1), "V2": random(4, C, 1, 1, seed=1)}
    weights["V2"][:, DEAD] = 0
    text = """(float[N, 3, 4, 4] X, bool c) => (float[N, 4, 4, 4] Y, float[N, 4, 4, 4] Z) {
        p = Conv(X, W) Y = Conv(p, V)
        Z = If(c) <then_branch = one () => (a) { t = Conv(X, W) a = Conv(t, V2) },
                   else_branch = two () => (b) { t = Conv(X, W) r = Relu(t) b = Conv(r, V2) }> }"""
    proto = model(text, weights)
    out, _ = run(proto, RemoveChannels(), feeds=BOTH[0])
    shapes = {tensor.name: tuple(tensor.dims) for tensor in out.graph.initializer}
    assert shapes["W"] == (C, 3, 1, 1) and shapes["V"] == (4, C, 1, 1)
    # Both branches share the smaller copies, which stand outside.
    smaller = {name: shape for name, shape in shapes.items() if name not in ("W", "V")}
    assert sorted(smaller.values()) == [(4, 5, 1, 1), (5, 3, 1, 1)]
    shrink(proto, *BOTH)


def test_constants_go_into_biases_inside_of_a_body():
    """The constant sigmoid(bias) of an outer layer goes into a Gemm and behind a MatMul inside."""
    weights = {
        "W": dead(C, 3), "bias": random(C, seed=1), "A": random(C, 4, seed=2), "B": random(4, C, seed=3),
    }  # fmt: skip
    text = """(float[N, 3] X, bool c) => (float[N, 4] Y) {
        p = Gemm<transB = 1>(X, W, bias) r = Sigmoid(p)
        Y = If(c) <then_branch = one () => (a) { t = MatMul(r, A) a = Relu(t) },
                   else_branch = two () => (b) { t = Gemm<transB = 1>(r, B) b = Tanh(t) }> }"""
    left, _ = shrink(model(text, weights), *BOTH)
    assert (left["W"][0], left["A"][0], left["B"][1]) == (5, 5, 5)


def test_shapes_that_a_body_states_are_those_that_are_left():
    weights = {"W": dead(C, 3, 1, 1), "A": random(4, C, 1, 1, seed=1)}
    text = f"""{IF} {{
        Y = If(c) <then_branch = one () => (float[N, 4, 4, 4] a) <float[N, 8, 4, 4] t>
                       {{ t = Conv(X, W) a = Conv(t, A) }},
                   else_branch = two () => (float[N, 4, 4, 4] b) {{ b = Conv(X, S) }}> }}"""
    out, _ = run(model(text, {**weights, "S": random(4, 3, 1, 1)}), RemoveChannels(), feeds=BOTH[0])
    (value,) = next(bodies_of(out.graph)).value_info
    assert [dim.dim_value for dim in value.type.tensor_type.shape.dim] == [0, 5, 4, 4]


# -- Loop ---------------------------------------------------------------------------------------------------


def in_loop(body: str, before: str = "i = Conv(X, W)") -> str:
    """A loop whose state is i before, v and w in an iteration, L behind, which V reads."""
    return f"""{LOOP} <float[N, 8, 4, 4] L> {{
        go = Constant<value_int = 1>() yes = Cast<to = 9>(go)
        {before}
        L = Loop(times, yes, i)
            <body = one (int64 n, bool on, float[N, 8, 4, 4] v) => (bool out, float[N, 8, 4, 4] w) {{
                out = Identity(on) {body} }}>
        Y = Conv(L, V) }}"""


def test_a_state_that_stays_zero():
    """Zero at the start in 1, 4 and 6, of which an iteration leaves 1 and 4 as they are; 5 ends as zero."""
    weights = {"W": dead(C, 3, 1, 1), "U": dead(C, C, 1, 1, rows=[1, 4, 5], seed=1), "V": random(4, C, 1, 1)}
    left, why = shrink(model(in_loop("t = Conv(v, U) w = Relu(t)"), weights), *COUNTS)
    assert (left["W"][0], left["U"][:2], left["V"][1]) == (6, (6, 6), 6)
    assert "they change from one iteration to the next" in why["L"]


def test_what_is_assumed_of_a_state_is_taken_back():
    """All start as zero but 0; each gets what the one before it had: none is zero in the end."""
    shift = np.zeros((C, C, 1, 1), dtype=np.float32)
    shift[np.arange(1, 6), np.arange(5)] = 1.5
    shift[0, 0] = shift[6, 6] = shift[7, 7] = 1.0
    weights = {"W": dead(C, 3, 1, 1, rows=slice(1, None)), "U": shift, "V": random(4, C, 1, 1)}
    left, _ = shrink(model(in_loop("w = Conv(v, U)"), weights), *COUNTS, {"times": np.array(9)})
    assert (left["W"][0], left["U"][:2], left["V"][1]) == (6, (6, 6), 6)


def test_a_long_chain_of_assumptions_is_given_up():
    """Taken back one by one for some rounds, then all at once, also what would have held."""
    shift = np.zeros((32, 32, 1, 1), dtype=np.float32)
    shift[np.arange(1, 30), np.arange(29)] = 1.5
    shift[0, 0] = shift[30, 30] = shift[31, 31] = 1.0
    weights = {"W": dead(32, 3, 1, 1, rows=slice(1, None)), "U": shift, "V": random(4, 32, 1, 1)}
    text = in_loop("w = Conv(v, U)").replace("float[N, 8, 4, 4]", "float[N, 32, 4, 4]")
    left, _ = shrink(model(text, weights), *COUNTS)
    assert left["U"][:2] == (32, 32)


def test_a_state_that_stays_another_number():
    """Channels 1, 4 and 6 start as sigmoid(bias) and are multiplied by one."""
    scale = random(C, 1, 1, seed=3)
    scale[DEAD] = 1
    weights = {"W": dead(C, 3, 1, 1), "bias": random(C, seed=2), "S": scale, "V": random(4, C, 1, 1)}
    text = in_loop("w = Mul(v, S)", before="j = Conv(X, W, bias) i = Sigmoid(j)")
    left, _ = shrink(model(text, weights), *COUNTS)
    assert (left["W"][0], left["S"][0], left["V"][1]) == (5, 5, 5)


def test_a_state_that_nothing_reads():
    """Channels 0 to 3 only need each other, and V does not read them."""
    mix = np.zeros((C, C, 1, 1), dtype=np.float32)
    mix[:4, :4], mix[4:, 4:] = random(4, 4, 1, 1), random(4, 4, 1, 1, seed=1)
    weights = {"W": random(C, 3, 1, 1), "U": mix, "V": random(4, C, 1, 1)}
    weights["V"][:, :4] = 0
    left, _ = shrink(model(in_loop("t = Conv(v, U) a = Tanh(t) w = Add(v, a)"), weights), *COUNTS)
    assert (left["W"][0], left["U"][:2], left["V"][1]) == (4, (4, 4), 4)


def test_a_norm_of_a_state_counts_what_an_iteration_changes():
    """The norm is taken of all channels but those that stay zero: not of 2, which only starts as zero."""
    mix = random(C, C, seed=1)
    mix[[1, 4], :] = 0
    weights = {"W": dead(C, 3, rows=[1, 2, 4]), "U": mix, "V": random(4, C)}
    text = """(float[N, 3] X, int64 times) => (float[N, 4] Y) {
        i = Gemm<transB = 1>(X, W)
        L = Loop(times, , i) <body = one (int64 n, bool on, v) => (bool out, w) {
            out = Identity(on) p = LpNormalization<axis = 1, p = 2>(v) w = Gemm<transB = 1>(p, U) }>
        Y = Gemm<transB = 1>(L, V) }"""
    text = text.replace(" v)", " float[N, 8] v)").replace(" w)", " float[N, 8] w)")
    left, _ = shrink(model(text, weights), *COUNTS)
    assert (left["W"][0], left["U"], left["V"][1]) == (6, (6, 6), 6)


def test_a_dead_state_that_a_width_keeps_does_not_grow():
    """Masked channels of a state that stay for a rounder width stay masked: else they grow to infinity."""
    mask, growth = np.ones((C, 1, 1), dtype=np.float32), np.full((C, 1, 1), 0.5, dtype=np.float32)
    mask[DEAD], growth[DEAD] = 0, 4
    weights = {"W": random(C, 3, 1, 1), "S": mask, "G": growth, "V": random(4, C, 1, 1)}
    text = in_loop("g = Mul(v, G) a = Add(g, j) w = Mul(a, S)", before="j = Conv(X, W) i = Mul(j, S)")
    for multiple, width in ((1, 5), (4, C)):
        context = PassContext(replace(EXACT, round_channels_to=multiple, round_from=0.0))
        feeds = {"times": np.array(200)}
        out, _ = run(model(text, weights), RemoveChannels(), context=context, feeds=feeds)
        assert weights_left(out)["V"][1] == width


def test_a_state_that_starts_as_an_initializer():
    start = random(2, C, 4, 4, seed=5)
    start[:, DEAD] = 0
    weights = {"start": start, "U": dead(C, C, 1, 1, seed=1), "V": random(4, C, 1, 1)}
    body = "t = Conv(v, U) m = ReduceMean<axes = [1]>(X) s = Sigmoid(m) w = Mul(t, s)"
    text = in_loop(body, before="").replace("yes, i)", "yes, start)")
    left, _ = shrink(model(text, weights), *COUNTS)
    assert (left["start"][1], left["U"][:2], left["V"][1]) == (5, (5, 5), 5)


def test_what_a_loop_collects():
    """Channels are axis 1 inside and axis 2 of what is collected, whose sum over all iterations V reads."""
    weights = {"A": dead(C, 3, 1, 1), "V": random(4, C, 1, 1)}
    text = f"""{LOOP} <float[T, N, 8, 4, 4] S, float[N, 3, 4, 4] L> {{
        go = Constant<value_int = 1>() yes = Cast<to = 9>(go)
        L, S = Loop(times, yes, X)
            <body = one (int64 n, bool on, float[N, 3, 4, 4] v) => (bool out, float[N, 3, 4, 4] w, s) {{
            out = Identity(on) w = Sigmoid(v) s = Conv(w, A) }}>
        m = ReduceSum<keepdims = 0>(S, zero) Y = Conv(m, V) }}"""
    left, _ = shrink(model(text, {**weights, "zero": np.array([0])}), *COUNTS[1:])
    assert (left["A"][0], left["V"][1]) == (5, 5)


def test_an_if_in_a_loop_with_weights_of_its_own():
    """Channels 1 and 4 start as zero and stay so in both branches, which have one name for two tensors."""
    weights = {
        "W": dead(C, 3, 1, 1),
        "A": dead(C, C, 1, 1, rows=[1, 4], seed=1),
        "B": dead(C, C, 1, 1, rows=[1, 4, 6], seed=2),
        "V": random(4, C, 1, 1),
        "two": np.array(2),
        "one": np.array(1),
    }
    body = """
        r = Mod(n, two) odd = Equal(r, one)
        w = If(odd) <then_branch = three () => (y) { x = Conv(v, A) y = Tanh(x) },
                     else_branch = four () => (y) { x = Conv(v, B) y = Relu(x) }>"""
    proto = move_into_bodies(model(in_loop(body), weights), "A", "B")
    left, _ = shrink(proto, *COUNTS)
    assert (left["W"][0], left["A"][:2], left["B"][:2], left["V"][1]) == (6, (6, 6), (6, 6), 6)


def test_a_loop_in_a_loop():
    weights = {"W": dead(C, 3, 1, 1), "U": dead(C, C, 1, 1, rows=[1, 4, 5], seed=1), "V": random(4, C, 1, 1)}
    body = """
        w = Loop(times, on, v) <body = two (int64 k, bool on2, float[N, 8, 4, 4] a)
                => (bool out2, float[N, 8, 4, 4] b) {
            out2 = Identity(on2) t = Conv(a, U) b = Relu(t) }>"""
    left, _ = shrink(model(in_loop(body), weights), *COUNTS)
    assert (left["W"][0], left["U"][:2], left["V"][1]) == (6, (6, 6), 6)


# -- Scan ---------------------------------------------------------------------------------------------------


def test_scan():
    """Zero are features 1, 4 and 6 of what is scanned, 1 and 4 of the state, 0 of what is collected."""
    weights = {
        "W": dead(C, 3), "start": np.zeros((2, C), np.float32), "U": dead(C, C, rows=[1, 4], seed=1).T.copy(),
        "R": random(C, C, seed=2), "A": dead(C, C, rows=[0], seed=3).T.copy(), "V": random(C, 4, seed=4),
        "P": random(C, 4, seed=5),
    }  # fmt: skip
    weights["R"][:, [1, 4]] = 0
    text = """(float[T, 2, 3] X) => (float[T, 2, 4] Y, float[2, 4] Q) {
        Wt = Transpose(W) x = MatMul(X, Wt)
        L, S = Scan<num_scan_inputs = 1, scan_output_axes = [AXIS], body = one (float[2, 8] v, float[2, 8] e)
                => (float[2, 8] w, float[2, 8] s) {
            t = MatMul(e, U) u = MatMul(v, R) w = Add(t, u) h = Tanh(w) s = MatMul(h, A) }>(start, x)
        AFTER Y = MatMul(Z, V) Q = MatMul(L, P) }"""
    for axis, after in ((0, "Z = Identity(S)"), (1, "Z = Transpose<perm = [1, 0, 2]>(S)")):
        constant = {**weights, "Wt": weights["W"].T.copy()}
        written = text.replace("AXIS", str(axis)).replace("AFTER", after).replace("Wt = Transpose(W)", "")
        left, _ = shrink(model(written, {n: v for n, v in constant.items() if n != "W"}))
        assert left == {
            "Wt": (3, 5), "start": (2, 6), "U": (5, 6), "R": (6, 6), "A": (6, 7), "V": (7, 4), "P": (6, 4),
        }  # fmt: skip


def test_a_scan_of_opset_8_keeps_what_it_touches():
    """It has a batch axis, and another input in front."""
    weights = {"Wt": dead(C, 3).T.copy(), "V": random(C, 4)}
    text = """(float[1, 5, 3] X) => (float[1, 5, 4] Y) {
        x = MatMul(X, Wt)
        S = Scan<num_scan_inputs = 1, body = one (float[8] e) => (float[8] s) { s = Tanh(e) }>(, x)
        Y = MatMul(S, V) }"""
    left, why = shrink(model(text, weights, opset=8))
    assert left == {"Wt": (3, C), "V": (C, 4)}
    assert "before opset 9 it has a batch axis" in why["S"]


# -- what stays ---------------------------------------------------------------------------------------------


def test_an_unknown_operator_in_a_body_keeps_what_it_touches():
    weights = {"W": dead(C, 3, 1, 1), "A": random(4, C, 1, 1), "B": random(4, C, 1, 1)}
    text = f"""{IF} {{
        r = Conv(X, W)
        Y = If(c) <then_branch = one () => (a) {{ t = Trilu(r) a = Conv(t, A) }},
                   else_branch = two () => (b) {{ b = Conv(r, B) }}> }}"""
    left, why = shrink(model(text, weights), *BOTH)
    assert left["W"][0] == C
    assert "there is no rule for Trilu" in why["Y/then_branch/t"]


def without_shapes(proto: ModelProto) -> ModelProto:
    """The states of loops, and what comes out of them, have no stated shapes, as most exporters have it."""
    del proto.graph.value_info[:]
    for body in bodies_of(proto.graph):
        for value in (*body.input[2:], *body.output[1:]):
            value.type.tensor_type.ClearField("shape")
    return proto


def test_a_state_whose_shape_is_not_stated():
    weights = {"W": dead(C, 3, 1, 1), "U": dead(C, C, 1, 1, rows=[1, 4, 5], seed=1), "V": random(4, C, 1, 1)}
    body = """
        x = Loop(times, on, v) <body = two (int64 k, bool on2, float[N, 8, 4, 4] a)
                => (bool out2, float[N, 8, 4, 4] b) {
            out2 = Identity(on2) t = Conv(a, U) b = Relu(t) }>
        w = Tanh(x)"""
    left, _ = shrink(without_shapes(model(in_loop(body), weights)), *COUNTS)
    assert (left["W"][0], left["U"][:2], left["V"][1]) == (6, (6, 6), 6)


def test_a_state_whose_batch_grows():
    """Every iteration doubles the batch, whose mean is taken behind the loop; channels stay what they are."""
    weights = {"W": dead(C, 3, 1, 1), "V": random(4, C, 1, 1)}
    text = in_loop("w = Tile(v, twice)").replace("Y = Conv(L, V)", "m = Conv(L, V) Y = Add(X4, Z)")
    text = text.replace("Y = Add", "Z = ReduceMean<axes = [0]>(m) Y = Add")
    proto = without_shapes(
        model(text, {**weights, "X4": random(2, 4, 4, 4), "twice": np.array([2, 1, 1, 1])})
    )
    left, _ = shrink(proto, *COUNTS)
    assert (left["W"][0], left["V"][1]) == (5, 5)


def test_a_state_whose_rank_changes_stays():
    weights = {
        "W": dead(C, 3, 1, 1),
        "V": random(4, C, 1, 1),
        "shape": np.array([-1, C, 4, 4]),
        "zero": np.array([0]),
    }
    text = in_loop("w = Unsqueeze(v, zero)").replace("Conv(L, V)", "Conv(r, V)")
    text = text.replace(" Y = Conv", " r = Reshape(L, shape) Y = Conv")
    left, why = shrink(without_shapes(model(text, weights)), *COUNTS)
    assert (left["W"][0], left["V"][1]) == (C, C)
    assert "not known to be the same inside and outside" in why["L"]


def test_a_local_function_that_holds_an_if_keeps_what_it_touches():
    weights = {"W": dead(C, 3, 1, 1), "V": random(4, C, 1, 1)}
    proto = model(f"{IF} {{ p = Conv(X, W) Y = Conv(p, V) }}", weights)
    function = parser.parse_function("""
        <domain: "custom", opset_import: ["" : 17]> Choose (c, x) => (y) {
            y = If(c) <then_branch = one () => (a) { a = Relu(x) },
                       else_branch = two () => (b) { b = Neg(x) }>
        }""")
    proto.functions.append(function)
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    proto.graph.node.insert(1, helper.make_node("Choose", ["c", "p"], ["z"], domain="custom"))
    proto.graph.node[2].input[0] = "z"
    left, why = shrink(proto, *BOTH)
    assert left["W"][0] == C
    assert "there is no rule for Choose of domain custom" in why["z"]


def test_another_kind_of_subgraph_stays_closed():
    """SequenceMap holds one; what it reads stays, with the body that holds it."""
    weights = {"W": dead(C, 3, 1, 1), "A": random(4, C, 1, 1), "B": random(4, C, 1, 1)}
    mapped = """q = SequenceConstruct(X)
        m = SequenceMap<body = three (float[N, 3, 4, 4] e) => (f) { g = Conv(r, A) f = Identity(g) }>(q)"""
    text = f"""{IF} {{
        r = Conv(X, W) {mapped} s = SequenceAt(m, zero)
        u = Conv(r, B) Y = Add(s, u) }}"""
    left, why = shrink(model(text, {**weights, "zero": np.array(0)}), *BOTH)
    assert left["W"][0] == C
    assert "a subgraph reads it" in why["r"]


def test_bodies_that_nothing_changes_in_are_left_byte_for_byte():
    text = f"""{IF} {{
        Y = If(c) <then_branch = one () => (a)
                       {{ k = Constant<value_float = 2.0>() t = Conv(X, A) a = Mul(t, k) }},
                   else_branch = two () => (b) {{ t = Conv(X, A) b = Relu(t) }}> }}"""
    proto = model(text, {"A": random(4, 3, 1, 1)})
    out, records = run(proto, RemoveChannels(), feeds=BOTH[0])
    assert not records["remove-channels"].modified
    assert out.graph.node[0].SerializeToString() == proto.graph.node[0].SerializeToString()
    graph = ModelGraph(proto)
    assert graph.bodies is None
