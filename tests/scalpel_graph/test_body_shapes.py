"""Shapes inside of bodies, and of the states of Loops that nobody states."""

import numpy as np
import pytest
from onnx import ModelProto

from scalpel_graph.body_shapes import infer_shapes
from scalpel_graph.graph import Shape, shape_of_type
from tests.pass_runner import model


def loop(body: str, weights: dict[str, np.ndarray] | None = None) -> ModelProto:
    """A Loop with a state of shape [N, 8, 4] at the start, which states no shapes."""
    text = f"""(float[N, 8, 4] X, int64 times) => (float[D0, D1] Y) {{
        L = Loop(times, , X)
            <body = one (int64 n, bool go, float[N, 8, 4] v) => (bool on, float[N, 8, 4] w) {{
                on = Identity(go) {body} }}>
        last = Relu(L) Y = Flatten(last) }}"""
    proto = model(text, weights)
    body_proto = next(a.g for node in proto.graph.node for a in node.attribute if a.name == "body")
    for value in (body_proto.input[2], body_proto.output[1]):
        value.type.tensor_type.ClearField("shape")
    return proto


def shape_of(proto: ModelProto, name: str) -> Shape | None:
    """What is found out; symbols that inference makes up say nothing."""
    found = infer_shapes(proto)
    shape = next((shape_of_type(v.type) for v in found.graph.value_info if v.name == name), None)
    return shape and tuple(None if str(size).startswith("unk") else size for size in shape)


INNER = """x = Loop(n, , v)
    <body = two (int64 k, bool go2, float[A, B, C] a) => (bool on2, float[A, B, C] b) {
        on2 = Identity(go2) b = Tanh(a) }>"""


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("w = Tanh(v)", ("N", 8, 4)),
        ("t = Transpose<perm = [0, 2, 1]>(v) w = Transpose<perm = [0, 2, 1]>(t)", ("N", 8, 4)),
        ("w = Concat<axis = 2>(v, v)", ("N", 8, None)),
        ("w = Transpose<perm = [0, 2, 1]>(v)", ("N", None, None)),
        ("w = Reshape(v, flat)", ("N", 8, 4)),
        ("w = Flatten(v)", None),
        (f"{INNER} w = Relu(x)", (None, 8, 4)),
    ],
)
def test_the_state_of_a_loop(body: str, shape: Shape | None) -> None:
    proto = loop(body, {"flat": np.array([0, 8, 4])} if "flat" in body else None)
    before = proto.SerializeToString(deterministic=True)
    assert shape_of(proto, "last") == shape
    assert proto.SerializeToString(deterministic=True) == before


def test_what_is_stated_is_not_asked_for_again() -> None:
    proto = loop("w = Tanh(v)")
    proto.graph.value_info.add(name="last").type.CopyFrom(proto.graph.input[0].type)
    assert shape_of(proto, "last") == ("N", 8, 4)


def test_a_body_whose_reshape_reads_its_shape_from_outside() -> None:
    proto = model(
        """(float[N, 8] X, bool c) => (float[A, B, C] Y) {
            Z = If(c) <then_branch = one () => (y) { y = Reshape(X, split) },
                       else_branch = two () => (y) { t = Relu(X) y = Reshape(t, split) }>
            Y = Tanh(Z) }""",
        {"split": np.array([-1, 2, 4])},
    )
    found = shape_of(proto, "Z")
    assert found is not None and found[1:] == (2, 4)
