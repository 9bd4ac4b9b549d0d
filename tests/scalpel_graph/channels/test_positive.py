"""What is never zero."""

import numpy as np
import pytest

from scalpel_graph.channels.positive import is_positive
from scalpel_graph.graph import ModelGraph
from tests.pass_runner import model

VALUES = {"small": np.float32(0.1), "none": np.float32(0), "less": np.float32(-1), "two": np.float32(2)}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a = Abs(X) d = Add(a, small)", True),
        ("a = Abs(X) d = Add(a, none)", False),
        ("a = Abs(X) d = Add(a, less)", False),
        ("d = Add(X, small)", False),
        ("d = Exp(X)", False),
        ("a = Exp(X) d = Add(a, small)", True),
        ("a = Mul(X, X) b = ReduceMean(a) c = Add(small, b) d = Sqrt(c)", True),
        ("a = Mul(X, small) d = Add(a, small)", False),
        ("a = Pow(X, two) d = Add(a, small)", True),
        ("a = Pow(X, small) d = Add(a, small)", False),
        ("a = Max(X, small) b = Identity(a) d = Transpose(b)", True),
        ("a = Max(X, small) b = Cast<to = 7>(a) d = Cast<to = 1>(b)", False),
        ("d = Max(X, none)", False),
        ("d = Min(X, small)", False),
        ("d = Clip(X, small)", True),
        ("d = Clip(X, small, two)", True),
        ("d = Clip(X, small, less)", False),
        ("d = Clip(X, none)", False),
        ("d = Clip(X, , small)", False),
        ("a = Relu(X) b = Sigmoid(X) c = Add(a, b) d = Add(c, small)", False),
        ("a = Relu(X) b = Sigmoid(X) c = Add(a, small) d = Add(b, c)", True),
        ("d = custom.Abs(X)", False),
    ],
)
def test_signs(text, expected):
    graph = ModelGraph(model(f"(float[N, 3] X) => (Y) {{ {text} Y = Div(X, d) }}", VALUES))
    assert is_positive(graph, graph.nodes[-1].inputs[1]) == expected


def test_it_looks_back_only_so_far():
    links = " ".join(f"a{i + 1} = Add(a{i}, a{i})" for i in range(60))
    text = f"a0 = Max(X, small) {links} Y = Div(X, a60)"
    graph = ModelGraph(model(f"(float[N, 3] X) => (Y) {{ {text} }}", VALUES))
    assert not is_positive(graph, graph.nodes[-1].inputs[1])
