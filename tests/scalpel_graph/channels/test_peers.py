"""What other tools get wrong on ONNX models with half of their channels dead, and what is right."""

import numpy as np
import pytest

import scalpel_graph
from scalpel_graph.passes.fold_batchnorm import FoldBatchNorm
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import EXACT, model, op_types, random, reasons, run, weights_of
from tests.scalpel_graph.channels.left import left_of

HALF = [0, 2, 3, 7]
W = random(8, 3, 3, 3)
V = random(5, 8, 3, 3, seed=1)
B = random(8, seed=2)


def half_zero(values, axis=0):
    values = np.array(values)
    np.moveaxis(values, axis, 0)[HALF] = 0
    return values


MASK = half_zero(np.ones(8, np.float32))
MASK4 = MASK.reshape(1, 8, 1, 1)
IMAGE = "(float[N, 3, 9, 9] X) => (Y)"


def shapes(text, weights, graph=IMAGE, passes=(), **options):
    """Shapes of the weights left, and the operators."""
    out, records = run(model(f"{graph} {{ {text} }}", weights, **options), *passes, RemoveChannels())
    return {name: values.shape for name, values in left_of(out).items()}, op_types(out), records


def test_conv_relu_mask_conv():
    left, ops, _ = shapes(
        "c = Conv(X, W, B) r = Relu(c) m = Mul(r, M) Y = Conv(m, V)", {"W": W, "B": B, "M": MASK4, "V": V}
    )
    assert left == {"W": (4, 3, 3, 3), "B": (4,), "V": (5, 4, 3, 3)}
    assert ops == ["Conv", "Relu", "Conv"]


@pytest.mark.parametrize("mask", [MASK, MASK.reshape(1, 8)], ids=["vector", "row"])
def test_gemm_relu_mask_gemm(mask):
    left, ops, _ = shapes(
        "c = Gemm(X, G, B) r = Relu(c) m = Mul(r, M) Y = Gemm(m, H)",
        {"G": random(6, 8), "B": B, "M": mask, "H": random(8, 4)},
        graph="(float[N, 6] X) => (Y)",
    )
    assert left == {"G": (6, 4), "B": (4,), "H": (4, 4)}
    assert ops == ["Gemm", "Relu", "Gemm"]


@pytest.mark.parametrize("last", ["Y = MatMul(s, H)", "d = MatMul(s, H) Y = Add(d, C)"])
def test_matmul_add_mask_matmul(last):
    left, ops, _ = shapes(
        f"c = MatMul(X, G) b = Add(B, c) m = Mul(b, M) s = Sigmoid(m) {last}",
        {"G": random(6, 8), "B": B, "M": MASK, "H": random(8, 4), "C": random(4)},
        graph="(float[N, T, 6] X) => (Y)",
    )
    assert left["G"] == (6, 4)
    assert left["H"] == (4, 4)
    assert ops == [
        "MatMul",
        "Add",
        "Sigmoid",
        "MatMul",
        "Add",
    ]  # the last Add is sigmoid(0) times what it met


def test_a_mask_that_is_not_all_ones_keeps_its_values():
    mask = MASK4 * np.float32(2)
    left, ops, _ = shapes("c = Conv(X, W) m = Mul(c, M) Y = Conv(m, V)", {"W": W, "M": mask, "V": V})
    assert left["M"] == (1, 4, 1, 1)
    assert ops == ["Conv", "Mul", "Conv"]


@pytest.mark.parametrize(("pads", "kept"), [("[0, 0, 0, 0]", 4), ("[1, 1, 1, 1]", 8)])
def test_mask_sigmoid_conv(pads, kept):
    """Each dead channel holds sigmoid(0): taking it out is exact without padding only."""
    left, _, records = shapes(
        f"c = Conv(X, W) m = Mul(c, M) s = Sigmoid(m) Y = Conv<pads = {pads}>(s, V)",
        {"W": W, "M": MASK4, "V": V},
    )
    assert left["W"][0] == kept
    assert ("its padding holds zeros" in reasons(records["remove-channels"]).get("Y", "")) == (kept == 8)


@pytest.mark.parametrize("passes", [(), (FoldBatchNorm(),)], ids=["alone", "after fold-batchnorm"])
@pytest.mark.parametrize(("pads", "kept"), [("[0, 0, 0, 0]", 4), ("[1, 1, 1, 1]", 8)])
def test_mask_batchnorm_conv(pads, kept, passes):
    statistics = {
        "s": B + 3,
        "o": B,
        "m": random(8, seed=3),
        "v": np.abs(random(8, seed=4)) + np.float32(0.1),
    }
    left, _, _ = shapes(
        f"c = Conv(X, W) k = Mul(c, M) b = BatchNormalization(k, s, o, m, v) Y = Conv<pads = {pads}>(b, V)",
        {"W": W, "M": MASK4, "V": V, **statistics},
        passes=passes,
    )
    assert left["W"][0] == kept


def test_residual_with_one_branch_dead():
    left, _, records = shapes(
        "a = Conv(X, W) b = Conv(X, D) s = Add(a, b) Y = Conv(s, V)", {"W": W, "D": half_zero(W), "V": V}
    )
    assert left["W"][0] == left["D"][0] == 8
    assert "combines them with others that vary" in reasons(records["remove-channels"])["s"]


def test_zero_filter_with_bias():
    left, _, _ = shapes("a = Conv(X, D, B) Y = Conv(a, V)", {"D": half_zero(W), "B": B, "V": V})
    assert left["D"][0] == 4
    assert left["Y_bias"] == (5,)


