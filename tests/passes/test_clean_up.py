import numpy as np
import pytest

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.clean_up import CleanUp
from tests.pass_runner import CPU, model, op_types, reasons, run, weights_of


@pytest.mark.parametrize(
    ("node", "opset"),
    [
        ("b = Identity(a)", 17),
        ("b = Dropout(a)", 9),
        ("b = Dropout(a)", 17),
        ("b, unread = Dropout(a, ratio, inference)", 17),
        ("b = Dropout<is_test = 1>(a)", 6),
        ("b = Cast<to = 1>(a)", 17),
        ("b = Transpose<perm = [0, 1]>(a)", 17),
        ("b = Concat<axis = 0>(a)", 17),
        ("b = Sum(a)", 17),
        ("b = Max(a)", 17),
        ("b = Mean(a)", 17),
        ("b = Pad(a, none)", 17),
        ("b = Pad<pads = [0, 0, 0, 0]>(a)", 9),
    ],
)
def test_nodes_that_hand_on_their_input_go(node, opset):
    proto = model(
        f"""(float[2, 3] X) => (float[2, 3] Y)
            <float ratio = {{0.5}}, bool inference = {{0}}, int64[4] none = {{0, 0, 0, 0}}>
            {{ a = Neg(X)  {node}  Y = Abs(b) }}""",
        opset=opset,
    )
    out, _ = run(proto, CleanUp())
    assert op_types(out) == ["Neg", "Abs"]
    assert not out.graph.initializer


@pytest.mark.parametrize(
    "node",
    [
        "b, read = Dropout(a)  c = Not(read)",
        "b = Cast<to = 11>(a)",
        "b = Transpose<perm = [1, 0]>(a)",
        "b = Concat<axis = 0>(a, a)",
        "b = Pad(a, some)",
    ],
)
def test_nodes_that_do_something_stay(node):
    second = "c" if "c =" in node else "b"
    proto = model(
        f"""(float[2, 3] X) => (Y, Z) <int64[4] some = {{0, 1, 0, 0}}>
            {{ a = Neg(X)  {node}  Y = Identity(b)  Z = Identity({second}) }}"""
    )
    out, _ = run(proto, CleanUp())
    assert node.split("= ")[1].split("(")[0].split("<")[0] in op_types(out)


def test_the_maker_of_a_renamed_output_makes_it_itself():
    proto = model("(float[2] X) => (float[2] Y, float[2] Z) { a = Neg(X)  Y = Identity(a)  Z = Abs(a) }")
    out, _ = run(proto, CleanUp())
    assert op_types(out) == ["Neg", "Abs"]
    assert out.graph.node[0].output[0] == "Y" and out.graph.node[1].input[0] == "Y"


def test_input_and_output_names_stay_whatever_it_takes():
    proto = model(
        """(float[2] X) => (float[2] Y, float[2] Z, float[2] A, float[2] B) <float[2] C = {1, 2}>
           { Y = Identity(X)  A = Neg(X)  Z = Identity(A)  B = Identity(C) }"""
    )
    out, records = run(proto, CleanUp())
    assert op_types(out) == ["Identity", "Neg", "Identity", "Identity"]
    assert set(reasons(records["clean-up"])) == {"Y", "Z", "B"}


def test_dead_branches_go_whole_and_side_effects_of_strangers_stay():
    proto = model(
        """(float[2] X) => (float[2] Y) <float[2] C = {1, 2}>
           { a = Neg(X)  b = Add(a, C)  c = RandomNormalLike(b)  Y = Abs(X)
             d = custom.Log(X) }"""
    )

    graph = ModelGraph(proto)
    CleanUp().run(graph, PassContext(CPU))
    out = graph.to_proto()
    assert op_types(out) == ["Abs", "Log"]
    assert not out.graph.initializer


def test_what_a_subgraph_reads_is_live():
    proto = model(
        """(float[2] X, bool c) => (float[2] Y) <float[2] C = {1, 2}>
           { a = Identity(X)  b = Neg(X)
             Y = If(c) <then_branch = t () => (float[2] o) { o = Add(a, C) },
                        else_branch = e () => (float[2] p) { p = Neg(b) }> }"""
    )
    for condition in (True, False):
        out, _ = run(proto, CleanUp(), feeds={"c": np.array(condition)})
        assert op_types(out) == ["Identity", "Neg", "If"] and set(weights_of(out)) == {"C"}


def test_a_dead_if_takes_what_only_it_read():
    proto = model(
        """(float[2] X, bool c) => (float[2] Y)
           { a = Neg(X)
             b = If(c) <then_branch = t () => (float[2] o) { o = Neg(a) },
                        else_branch = e () => (float[2] p) { p = Abs(a) }>
             Y = Abs(X) }"""
    )
    out, _ = run(proto, CleanUp())
    assert op_types(out) == ["Abs"]


def test_a_node_read_twice_by_one_reader_is_bypassed_twice():
    proto = model("(float[2] X) => (float[2] Y) { a = Neg(X)  b = Identity(a)  Y = Mul(b, b) }")
    out, _ = run(proto, CleanUp())
    assert list(out.graph.node[1].input) == ["a", "a"]


def test_a_second_run_finds_nothing():
    proto = model(
        """(float[2] X) => (float[2] Y)
           { a = Identity(X)  b = Identity(a)  c = Neg(b)  d = Identity(c)  Y = Identity(d) }"""
    )
    out, _ = run(proto, CleanUp())
    assert op_types(out) == ["Neg"]
    _, records = run(out, CleanUp())
    assert not records["clean-up"].modified
