"""The steps one by one: constants, classes, pins, liveness, reasons."""

import numpy as np
import pytest

from scalpel_graph.channels.analysis import analyse
from scalpel_graph.channels.constants import slices
from scalpel_graph.channels.explain import kept_channels
from scalpel_graph.channels.liveness import decide
from scalpel_graph.channels.shape import blocks
from scalpel_graph.channels.shrink import shrink
from scalpel_graph.graph import ModelGraph
from tests.pass_runner import model, random, weights_of


def graph_of(text, weights, opset=17):
    graph = ModelGraph(model(text, weights, opset=opset))
    graph.infer()
    return graph


def tensor(graph, name):
    return next(t for node in graph.nodes for t in (*node.inputs, *node.outputs) if t.name == name)


def constants_of(graph, name, axis=1):
    """What is known of a tensor's channels: a number each, None where it varies."""
    analysis = analyse(graph)
    slots = analysis.slots.axis(tensor(graph, name), axis).slots
    known, value = analysis.constants.known[slots], analysis.constants.value[slots]
    return [float(v) if k else None for k, v in zip(known, value, strict=True)]


def zero_rows(*shape, rows, seed=0):
    values = random(*shape, seed=seed)
    values[rows] = 0
    return values


W = zero_rows(3, 2, 1, 1, rows=[0, 2])
B = np.array([1.5, 1, -2], np.float32)
X = "(float[N, 2, 4, 4] X) => (Y)"


@pytest.mark.parametrize(
    ("text", "weights", "expected"),
    [
        ("Y = Conv(X, W)", {}, [0, None, 0]),
        ("Y = Conv(X, W, B)", {}, [1.5, None, -2]),
        ("c = Conv(X, W, B) Y = Relu(c)", {}, [1.5, None, 0]),
        ("c = Conv(X, W) Y = Sigmoid(c)", {}, [0.5, None, 0.5]),
        ("c = Conv(X, W, B) Y = Clip(c, low, high)",
         {"low": np.float32(-1), "high": np.float32(1)}, [1, None, -1]),
        ("c = Conv(X, W, B) Y = Mul(c, m)", {"m": np.float32([[[2]], [[0]], [[1]]])}, [3, 0, -2]),
        ("c = Conv(X, W, B) Y = Mul(c, m)", {"m": np.float32([[[2]], [[np.inf]], [[1]]])}, [3, None, -2]),
        ("c = Conv(X, W) Y = Div(c, m)", {"m": np.float32(0)}, [None, None, None]),
        ("c = Conv(X, W) Y = Log(c)", {}, [None, None, None]),
        ("c = Conv(X, W, B) Y = Exp(c)", {}, [np.exp(1.5), None, np.exp(-2)]),
        ("c = Conv(X, W, B) d = Neg(c) Y = Add(c, d)", {}, [0, None, 0]),
        ("c = Conv(X, W, B) Y = Add(c, d)", {"d": random(3, 1, 4)}, [None] * 3),
        (
            "c = Conv(X, W, B) Y = Where(m, c, d)",
            {"m": np.array([[[True]], [[False]], [[False]]]), "d": np.float32(7)},
            [1.5, 7, 7],
        ),
        ("c = Conv(X, W, B) Y = Conv(c, V)",
         {"V": np.float32([[1, 0, 1], [0, 1, 0]]).reshape(2, 3, 1, 1)}, [-0.5, None]),
        (
            "c = Conv(X, W, B) Y = Conv<pads = [1, 1, 1, 1]>(c, V)",
            {"V": np.float32([[1, 0, 1], [0, 0, 0]]).reshape(2, 3, 1, 1)},
            [None, 0],
        ),
        ("c = Conv(X, W, B) Y = Transpose<perm = [0, 3, 2, 1]>(c)", {}, [None] * 4),
        ("c = Conv(X, W, B) Y = Flatten(c)", {}, [1.5] * 16 + [None] * 16 + [-2] * 16),
        ("c = Conv(X, W, B) Y = Reshape(c, s)", {"s": np.array([0, 3, 16])}, [1.5, None, -2]),
        ("c = Conv(X, W, B) Y = Concat<axis = 1>(c, X, c)", {}, [1.5, None, -2, None, None, 1.5, None, -2]),
        ("c = Conv(X, W, B) Y = Gather<axis = 1>(c, i)", {"i": np.array([-1, 0])}, [-2, 1.5]),
        ("c = Conv(X, W, B) Y = GlobalAveragePool(c)", {}, [1.5, None, -2]),
        ("c = Conv(X, W, B) Y = ReduceSum(c, a)", {"a": np.array([2, 3])}, [None] * 3),
        ("c = Conv(X, W) Y = ReduceSum(c, a)", {"a": np.array([2, 3])}, [0, None, 0]),
        ("c = Conv(X, W, B) Y = Dropout(c)", {}, [1.5, None, -2]),
        ("c = Conv(X, W, B) Y = Dropout(c, r, t)", {"r": np.float32(0.5), "t": np.array(True)}, [None] * 3),
        ("c = Conv(X, W, B) Y = LRN<size = 1>(c)", {}, [None] * 3),
    ],
)  # fmt: skip
def test_constants(text, weights, expected):
    weights = {"W": W, "B": B, **weights}
    found = constants_of(graph_of(f"{X} {{ {text} }}", weights), "Y")
    assert [value is None for value in found] == [value is None for value in expected]
    assert [v for v in found if v is not None] == pytest.approx(
        [v for v in expected if v is not None], rel=1e-6
    )


