import numpy as np
import pytest
from onnx import TensorProto, helper

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.fold_constants import FoldConstants
from tests.pass_runner import CPU, model, op_types, random, reasons, run, weights_of


def test_constant_nodes_become_initializers_of_the_same_name():
    proto = model(
        """(float[2, 3] X) => (float[2, 3] Y)
           { a = Constant<value = float[3] {1, 2, 3}>()  b = Constant<value_float = 2.0>()
             c = Constant<value_ints = [2, 3]>()
             s = Add(X, a)  t = Mul(s, b)  Y = Reshape(t, c) }"""
    )
    out, records = run(proto, FoldConstants())
    assert op_types(out) == ["Add", "Mul", "Reshape"]
    assert {name: values.tolist() for name, values in weights_of(out).items()} == {
        "a": [1, 2, 3], "b": 2.0, "c": [2, 3]
    }  # fmt: skip
    assert records["fold-constants"].rewritten == ["a", "b", "c"]


def test_chains_are_computed_and_only_their_ends_are_kept():
    proto = model(
        """(float[2, 4] X) => (float[2, 3] Y)
           { t = Transpose<perm = [1, 0]>(W)  n = Neg(t)  r = Relu(n)  Y = MatMul(X, r) }""",
        {"W": random(3, 4)},
    )
    out, _ = run(proto, FoldConstants())
    assert op_types(out) == ["MatMul"]
    np.testing.assert_array_equal(weights_of(out)["r"], np.maximum(-random(3, 4).T, 0))
    assert len(out.graph.initializer) == 1


def test_results_much_larger_than_their_inputs_stay_computed():
    proto = model(
        """(float[64, 64] X) => (float[64, 64] Y)
           <int64[2] shape = {64, 64}>
           { W = ConstantOfShape<value = float[1] {0.5}>(shape)  V = Neg(W)  Y = MatMul(X, V) }"""
    )
    out, records = run(proto, FoldConstants())
    assert op_types(out) == ["ConstantOfShape", "Neg", "MatMul"]
    assert "bytes larger" in reasons(records["fold-constants"])["W"]


def test_weight_read_by_others_counts_as_growth():
    proto = model(
        """(float[64, 64] X) => (float[64, 64] Y, float[64, 64] Z)
           { V = Transpose<perm = [1, 0]>(W)  Y = MatMul(X, V)  Z = MatMul(X, W) }""",
        {"W": random(64, 64)},
    )
    out, _ = run(proto, FoldConstants())
    assert "Transpose" in op_types(out)


@pytest.mark.parametrize(
    ("node", "why"),
    [
        ("V = RandomNormalLike(C)", "same result twice"),
        ("a, b = Dropout(C)  V = Neg(a)", "same result twice"),
        ("q = QuantizeLinear(C, s, z)  V = DequantizeLinear(q, s, z)", "quantized form"),
        ("i = NonZero(C)  f = Cast<to = 1>(i)  V = ReduceSum<keepdims = 0>(f)", "not known before"),
        (
            "V = If(t) <then_branch = a () => (float[2] o) { o = Identity(C) }, "
            "else_branch = b () => (float[2] p) { p = Neg(C) }>",
            "subgraph",
        ),
    ],
)
def test_left_alone_with_a_reason(node, why):
    proto = model(
        f"""(float[2] X) => (float[2] Y)
            <float[2] C = {{1, 2}}, float s = {{0.5}}, int8 z = {{0}}, bool t = {{1}}>
            {{ {node}  w = Sub(V, V)  Y = Add(X, w) }}"""
    )
    out, records = run(proto, FoldConstants())
    kept = node.split("= ")[1].split("(")[0].split("<")[0]
    assert kept in op_types(out)
    assert any(why in reason for reason in reasons(records["fold-constants"]).values())


