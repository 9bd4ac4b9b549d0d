"""Quantized graphs: which channels go, and that not a bit of the answers changes."""

import ml_dtypes
import numpy as np
import pytest

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import EXACT, model, random, random_feeds, reasons, run
from tests.scalpel_graph.channels.bits import bits
from tests.scalpel_graph.channels.left import left_of

C = 8
DEAD = [1, 4, 6]
#: Powers of two: every sum of products is exact in float32, in any order.
SCALES = {"sx": np.float32(2**-4), "zx": np.uint8(131)}


def integers(*shape, dead=(), axis=0, zero=0, seed=0, dtype=np.int8):
    """Random integers, which are the zero point for dead indices of an axis."""
    values = np.random.default_rng([seed, *shape]).integers(-60, 60, shape).astype(dtype)
    np.moveaxis(values, axis, 0)[list(dead)] = zero
    return values


def weight(name, values, axis=None, bias=None, seed=0):
    """Initializers for a quantized weight, with a scale per tensor or per channel, and its bias."""
    rng = np.random.default_rng(seed)
    count = () if axis is None else (values.shape[axis],)
    scale = np.float32(2.0) ** rng.integers(-7, -4, count)
    made = {name: values, f"s{name}": scale.astype(np.float32), f"z{name}": np.zeros(count, np.int8)}
    if bias is not None:
        made |= {f"b{name}": bias, f"t{name}": (scale * SCALES["sx"]).astype(np.float32)}
    return made


def dq(name, axis=None):
    where = "" if axis is None else f"<axis = {axis}>"
    return f"f{name} = DequantizeLinear{where}({name}, s{name}, z{name}) "


def bias(name):
    return f"g{name} = DequantizeLinear<axis = 0>(b{name}, t{name}) "


def requantize(name, made):
    return f"q{made} = QuantizeLinear({name}, sx, zx) {made} = DequantizeLinear(q{made}, sx, zx) "


def shrunk(text, weights, shape="N, 3, 5, 5", made="(Y)"):
    """The model without dead channels, and why others stay; compares the bits of all outputs."""
    proto = model(f"(float[{shape}] X) => {made} {{ {requantize('X', 'x')} {text} }}", {**SCALES, **weights})
    out, records = run(proto, RemoveChannels(), atol=float(SCALES["sx"]) * 1.01)
    feeds = random_feeds(proto)
    for before, after in zip(bits(proto, feeds), bits(out, feeds), strict=True):
        np.testing.assert_array_equal(after, before)
    _, again = run(out, RemoveChannels())
    assert not again["remove-channels"].modified
    return left_of(out), reasons(records["remove-channels"])


FIRST = dq("W", 0) + bias("W") + "c = Conv(x, fW, gW) " + requantize("c", "p")


def first(dead=DEAD, zero_bias=True):
    b = integers(C, seed=3, dtype=np.int32) * 40 + 1
    b[list(dead)] = 0 if zero_bias else 300
    return weight("W", integers(C, 3, 3, 3, dead=dead), 0, b)


