from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalpel_graph import group_csr
from scalpel_graph.graph import ModelGraph
from scalpel_graph.group_csr import GroupCsr
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.clean_up import CleanUp
from scalpel_graph.passes.fuse_activation import FuseActivation
from scalpel_graph.passes.fuse_bias import FuseBias
from scalpel_graph.passes.substitute_group_csr import SubstituteGroupCsr
from tests.pass_runner import (
    CPU,
    EAGER,
    model,
    op_types,
    random,
    reasons,
    run,
    sparse,
    sparse_nodes,
    weights_of,
)


def attributes(node):
    return {a.name: list(a.ints) or a.i or a.f for a in node.attribute}


def decoded(out, node):
    """The dense matrix that a sparse node holds."""
    values, offsets, columns = (weights_of(out)[name] for name in node.input[1:4])
    shape = attributes(node)["weight_shape"]
    return group_csr.decode(GroupCsr(values, offsets, columns, (shape[0], int(np.prod(shape[1:])))))


def only_shape(r, c):
    return replace(EAGER, kernels=tuple(k for k in EAGER.kernels if k.group_shape == (r, c)))


@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (8, 1), (1, 8), (1, 16)])
@pytest.mark.parametrize(
    ("conv", "weight", "x"),
    [
        ("Conv", (24, 20, 1, 1), "2, 20, 5, 6"),
        ("Conv<pads = [1, 2, 0, 1], strides = [2, 1], dilations = [1, 2]>", (24, 6, 3, 2), "1, 6, 8, 9"),
        ("Conv<group = 2, auto_pad = \"VALID\">", (16, 10, 3, 3), "1, 20, 6, 6"),
        ("Conv<pads = [2, 1]>", (9, 16, 3), "2, 16, 7"),
    ],
)  # fmt: skip
def test_conv(conv, weight, x, shape):
    weights = sparse(*weight, group_shape=shape, density=0.1)
    proto = model(f"(float[{x}] X) => (Y) {{ Y = {conv}(X, W, b) }}", {"W": weights, "b": random(weight[0])})
    context = PassContext(only_shape(*shape))
    out, _ = run(proto, SubstituteGroupCsr(), context=context)
    (node,) = sparse_nodes(out)
    assert node.op_type == "GroupCsrConv" and node.input[4] == "b"
    np.testing.assert_array_equal(decoded(out, node), weights.reshape(weight[0], -1))
    (layer,) = context.layers
    assert layer.chosen.group_shape == shape and layer.op == "Conv"
    assert layer.weight_density == pytest.approx(np.count_nonzero(weights) / weights.size)
    assert layer.chosen in layer.candidates and layer.candidates[0].decision == "dense"


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [6, 7])
@pytest.mark.parametrize("kernel", [2, 3, 4])
def test_auto_pad(mode, stride, size, kernel):
    proto = model(
        f"""(float[1, 8, {size}, 7] X) => (Y)
            {{ Y = Conv<auto_pad = "{mode}", strides = [{stride}, 2]>(X, W) }}""",
        {"W": sparse(8, 8, kernel, 2)},
    )
    out, _ = run(proto, SubstituteGroupCsr(), target=EAGER)
    assert op_types(out) == ["GroupCsrConv"]


@pytest.mark.parametrize("transposed", [0, 1])
@pytest.mark.parametrize("factors", ["", "alpha = 0.5, ", "beta = 2.0, ", "alpha = 3.0, beta = 0.0, "])
@pytest.mark.parametrize("c_shape", [None, (12,), (1, 12), (), (1, 1)])
def test_gemm(transposed, factors, c_shape):
    weights = {"W": sparse(12, 20) if transposed else sparse(12, 20).T}
    if c_shape is not None:
        weights["C"] = random(*c_shape)
    inputs = ", ".join(["X", *weights])
    proto = model(
        f"(float[N, 20] X) => (Y) {{ Y = Gemm<{factors}transB = {transposed}>({inputs}) }}",
        weights,
    )
    out, _ = run(proto, SubstituteGroupCsr(), target=EAGER)
    assert op_types(out) == ["GroupCsrGemm"]