def test_types_round_constants_as_they_compute():
    graph = graph_of(
        "(float16[N, 2, 4, 4] X) => (Y) { c = Conv(X, W, B) Y = Sigmoid(c) }",
        {"W": np.zeros((2, 2, 1, 1), np.float16), "B": np.float16([0.1, 3])},
    )
    expected = 1 / (1 + np.exp(-np.float16([0.1, 3]).astype(np.float64)))
    assert constants_of(graph, "Y") == pytest.approx(expected, abs=1e-3)
    assert all(np.float16(value) == value for value in constants_of(graph, "Y"))


def test_overflow_is_no_constant():
    graph = graph_of(
        "(float[N, 2] X) => (Y) { c = Gemm(X, W, B) Y = Exp(c) }",
        {"W": np.zeros((2, 3), np.float32), "B": np.float32([1, 1000, np.nan])},
    )
    assert constants_of(graph, "Y") == [None] * 3  # NaN in a bias: no rule, nothing is known
    graph = graph_of(
        "(float[N, 2] X) => (Y) { c = Gemm(X, W, B) Y = Exp(c) }",
        {"W": np.zeros((2, 2), np.float32), "B": np.float32([0, 1000])},
    )
    assert constants_of(graph, "Y") == [1, None]


def test_a_constant_too_large_for_the_bias_stays():
    weights = {
        "W": np.zeros((2, 2, 1, 1), np.float16),
        "B": np.float16([60000, 1]),
        "V": np.full((3, 2, 1, 1), 0.4, np.float16),
    }
    graph = graph_of("(float16[N, 2, 4, 4] X) => (Y) { c = Conv(X, W, B) Y = Conv(c, V) }", weights)
    analysis = analyse(graph)
    decision = decide(analysis)
    assert decision.live[analysis.slots.axis(tensor(graph, "c"), 1).slots].tolist() == [True, False]
    assert "too large for its bias" in dict(kept_channels(analysis, decision))["Y"]


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (("N", 8, 6, 6), ("N", 288), [((0,), (0,)), ((1, 2, 3), (1,))]),
        (("N", 8, 6, 6), ("M", 288), [((1, 2, 3), (1,))]),
        (("N", 8, 6, 6), (None, 6), [((3,), (1,))]),
        (("N", "S", 12), ("N", "S", 3, 4), [((0,), (0,)), ((1,), (1,)), ((2,), (2, 3))]),
        ((2, 6), (4, 3), [((0, 1), (0, 1))]),
        ((2, 6), (2, 2, 3), [((0,), (0,)), ((1,), (1, 2))]),
        (
            ("N", 8, "H", "W"),
            ("N", 4, 2, "H", "W"),
            [((0,), (0,)), ((1,), (1, 2)), ((2,), (3,)), ((3,), (4,))],
        ),
        (("N", "C", 4), ("N", "M"), [((0,), (0,))]),
        (("N", 8, 1, 1), ("N", 8), [((0,), (0,)), ((1,), (1,))]),
    ],
)
def test_blocks_of_a_reshape(before, after, expected):
    assert [(block.before, block.after) for block in blocks(before, after)] == expected


def test_slices():
    known, value = slices(np.array([[1, 1], [1, 2], [np.nan, np.nan]]), 0)
    assert known.tolist() == [True, False, False]
    assert value[0] == 1
    assert slices(np.zeros((3, 0)), 0)[0].tolist() == [False] * 3
    assert slices(np.zeros((0, 3)), 0)[0].tolist() == []


def dead_channels(graph, name, axis=1):
    analysis = analyse(graph)
    live = decide(analysis).live
    return np.flatnonzero(~live[analysis.slots.axis(tensor(graph, name), axis).slots]).tolist()


def test_what_only_dead_channels_read_is_dead():
    graph = graph_of(
        "(float[N, 2] X) => (Y) { a = Gemm(X, A) b = Relu(a) c = Gemm(b, C) d = Tanh(c) Y = Gemm(d, D) }",
        {
            "A": random(2, 3),
            "C": np.float32([[1, 0], [1, 1], [0, 1]]),  # a[0] goes into c[0] only
            "D": np.float32([[0, 0], [1, 2]]),  # c[0] is not read
        },
    )
    assert dead_channels(graph, "c") == [0]
    assert dead_channels(graph, "a") == [0]


