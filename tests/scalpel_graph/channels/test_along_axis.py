"""CumSum, ArgMax, TopK, Expand, Tile, SpaceToDepth: which channels go past them."""

import numpy as np
import pytest

from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, random, run
from tests.scalpel_graph.channels.left import left_of

C = 8
DEAD = [1, 4, 6]
V = {"V": random(4, C, 1, 1, seed=1)}
FIRST, SECOND = np.array([1]), np.array([2])


def removed(text, weights, dead=DEAD, unread=()):
    values = {"W": random(C, 3, 1, 1), **weights}
    values["W"][list(dead)] = 0
    if unread:
        values["V"] = np.array(values["V"])
        values["V"][:, list(unread)] = 0
    proto = model(f"(float[N, 3, 4, 4] X) => (Y) {{ p = Conv(X, W) {text} }}", values)
    out, _ = run(proto, RemoveChannels())
    again, records = run(out, RemoveChannels())
    assert not records["remove-channels"].modified
    return C - left_of(again)["W"].shape[0]


@pytest.mark.parametrize(
    ("text", "weights", "zero", "unread"),
    [
        ("l = CumSum(p, a) Y = Conv<pads = [1, 1, 1, 1]>(l, V)", {"a": np.array(-1)}, 3, 3),
        ("l = CumSum<reverse = 1>(p, a) Y = Conv(l, V)", {"a": np.array(1)}, 0, 0),
        ("i = ArgMax<axis = 2>(p) l = Cast<to = 1>(i) Y = Conv(l, V)", {}, 0, 3),
        ("i = ArgMin<axis = 3, keepdims = 0>(p) l = Cast<to = 1>(i) k = Unsqueeze(l, a) Y = Conv(k, V)",
         {"a": np.array([3])}, 0, 3),
        ("i = ArgMax<axis = 1>(p) Y = Cast<to = 1>(i)", {"V": V["V"]}, 0, 0),
        ("l, i = TopK(p, k) Y = Conv(l, V)", {"k": SECOND}, 0, 3),
        ("l, i = TopK<axis = 1>(p, k) Y = Conv(l, V)", {"k": np.array([8])}, 0, 0),
        ("g = GlobalAveragePool(p) l = Expand(g, s) Y = Conv(l, V)", {"s": np.array([1, 8, 4, 4])}, 3, 3),
        ("l = Expand(p, s) Y = Conv(l, V)", {"s": np.array([1, 1, 1])}, 3, 3),
        ("l = Tile(p, r) Y = Conv(l, V)", {"r": np.array([1, 1, 2, 1])}, 3, 3),
        ("l = Tile(p, r) Y = Conv(l, V2)", {"r": np.array([1, 2, 1, 1]), "V2": random(4, 16, 1, 1)}, 3, 0),
        ("l = SpaceToDepth<blocksize = 2>(p) Y = Conv(l, V2)", {"V2": random(4, 32, 1, 1)}, 3, 0),
        ("l = DepthToSpace<blocksize = 2>(p) Y = Conv(l, V2)", {"V2": random(4, 2, 1, 1)}, 0, 0),
    ],
)  # fmt: skip
def test_as_many_channels_go_as_must(text, weights, zero, unread):
    assert removed(text, {**V, **weights}) == zero
    assert removed(text, {**V, **weights}, dead=(), unread=DEAD) == unread


def test_depth_to_space_loses_whole_blocks():
    weights = {"V2": random(4, 2, 1, 1)}
    for mode, dead in (("DCR", [1, 3, 5, 7]), ("CRD", [4, 5, 6, 7])):
        text = f'l = DepthToSpace<blocksize = 2, mode = "{mode}">(p) Y = Conv(l, V2)'
        assert removed(text, weights, dead=dead) == 4
        assert removed(text, weights, dead=[dead[0], dead[1]]) == 0


def test_computed_shapes_are_refused():
    text = "s = Shape(p) m = Mul(s, one) e = Expand(p, m) Y = Conv(e, V)"
    assert removed(text, {**V, "one": FIRST}) == 0


class TestEinsum:
    @pytest.mark.parametrize(
        ("text", "weights", "zero", "unread"),
        [
            ('Y = Einsum<equation = "nchw,kc->nkhw">(p, V)', {"V": random(4, C)}, 3, 3),
            ('Y = Einsum<equation = "kc, nchw -> khw">(V, p)', {"V": random(4, C)}, 3, 3),
            ('l = Einsum<equation = "nchw->nhwc">(p) Y = MatMul(l, M)', {"M": random(C, 4)}, 3, 0),
            ('l = Einsum<equation = "nchw,c->nchw">(p, m) Y = Conv(l, V)',
             {"m": random(C), **V}, 3, 3),
            ('l = Einsum<equation = "nchw,nchv->nhwv">(p, p) Y = Relu(l)', {"V": random(4, C)}, 3, 0),
            ('l = Einsum<equation = "nchw->nhw">(p) Y = Relu(l)', {"V": random(4, C)}, 3, 0),
            ('l = Einsum<equation = "nc...->n...c">(p) Y = MatMul(l, M)',
             {"M": random(C, 4), "V": random(4, C)}, 0, 0),
        ],
    )  # fmt: skip
    def test_as_many_channels_go_as_must(self, text, weights, zero, unread):
        assert removed(text, {"V": random(4, C), **weights}) == zero
        assert removed(text, {"V": random(4, C), **weights}, dead=(), unread=DEAD) == unread

    def test_a_zero_operand_makes_zeros(self):
        mask = np.ones(C, np.float32)
        mask[DEAD] = 0
        text = 'l = Einsum<equation = "nchw,c->nchw">(p, m) Y = Conv<pads = [1, 1, 1, 1]>(l, V)'
        assert removed(text, {"m": mask, **V}, dead=()) == 3

    def test_constants_stay(self):
        text = 'q = Sigmoid(p) Y = Einsum<equation = "nchw,kc->nkhw">(q, V)'
        assert removed(text, {"V": random(4, C)}) == 0
