"""Channels that are cut into halves and joined again: Split, Slice and Gather in all their forms."""

import numpy as np
import pytest

from scalpel_graph.passes.clean_up import CleanUp
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, op_types, random, run, weights_of
from tests.scalpel_graph.channels.left import left_of

HALF = 6

#: Ways to halve Y [N, 12, 6, 6] into P and Q; their constants; the opset.
WAYS = {
    "stated": ("P, Q = Split<axis = 1>(Y, sizes)", {"sizes": np.array([HALF, HALF])}, 17),
    "not stated": ("P, Q = Split<axis = 1>(Y)", {}, 17),
    "counted": ("P, Q = Split<axis = 1, num_outputs = 2>(Y)", {}, 18),
    "as an attribute": ("P, Q = Split<axis = 1, split = [6, 6]>(Y)", {}, 11),
    "from behind": ("P, Q = Split<axis = -3>(Y)", {}, 17),
    "slices": (
        "P = Slice(Y, zero, half, one) Q = Slice(Y, half, end, one)",
        {"zero": np.array([0]), "half": np.array([HALF]), "end": np.array([2**62]), "one": np.array([1])},
        17,
    ),
    "slices from behind": (
        "P = Slice(Y, zero, half, axis) Q = Slice(Y, half, end, axis)",
        {"zero": np.array([-12]), "half": np.array([-HALF]), "end": np.array([12]), "axis": np.array([-3])},
        17,
    ),
    "gathers": (
        "P = Gather<axis = 1>(Y, low) Q = Gather<axis = 1>(Y, high)",
        {"low": np.arange(HALF), "high": np.arange(HALF) - HALF},
        17,
    ),
    "every other one": (
        "P = Slice(Y, zero, end, one, two) Q = Slice(Y, one, end, one, two)",
        {"zero": np.array([0]), "one": np.array([1]), "end": np.array([2**62]), "two": np.array([2])},
        17,
    ),
}


def block(way, dead, second=()):
    """As in YOLOv8: one half goes through a layer, which is added, and all are joined."""
    text, constants, opset = WAYS[way]
    first, inner = random(2 * HALF, 2, 1, 1), random(HALF, HALF, 1, 1, seed=2)
    first[list(dead)], inner[list(second)] = 0, 0
    return model(
        f"""(float[N, 2, 6, 6] X) => (Out) {{
            Y = Conv(X, A) {text} R = Conv(Q, B) S = Add(Q, R) J = Concat<axis = 1>(P, Q, S)
            Out = Conv(J, C) }}""",
        {"A": first, "B": inner, "C": random(4, 3 * HALF, 1, 1, seed=3), **constants},
        opset=opset,
    )


@pytest.mark.parametrize("way", WAYS)
def test_all_that_is_dead_goes(way):
    strided = way == "every other one"
    place = (lambda half, i: 2 * i + half) if strided else (lambda half, i: HALF * half + i)
    dead = [place(0, 0), place(0, 3), place(0, 4), place(1, 1), place(1, 5)]
    out, records = run(block(way, dead, second=(1, 5)), RemoveChannels())
    left = left_of(out)
    assert left["A"].shape[0] == 7
    assert left["B"].shape[:2] == (4, 4)
    assert left["C"].shape[1] == 3 + 4 + 4
    assert not records["remove-channels"].skipped
    _, records = run(out, RemoveChannels())
    assert not records["remove-channels"].modified
    if "Split" in op_types(out):
        (split,) = (node for node in out.graph.node if node.op_type == "Split")
        stated = [list(a.ints) for a in split.attribute if a.name == "split"]
        assert (stated or [weights_of(out)[split.input[1]].tolist()]) == [[3, 4]]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_changes_where_nothing_is_dead(way):
    proto = block(way, [])
    out, records = run(proto, RemoveChannels())
    assert not records["remove-channels"].modified
    assert list(out.graph.node) == list(proto.graph.node)


@pytest.mark.parametrize("way", [way for way in WAYS if "other" not in way])
@pytest.mark.parametrize("half", [0, 1])
def test_a_whole_half(way, half):
    dead = range(half * HALF, (half + 1) * HALF)
    out, records = run(block(way, dead, second=range(HALF) if half else ()), RemoveChannels(), CleanUp())
    left = left_of(out)
    assert left["A"].shape[0] == HALF
    assert left["C"].shape[1] == (HALF if half else 2 * HALF)
    if "slices" not in way:
        assert op_types(out) == (["Conv", "Conv"] if half else ["Conv", "Conv", "Add", "Concat", "Conv"])
    assert not records["remove-channels"].skipped


def test_one_of_three_parts():
    weight = random(9, 2, 1, 1)
    weight[3:6] = 0
    proto = model(
        """(float[N, 2, 6, 6] X) => (Out) {
            Y = Conv(X, A) P, Q, R = Split<axis = 1>(Y) T = Tanh(R) J = Concat<axis = 1>(P, Q, T)
            Out = Conv(J, C) }""",
        {"A": weight, "C": random(4, 9, 1, 1)},
    )
    out, _ = run(proto, RemoveChannels())
    (split,) = (node for node in out.graph.node if node.op_type == "Split")
    assert list(split.output) == ["P", "R"] and weights_of(out)[split.input[1]].tolist() == [3, 3]
    assert left_of(out)["A"].shape[0] == 6


def test_columns_of_an_embedding():
    table = random(10, 6)
    table[:, [1, 4]] = [0, 2]
    weight = random(6, 3, seed=1)
    weight[5] = 0
    proto = model(
        "(int64[N, T] ids) => (Out) { E = Gather(table, ids) M = MatMul(E, W) Out = Add(M, b) }",
        {"table": table, "W": weight, "b": random(3)},
    )
    out, _ = run(proto, RemoveChannels(), feeds={"ids": np.arange(8).reshape(2, 4)})
    assert left_of(out)["table"].shape == (10, 3) and left_of(out)["W"].shape == (3, 3)
