"""MatMul with several constant matrices: which features and which matrices go."""

import numpy as np
import pytest

from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, random, run, weights_of
from tests.scalpel_graph.channels.left import left_of

H, K, M = 4, 6, 5


def left(text, shape, dead, value=0.0, first="Conv(X0, I)", **weights):
    """The weights that are left; masks set the ``dead`` slots of ``x [N, heads, T, K]`` to ``value``."""
    mask = np.ones((1, *shape[1:]), np.bool_)
    for axis, indices in dead.items():
        np.moveaxis(mask, axis, 0)[indices] = False
    values = {"mask": mask, "value": np.float32(value), **weights}
    dims = ", ".join(str(size or "N") for size in shape)
    values["I"] = np.eye(shape[1], dtype=np.float32)[..., None, None]
    values["E"] = np.eye(K, dtype=np.float32)
    text = f"c = {first} x = Where(mask, c, value) {text}"
    proto = model(f"(float[{dims}] X0) => (Y) {{ {text} }}", values)
    out, _ = run(proto, RemoveChannels())
    again, records = run(out, RemoveChannels())
    assert not records["remove-channels"].modified
    return left_of(again)


RIGHT = {"W": random(H, K, M), "V": random(H, M, 3, seed=1)}
LEFT = {"W": random(H, M, K), "V": random(H, 3, M, seed=1)}


@pytest.mark.parametrize("front", [(), (1,)])
def test_heads_that_are_zero_go(front):
    weights = {name: values.reshape(*front, *values.shape) for name, values in RIGHT.items()}
    shapes = left("y = MatMul(x, W) Y0 = MatMul(y, V) Y = ReduceSum(Y0, axis)", (0, H, 7, K), {1: [0, 2]},
                  axis=np.array([1]), **weights)  # fmt: skip
    assert shapes["W"].shape == (*front, 2, K, M) and shapes["V"].shape == (*front, 2, M, 3)


def test_matrices_of_zeros_go():
    weights = {name: np.array(values) for name, values in RIGHT.items()}
    weights["W"][[1, 3]] = 0
    shapes = left("y = MatMul(x, W) Y0 = MatMul(y, V) Y = ReduceSum(Y0, axis)", (0, H, 7, K), {},
                  axis=np.array([1]), **weights)  # fmt: skip
    assert shapes["W"].shape == (2, K, M) and shapes["V"].shape == (2, M, 3)


def test_features_between_go():
    """Zero in every matrix, or read by none."""
    for side, weights in ((1, RIGHT), (0, LEFT)):
        values = {name: np.array(value) for name, value in weights.items()}
        made, read = (-1, -2) if side else (-2, -1)
        np.moveaxis(values["W"], made, 0)[1] = 0
        np.moveaxis(values["V"], read, 0)[3] = 0
        np.moveaxis(values["W"], made, 0)[2][:2] = 0  # only in some
        text = "y = MatMul(x, W) Y = MatMul(y, V)" if side else "y = MatMul(W, x) Y = MatMul(V, y)"
        shapes = left(text, (0, H, 7, K) if side else (0, H, K, 7), {}, **values)
        assert shapes["W"].shape[made] == shapes["V"].shape[read] == M - 2


def test_inputs_go():
    """Zeros do, other constants stay."""
    for side, weights in ((1, RIGHT), (0, LEFT)):
        shape, axis = ((0, H, 7, K), 3) if side else ((0, H, K, 7), 2)
        first = "MatMul(X0, E)" if side else "MatMul(E, X0)"
        text = "y = Relu(x) Y = MatMul(y, W)" if side else "y = Relu(x) Y = MatMul(W, y)"
        for value, count in ((0.0, 2), (0.5, 0)):
            shapes = left(text, shape, {axis: [1, 4]}, value, first, W=weights["W"])
            assert shapes["W"].shape[-2 if side else -1] == K - count


def test_one_input_for_all_matrices():
    """What the constant alone makes several of can go; the input's single slot stays."""
    weights = {name: np.array(values) for name, values in RIGHT.items()}
    weights["W"][2] = 0
    proto = model("(float[N, 1, T, 6] X) => (Y) { y = MatMul(X, W) z = MatMul(y, V) Y = ReduceSum(z, axis) }",
                  {**weights, "axis": np.array([1])})  # fmt: skip
    out, _ = run(proto, RemoveChannels())
    shapes = {values.shape for values in weights_of(out).values()}
    assert (H, K, M) in shapes  # the input has one slot there, which holds it
    proto = model("(float[T, 6] X) => (Y) { y = MatMul(X, W) z = MatMul(y, V) Y = ReduceSum(z, axis) }",
                  {**weights, "axis": np.array([0])})  # fmt: skip
    out, _ = run(proto, RemoveChannels())
    assert (H - 1, K, M) in {values.shape for values in weights_of(out).values()}
