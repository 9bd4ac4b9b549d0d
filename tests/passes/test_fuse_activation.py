import math

import pytest

from scalpel_graph.passes.fuse_activation import FuseActivation
from scalpel_graph.passes.substitute_group_csr import SubstituteGroupCsr
from tests.pass_runner import EAGER, model, op_types, reasons, run, sparse, sparse_nodes

PASSES = (SubstituteGroupCsr(), FuseActivation())
WEIGHTS = {"W": sparse(8, 8, 1, 1), "M": sparse(8, 8)}


def bounds(out):
    found = {a.name: a.f for a in sparse_nodes(out)[0].attribute if a.name.startswith("activation")}
    return found["activation_min"], found["activation_max"]


@pytest.mark.parametrize(
    ("node", "expected"),
    [
        ("Relu(a)", (0.0, math.inf)),
        ("Clip(a, zero, six)", (0.0, 6.0)),
        ("Clip(a, , six)", (-math.inf, 6.0)),
        ("Clip(a, zero)", (0.0, math.inf)),
        ("Clip(a)", (-math.inf, math.inf)),
    ],
)
@pytest.mark.parametrize("layer", ["Conv(X, W)", "MatMul(X, M)"])
def test_bounds(node, expected, layer):
    shape = "1, 8, 5, 5" if "Conv" in layer else "2, 3, 8"
    proto = model(
        f"(float[{shape}] X) => (Y) <float zero = {{0}}, float six = {{0.6}}> {{ a = {layer}  Y = {node} }}",
        WEIGHTS,
    )
    out, _ = run(proto, *PASSES, target=EAGER)
    assert op_types(out) == ["GroupCsrConv" if "Conv" in layer else "GroupCsrGemm"]
    assert bounds(out) == pytest.approx([0.6 if b == 6.0 else b for b in expected])


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("a = Conv(X, W)  Y = Relu(a)  Z = Neg(a)", "read elsewhere"),
        ("Z = Conv(X, W)  Y = Relu(Z)", "read elsewhere"),
        (
            "Z = Neg(X)  n = ReduceMax<keepdims = 0>(X)  a = Conv(X, W)  Y = Clip(a, n)",
            "computed by ReduceMax",
        ),
        ("Z = Neg(X)  a = Conv(X, W)  r = Relu(a)  Y = Clip(r, , six)", "already has an activation"),
        ("Z = Neg(X)  a = Conv(X, W)  Y = Clip(a, nan)", "not a number"),
        ("Z = Neg(X)  a = Conv(X, W)  Y = Clip(a, six, five)", "above its max"),
    ],
)
def test_refused_with_a_reason(body, why):
    proto = model(
        f"""(float[1, 8, 5, 5] X) => (Y, Z)
            <float six = {{6}}, float nan = {{0}}, float five = {{5}}> {{ {body} }}""",
        WEIGHTS,
    )
    proto.graph.initializer[1].float_data[:] = [math.nan]
    out, records = run(proto, *PASSES, target=EAGER)
    assert {"Relu", "Clip"} & set(op_types(out))
    assert why in reasons(records["fuse-activation"])["Y"]


def test_dense_layers_keep_theirs():
    proto = model("(float[1, 8, 5, 5] X) => (Y) { a = Neg(X)  Y = Relu(a) }", WEIGHTS)
    out, _ = run(proto, *PASSES, target=EAGER)
    assert op_types(out) == ["Neg", "Relu"]