def test_model_outputs_stay_made_by_nodes():
    proto = model(
        "(float[2] X) => (float[2] Y, float[2] Z, float[2] A) <float[2] C = {1, 2}>"
        "{ Y = Neg(X)  Z = Neg(C)  A = Constant<value = float[2] {3, 4}>() }"
    )
    out, records = run(proto, FoldConstants())
    assert op_types(out) == ["Neg", "Neg", "Constant"]
    assert not records["fold-constants"].modified


def test_values_that_only_subgraphs_read_are_kept_under_their_name():
    proto = model(
        """(float[2] X, bool c) => (float[2] Y) <float[2] C = {1, 2}>
           { n = Neg(C)  k = Constant<value = float[2] {3, 4}>()
             Y = If(c) <then_branch = a () => (float[2] o) { o = Add(X, n) },
                        else_branch = b () => (float[2] p) { p = Add(X, k) }> }"""
    )
    for condition in (True, False):
        out, _ = run(proto, FoldConstants(), feeds={"c": np.array(condition)})
        assert op_types(out) == ["If"]
        assert set(weights_of(out)) == {"n", "k"}


def test_an_operator_that_onnx_runtime_lacks_does_not_stop_the_others():
    proto = model(
        """(float[2] X) => (float[2] Y) <float[2] C = {1, 2}>
           { a = Neg(C)  b = Neg(D)  d = CastLike(b, C)  e = Add(a, d)  Y = Add(X, e) }"""
    )
    proto.graph.initializer.append(helper.make_tensor("D", TensorProto.BFLOAT16, [2], [1.0, 2.0]))

    graph = ModelGraph(proto)
    graph.infer()
    result = FoldConstants().run(graph, PassContext(CPU))
    out = graph.to_proto()
    assert "a" in result.rewritten and "a" in weights_of(out)
    assert any(skip.node == "b" and "ONNX Runtime cannot" in skip.reason for skip in result.skipped)
    assert op_types(out) == ["Neg", "CastLike", "Add", "Add"]


def test_ir_version_3_models_stay_valid():
    proto = model(
        "(float[2] X, float[2] C) => (float[2] Y) <float[2] C = {1, 2}> { n = Neg(C)  Y = Add(X, n) }",
        opset=7,
        ir_version=3,
    )
    out, _ = run(proto, FoldConstants())
    assert op_types(out) == ["Add"] and [value.name for value in out.graph.input] == ["X", "n"]


def test_a_default_that_callers_may_replace_is_not_folded():
    proto = model(
        "(float[2] X, float[2] C) => (float[2] Y) <float[2] C = {1, 2}> { n = Neg(C)  Y = Add(X, n) }"
    )
    out, _ = run(proto, FoldConstants(), feeds={"C": np.array([5, 6], dtype=np.float32)})
    assert op_types(out) == ["Neg", "Add"]


def test_sizes_that_are_known_are_constants():
    proto = model(
        """(float[N, 6, 4, 4] X) => (float[N, 3, 2, 4, 4] Y, int64 n)
           <int64[1] batch = {0}, int64 one = {1}, int64[1] first = {0}, int64 two = {2}, int64 zero = {0},
            int64[2] last = {-2, -1}>
           { s = Shape(X)  c = Gather(s, one)  h = Div(c, two)  m = Unsqueeze(h, first)
             b = Gather(s, first)  r = Shape<start = 1>(X)  e = Gather(r, last)  k = Gather(r, zero)
             k2 = Sub(k, two) k3 = Div(k2, two) u = Unsqueeze(k3, first)
             t = Concat<axis = 0>(b, m, u, e)  Y = Reshape(X, t)  n = Gather(s, zero) }"""
    )
    out, records = run(proto, FoldConstants())
    assert op_types(out) == ["Shape", "Gather", "Shape", "Concat", "Reshape", "Gather"]
    assert {"c", "e", "k"} <= set(records["fold-constants"].rewritten)
    assert weights_of(out)["e"].tolist() == [4, 4] and weights_of(out)["m"].tolist() == [3]
