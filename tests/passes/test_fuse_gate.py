import pytest

from scalpel_graph.ops import Gate
from scalpel_graph.passes.fuse_activation import FuseActivation
from scalpel_graph.passes.fuse_gate import FuseGate
from scalpel_graph.passes.fuse_residual import FuseResidual
from scalpel_graph.passes.substitute_group_csr import SubstituteGroupCsr
from tests.pass_runner import EAGER, model, op_types, run, sparse, sparse_nodes

PASSES = (SubstituteGroupCsr(), FuseResidual(), FuseActivation(), FuseGate())
WEIGHTS = {"W": sparse(8, 8, 1, 1), "M": sparse(8, 8)}
NUMBERS = """float root = {1.41421356}, float inverse = {0.70710678}, float one = {1}, float half = {0.5},
             float six = {6}, float zero = {0}, float third = {0.33}"""


def rewritten(body, layer="Conv(X, W)", opset=20):
    shape = "1, 8, 5, 5" if "Conv" in layer else "2, 3, 8"
    proto = model(f"(float[{shape}] X) => (Y) <{NUMBERS}> {{ y = {layer}  {body} }}", WEIGHTS, opset=opset)
    return run(proto, *PASSES, target=EAGER)[0]


def gate(out):
    return next(Gate(a.i) for a in sparse_nodes(out)[0].attribute if a.name == "activation_gate")


@pytest.mark.parametrize("layer", ["Conv(X, W)", "MatMul(X, M)"])
@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("Y = HardSwish(y)", Gate.HARD_SWISH),
        ("h = HardSigmoid<alpha = 0.16666667, beta = 0.5>(y)  Y = Mul(h, y)", Gate.HARD_SWISH),
        ("s = Sigmoid(y)  Y = Mul(y, s)", Gate.SILU),
        ("s = Sigmoid(y)  Y = Mul(s, y)", Gate.SILU),
        ("Y = Gelu(y)", Gate.GELU),
        ("d = Div(y, root)  e = Erf(d)  a = Add(e, one)  m = Mul(y, a)  Y = Mul(m, half)", Gate.GELU),
        ("d = Mul(inverse, y)  e = Erf(d)  a = Add(one, e)  m = Mul(a, half)  Y = Mul(y, m)", Gate.GELU),
        ("h = Mul(y, half)  d = Div(y, root)  e = Erf(d)  a = Add(e, one)  Y = Mul(h, a)", Gate.GELU),
    ],
)
def test_gates(layer, body, expected):
    out = rewritten(body, layer)
    assert op_types(out) == ["GroupCsrConv" if "Conv" in layer else "GroupCsrGemm"]
    assert gate(out) == expected


def test_bounds_and_a_residual_come_first():
    out = rewritten("z = Neg(X)  a = Add(y, z)  c = Clip(a, zero, six)  Y = HardSwish(c)")
    assert op_types(out) == ["Neg", "GroupCsrConv"]
    assert gate(out) == Gate.HARD_SWISH


@pytest.mark.parametrize(
    "body",
    [
        "h = HardSwish(y)  n = Neg(y)  Y = Add(h, n)",  # y is read elsewhere
        "h = HardSigmoid(y)  Y = Mul(h, y)",  # another slope
        "s = Sigmoid(y)  n = Neg(s)  m = Mul(y, s)  Y = Add(m, n)",  # the gate is
        "s = Sigmoid(y)  Y = Mul(s, s)",
        "s = Sigmoid(X)  Y = Mul(y, s)",
        'Y = Gelu<approximate = "tanh">(y)',
        "d = Div(y, one)  e = Erf(d)  a = Add(e, one)  m = Mul(y, a)  Y = Mul(m, half)",
        "d = Div(y, root)  e = Erf(d)  a = Add(e, half)  m = Mul(y, a)  Y = Mul(m, half)",
        "d = Div(y, root)  e = Erf(d)  a = Add(e, one)  m = Mul(y, a)  Y = Mul(m, third)",
        "d = Div(y, root)  e = Erf(d)  a = Add(e, one)  m = Mul(X, a)  n = Mul(m, half)  Y = Add(n, y)",
    ],
)
def test_what_is_no_gate_stays(body):
    out = rewritten(body)
    assert gate(out) == Gate.NONE
    assert len(op_types(out)) > 1


def test_one_gate_is_enough():
    out = rewritten("h = HardSwish(y)  Y = HardSwish(h)")
    assert op_types(out) == ["GroupCsrConv", "HardSwish"]


def test_a_later_activation_is_not_taken_for_bounds():
    out = rewritten("h = HardSwish(y)  Y = Relu(h)")
    assert op_types(out) == ["GroupCsrConv", "Relu"]
    assert gate(out) == Gate.HARD_SWISH