class TestConv:
    @pytest.mark.parametrize("pads", ["", "<pads = [1, 1, 1, 1]>"])
    @pytest.mark.parametrize("axis", [0, None])
    def test_zero_channels_go(self, pads, axis):
        text = FIRST + dq("V", axis) + f"d = Conv{pads}(p, fV) " + requantize("d", "Y")
        values, _ = shrunk(text, {**first(), **weight("V", integers(4, C, 3, 3, seed=1), axis)})
        assert values["W"].shape == (5, 3, 3, 3) and values["W"].dtype == np.int8
        assert values["V"].shape == (4, 5, 3, 3)
        for name in ("sW", "zW", "bW", "tW"):
            assert values[name].shape == (5,)
        np.testing.assert_array_equal(values["W"], np.delete(first()["W"], DEAD, axis=0))
        np.testing.assert_array_equal(values["bW"], np.delete(first()["bW"], DEAD))
        assert values["bW"].dtype == np.int32

    def test_zero_is_the_zero_point(self):
        weights = first()
        weights["zW"] = np.arange(C, dtype=np.int8)
        for channel in DEAD:
            weights["W"][channel] = channel
        text = FIRST + dq("V", 0) + "Y = Conv(p, fV)"
        values, _ = shrunk(text, {**weights, **weight("V", integers(4, C, 1, 1, seed=1), 0)})
        np.testing.assert_array_equal(values["zW"], [0, 2, 3, 5, 7])

    def test_channels_that_relu_stops_go(self):
        weights = first(zero_bias=False)
        weights["bW"] = -weights["bW"]
        text = FIRST.replace("qp = QuantizeLinear(c", "r = Relu(c) qp = QuantizeLinear(r")
        text += dq("V", 0) + "Y = Conv<pads = [1, 1, 1, 1]>(p, fV)"
        values, _ = shrunk(text, {**weights, **weight("V", integers(4, C, 3, 3, seed=1), 0)})
        assert values["W"].shape[0] == 5

    def test_what_rounds_to_zero_goes(self):
        weights = first()
        weights["bW"][DEAD] = 1
        text = FIRST + dq("V", 0) + "Y = Conv<pads = [1, 1, 1, 1]>(p, fV)"
        values, _ = shrunk(text, {**weights, **weight("V", integers(4, C, 3, 3, seed=1), 0)})
        assert values["W"].shape[0] == 5

    @pytest.mark.parametrize("axis", [0, None])
    @pytest.mark.parametrize("form", ["int32", "shared", "float", "none"])
    def test_constants_go_into_the_bias(self, form, axis):
        """To the bit: a constant is a whole number of steps of the bias."""
        text = FIRST + dq("V", axis) + (bias("V") if form in ("int32", "shared") else "")
        second = {"int32": ", gV", "shared": ", gV", "float": ", k", "none": ""}[form]
        text += f"Y = Conv(p, fV{second})"
        weights = {**first(zero_bias=False), **({"k": random(4)} if form == "float" else {})}
        before = integers(4, dtype=np.int32) if form in ("int32", "shared") else None
        weights |= weight("V", integers(4, C, 3, 3, seed=1), axis, before)
        made = "(Y)"
        if form == "shared":
            text, made = text + " Z = Conv(x, fU, gV) ", "(Y, Z)"
            text = dq("U", axis) + text
            weights |= weight("U", integers(4, 3, 3, 3, seed=1), axis)
        values, _ = shrunk(text, weights, made=made)
        assert values["W"].shape[0] == 5 and values["V"].shape == (4, 5, 3, 3)
        quantized = [values for values in values.values() if values.dtype == np.int32]
        if form == "int32":
            step = 300 * weights["tW"] / SCALES["sx"]
            constant = np.clip(np.rint(np.broadcast_to(step, C)[DEAD]), -131, 124)
            sums = weights["V"].astype(int).sum(axis=(2, 3))[:, DEAD]
            np.testing.assert_array_equal(values["bV"], before + sums @ constant.astype(int))
        elif form != "shared":
            assert len(quantized) == {"float": 1, "none": 2}[form]

    def test_constants_in_front_of_padding_stay(self):
        text = FIRST + dq("V", 0) + "Y = Conv<pads = [1, 1, 1, 1]>(p, fV)"
        weights = {**first(zero_bias=False), **weight("V", integers(4, C, 3, 3, seed=1), 0)}
        values, why = shrunk(text, weights)
        assert values["W"].shape[0] == C
        assert "its padding holds zeros" in why["Y"]

    def test_constants_that_are_no_steps_of_the_bias_stay(self):
        weights = {**first(zero_bias=False)}
        weights |= weight("V", integers(4, C, 1, 1, seed=1), 0, integers(4, dtype=np.int32))
        weights["tV"] = weights["tV"] * np.float32(0.75)
        values, why = shrunk(FIRST + dq("V", 0) + bias("V") + "Y = Conv(p, fV, gV)", weights)
        assert values["W"].shape[0] == C
        assert "no multiple of the steps" in why["Y"]

    def test_constants_that_an_int32_bias_cannot_hold_stay(self):
        weights = {**first(zero_bias=False)}
        weights |= weight("V", integers(4, C, 1, 1, seed=1), 0, np.full(4, 2**31 - 1, np.int32))
        values, why = shrunk(FIRST + dq("V", 0) + bias("V") + "Y = Conv(p, fV, gV)", weights)
        assert values["W"].shape[0] == C
        assert "too large for its int32 bias" in why["Y"]

    def test_unread_channels_go(self):
        text = FIRST + dq("V", 0) + "Y = Conv(p, fV)"
        weights = {**first(dead=()), **weight("V", integers(4, C, 1, 1, dead=DEAD, axis=1, seed=1), 0)}
        assert shrunk(text, weights)[0]["W"].shape[0] == 5

    def test_masks(self):
        mask = np.ones((1, C, 1, 1), np.int8)
        mask[:, DEAD] = 0
        text = (
            FIRST + dq("mask") + "m = Mul(p, fmask) " + requantize("m", "n") + dq("V", 0) + "Y = Conv(n, fV)"
        )
        weights = {**first(dead=()), **weight("mask", mask), **weight("V", integers(4, C, 1, 1, seed=1), 0)}
        assert shrunk(text, weights)[0]["W"].shape[0] == 5

    def test_depthwise(self):
        text = FIRST + dq("D", 0) + "d = Conv<group = 8>(p, fD) " + requantize("d", "e") + dq("V")
        weights = {
            **first(),
            **weight("D", integers(C, 1, 3, 3, seed=2), 0),
            **weight("V", integers(4, C, 1, 1, seed=1)),
        }
        values, _ = shrunk(text + "Y = Conv(e, fV)", weights)
        assert values["D"].shape == (5, 1, 3, 3)
        assert values["V"].shape == (4, 5, 1, 1)

    @pytest.mark.parametrize("axis", [0, None])
    @pytest.mark.parametrize("constant", [False, True])
    def test_groups(self, axis, constant):
        """Group 1 lost one of its four inputs and group 2 two: each loses one."""
        text = FIRST + dq("V", axis) + bias("V") + "Y = Conv<group = 2>(p, fV, gV)"
        weights = {**first(zero_bias=not constant)}
        weights |= weight("V", integers(4, C // 2, 3, 3, seed=1), axis, integers(4, dtype=np.int32))
        values, _ = shrunk(text, weights)
        assert values["W"].shape[0] == 6
        assert values["V"].shape == (4, 3, 3, 3)

    def test_groups_that_go_as_a_whole(self):
        text = FIRST + dq("V", 0) + "d = Conv<group = 4>(p, fV) " + requantize("d", "e") + dq("U")
        weights = {**first(dead=[2, 3]), **weight("V", integers(C, 2, 1, 1, dead=[2, 3], seed=1), 0)}
        weights |= weight("U", integers(4, C, 1, 1, seed=2))
        values, _ = shrunk(text + "Y = Conv(e, fU)", weights)
        assert values["W"].shape[0] == 6
        assert values["V"].shape == (6, 2, 1, 1) and values["sV"].shape == (6,)
        assert values["U"].shape[1] == 6

    def test_weights_that_two_grouped_layers_share_are_refused(self):
        text = FIRST + dq("V", 0) + "Y = Conv<group = 2>(p, fV) Z = Conv<group = 2>(p, fV)"
        weights = {**first(), **weight("V", integers(4, C // 2, 1, 1, seed=1), 0)}
        values, why = shrunk(text, weights, made="(Y, Z)")
        assert values["W"].shape[0] == C
        assert "not made for it alone" in why["Y"]

    def test_transposed(self):
        text = FIRST + dq("V", 1) + "Y = ConvTranspose(p, fV)"
        values, _ = shrunk(text, {**first(), **weight("V", integers(C, 4, 3, 3, seed=1), 1)})
        assert values["V"].shape == (5, 4, 3, 3)

    def test_residual(self):
        text = (
            FIRST + dq("U", 0) + "d = Conv<pads = [1, 1, 1, 1]>(p, fU) " + requantize("d", "e")
            + "s = Add(p, e) " + requantize("s", "t") + dq("V", 0) + "Y = Conv(t, fV)"
        )  # fmt: skip
        weights = {
            **first(),
            **weight("U", integers(C, C, 3, 3, dead=[1, 6], seed=2), 0),
            **weight("V", integers(4, C, 1, 1, seed=1), 0),
        }
        assert shrunk(text, weights)[0]["W"].shape[0] == 6

    def test_shared_weights_and_a_float_bias(self):
        text = FIRST + dq("V", 0) + "Y = Conv(p, fV, k) r = Relu(p) Z = Conv(r, fV)"
        weights = {**first(), **weight("V", integers(4, C, 1, 1, seed=1), 0), "k": np.ones(4, np.float32)}
        assert shrunk(text, weights, made="(Y, Z)")[0]["V"].shape == (4, 5, 1, 1)


class TestMatrices:
    @pytest.mark.parametrize("transposed", [0, 1])
    def test_gemm(self, transposed):
        def matrix(m, k, **options):
            values = integers(m, k, **options)
            return values if transposed else values.T

        axis = 1 - transposed
        gemm = f"Gemm<transB = {transposed}>"
        text = (
            dq("W", axis) + bias("W") + f"c = {gemm}(x, fW, gW) " + requantize("c", "p")
            + dq("V", axis) + f"Y = {gemm}(p, fV)"
        )  # fmt: skip
        biases = integers(C, seed=3, dtype=np.int32, dead=DEAD)
        weights = {
            **weight("W", matrix(C, 3, dead=DEAD), axis, biases),
            **weight("V", matrix(4, C, seed=1), axis),
        }
        values, _ = shrunk(text, weights, "N, 3")
        assert sorted(values["W"].shape) == [3, 5]
        assert sorted(values["V"].shape) == [4, 5]

    @pytest.mark.parametrize("bias_form", ["int32", "float", "none"])
    @pytest.mark.parametrize("factors", ["", ", alpha = 0.5", ", beta = 2.0"])
    def test_constants_in_front_of_gemm(self, bias_form, factors):
        second = {"int32": ", gV", "float": ", k", "none": ""}[bias_form]
        text = dq("W", 0) + bias("W") + "c = Gemm<transB = 1>(x, fW, gW) " + requantize("c", "p")
        text += dq("V", 0) + (bias("V") if bias_form == "int32" else "")
        text += f"Y = Gemm<transB = 1{factors}>(p, fV{second})"
        biases = integers(C, seed=3, dtype=np.int32) * 20
        biases[DEAD] = 900
        given = integers(4, dtype=np.int32) if bias_form == "int32" else None
        weights = {
            **weight("W", integers(C, 3, dead=DEAD), 0, biases),
            **weight("V", integers(4, C, seed=1), 0, given),
            **({"k": (2.0 ** -np.arange(4)).astype(np.float32)} if bias_form == "float" else {}),
        }
        values, why = shrunk(text, weights, "N, 3")
        stays = factors and bias_form != "float"
        assert values["V"].shape == (4, C if stays else 5)
        assert ("no multiple of the steps" in why.get("Y", "")) == bool(stays)

    @pytest.mark.parametrize("turned", [False, True])
    def test_matmul(self, turned):
        turn = "h = Transpose(fV) " if turned else ""
        text = dq("W", 1) + "c = MatMul(x, fW) " + requantize("c", "p") + dq("V") + turn
        matrix = integers(4, C, seed=1)
        weights = {
            **weight("W", integers(3, C, dead=DEAD, axis=1), 1),
            **weight("V", matrix if turned else matrix.T),
        }
        values, _ = shrunk(text + f"Y = MatMul(p, {'h' if turned else 'fV'})", weights, "N, 6, 3")
        assert values["W"].shape == (3, 5)
        assert sorted(values["V"].shape) == [4, 5]

    def test_a_matrix_on_the_left(self):
        text = dq("W", 0) + "c = MatMul(fW, x) " + requantize("c", "p") + dq("V", 0) + "Y = MatMul(fV, p)"
        weights = {**weight("W", integers(C, 3, dead=DEAD), 0), **weight("V", integers(4, C, seed=1), 0)}
        values, _ = shrunk(text, weights, "N, 3, 6")
        assert values["V"].shape == (4, 5)


def test_blocks_are_refused():
    text = "f = DequantizeLinear<axis = 1, block_size = 2>(W, s) Y = MatMul(X, f)"
    weights = {"W": integers(3, C, dead=DEAD, axis=1), "s": np.ones((3, 4), np.float32)}
    proto = model(f"(float[N, 3] X) => (Y) {{ {text} }}", weights, 21, 10)
    graph = ModelGraph(proto)
    graph.infer()
    assert not RemoveChannels().run(graph, PassContext(EXACT)).modified


@pytest.mark.parametrize("dtype", [ml_dtypes.int4, ml_dtypes.uint4, np.uint8, np.int16])
def test_integers_of_other_types(dtype):
    text = FIRST + dq("V", 0) + "Y = Conv(p, fV)"
    values = np.random.default_rng(0).integers(0, 7, (4, C, 1, 1))
    values[:, DEAD] = 3
    weights = {**first(dead=()), **weight("V", values.astype(dtype), 0)}
    weights["zV"] = np.full(4, 3).astype(dtype)
    quantized = f"{requantize('X', 'x')} {text}"
    proto = model(f"(float[N, 3, 5, 5] X) => (Y) {{ {quantized} }}", {**SCALES, **weights}, 21, 10)
    out, _ = run(proto, RemoveChannels())
    left = left_of(out)
    assert left["W"].shape[0] == 5
    assert left["V"].shape == (4, 5, 1, 1) and left["V"].dtype == dtype
    feeds = random_feeds(proto)
    for before, after in zip(bits(proto, feeds), bits(out, feeds), strict=True):
        np.testing.assert_array_equal(after, before)


def test_a_mask_of_ones_goes():
    mask = np.ones((1, C, 1, 1), np.int8)
    mask[:, DEAD] = 0
    text = FIRST + dq("mask") + "m = Mul(p, fmask) " + requantize("m", "n") + dq("V", 0) + "Y = Conv(n, fV)"
    weights = {**first(dead=()), **weight("mask", mask), **weight("V", integers(4, C, 1, 1, seed=1), 0)}
    weights["smask"] = np.float32(1)
    values, _ = shrunk(text, weights)
    assert "mask" not in values and values["W"].shape[0] == 5


def test_an_output_in_front_of_a_quantizer_keeps_its_channels():
    text = FIRST + dq("V", 0) + "Y = Conv(p, fV)"
    weights = {**first(), **weight("V", integers(4, C, 1, 1, seed=1), 0)}
    values, why = shrunk(text, weights, made="(Y, qp)")
    assert values["W"].shape[0] == C
    assert "it is an output of the model" in why["qp"]


def test_a_tensor_that_is_dequantized_twice():
    text = FIRST + "r = DequantizeLinear(qp, sx, zx) " + dq("V", 0) + dq("U", 0)
    text += "Y = Conv(p, fV) Z = Conv(r, fU)"
    weights = {**first(zero_bias=False)}
    for seed, name in enumerate("VU"):
        weights |= weight(name, integers(4, C, 3, 3, seed=seed), 0)
    values, _ = shrunk(text, weights, made="(Y, Z)")
    assert values["V"].shape == values["U"].shape == (4, 5, 3, 3)


def test_what_a_matmul_gets_in_its_place():
    """A constant that no int32 bias can take is added in float32."""
    text = (
        dq("W", 0) + "c = Gemm<transB = 1>(x, fW, k) " + requantize("c", "p") + dq("V") + "Y = MatMul(p, fV)"
    )
    weights = {"k": random(C), **weight("W", integers(C, 3, dead=DEAD), 0)}
    values, _ = shrunk(text, {**weights, **weight("V", integers(C, 4, seed=1))}, "N, 3")
    assert values["V"].shape == (5, 4)


@pytest.mark.parametrize("seed", range(8))
def test_any_scale_within_one_step(seed):
    """With other scales sums round, and a number on the border of two steps may fall on either side."""
    rng = np.random.default_rng(seed)
    weights = {**first(), **weight("V", integers(4, C, 3, 3, seed=seed), 0)}
    for name in ("sW", "sV"):
        weights[name] = (rng.random(weights[name].shape) * 0.05 + 0.01).astype(np.float32)
    text = FIRST + dq("V", 0) + "d = Conv<pads = [1, 1, 1, 1]>(p, fV) " + requantize("d", "Y")
    scales = {"sx": np.float32(rng.random() * 0.05 + 0.03), "zx": np.uint8(rng.integers(100, 150))}
    proto = model(f"(float[N, 3, 5, 5] X) => (Y) {{ {requantize('X', 'x')} {text} }}", {**scales, **weights})
    out, _ = run(proto, RemoveChannels(), atol=float(scales["sx"]) * 1.01)
    assert left_of(out)["W"].shape[0] == 5