@pytest.mark.parametrize("c", ["constant", "input", "symbolic"])
def test_a_whole_matrix_c_becomes_the_residual(c):
    dim = "N" if c == "symbolic" else "3"
    more = "" if c == "constant" else f", float[{dim}, 12] C"
    weights = {"W": sparse(12, 20).T}
    if c == "constant":
        weights["C"] = random(3, 12)
    proto = model(f"(float[{dim}, 20] X{more}) => (float[{dim}, 12] Y) {{ Y = Gemm(X, W, C) }}", weights)
    out, _ = run(proto, SubstituteGroupCsr(), target=EAGER)
    assert sparse_nodes(out)[0].input[5] == "C"


@pytest.mark.parametrize("x", ["3, 20", "2, 3, 20", "2, 1, 3, 20", "N, S, 20"])
def test_matmul_of_any_rank(x):
    proto = model(f"(float[{x}] X) => (Y) {{ Y = MatMul(X, W) }}", {"W": sparse(12, 20).T})
    out, _ = run(proto, SubstituteGroupCsr(), target=EAGER)
    assert op_types(out) == ["GroupCsrGemm"]


def test_a_shared_weight_is_stored_once():
    proto = model(
        "(float[2, 16] X) => (Y) { a = MatMul(X, W)  b = Gemm(a, W)  Y = Gemm<transB = 1>(b, W) }",
        {"W": sparse(16, 16)},
    )
    out, _ = run(proto, SubstituteGroupCsr(), target=only_one_by_one())
    first, second, third = sparse_nodes(out)
    assert first.input[1] == second.input[1] != third.input[1]
    assert "W" not in weights_of(out)


def only_one_by_one():
    return only_shape(1, 1)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("Y = MatMul(X, X)", "not constant"),
        ("w = Neg(W)  Y = MatMul(X, w)", "computed by Neg"),
        ("Y = Gemm<transA = 1>(X, W)", "transA"),
        ("Y = Gemm(X, W, rows)", "neither one number a column nor a whole matrix"),
        ("c = Neg(v)  Y = Gemm(X, W, c)", "computed by Neg"),
        ("Y = MatMul(X, zeros)", "all its weights are zero"),
        ("Y = Gemm<alpha = 0.0>(X, W)", "all its weights are zero"),
        ("Y = Gemm<alpha = 1e30>(X, large)", "not finite"),
        ("Y = MatMul(X, batch)", "rank 3"),
        ("Y = MatMul(X, full)", "no sparse form is smaller"),
        ("h = Cast<to = 10>(X)  y = MatMul(h, half)  Y = Cast<to = 1>(y)", "float16"),
        ("x = Unsqueeze(X, front)  y = Conv(x, depth, b)  Y = Squeeze(y, front)", "one input channel"),
        ("x = Unsqueeze(X, ends)  y = Conv(x, cube)  Y = Squeeze(y, ends)", "3-D"),
        ("k = Cast<to = 7>(X)  z = NonZero(k)  t = Transpose<perm = [1, 0]>(z)  f = Cast<to = 1>(t)  "
         "r = MatMul(f, two)  Y = ReduceSum(r)", "the size of its input is not known"),
    ],
)  # fmt: skip
def test_stays_dense_with_a_reason(body, why):
    proto = model(
        f"(float[16, 16] X) => (Y) {{ {body} }}",
        {
            "W": sparse(16, 16), "rows": random(16, 1), "v": random(16),
            "zeros": np.zeros((16, 16), np.float32), "large": sparse(16, 16) * np.float32(1e10),
            "batch": sparse(2, 16, 16), "full": random(16, 16), "half": sparse(16, 16).astype(np.float16),
            "front": np.array([0]), "depth": sparse(16, 1, 3), "b": random(16), "ends": np.array([0, 1, 2]),
            "cube": sparse(1, 1, 1, 3, 3), "two": sparse(16, 2).T,
        },
    )  # fmt: skip
    if "depth" in body:
        proto.graph.node[1].attribute.add(name="group", i=16, type=2)
    out, records = run(proto, SubstituteGroupCsr(), target=EAGER, rtol=1e-3)
    assert not sparse_nodes(out)
    assert any(why in reason for reason in reasons(records["substitute-group-csr"]).values())