def test_channels_that_only_need_each_other_are_dead():
    """A channel of the residual stream that only its own blocks read."""
    stream = {"S": random(2, 3), "Y2": np.float32([[1], [1], [0]])}
    inner = {"I": np.float32([[1, 0], [1, 0], [0, 1]]), "O": np.float32([[1, 1, 0], [0, 0, 1]])}
    graph = graph_of(
        "(float[N, 2] X) => (Y) { s = Gemm(X, S) i = Gemm(s, I) r = Relu(i) o = Gemm(r, O) t = Add(s, o)"
        " j = Gemm(t, I) q = Relu(j) p = Gemm(q, O) u = Add(t, p) Y = Gemm(u, Y2) }",
        {**stream, **inner},
    )
    assert dead_channels(graph, "s") == [2]
    assert dead_channels(graph, "i") == [1]
    assert dead_channels(graph, "u") == [2]


def test_a_dead_branch_goes_as_a_whole():
    graph = graph_of(
        "(float[N, 2] X) => (Y) { a = Gemm(X, A) b = Gemm(X, B) z = Gemm(b, Z) c = Concat<axis = 1>(a, z)"
        " Y = Gemm(c, C) }",
        {"A": random(2, 3), "B": random(2, 4), "Z": np.zeros((4, 5), np.float32), "C": random(8, 2)},
    )
    analysis = analyse(graph)
    decision = decide(analysis)
    assert {node.outputs[0].name for node in decision.gone} == {"b", "z"}
    shrink(graph, analysis, decision)
    graph.remove(*decision.gone)
    graph.infer()
    assert [node.op for node in graph.nodes] == ["Gemm", "Concat", "Gemm"]
    assert [t.name for t in graph.nodes[1].inputs] == ["a"]


def test_one_channel_stays_where_a_tensor_must():
    graph = graph_of(
        "(float[N, 2, 4, 4] X) => (Y) { a = Conv(X, A) b = Relu(a) Y = Conv(b, B, c) }",
        {"A": np.zeros((4, 2, 3, 3), np.float32), "B": random(3, 4, 1, 1), "c": random(3)},
    )
    analysis = analyse(graph)
    decision = decide(analysis)
    assert decision.live[analysis.slots.axis(tensor(graph, "a"), 1).slots].sum() == 1
    assert decision.gone == []
    assert any("cannot be without channels" in reason for _, reason in kept_channels(analysis, decision))


@pytest.mark.parametrize(
    ("text", "node", "why"),
    [
        (
            "Y = Conv<pads = [1, 1, 1, 1]>(c, V)",
            "Y",
            "2 channels that cannot matter: they hold a non-zero constant, but its p",
        ),
        (
            "d = Add(c, X) Y = Conv(d, V)",
            "d",
            "2 channels that cannot matter: it combines them with others that vary",
        ),
        ("d = Trilu(c) Y = Conv(d, V)", "d", "there is no rule for Trilu"),
        ("d = custom.Op(c) Y = Conv(d, V)", "d", "there is no rule for Op of domain custom"),
        ("Y = Relu(c)", "Y", "it is an output of the model"),
        ("Y = ConvTranspose(c, V)", "Y", "the borders of its output see less"),
        ("d = Softmax<axis = 1>(c) Y = Conv(d, V)", "d", "it depends on all of them"),
        ("d = Conv<group = 3, pads = [1, 1, 1, 1]>(c, D) Y = Conv(d, V)", "d", "its padding holds zeros"),
    ],
)
def test_reasons(text, node, why):
    output = "float[N, 3, 2, 2] Y" if "custom" in text else "Y"
    proto = model(
        f"(float[N, 3, 4, 4] X) => ({output}) {{ c = Conv(X, W3, B) {text} }}",
        {"W3": zero_rows(3, 3, 1, 1, rows=[0, 2]), "B": B, "V": random(3, 3, 3, 3), "one": np.array(1),
         "D": random(3, 1, 3, 3)},
    )  # fmt: skip
    graph = ModelGraph(proto)
    graph.infer(strict=False)
    analysis = analyse(graph)
    reasons = dict(kept_channels(analysis, decide(analysis)))
    assert why in reasons[node]


def test_a_weight_that_two_layers_share_is_shared_again():
    weights = {"W": zero_rows(4, 2, 1, 1, rows=[1]), "V": random(3, 4, 1, 1)}
    graph = graph_of(
        "(float[N, 2, 4, 4] X) => (Y, Z) { a = Conv(X, W) b = Conv(X, W) Y = Conv(a, V) Z = Conv(b, V) }",
        weights,
    )
    analysis = analyse(graph)
    shrink(graph, analysis, decide(analysis))
    shapes = sorted(values.shape for values in weights_of(graph.to_proto()).values())
    assert shapes == [(3, 2, 1, 1), (3, 3, 1, 1)]
