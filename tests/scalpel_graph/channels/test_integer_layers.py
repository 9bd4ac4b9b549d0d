"""Operators on integer tensors: which channels go, and that not a bit of the answers changes."""

import numpy as np
import pytest

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import EXACT, model, random_feeds, reasons, run, weights_of
from tests.scalpel_graph.channels.bits import bits
from tests.scalpel_graph.channels.left import left_of

C = 8
DEAD = [1, 4, 6]
ZERO = 131
SCALES = {"s": np.float32(0.043), "z": np.uint8(ZERO), "t": np.float32(0.021), "o": np.uint8(117)}


def integers(*shape, seed=0, dtype=np.int8):
    """Of 7 bits with their zero point: kernels without VNNI saturate in the middle of a sum of more."""
    return np.random.default_rng([seed, *shape]).integers(-55, 55, shape).astype(dtype)


def weight(name, values, axis=None, dead=(), dead_axis=0, bias=None):
    """Integers with a zero point and a scale for each index of an axis, or one for all."""
    rng = np.random.default_rng(len(name))
    count = () if axis is None else values.shape[axis]
    zero = rng.integers(-5, 5, count).astype(values.dtype) if axis is not None else np.array(3, values.dtype)
    shape = [1] * values.ndim
    if axis is not None:
        shape[axis] = -1
    stored = (values + zero.reshape(shape)).astype(values.dtype)
    full = np.broadcast_to(zero.reshape(shape), values.shape)
    np.moveaxis(stored, dead_axis, 0)[list(dead)] = np.moveaxis(full, dead_axis, 0)[list(dead)]
    made = {name: stored, f"z{name}": zero, f"s{name}": (rng.random(count) * 0.05 + 0.01).astype(np.float32)}
    return made if bias is None else {**made, f"b{name}": bias}


def shrunk(text, weights, shape="N, 3, 6, 6", made="float[N, M, H, W] Y"):
    text = f"x = QuantizeLinear(X, s, z) {text}"
    proto = model(f"(float[{shape}] X) => ({made}) {{ {text} }}", {**SCALES, **weights})
    out, records = run(proto, RemoveChannels(), atol=0)
    feeds = random_feeds(proto)
    for before, after in zip(bits(proto, feeds), bits(out, feeds), strict=True):
        np.testing.assert_array_equal(after, before)
    _, again = run(out, RemoveChannels())
    assert not again["remove-channels"].modified
    return left_of(out), reasons(records["remove-channels"]), out


def bias_of(dead=DEAD, held=0, seed=3):
    values = integers(C, seed=seed, dtype=np.int32) * 40
    values[list(dead)] = held
    return values


FIRST = "p = QLinearConv(x, s, z, W, sW, zW, s, z, bW) "
LAST = " Y = DequantizeLinear(q, t, o)"


def first(held=0, axis=0, dead=DEAD):
    values = integers(C, 3, 3, 3)
    return weight("W", values, axis, dead, bias=bias_of(dead, held))