def test_replaceable_default_stays():
    proto = model("(float[2, 4] X, float[4, 4] W) => (Y) { Y = MatMul(X, W) }", {"W": sparse(4, 4)})
    _, records = run(proto, SubstituteGroupCsr(), target=EAGER, feeds={"W": random(4, 4)})
    assert "callers may replace" in reasons(records["substitute-group-csr"])["Y"]


def test_strided_auto_pad_of_unknown_size_stays():
    proto = model(
        '(float[1, 8, H, H] X) => (Y) { Y = Conv<auto_pad = "SAME_UPPER", strides = [2, 2]>(X, W) }',
        {"W": sparse(8, 8, 3, 3)},
    )
    _, records = run(proto, SubstituteGroupCsr(), target=EAGER)
    assert "depends on the size of the input" in reasons(records["substitute-group-csr"])["Y"]


@pytest.mark.parametrize("pointwise", [0.05, 1.0])
def test_depthwise_follows_its_neighbours(pointwise):
    """Between sparse layers it is ours, between dense ones ONNX Runtime's."""
    weights = {name: sparse(256, 256, 1, 1, group_shape=(4, 1), density=pointwise) for name in ("V", "W")}
    proto = model(
        "(float[1, 256, 28, 28] X) => (Y) {"
        " a = Conv(X, V)  b = Conv<group = 256, pads = [1, 1, 1, 1]>(a, D, c)  Y = Conv(b, W) }",
        {**weights, "D": random(256, 1, 3, 3), "c": random(256)},
    )
    context = PassContext(CPU)
    out, _ = run(proto, SubstituteGroupCsr(), context=context)
    types = ["GroupCsrConv"] * 3 if pointwise < 1 else ["Conv"] * 3
    assert op_types(out) == types
    assert context.layers[1].reason.startswith("depthwise" if pointwise < 1 else "kept dense")


def test_row_blocks_never_straddle_groups():
    proto = model("(float[1, 12, 6, 6] X) => (Y) { Y = Conv<group = 2>(X, W) }", {"W": sparse(12, 6, 1, 1)})
    context = PassContext(EAGER)
    run(proto, SubstituteGroupCsr(), context=context)
    shapes = {candidate.group_shape for candidate in context.layers[0].candidates}
    assert not {(4, 1), (8, 1), (16, 1)} & shapes and (2, 1) in shapes


def test_old_opset_is_refused_here():
    proto = model("(float[2, 16] X) => (Y) { Y = MatMul(X, W) }", {"W": sparse(16, 16)}, opset=12)
    context = PassContext(EAGER)
    out, records = run(proto, SubstituteGroupCsr(), context=context)
    assert op_types(out) == ["MatMul"]
    assert "opset 12" in reasons(records["substitute-group-csr"])["Y"]
    assert context.layers[0].chosen.decision == "dense"


def test_symbols_are_sized_by_the_context():
    proto = model("(float[N, 4, H, W] X) => (Y) { Y = Conv(X, W0) }", {"W0": sparse(64, 4, 2, 2)})
    times = []
    for size in (8, 512):
        context = PassContext(CPU, dimensions={"N": 1, "H": size, "W": size})
        run(proto, SubstituteGroupCsr(), context=context)
        times.append(context.layers[0].candidates[0].predicted_us)
    assert times[1] > 10 * times[0]


