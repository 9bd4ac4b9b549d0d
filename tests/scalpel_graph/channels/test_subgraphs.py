"""If, Loop and Scan: what their bodies read of the outside stays, everything else shrinks."""

import numpy as np
import pytest

from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, random, reasons, run
from tests.scalpel_graph.channels.left import left_of

C = 8
DEAD = [1, 4, 6]


def half_dead(*shape, seed=0):
    values = random(*shape, seed=seed)
    values[DEAD] = 0
    return values


WEIGHTS = {
    "W": half_dead(C, 3, 1, 1),
    "U": half_dead(C, C, 1, 1, seed=1),
    "V": random(4, C, 1, 1, seed=2),
    "S": random(C, 1, 1, seed=3),
    "yes": np.array(True),
    "times": np.array(2),
}
LAYERS = "p = Conv(X, W) r = Relu(p) q = Conv(r, U)"

IF = """
    Z = If(yes) <then_branch = one () => (a) { a = Relu(NAME) },
                 else_branch = two () => (b) { b = Neg(NAME) }>
"""
LOOP = """
    Z = Loop(times, yes, X) <body = one (int64 i, bool go, float[N, 3, 4, 4] v)
            => (bool on, float[N, 3, 4, 4] w) {
        on = Identity(go) m = ReduceMean<axes = [1]>(NAME) w = Add(v, m) }>
"""
SCAN = """
    Z = Scan<num_scan_inputs = 1, body = one (float[3, 4, 4] v) => (float[3, 4, 4] w) {
        m = ReduceMean<axes = [0, 1], keepdims = 0>(NAME) w = Add(v, m) }>(X)
"""
NESTED = """
    Z = If(yes) <then_branch = one () => (a) {
            a = If(yes) <then_branch = three () => (c) { c = Relu(NAME) },
                         else_branch = four () => (d) { d = Neg(NAME) }> },
        else_branch = two () => (b) { b = Neg(NAME) }>
"""


def widths(text, weights=WEIGHTS, made="float[N, 4, 4, 4] Y, float[N, D1, D2, D3] Z"):
    out, records = run(model(f"(float[N, 3, 4, 4] X) => ({made}) {{ {text} }}", weights), RemoveChannels())
    again, again_records = run(out, RemoveChannels())
    assert not again_records["remove-channels"].modified
    values = left_of(again)
    return values["W"].shape[0], values["U"].shape[:2], reasons(records["remove-channels"])


@pytest.mark.parametrize("body", [IF, LOOP, NESTED], ids=["If", "Loop", "nested If"])
def test_what_a_body_reads_stays(body):
    inside = body.replace("NAME", "q")
    first, second, why = widths(f"{LAYERS} {inside} Y = Conv(q, V)")
    assert (first, second) == (5, (C, 5))
    assert "a subgraph reads it" in why["q"]
    inside = body.replace("NAME", "r")
    first, second, why = widths(f"{LAYERS} {inside} Y = Conv(q, V)")
    assert (first, second) == (C, (5, C))
    assert "a subgraph reads it" in why["r"]


def test_a_scan_body():
    inside = SCAN.replace("NAME", "q")
    first, second, _ = widths(
        f"{LAYERS} {inside} Y = Conv(q, V)", made="float[N, 4, 4, 4] Y, float[N, 3, 4, 4] Z"
    )
    assert (first, second) == (5, (C, 5))


@pytest.mark.parametrize("body", [IF, LOOP], ids=["If", "Loop"])
def test_everything_shrinks_where_a_body_reads_something_else(body):
    inside = body.replace("NAME", "X")
    assert widths(f"{LAYERS} {inside} Y = Conv(q, V)")[:2] == (5, (5, 5))


def test_what_comes_out_of_a_body_stays():
    inside = IF.replace("NAME", "X").replace("Z =", "z =")
    text = f"{inside} p = Conv(z, W) r = Relu(p) q = Conv(r, U) Y = Conv(q, V)"
    assert widths(text, made="float[N, 4, 4, 4] Y")[:2] == (5, (5, 5))


def test_weights_that_a_body_reads_stay_for_it():
    """The body sees the weight as it was; the layer outside gets a smaller copy."""
    inside = """
        Z = If(yes) <then_branch = one () => (a) { c = Conv(X, W) a = Mul(c, S) },
                     else_branch = two () => (b) { d = Conv(X, W) b = Neg(d) }>
    """
    proto = model(
        "(float[N, 3, 4, 4] X) => (float[N, 4, 4, 4] Y, float[N, 8, 4, 4] Z)"
        f" {{ {LAYERS} {inside} Y = Conv(q, V) }}",
        WEIGHTS,
    )
    out, _ = run(proto, RemoveChannels())
    weights = {tensor.name: tuple(tensor.dims) for tensor in out.graph.initializer}
    assert weights["W"] == (C, 3, 1, 1)
    assert weights[out.graph.node[0].input[1]] == (5, 3, 1, 1)
