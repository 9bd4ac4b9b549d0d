import numpy as np
import pytest

from scalpel_graph.pruning.moments import Moments


def data(rows=200, K=6, M=4, groups=1, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((groups, rows, K)) + 5
    y = x @ rng.standard_normal((groups, K, M)) + 0.1 * rng.standard_normal((groups, rows, M)) + 3
    return x.astype(np.float32), y.astype(np.float32)


def summed(x, y, *, centred, parts=3):
    moments = Moments(x.shape[0], y.shape[2], x.shape[2], centred=centred)
    for piece in np.array_split(np.arange(x.shape[1]), parts):
        moments.add(x[:, piece], y[:, piece])
    return moments


@pytest.mark.parametrize("groups", [1, 3])
def test_the_optimum_with_a_bias_is_linear_regression(groups):
    x, y = data(groups=groups)
    moments = summed(x, y, centred=True)
    cost = moments.cost(np.zeros((groups, 4, 6)), damping=1e-9)
    weights = cost.unscaled(cost.optimum()).reshape(groups, 4, 6)
    bias = moments.bias(weights).reshape(groups, 4)
    for g in range(groups):
        with_one = np.column_stack([x[g].astype(np.float64), np.ones(x.shape[1])])
        expected = np.linalg.lstsq(with_one, y[g].astype(np.float64), rcond=None)[0]
        np.testing.assert_allclose(weights[g], expected[:-1].T, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(bias[g], expected[-1], rtol=1e-3, atol=1e-3)


def test_without_a_bias_means_count():
    x, y = data()
    cost = summed(x, y, centred=False).cost(np.zeros((1, 4, 6)), damping=1e-9)
    expected = np.linalg.lstsq(x[0].astype(np.float64), y[0].astype(np.float64), rcond=None)[0].T
    np.testing.assert_allclose(cost.unscaled(cost.optimum()), expected, rtol=1e-4, atol=1e-4)
    assert cost.energy == pytest.approx(float((y.astype(np.float64) ** 2).sum()), rel=1e-5)


def test_error_is_a_part_of_the_variance_where_there_is_a_bias():
    x, y = data()
    cost = summed(x, y, centred=True).cost(np.zeros((1, 4, 6)))
    assert cost.relative_error(np.zeros((1, 4, 6))) == pytest.approx(1)


def test_large_means_cost_no_digits(monkeypatch):
    monkeypatch.setattr("scalpel_graph.pruning.moments._DOUBLE_INPUTS", 0)  # sums in float32
    x, y = data()
    near = summed(x, y, centred=True).cost(np.zeros((1, 4, 6)))
    far = summed(x + np.float32(1000), y, centred=True).cost(np.zeros((1, 4, 6)))
    np.testing.assert_allclose(near.A, far.A, atol=2e-3)