def test_fc_layers_at_90_percent_are_chosen_by_the_shipped_profile():
    for M, K in ((2048, 2048), (1024, 9216), (300, 784)):
        for shape in ((1, 8), (8, 1), (4, 1)):
            proto = model(
                f"(float[1, {K}] X) => (Y) {{ Y = Gemm<transB = 1>(X, W) }}",
                {"W": sparse(M, K, group_shape=shape, density=0.1)},
            )
            graph = ModelGraph(proto)
            graph.infer()
            context = PassContext(CPU)
            SubstituteGroupCsr().run(graph, context)
            assert context.layers[0].chosen.decision == "group_csr", (M, K, shape)


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(st.integers(1, 2), st.integers(1, 3), st.integers(1, 4), st.integers(1, 6)),
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.tuples(st.integers(1, 2), st.integers(0, 2)),
    st.booleans(),
    st.integers(0, 99),
)
def test_any_conv_gives_what_the_dense_one_gives(sizes, kernel, geometry, bias, seed):
    (batch, group, ins, outs), (kh, kw), (stride, pad) = sizes, kernel, geometry
    C, M = ins * group, outs * group
    weights = {"W": sparse(M, ins, kh, kw, density=0.3, seed=seed), "b": random(M, seed=seed)}
    proto = model(
        f"(float[{batch}, {C}, 5, 6] X) => (Y) {{ Y = Conv<group = {group}, strides = [{stride}, 1], "
        f"pads = [{pad}, 0, 0, {pad}]>(X, W{', b' if bias else ''}) }}",
        weights,
    )
    run(proto, SubstituteGroupCsr(), target=EAGER)


@pytest.mark.parametrize(("weights", "dtype"), [("fp16", np.float16), ("bf16", ml_dtypes.bfloat16)])
def test_values_are_stored_in_the_type_asked_for(weights, dtype):
    W, kernel = sparse(24, 20), sparse(8, 4, 3, 3)
    proto = model(
        """(float[2, 20] X, float[1, 4, 6, 6] Z) => (Y, V)
           { Y = Gemm<transB = 1>(X, W, b)  V = Conv<pads = [1, 1, 1, 1]>(Z, K) }""",
        {"W": W, "b": random(24), "K": kernel},
    )
    context = PassContext(EAGER, weights=weights)
    out, _ = run(proto, SubstituteGroupCsr(), context=context, rtol=0.05, atol=0.05)
    assert op_types(out) == ["GroupCsrGemm", "GroupCsrConv"]
    for node, dense, layer in zip(sparse_nodes(out), (W, kernel.reshape(8, -1)), context.layers, strict=True):
        assert weights_of(out)[node.input[1]].dtype == dtype
        np.testing.assert_array_equal(decoded(out, node), dense.astype(dtype))
        assert layer.values.type == weights and 0 < layer.values.error <= 2**-8


def test_groups_that_round_to_zero_are_not_stored():
    W = np.zeros((4, 8), np.float32)
    W[:, 0], W[1, 5] = 1.0, 1e-9
    proto = model("(float[2, 8] X) => (Y) { Y = Gemm<transB = 1>(X, W) }", {"W": W})
    out, _ = run(proto, SubstituteGroupCsr(), context=PassContext(only_one_by_one(), weights="fp16"))
    assert weights_of(out)[sparse_nodes(out)[0].input[1]].size == 4


def test_a_layer_whose_weights_do_not_fit_keeps_float32_and_says_why():
    large = sparse(16, 16, seed=1)
    large[0, 0] = 1e5
    proto = model(
        "(float[2, 16] X) => (Y, Z) { Y = MatMul(X, W)  Z = MatMul(X, large) }",
        {"W": sparse(16, 16).T, "large": large.T},
    )
    context = PassContext(EAGER, weights="fp16")
    out, _ = run(proto, SubstituteGroupCsr(), context=context, rtol=1e-2, atol=1e-2)
    first, second = sparse_nodes(out)
    assert weights_of(out)[first.input[1]].dtype == np.float16
    assert weights_of(out)[second.input[1]].dtype == np.float32
    assert [layer.values.type for layer in context.layers] == ["fp16", "fp32"]
    assert context.layers[1].reason.endswith("values stay float32: a weight of 1e+05 is too large for fp16")
    assert "float32" not in context.layers[0].reason


