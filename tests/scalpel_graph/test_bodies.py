"""Opening bodies puts their nodes among those of the main graph; closing puts them back."""

import numpy as np
import onnx
import pytest
from onnx import ModelProto, numpy_helper

from scalpel_graph.bodies import DOMAIN, close_bodies, open_bodies
from scalpel_graph.graph import ModelGraph, node_label
from tests.pass_runner import model, random

#: Both branches make an x and a y; the inner If reads s of the branch around it, and W and r of outside.
TEXT = """(float[N, 4] X, bool c, int64 times) => (float[N, 4] Y) <float[N, 4] L> {
    r = Relu(X)
    Z = If(c) <then_branch = one () => (float[N, 4] y) <float[N, 4] x> {
            k = Constant<value_float = 2.0>() s = Mul(r, k) x = MatMul(s, W)
            y = If(c) <then_branch = three () => (u) { u = Sub(s, x) },
                       else_branch = four () => (u) { u = MatMul(r, W) }> },
        else_branch = two () => (float[N, 4] y) { x = MatMul(X, V) y = Tanh(x) }>
    L = Loop(times, , Z) <body = five (int64 n, bool go, float[N, 4] v) => (bool on, float[N, 4] w) {
        on = Identity(go) m = Max(v, r) w = Tanh(m) }>
    Y = Add(L, r) }"""


@pytest.fixture
def proto() -> ModelProto:
    made = model(TEXT, {"W": random(4, 4)})
    for node in made.graph.node:
        for attribute in node.attribute:
            if attribute.name == "else_branch":
                attribute.g.initializer.append(numpy_helper.from_array(random(4, 4, seed=1), "V"))
    onnx.checker.check_model(made)
    return made


def labels(graph: ModelGraph) -> list[str]:
    return [node_label(node) for node in graph.nodes]


def test_nodes_stand_in_front_of_the_one_that_holds_them(proto: ModelProto) -> None:
    graph = ModelGraph(proto)
    open_bodies(graph)
    assert labels(graph) == [
        "r",
        "Z/then_branch", "Z/then_branch/s", "Z/then_branch/x",
        "Z/then_branch/y/then_branch", "Z/then_branch/y/then_branch/u",
        "Z/then_branch/y/else_branch", "Z/then_branch/y/else_branch/u_1",
        "Z/then_branch/y",
        "Z/else_branch", "Z/else_branch/x_1", "Z/else_branch/y_1",
        "Z",
        "L/body", "L/body/on", "L/body/m", "L/body/w",
        "L", "Y",
    ]  # fmt: skip
    outer = graph.nodes[0].outputs[0]
    assert sorted(node_label(reader) for reader in outer.outputs) == [
        "L/body/m", "Y", "Z/then_branch/s", "Z/then_branch/y/else_branch/u_1",
    ]  # fmt: skip
    assert not graph.is_pinned(outer)
    assert {node.op for node in graph.nodes if node.domain == DOMAIN} == {"If", "Loop", "Body"}
    names = [tensor.name for node in graph.nodes for tensor in node.outputs]
    assert len(names) == len(set(names))


def test_closing_without_a_change_leaves_every_byte(proto: ModelProto) -> None:
    graph = ModelGraph(proto)
    open_bodies(graph)
    close_bodies(graph, changed=False)
    assert labels(graph) == ["r", "Z", "L", "Y"]
    assert graph.is_pinned(graph.nodes[0].outputs[0])
    assert graph.to_proto().SerializeToString(deterministic=True) == proto.SerializeToString(
        deterministic=True
    )


def test_the_model_can_be_written_while_bodies_are_open(proto: ModelProto) -> None:
    """What is written is the model as it came, but for Constant nodes, which stand first in their body."""
    graph = ModelGraph(proto)
    open_bodies(graph)
    out = graph.to_proto()
    assert out.SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)
    close_bodies(graph, changed=True)
    out = graph.to_proto()
    assert out.SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)


def test_a_changed_constant_goes_where_its_readers_are(proto: ModelProto) -> None:
    graph = ModelGraph(proto)
    open_bodies(graph)
    by_label = {node_label(node): node for node in graph.nodes}
    graph.set_constant(
        by_label["Z/then_branch/x"], 1, random(4, 4, seed=2)
    )  # W, which another body reads too
    graph.set_constant(by_label["Z/else_branch/x_1"], 1, random(4, 4, seed=3))  # the branch's own V
    doubled = graph.add_constant("two", np.float32(2))
    by_label["L/body/m"].inputs.append(doubled)
    by_label["Y"].inputs[1] = doubled
    close_bodies(graph, changed=True)
    out = graph.to_proto()
    onnx.checker.check_model(out, full_check=True)
    bodies = {a.name: a.g for node in out.graph.node for a in node.attribute if a.HasField("g")}
    then, other = bodies["then_branch"], bodies["else_branch"]
    assert [tensor.name for tensor in then.initializer] == ["W_of_Z/then_branch/x"]
    assert [tensor.name for tensor in other.initializer] == ["V"]
    assert np.array_equal(numpy_helper.to_array(other.initializer[0]), random(4, 4, seed=3))
    assert not bodies["body"].initializer
    assert sorted(tensor.name for tensor in out.graph.initializer) == ["W", "two"]


def test_sizes_are_restated_in_the_body_that_states_them(proto: ModelProto) -> None:
    graph = ModelGraph(proto)
    open_bodies(graph)
    x = next(node for node in graph.nodes if node_label(node) == "Z/then_branch/x").outputs[0]
    graph.resize(x, 1, 3)
    branch = next(a.g for a in graph.bodies.nested()[1].attribute if a.name == "then_branch")
    assert [dim.dim_value for dim in branch.value_info[0].type.tensor_type.shape.dim] == [0, 3]


def test_a_body_with_another_kind_of_subgraph_stays_closed() -> None:
    proto = model("""(float[N, 4] X, bool c) => (float[N, 4] Y) {
        Y = If(c) <then_branch = one () => (y) {
                q = SequenceConstruct(X)
                m = SequenceMap<body = two (float[N, 4] e) => (f) { f = Relu(e) }>(q)
                z = Constant<value_int = 0>() y = SequenceAt(m, z) },
            else_branch = three () => (y) { y = Tanh(X) }> }""")
    graph = ModelGraph(proto)
    open_bodies(graph)
    assert graph.bodies is None and labels(graph) == ["Y"]
