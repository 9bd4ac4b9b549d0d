import numpy as np
import pytest

from scalpel_graph.passes.fuse_bias import FuseBias
from scalpel_graph.passes.substitute_group_csr import SubstituteGroupCsr
from tests.pass_runner import EAGER, model, op_types, random, reasons, run, sparse, sparse_nodes, weights_of

CONV = "(float[N, 4, 6, 6] X) => (float[N, 8, 6, 6] Y)"


@pytest.mark.parametrize("shape", [(8, 1, 1), (1, 8, 1, 1), (), (1,), (1, 1, 1, 1)])
@pytest.mark.parametrize("given", ["", ", b"])
@pytest.mark.parametrize("order", ["a, c", "c, a"])
def test_conv(shape, given, order):
    proto = model(
        f"{CONV} {{ a = Conv(X, W{given})  Y = Add({order}) }}",
        {"W": random(8, 4, 1, 1), "b": random(8, seed=1), "c": random(*shape, seed=2)},
    )
    out, _ = run(proto, FuseBias())
    assert op_types(out) == ["Conv"] and out.graph.node[0].output[0] == "Y"


def test_conv_1d_and_grouped_transpose():
    proto = model(
        """(float[2, 4, 9] X) => (Y)
           { a = Conv<group = 2>(X, W)  b = Add(a, c)  d = ConvTranspose<group = 2>(b, V)  Y = Add(d, e) }""",
        {"W": random(8, 2, 3), "c": random(8, 1), "V": random(8, 3, 2), "e": random(6, 1)},
    )
    out, _ = run(proto, FuseBias())
    assert op_types(out) == ["Conv", "ConvTranspose"]


@pytest.mark.parametrize("shape", [(5,), (1, 5), (), (1, 1)])
@pytest.mark.parametrize("old", [None, (5,), (1, 5), (), (1,)])
def test_gemm_with_beta(shape, old):
    weights = {"W": random(3, 5), "c": random(*shape, seed=2)}
    if old is not None:
        weights["C"] = random(*old, seed=3)
    proto = model(
        f"(float[N, 3] X) => (float[N, 5] Y) {{ a = Gemm<beta = 0.5>(X, W{', C' if old is not None else ''})"
        "  Y = Add(a, c) }",
        weights,
    )
    out, _ = run(proto, FuseBias())
    assert op_types(out) == ["Gemm"]


def test_sparse_gemm_of_any_rank_takes_a_bias_after_matmul():
    proto = model(
        "(float[2, 3, 16] X) => (float[2, 3, 8] Y) { a = MatMul(X, W)  Y = Add(b, a) }",
        {"W": sparse(8, 16).T, "b": random(8)},
    )
    out, _ = run(proto, SubstituteGroupCsr(), FuseBias(), target=EAGER)
    assert op_types(out) == ["GroupCsrGemm"]
    assert weights_of(out)[sparse_nodes(out)[0].input[4]].shape == (8,)


def test_a_bias_that_two_layers_share_is_copied():
    proto = model(
        """(float[1, 4, 6, 6] X) => (Y, Z)
           { a = Conv(X, W, b)  Y = Add(a, c)  Z = Conv(X, W, b) }""",
        {"W": random(8, 4, 1, 1), "b": random(8, seed=1), "c": random(8, 1, 1)},
    )
    out, _ = run(proto, FuseBias())
    assert op_types(out) == ["Conv", "Conv"]
    np.testing.assert_array_equal(weights_of(out)["b"], random(8, seed=1))


def test_double_stays_double():
    proto = model(
        "(double[2, 4] X) => (double[2, 8] Y) { a = Gemm(X, W, b)  Y = Add(a, c) }",
        {name: random(*shape, dtype=np.float64) for name, shape in (("W", (4, 8)), ("b", (8,)), ("c", (8,)))},
    )
    out, _ = run(proto, FuseBias())
    assert op_types(out) == ["Gemm"] and weights_of(out)["b"].dtype == np.float64


def test_float16_is_refused():
    proto = model(
        "(float16[2, 4] X) => (float16[2, 8] Y) { a = Gemm(X, W, b)  Y = Add(a, c) }",
        {name: random(*shape, dtype=np.float16) for name, shape in (("W", (4, 8)), ("b", (8,)), ("c", (8,)))},
    )
    _, records = run(proto, FuseBias())
    assert "is float16" in reasons(records["fuse-bias"])["Y"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("a = Conv(X, W)  Z = Neg(a)  Y = Add(a, c)", "read elsewhere"),
        ("a = Conv(X, W)  Z = Neg(a)  Y = Add(a, wide)", "read elsewhere"),
        ("Z = Conv(X, W)  Y = Add(Z, c)", "read elsewhere"),
        ("Z = Neg(X)  a = Conv(X, W)  Y = Add(a, wide)", "not one number for each"),
        ("Z = Neg(X)  a = Conv(X, W)  Y = Add(a, more)", "not one number for each"),
        ("Z = Neg(X)  b = ReduceSum<keepdims = 0>(X, axes)  a = Conv(X, W, b)  Y = Add(a, c)", "computed by"),
    ],
)
def test_refused_with_a_reason(body, why):
    proto = model(
        f"(float[1, 8, 6, 6] X) => (Y, Z) {{ {body} }}",
        {
            "W": random(8, 8, 1, 1), "c": random(8, 1, 1), "wide": random(1, 6),
            "more": random(1, 1, 8, 1, 1),
            "axes": np.array([0, 2, 3]),
        },
    )  # fmt: skip
    out, records = run(proto, FuseBias())
    assert "Add" in op_types(out)
    assert why in reasons(records["fuse-bias"])["Y"]


def test_gemm_with_a_matrix_is_refused():
    proto = model(
        "(float[2, 3] X) => (float[2, 5] Y) { a = Gemm(X, W, C)  Y = Add(a, c) }",
        {"W": random(3, 5), "C": random(2, 5), "c": random(5)},
    )
    _, records = run(proto, FuseBias())
    assert "not one number for each column" in reasons(records["fuse-bias"])["Y"]


def test_a_sum_that_overflows_is_refused():
    proto = model(
        "(float[1, 4, 6, 6] X) => (float[1, 8, 6, 6] Y) { a = Conv(X, W, b)  Y = Add(a, c) }",
        {
            "W": random(8, 4, 1, 1),
            "b": np.full(8, 3e38, np.float32),
            "c": np.full((8, 1, 1), 3e38, np.float32),
        },
    )
    _, records = run(proto, FuseBias())
    assert "not finite" in reasons(records["fuse-bias"])["Y"]
