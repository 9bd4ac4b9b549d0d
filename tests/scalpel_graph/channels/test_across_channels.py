"""Normalisation across channels: what goes, and that the answers stay."""

import numpy as np
import pytest

from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, random, reasons, run
from tests.scalpel_graph.channels.left import left_of

C = 12


def removed(text, weights, dead=(), constant=None, opset=22, unread=()):
    """How many channels of the first Conv ``p`` go; ``dead`` ones are zero, ``unread`` ones not read by V."""
    values = {"W": random(C, 3, 1, 1), "V": random(4, C, 3, 3, seed=1), **weights}
    values["W"][list(dead)] = 0
    values["V"] = np.array(values["V"])
    values["V"][:, list(unread)] = 0
    first = "p = Conv(X, W)"
    if constant is not None:
        first = "p = Conv(X, W, b)"
        values["b"] = np.zeros(C, np.float32)
        values["b"][list(dead)] = constant
    ir_version = 8 if opset < 20 else 10
    made = "(float[N, 4, 2, 2] Y) <float[N, 12, 4, 4] l>" if "GroupNorm" in text else "(Y)"
    proto = model(f"(float[N, 3, 4, 4] X) => {made} {{ {first} {text} }}", values, opset, ir_version)
    out, records = run(proto, RemoveChannels())
    again, again_records = run(out, RemoveChannels())
    assert not again_records["remove-channels"].modified
    return C - left_of(again)["W"].shape[0], again, reasons(records["remove-channels"])


CONV = "Y = Conv(l, V)"


class TestLrn:
    @pytest.mark.parametrize(
        ("size", "dead", "count"),
        [
            (5, [0, 1, 11], 3),
            (5, [5], 0),
            (5, [5, 6], 0),
            (5, [4, 5, 6, 7], 2),
            (3, [4, 5, 6, 7], 3),
            (3, [2, 4, 6], 0),
            (1, [2, 4, 6], 3),
            (3, [0, 2, 3, 5, 6, 7, 11], 5),
            (7, [0, 1, 4, 5, 6, 7, 8, 9], 5),
            (3, [], 0),
        ],
    )
    def test_zeros_go_where_no_new_neighbours_meet(self, size, dead, count):
        assert removed(f"l = LRN<size = {size}, alpha = 2.0>(p) {CONV}", {}, dead)[0] == count

    def test_what_is_unread_goes_between_zeros(self):
        text = f"l = LRN<size = 3, alpha = 2.0>(p) {CONV}"
        assert removed(text, {}, dead=[2], unread=[0, 1])[0] == 3
        assert removed(text, {}, unread=[4, 5, 6])[0] == 0
        assert removed(text, {}, dead=[4, 7], unread=[4, 5, 6, 7])[0] == 3

    def test_a_constant_stays(self):
        assert removed(f"l = LRN<size = 3>(p) {CONV}", {}, [0, 1], constant=0.5)[0] == 0

    def test_says_why(self):
        _, _, why = removed(f"l = LRN<size = 5>(p) {CONV}", {}, [5, 6, 7])
        assert why["l"].endswith("it keeps apart channels that are not in each other's window")


GROUP_PARAMETERS = {"s": random(C, seed=2), "o": random(C, seed=3)}


class TestGroupNorm:
    NORM = f"l = GroupNormalization<num_groups = 4>(p, s, o) {CONV}"

    def test_whole_groups_go(self):
        count, out, _ = removed(self.NORM, GROUP_PARAMETERS, [0, 1, 2, 4, 6, 7, 8])
        assert count == 6
        node = next(node for node in out.graph.node if node.op_type == "GroupNormalization")
        assert next(a.i for a in node.attribute if a.name == "num_groups") == 2

    def test_a_bias_that_the_next_conv_pads_stays(self):
        parameters = {**GROUP_PARAMETERS, "U": random(4, 4, 3, 3, seed=6)}
        padded = self.NORM.replace("Y = Conv(l", "m = Conv<pads = [1, 1, 1, 1]>(l") + " Y = Conv(m, U)"
        assert removed(padded, parameters, [0, 1, 2])[0] == 0
        assert removed(padded, {**parameters, "o": np.zeros(C, np.float32)}, [0, 1, 2])[0] == 3

    def test_constants_stay(self):
        assert removed(self.NORM, GROUP_PARAMETERS, [0, 1, 2], constant=0.5)[0] == 0

    def test_scale_zero(self):
        scale = np.array(GROUP_PARAMETERS["s"])
        scale[[3, 4, 5, 6]] = 0
        assert removed(self.NORM, {**GROUP_PARAMETERS, "s": scale})[0] == 3

    def test_unread_groups_go(self):
        assert removed(self.NORM, GROUP_PARAMETERS, unread=[3, 4, 5, 6])[0] == 3