def test_consumer_weights_that_are_zero_for_a_channel():
    left, _, _ = shapes("a = Conv(X, W, B) Y = Conv(a, V)", {"W": W, "B": B, "V": half_zero(V, axis=1)})
    assert left["W"][0] == left["B"][0] == left["V"][1] == 4


def test_grouped_conv_consumer():
    """The dead channels are 3 of one group and 1 of the other: one of each goes."""
    left, _, records = shapes(
        "a = Conv(X, D) Y = Conv<group = 2>(a, V)", {"D": half_zero(W), "V": random(6, 4, 3, 3)}
    )
    assert left == {"D": (6, 3, 3, 3), "V": (6, 3, 3, 3)}
    assert "groups must stay equally wide" in reasons(records["remove-channels"])["Y"]


def test_a_group_goes_as_a_whole():
    dead = np.array(W)
    dead[4:] = 0
    weights = {"D": dead, "V": random(6, 4, 3, 3), "U": random(5, 6, 1, 1)}
    out, _ = run(
        model(f"{IMAGE} {{ a = Conv(X, D) b = Conv<group = 2>(a, V) r = Relu(b) Y = Conv(r, U) }}", weights),
        RemoveChannels(),
    )
    grouped = out.graph.node[1]
    assert {a.name: a.i for a in grouped.attribute if a.name == "group"} == {"group": 1}
    assert weights_of(out)[grouped.input[1]].shape == (3, 4, 3, 3)


def test_conv_transpose_consumer():
    left, _, _ = shapes(
        "a = Conv(X, D) Y = ConvTranspose(a, V)", {"D": half_zero(W), "V": random(8, 2, 3, 3)}
    )
    assert left == {"D": (4, 3, 3, 3), "V": (4, 2, 3, 3)}


def test_unknown_operator():
    left, _, records = shapes("a = Conv(X, D) l = Trilu(a) Y = Conv(l, V)", {"D": half_zero(W), "V": V})
    assert left["D"][0] == 8
    assert (
        reasons(records["remove-channels"])["l"]
        == "keeps 4 channels that cannot matter: there is no rule for Trilu"
    )


@pytest.mark.parametrize(
    ("kind", "dtype", "rtol"), [("float16", np.float16, 2e-2), ("double", np.float64, 1e-12)]
)
def test_types(kind, dtype, rtol):
    weights = {"D": half_zero(random(8, 6)), "B": B, "V": random(8, 4) / 8}
    weights = {name: values.astype(dtype) for name, values in weights.items()}
    out, _ = run(
        model(
            f"({kind}[N, 6] X) => (Y) {{ a = Gemm<transB = 1>(X, D, B) s = Tanh(a) Y = Gemm(s, V) }}", weights
        ),
        RemoveChannels(),
        rtol=rtol,
        atol=rtol,
    )
    assert {values.dtype for values in left_of(out).values()} == {np.dtype(dtype)}
    assert left_of(out)["D"].shape[0] == 4


@pytest.mark.parametrize("rank", [1, 2, 3])
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
def test_any_number_of_spatial_axes(rank, op):
    kernel = (3,) * rank
    first, second = half_zero(random(8, 3, *kernel)), random(5, 8, *kernel)
    if op == "ConvTranspose":
        first, second = first.swapaxes(0, 1), second.swapaxes(0, 1)
    size = ", ".join(["5"] * rank)
    proto = model(
        f"(float[N, 3, {size}] X) => (Y) {{ a = {op}(X, D) r = Relu(a) Y = {op}(r, V) }}",
        {"D": np.ascontiguousarray(first), "V": np.ascontiguousarray(second)},
    )
    out, _ = run(proto, RemoveChannels())
    left = {name: values.shape for name, values in left_of(out).items()}
    axis = 1 if op == "ConvTranspose" else 0
    assert left["D"][axis] == left["V"][1 - axis] == 4


def test_old_opsets_are_left_alone():
    _, _, records = shapes(
        "a = Conv<kernel_shape = [3, 3]>(X, D) Y = Conv<kernel_shape = [3, 3]>(a, V)",
        {"D": half_zero(W), "V": V},
        opset=6,
    )
    assert "removing channels needs 7" in reasons(records["remove-channels"])["g"]


def test_the_report_lists_the_layers_that_got_narrower():
    proto = model(
        f"{IMAGE} {{ [first] c = Conv(X, W, B) r = Relu(c) m = Mul(r, M) [second] Y = Conv(m, V) }}",
        {"W": W, "B": B, "M": MASK4, "V": V},
    )
    result = scalpel_graph.optimize(proto, EXACT)
    report = result.report.to_json()
    assert report["verified"]["ok"]
    assert report["removed_nodes"] == [
        {
            "name": "first",
            "before": 8,
            "after": 4,
            "possible": 4,
            "parameters": {"before": 8 * 27 + 8, "after": 4 * 27 + 4},
            "macs": {"before": 49 * 8 * 27, "after": 49 * 4 * 27},
        },
        {
            "name": "second",
            "before": 5,
            "after": 5,
            "possible": 5,
            "parameters": {"before": 5 * 8 * 9, "after": 5 * 4 * 9},
            "macs": {"before": 25 * 5 * 8 * 9, "after": 25 * 5 * 4 * 9},
        },
    ]
    assert report["parameters"]["after"] < report["parameters"]["before"] / 1.9
