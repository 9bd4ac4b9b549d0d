"""Reductions over channels: zeros go from sums and means, and norms made of them."""

import numpy as np
import pytest

from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, op_types, random, run, weights_of
from tests.scalpel_graph.channels.left import left_of

C = 12
DEAD = [0, 3, 4, 7]


def removed(text, shape="N, T, 3", dead=DEAD, constant=0.0, opset=17, **weights):
    """How many features of the first MatMul go; the text reads them as ``p`` and may read ``V``."""
    values = {"W": random(3, C), "b": random(C, seed=5), "V": random(C, 4, seed=1), **weights}
    values["W"][:, dead], values["b"][dead] = 0, constant
    proto = model(f"(float[{shape}] X) => (Y) {{ m = MatMul(X, W) p = Add(m, b) {text} }}", values, opset)
    out, _ = run(proto, RemoveChannels())
    again, records = run(out, RemoveChannels())
    assert not records["remove-channels"].modified
    return C - left_of(again)["W"].shape[1], again


AXIS = np.array([-1])


class TestSums:
    @pytest.mark.parametrize("op", ["ReduceSum", "ReduceL1", "ReduceL2", "ReduceSumSquare", "ReduceMean"])
    @pytest.mark.parametrize("shape", ["N, T, 3", "N, 5, 3", "2, 5, 3"])
    def test_zeros_go(self, op, shape):
        count, out = removed(f"Y = {op}(p, a)", shape, opset=18, a=AXIS)
        assert count == 4
        assert ("Mul" in op_types(out)) == (op == "ReduceMean")

    @pytest.mark.parametrize("op", ["ReduceSum", "ReduceMean", "ReduceL2"])
    def test_other_constants_stay(self, op):
        assert removed(f"Y = {op}(p, a)", constant=0.5, opset=18, a=AXIS)[0] == 0

    @pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin", "ReduceProd", "ReduceLogSumExp"])
    def test_zeros_stay_where_they_count(self, op):
        assert removed(f"Y = {op}(p, a)", opset=18, a=AXIS)[0] == 0

    def test_nothing_to_hold_on_to(self):
        """Without any size that is known, nothing says whether the result is needed."""
        assert removed("Y = ReduceMean<keepdims = 0>(p, a)", opset=18, a=AXIS)[0] == 0
        assert removed("Y = ReduceMean<keepdims = 0>(p, a)", "N, 5, 3", opset=18, a=AXIS)[0] == 4

    def test_the_share_of_a_mean(self):
        _, out = removed("Y = ReduceMean<axes = [-1]>(p)")
        (share,) = (values for name, values in weights_of(out).items() if "share" in name)
        assert share == np.float32((C - len(DEAD)) / C)

    def test_a_mean_over_channels_and_positions(self):
        assert removed("Y = ReduceMean<axes = [1, 2]>(p)")[0] == 4
        assert removed("Y = ReduceMean<axes = [1, 2]>(p)", "N, 5, 3")[0] == 4

    def test_a_mean_that_nothing_reads(self):
        text = "r = ReduceMean<axes = [-1]>(p) z = Mul(r, nothing) s = Add(p, z) Y = MatMul(s, V)"
        assert removed(text, nothing=np.zeros(1, np.float32))[0] == 4


ROOT = "q = Mul(p, p) r = ReduceMean<axes = [-1]>(q) e = Add(r, epsilon) d = Sqrt(e)"
EPSILON = {"epsilon": np.float32(0.1), "one": np.float32(1), "two": np.float32(2), "g": random(C, seed=3)}


class TestDecomposedNorms:
    @pytest.mark.parametrize(
        "text",
        [
            f"{ROOT} n = Div(p, d) s = Mul(n, g) Y = MatMul(s, V)",
            f"{ROOT} f = Reciprocal(d) n = Mul(p, f) s = Mul(g, n) Y = MatMul(s, V)",
            f"{ROOT} f = Div(one, d) n = Mul(p, f) Y = MatMul(n, V)",
            ROOT.replace("Mul(p, p)", "Pow(p, two)") + " n = Div(p, d) Y = MatMul(n, V)",
            "l = ReduceL2<axes = [-1]>(p) d = Max(l, epsilon) n = Div(p, d) Y = MatMul(n, V)",
            "l = ReduceL2<axes = [-1]>(p) d = Clip(l, epsilon) n = Div(p, d) Y = MatMul(n, V)",
        ],
    )
    def test_zeros_go(self, text):
        assert removed(text, **EPSILON)[0] == 4

    def test_a_norm_that_may_be_zero(self):
        """Zero divided by zero is no number, and was none before."""
        assert removed("d = ReduceL2<axes = [-1]>(p) n = Div(p, d) Y = MatMul(n, V)")[0] == 0

    def test_a_layer_norm_keeps_all(self):
        """What is zero is not once the mean is taken from it."""
        text = f"{ROOT.replace('Mul(p, p)', 'Mul(c, c)')} n = Div(c, d) Y = MatMul(n, V)"
        assert removed(f"u = ReduceMean<axes = [-1]>(p) c = Sub(p, u) {text}", **EPSILON)[0] == 0
