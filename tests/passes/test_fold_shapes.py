import numpy as np
import pytest

from scalpel_graph.passes.fold_shapes import FoldShapes
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, op_types, random, reasons, run, weights_of

WEIGHTS = {"zero": np.array(0), "one": np.array(1), "axis": np.array([0]), "rest": np.array([-1]),
           "tail": np.array([4, 9]), "first": np.array([0]), "half": np.array([2])}  # fmt: skip
SIZE = "s = Shape(X) n = Gather(s, zero) u = Unsqueeze(n, axis)"


def shape_of(out):
    node = next(node for node in out.graph.node if node.op_type == "Reshape")
    return weights_of(out)[node.input[1]].tolist()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{SIZE} t = Concat<axis = 0>(u, rest)", [0, -1]),
        (f"{SIZE} t = Concat<axis = 0>(u, tail)", [0, 4, 9]),
        ("s = Shape(X) u = Gather(s, first) t = Concat<axis = 0>(u, tail)", [0, 4, 9]),
        (f"{SIZE} c = Gather(s, one) d = Unsqueeze(c, axis) t = Concat<axis = 0>(u, d, rest)", [0, 4, -1]),
        (f"r = Relu(X) {SIZE.replace('Shape(X)', 'Shape(r)')} t = Concat<axis = 0>(u, rest)", [0, -1]),
        (f"{SIZE} t = Concat<axis = 0>(tail, u)", [4, 9, -1]),
    ],
)
def test_sizes_that_are_copied(text, expected):
    out, _ = run(model(f"(float[N, 4, 3, 3] X) => (Y) {{ {text} Y = Reshape(X, t) }}", WEIGHTS), FoldShapes())
    assert shape_of(out) == expected
    assert op_types(out) == [op for op in op_types(out) if op in ("Reshape", "Relu")]


def test_what_is_computed_further_stays():
    proto = model(
        f"(float[N, 4, 3, 3] X) => (float[P, Q] Y) {{ {SIZE} m = Mul(u, half)"
        " t = Concat<axis = 0>(m, rest) Y = Reshape(X, t) }",
        WEIGHTS,
    )
    _, records = run(proto, FoldShapes())
    assert not records["fold-shapes"].modified
    assert "more than sizes" in reasons(records["fold-shapes"])["Y"]


def test_shapes_with_literal_zeros_stay():
    proto = model(
        f"(float[N, 4, 3, 3] X) => (float[P, Q] Y) {{ {SIZE} t = Concat<axis = 0>(u, rest)"
        " Y = Reshape<allowzero = 1>(X, t) }",
        WEIGHTS,
    )
    _, records = run(proto, FoldShapes())
    assert not records["fold-shapes"].modified


def test_channels_go_through_a_view():
    weight = random(4, 3, 3, 3)
    weight[1] = 0
    proto = model(
        "(float[N, 3, 5, 5] X) => (Y) { c = Conv(X, W) s = Shape(c) n = Gather(s, zero)"
        " u = Unsqueeze(n, axis) t = Concat<axis = 0>(u, rest) f = Reshape(c, t) Y = Gemm(f, G) }",
        {**WEIGHTS, "W": weight, "G": random(36, 5)},
    )
    out, _ = run(proto, FoldShapes(), RemoveChannels())
    assert weights_of(out)[out.graph.node[0].input[1]].shape == (3, 3, 3, 3)
    assert op_types(out) == ["Conv", "Reshape", "Gemm"]