def test_a_dense_layer_has_values_of_float32():
    proto = model("(float[8, 16] X) => (Y) { Y = MatMul(X, W) }", {"W": random(16, 16)})
    context = PassContext(CPU, weights="fp16")
    run(proto, SubstituteGroupCsr(), context=context)
    (layer,) = context.layers
    assert layer.chosen.decision == "dense" and layer.values.type == "fp32" and layer.values.error == 0


QDQ_WEIGHT = """(float[%s, 24] X) => (Y) {
  w = DequantizeLinear<axis = %d>(W, ws, wz)
  %s
}"""
FORMS = {
    "matmul": (1, "m = MatMul(X, w)   Y = Add(m, b)", True),
    "gemm": (0, "g = Gemm<transB = 1>(X, w, b)   Y = Relu(g)", False),
    "transposed": (0, "t = Transpose<perm = [1, 0]>(w)   Y = Gemm(X, t, b)", False),
}


@pytest.mark.parametrize("rows", [1, 9])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_a_product_whose_weight_alone_is_quantized(form, per_channel, rows):
    axis, nodes, is_transposed = FORMS[form]
    integers = np.rint(sparse(16, 24, group_shape=(4, 1), density=0.4) * 40).clip(-127, 127).astype(np.int8)
    scale = (np.arange(16 if per_channel else 1, dtype=np.float32) + 1) / 500
    weights = {
        "W": integers.T.copy() if is_transposed else integers, "b": random(16),
        "ws": scale if per_channel else scale[0], "wz": np.zeros(16 if per_channel else (), np.int8),
    }  # fmt: skip
    proto = model(QDQ_WEIGHT % (rows, axis, nodes), weights)
    context = PassContext(EAGER, weights="fp16")
    out, _ = run(proto, SubstituteGroupCsr(), FuseBias(), FuseActivation(), CleanUp(), context=context)
    [node] = out.graph.node
    assert node.op_type == "GroupCsrScaledGemm"
    np.testing.assert_array_equal(decoded(out, node), integers)
    assert weights_of(out)[node.input[6]].tolist() == np.broadcast_to(scale, (16,)).tolist()
    assert [layer.values.type for layer in context.layers] == ["int8"] and context.layers[0].values.error == 0


def test_a_weight_of_integers_that_does_not_suit_stays():
    proto = model(
        QDQ_WEIGHT % (2, 0, "Y = MatMul(X, w)"),
        {"W": np.ones((24, 16), np.int8), "ws": np.ones(24, np.float32), "wz": np.zeros(24, np.int8)},
    )
    out, records = run(proto, SubstituteGroupCsr(), target=EAGER)
    assert op_types(out) == ["DequantizeLinear", "MatMul"]
    [reason] = reasons(records["substitute-group-csr"]).values()
    assert reason == "its weight has scales along axis 0, not one for each output"


def test_weights_rounded_to_integers():
    weights = {"W": sparse(16, 24, density=0.3), "V": sparse(8, 16, 1, 1, density=0.3)}
    proto = model(
        """(float[3, 24] X) => (Y) {
          g = Gemm<transB = 1>(X, W)   r = Reshape(g, shape)   Y = Conv(r, V)
        }""",
        {**weights, "shape": np.array([3, 16, 1, 1])},
    )
    context = PassContext(EAGER, weights="int8")
    out, _ = run(proto, SubstituteGroupCsr(), context=context, atol=0.1)
    assert op_types(out) == ["GroupCsrScaledGemm", "Reshape", "GroupCsrConv"]
    gemm, conv = sparse_nodes(out)
    scale = weights_of(out)[gemm.input[6]][:, np.newaxis]
    np.testing.assert_allclose(decoded(out, gemm) * scale, weights["W"], atol=np.abs(scale).max() / 2)
    assert weights_of(out)[conv.input[1]].dtype == np.float32
    assert [layer.values.type for layer in context.layers] == ["int8", "fp32"]
    assert "there is no Conv of int8 weights" in context.layers[1].reason