class TestConv:
    @pytest.mark.parametrize("pads", ["", "<pads = [1, 1, 1, 1]>"])
    @pytest.mark.parametrize("axis", [0, None])
    def test_zero_points_go(self, axis, pads):
        text = FIRST + f"q = QLinearConv{pads}(p, s, z, V, sV, zV, t, o)" + LAST
        weights = {**first(axis=axis), **weight("V", integers(4, C, 3, 3, seed=1), axis)}
        values, _, _ = shrunk(text, weights)
        assert values["W"].shape == (5, 3, 3, 3) and values["W"].dtype == np.int8
        assert values["bW"].shape == (5,) and values["V"].shape == (4, 5, 3, 3)
        assert values["sW"].shape == values["zW"].shape == (() if axis is None else (5,))

    @pytest.mark.parametrize("axis", [0, None])
    @pytest.mark.parametrize("bias", [True, False])
    def test_constants_go_into_the_bias(self, axis, bias):
        text = FIRST + f"q = QLinearConv(p, s, z, V, sV, zV, t, o{', bV' if bias else ''})" + LAST
        given = integers(4, dtype=np.int32) if bias else None
        weights = {**first(held=500), **weight("V", integers(4, C, 3, 3, seed=1), axis, bias=given)}
        values, _, out = shrunk(text, weights)
        assert values["W"].shape[0] == 5 and values["V"].shape == (4, 5, 3, 3)
        last = next(node for node in reversed(out.graph.node) if node.op_type == "QLinearConv")
        assert weights_of(out)[last.input[8]].dtype == np.int32

    def test_constants_that_stay(self):
        text = FIRST + "q = QLinearConv<pads = [1, 1, 1, 1]>(p, s, z, V, sV, zV, t, o)" + LAST
        values, why, _ = shrunk(text, {**first(held=500), **weight("V", integers(4, C, 3, 3, seed=1))})
        assert values["W"].shape[0] == C
        assert any("its padding holds zeros" in reason for reason in why.values())
        text = FIRST + "q = QLinearConv(p, s, z, V, sV, zV, t, o, bV)" + LAST
        full = np.full(4, 2**31 - 1, np.int32)
        values, why, _ = shrunk(text, {**first(held=500), **weight("V", integers(4, C, 3, 3), bias=full)})
        assert values["W"].shape[0] == C
        assert any("too large for its int32 bias" in reason for reason in why.values())

    @pytest.mark.parametrize("axis", [0, None])
    def test_groups(self, axis):
        text = FIRST + "q = QLinearConv<group = 2>(p, s, z, V, sV, zV, t, o, bV)" + LAST
        weights = first(held=500)
        weights |= weight("V", integers(4, C // 2, 3, 3, seed=1), axis, bias=integers(4, dtype=np.int32))
        values, _, _ = shrunk(text, weights)
        assert values["W"].shape[0] == 6 and values["V"].shape == (4, 3, 3, 3)

    @pytest.mark.parametrize("axis", [0, None])
    def test_depthwise(self, axis):
        depthwise = "d = QLinearConv<group = 8, pads = [1, 1, 1, 1]>(p, s, z, D, sD, zD, s, z) "
        text = FIRST + depthwise + "q = QLinearConv(d, s, z, V, sV, zV, t, o)" + LAST
        weights = {**first(), **weight("D", integers(C, 1, 3, 3, seed=2), axis)}
        values, _, _ = shrunk(text, {**weights, **weight("V", integers(4, C, 1, 1, seed=1))})
        assert values["D"].shape == (5, 1, 3, 3) and values["V"].shape == (4, 5, 1, 1)

    def test_unread_channels_go(self):
        text = FIRST + "q = QLinearConv(p, s, z, V, sV, zV, t, o)" + LAST
        weights = {**first(dead=()), **weight("V", integers(4, C, 1, 1, seed=1), 0, DEAD, dead_axis=1)}
        assert shrunk(text, weights)[0]["W"].shape[0] == 5

    def test_pools_reshapes_and_padding(self):
        text = (
            FIRST + "m = MaxPool<kernel_shape = [2, 2], pads = [1, 1, 0, 0]>(p) n = Pad(m, pads, z) "
            "t1 = Transpose<perm = [0, 2, 3, 1]>(n) t2 = Transpose<perm = [0, 3, 1, 2]>(t1) "
            "q = QLinearConv(t2, s, z, V, sV, zV, t, o)" + LAST
        )
        weights = {**first(), **weight("V", integers(4, C, 1, 1, seed=1))}
        weights["pads"] = np.array([0, 0, 1, 1, 0, 0, 1, 1])
        assert shrunk(text, weights)[0]["W"].shape[0] == 5

    def test_integers_with_a_static_zero_point(self):
        text = FIRST + "c = ConvInteger(p, V, z, zV) Y = Cast<to = 1>(c)"
        weights = {**first(), **weight("V", integers(4, C, 3, 3, seed=1, dtype=np.int8))}
        values, _, _ = shrunk(text, weights)
        assert values["V"].shape == (4, 5, 3, 3)
        values, why, _ = shrunk(text, {**weights, **first(held=500)})
        assert values["W"].shape[0] == C
        assert any("no bias that could take it" in reason for reason in why.values())


class TestMatrices:
    @pytest.mark.parametrize("held", [0, 500])
    @pytest.mark.parametrize("transposed", [0, 1])
    @pytest.mark.parametrize("per_output", [False, True])
    @pytest.mark.parametrize("bias", [False, True])
    def test_gemm(self, transposed, per_output, held, bias):
        axis = (1 - transposed) if per_output else None

        def matrix(name, m, k, dead=(), bias=None):
            values = integers(m, k)
            return weight(name, values if transposed else values.T, axis, dead, 1 - transposed, bias)

        gemm = f"com.microsoft.QGemm<transB = {transposed}>"
        text = f"p = {gemm}(x, s, z, W, sW, zW, bW, s, z) "
        text += f"Y = {gemm}(p, s, z, V, sV, zV{', bV' if bias else ''})"
        weights = matrix("W", C, 3, DEAD, bias_of(held=held))
        weights |= matrix("V", 4, C, bias=integers(4, dtype=np.int32) if bias else None)
        values, _, _ = shrunk(text, weights, "N, 3", "float[N, 4] Y")
        assert sorted(values["W"].shape) == [3, 5] and sorted(values["V"].shape) == [4, 5]

    @pytest.mark.parametrize("axis", [1, None])
    def test_matmul(self, axis):
        text = (
            "p = QLinearMatMul(x, s, z, W, sW, zW, s, z) q = QLinearMatMul(p, s, z, V, sV, zV, t, o)" + LAST
        )
        weights = {**weight("W", integers(3, C), axis, DEAD, 1), **weight("V", integers(C, 4, seed=1), axis)}
        values, _, _ = shrunk(text, weights, "N, 6, 3", "float[N, 6, 4] Y")
        assert values["W"].shape == (3, 5) and values["V"].shape == (5, 4)

    def test_matmul_has_no_bias(self):
        text = (
            "p = com.microsoft.QGemm(x, s, z, W, sW, zW, bW, s, z) "
            "q = QLinearMatMul(p, s, z, V, sV, zV, t, o)" + LAST
        )
        weights = weight("W", integers(3, C), None, DEAD, 1, bias_of(held=500))
        values, why, _ = shrunk(text, {**weights, **weight("V", integers(C, 4))}, "N, 3", "float[N, 4] Y")
        assert values["W"].shape == (3, C)
        assert any("no bias that could take it" in reason for reason in why.values())

    def test_a_scale_for_each_row_is_refused(self):
        text = "p = QLinearMatMul(x, s, z, W, sW, zW, s, z) "
        text += "q = QLinearMatMul(p, sr, zr, V, sV, zV, t, o)" + LAST
        weights = {**weight("W", integers(3, C), None, DEAD, 1), **weight("V", integers(C, 4, seed=1))}
        weights |= {"sr": np.full(5, 0.043, np.float32), "zr": np.full(5, ZERO, np.uint8)}
        proto = model(f"(float[5, 3] X) => (float[5, 4] Y) {{ x = QuantizeLinear(X, s, z) {text} }}",
                      {**SCALES, **weights})  # fmt: skip
        graph = ModelGraph(proto)
        graph.infer()
        assert not RemoveChannels().run(graph, PassContext(EXACT)).modified

    def test_matrices_on_the_left_are_refused(self):
        text = (
            "p = QLinearMatMul(W, sW, zW, x, s, z, s, z) q = QLinearMatMul(V, sV, zV, p, s, z, t, o)" + LAST
        )
        weights = weight("W", integers(C, 3, dtype=np.uint8), None, DEAD)
        weights |= weight("V", integers(4, C, seed=1, dtype=np.uint8))
        values, _, _ = shrunk(text, weights, "3, 5", "float[4, 5] Y")
        assert values["W"].shape == (C, 3)


class TestChannelByChannel:
    @pytest.mark.parametrize(
        "middle",
        [
            "m = com.microsoft.QLinearSigmoid(p, s, z, t, o)",
            "m = com.microsoft.QLinearLeakyRelu<alpha = 0.2>(p, s, z, t, o)",
            "m = com.microsoft.QLinearGlobalAveragePool<channels_last = 0>(p, s, z, t, o)",
            "m = com.microsoft.QLinearAveragePool<kernel_shape = [2, 2]>(p, s, z, t, o)",
            "m = com.microsoft.QLinearAdd(p, s, z, k, t, o, t, o)",
            "m = com.microsoft.QLinearMul(p, s, z, k, t, o, t, o)",
            "m = com.microsoft.QLinearConcat<axis = 1>(t, o, p, s, z)",
            "f = com.microsoft.DequantizeLinear(p, s, z) m = com.microsoft.QuantizeLinear(f, t, o)",
        ],
    )
    @pytest.mark.parametrize("held", [0, 500])
    def test_constants_pass(self, middle, held):
        text = FIRST + middle + " q = QLinearConv(m, t, o, V, sV, zV, t, o)" + LAST
        weights = {**first(held=held), **weight("V", integers(4, C, 1, 1, seed=1))}
        if " k," in middle:
            weights["k"] = (integers(C, 1, 1, seed=5).astype(int) + 117).astype(np.uint8)
        values, _, _ = shrunk(text, weights)
        assert values["W"].shape[0] == 5 and values["V"].shape == (4, 5, 1, 1)
        assert "k" not in values or values["k"].shape == (5, 1, 1)

    def test_masks(self):
        """In front of padding only zeros go: the mask makes them, of its zero point."""
        text = FIRST + "m = com.microsoft.QLinearMul(p, s, z, mask, t, o, t, o) "
        text += "q = QLinearConv<pads = [1, 1, 1, 1]>(m, t, o, V, sV, zV, t, o)" + LAST
        mask = np.full((C, 1, 1), 165, np.uint8)
        mask[DEAD] = 117
        weights = {**first(dead=()), **weight("V", integers(4, C, 3, 3, seed=1)), "mask": mask}
        assert shrunk(text, weights)[0]["W"].shape[0] == 5

    def test_a_branch_goes_from_a_concatenation(self):
        text = FIRST + "r = QLinearConv<pads = [1, 1, 1, 1]>(x, s, z, U, sU, zU, t, o, bU) "
        text += "c = QLinearConv<pads = [1, 1, 1, 1]>(x, s, z, W, sW, zW, s, z, bW) "
        text += "m = com.microsoft.QLinearConcat<axis = 1>(t, o, c, s, z, r, t, o) "
        text += "q = QLinearConv(m, t, o, V, sV, zV, t, o)" + LAST
        weights = {**first(), **weight("V", integers(4, C + 3, 1, 1, seed=1))}
        weights |= weight("U", integers(3, 3, 3, 3), None, range(3), bias=np.zeros(3, np.int32))
        values, _, out = shrunk(text, weights)
        assert "U" not in values and values["V"].shape == (4, 5, 1, 1)
        concat = next(node for node in out.graph.node if node.op_type == "QLinearConcat")
        assert len(concat.input) == 5

    def test_residuals_keep_what_one_side_needs(self):
        text = FIRST + "r = QLinearConv(x, s, z, U, sU, zU, s, z, bU) "
        text += "m = com.microsoft.QLinearAdd(p, s, z, r, s, z, t, o) "
        text += "q = QLinearConv(m, t, o, V, sV, zV, t, o)" + LAST
        weights = {**first(), **weight("V", integers(4, C, 1, 1, seed=1))}
        weights |= weight("U", integers(C, 3, 3, 3, seed=7), 0, [1, 6, 7], bias=bias_of([1, 6, 7]))
        assert shrunk(text, weights)[0]["V"].shape == (4, 6, 1, 1)


class TestDynamicRanges:
    def test_zeros_go(self):
        text = "c = Conv(X, W, b) d, ds, dz = DynamicQuantizeLinear(c) i = ConvInteger<pads = [1, 1, 1, 1]>"
        text += "(d, V, dz, zV) f = Cast<to = 1>(i) e = Mul(ds, sV) Y = Mul(f, e)"
        weights = {"W": integers(C, 3, 3, 3).astype(np.float32), "b": np.ones(C, np.float32)}
        weights["W"][DEAD] = weights["b"][DEAD] = 0
        values, _, _ = shrunk(text, {**weights, **weight("V", integers(4, C, 3, 3, dtype=np.uint8))})
        assert values["W"].shape[0] == 5 and values["V"].shape == (4, 5, 3, 3)

    def test_what_may_set_the_range_stays(self):
        """Channel 0 is not read, and 1 always holds one number: either may be the largest."""
        text = "c = Conv(X, W, b) d, ds, dz = DynamicQuantizeLinear(c) i = ConvInteger(d, V, dz, zV) "
        text += "f = Cast<to = 1>(i) e = Mul(ds, sV) Y = Mul(f, e)"
        weights = {"W": integers(C, 3, 3, 3).astype(np.float32), "b": np.ones(C, np.float32)}
        weights["W"][1] = 0
        weights |= weight("V", integers(4, C, 1, 1, dtype=np.uint8), None, [0], 1)
        assert shrunk(text, weights)[0]["W"].shape[0] == C

    def test_a_zero_point_that_is_read_as_a_number_keeps_all(self):
        text = "c = Conv(X, W) d, ds, dz = DynamicQuantizeLinear(c) i = ConvInteger(d, V, z, zV) "
        weights = {"W": integers(C, 3, 3, 3).astype(np.float32), **weight("V", integers(4, C, 1, 1))}
        weights["W"][DEAD] = 0
        assert shrunk(text + "Y = Cast<to = 1>(i)", weights)[0]["W"].shape[0] == C
