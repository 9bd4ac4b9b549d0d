import pytest

from scalpel_graph.passes.fuse_activation import FuseActivation
from scalpel_graph.passes.fuse_residual import FuseResidual
from scalpel_graph.passes.substitute_group_csr import SubstituteGroupCsr
from tests.pass_runner import EAGER, model, op_types, random, reasons, run, sparse, sparse_nodes

PASSES = (SubstituteGroupCsr(), FuseResidual(), FuseActivation())
WEIGHTS = {"W": sparse(8, 8, 1, 1), "V": sparse(8, 8, 1, 1, seed=1), "D": random(8, 8, 1, 1)}


@pytest.mark.parametrize("order", ["a, X", "X, a"])
@pytest.mark.parametrize("size", ["1, 8, 5, 5", "N, 8, 5, 5"])
def test_a_skip_connection(order, size):
    proto = model(f"(float[{size}] X) => (Y) {{ a = Conv(X, W)  Y = Add({order}) }}", WEIGHTS)
    out, _ = run(proto, *PASSES, target=EAGER)
    assert op_types(out) == ["GroupCsrConv"] and sparse_nodes(out)[0].input[5] == "X"


def test_the_operator_moves_behind_what_it_adds():
    proto = model(
        "(float[1, 8, 5, 5] X) => (Y) { a = Conv(X, W)  b = Abs(X)  c = Neg(b)  d = Add(a, c)  Y = Relu(d) }",
        WEIGHTS,
    )
    out, _ = run(proto, *PASSES, target=EAGER)
    assert op_types(out) == ["Abs", "Neg", "GroupCsrConv"]


def test_of_two_sparse_operands_one_takes_the_other():
    proto = model("(float[1, 8, 5, 5] X) => (Y) { a = Conv(X, W)  b = Conv(X, V)  Y = Add(a, b) }", WEIGHTS)
    out, _ = run(proto, *PASSES, target=EAGER)
    assert op_types(out) == ["GroupCsrConv", "GroupCsrConv"]


def test_of_three_operands_one_stays_an_add():
    proto = model(
        "(float[1, 8, 5, 5] X) => (Y) { a = Conv(X, W)  n = Neg(X)  b = Add(a, n)  Y = Add(b, X) }", WEIGHTS
    )
    out, records = run(proto, *PASSES, target=EAGER)
    assert op_types(out) == ["Neg", "GroupCsrConv", "Add"]
    assert "already adds a residual" in reasons(records["fuse-residual"])["Y"]


def test_gemm():
    proto = model(
        "(float[2, 3, 8] X) => (Y) { a = MatMul(X, M)  Y = Add(X, a) }", {"M": sparse(8, 8), **WEIGHTS}
    )
    out, _ = run(proto, *PASSES, target=EAGER)
    assert op_types(out) == ["GroupCsrGemm"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("a = Conv(X, W)  Y = Add(a, row)  Z = Neg(X)", "not known to have the shape"),
        ("a = Conv(X, W)  Y = Add(a, R)  Z = Neg(X)", "not known to have the shape"),
        ("a = Conv(X, W)  Y = Add(a, X)  Z = Neg(a)", "read elsewhere"),
        ("Z = Conv(X, W)  Y = Add(Z, X)", "read elsewhere"),
        ("a = Conv(X, W)  Y = Add(a, a)  Z = Neg(X)", "read elsewhere"),
    ],
)
def test_refused_with_a_reason(body, why):
    proto = model(
        f"(float[N, 8, 5, 5] X, float[K, 8, 5, 5] R) => (Y, Z) {{ {body} }}", {"row": random(1, 5), **WEIGHTS}
    )
    out, records = run(proto, *PASSES, target=EAGER)
    assert "Add" in op_types(out)
    assert why in reasons(records["fuse-residual"])["Y"]


def test_an_add_after_the_activation_stays():
    proto = model("(float[1, 8, 5, 5] X) => (Y) { a = Conv(X, W)  r = Relu(a)  Y = Add(r, X) }", WEIGHTS)
    out, records = run(proto, SubstituteGroupCsr(), FuseActivation(), FuseResidual(), target=EAGER)
    assert op_types(out) == ["GroupCsrConv", "Add"]
    assert "has an activation" in reasons(records["fuse-residual"])["Y"]


def test_dense_layers_keep_their_add():
    proto = model("(float[1, 8, 5, 5] X) => (Y) { a = Conv(X, D)  Y = Add(a, X) }", WEIGHTS)
    out, _ = run(proto, *PASSES, target=EAGER)
    assert op_types(out) == ["Conv", "Add"]