LAYER_PARAMETERS = {"s": random(C, seed=2), "o": random(C, seed=3), "M": random(C, 5, seed=4)}


class TestLayerNorm:
    NORM = "t = Transpose<perm = [0, 2, 3, 1]>(p) l = LayerNormalization(t, s, o) Y = MatMul(l, M)"

    def test_zeros_stay(self):
        count, _, why = removed(self.NORM, LAYER_PARAMETERS, [0, 1, 2])
        assert count == 0
        assert "3 channels that cannot matter: it depends on all of them" in why["l"]

    def test_scale_zero_makes_constants(self):
        """Only the first channel reaches the second MatMul: its outputs are constant."""
        parameters = {**LAYER_PARAMETERS, "s": np.array(LAYER_PARAMETERS["s"]), "K": random(5, 4, seed=5)}
        parameters["s"][0] = 0
        parameters["M"] = np.array(LAYER_PARAMETERS["M"])
        parameters["M"][1:, :3] = 0
        text = self.NORM.replace("Y =", "m =") + " Y = MatMul(m, K)"
        _, out, _ = removed(text, parameters)
        assert left_of(out)["M"].shape == (C, 2)
        assert left_of(out)["K"].shape == (2, 4)

    def test_other_axes_pass(self):
        text = "l = LayerNormalization<axis = 2>(p, s, o) Y = Conv(l, V)"
        parameters = {"s": random(4, 4, seed=2), "o": np.zeros((4, 4), np.float32)}
        assert removed(text, parameters, unread=[1, 5])[0] == 2


RMS_PARAMETERS = {"s": random(C, seed=2), "M": random(C, 5, seed=4)}


class TestRmsNorm:
    NORM = "t = Transpose<perm = [0, 2, 3, 1]>(p) l = RMSNormalization<epsilon = 0.1>(t, s) Y = MatMul(l, M)"

    def test_zeros_go(self):
        count, out, _ = removed(self.NORM, RMS_PARAMETERS, [0, 1, 2, 7], opset=23)
        assert count == 4
        np.testing.assert_allclose(
            left_of(out)["s"], np.delete(RMS_PARAMETERS["s"], [0, 1, 2, 7]) * np.sqrt(C / 8), rtol=1e-6
        )

    def test_constants_and_unread_ones_stay(self):
        assert removed(self.NORM, RMS_PARAMETERS, [0, 1], constant=0.5, opset=23)[0] == 0
        matrix = np.array(RMS_PARAMETERS["M"])
        matrix[:3] = 0
        assert removed(self.NORM, {**RMS_PARAMETERS, "M": matrix}, opset=23)[0] == 0

    def test_several_axes_are_refused(self):
        text = "l = RMSNormalization<axis = 1>(p, s) Y = Conv(l, V)"
        count, _, why = removed(text, {"s": random(C, 4, 4)}, [0, 1], opset=23)
        assert count == 0
        assert "several axes" in why["l"]


@pytest.mark.parametrize("p", [1, 2])
def test_lp_norm(p):
    text = f"l = LpNormalization<axis = 1, p = {p}>(p) Y = Conv<pads = [1, 1, 1, 1]>(l, V)"
    assert removed(text, {}, [0, 3])[0] == 2
    assert removed(text, {}, [0, 3], constant=0.5)[0] == 0
    assert removed(text, {}, unread=[0, 3])[0] == 0


def test_mean_variance_norm():
    text = f"l = MeanVarianceNormalization<axes = [2, 3]>(p) {CONV}"
    assert removed(text, {}, unread=[0, 3])[0] == 2
    assert removed(text.replace("[2, 3]", "[1, 2, 3]"), {}, [0, 3])[0] == 0
    assert removed(text.replace("[2, 3]", "[1, 2, 3]"), {}, unread=[0, 3])[0] == 0
