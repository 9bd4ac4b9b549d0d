import numpy as np
import pytest

from scalpel_graph.pruning.quadratic import Quadratic
from tests.scalpel_graph.pruning.quadratics import correlated, of_data


def test_the_original_is_the_optimum_where_its_inputs_are_the_originals():
    weights = np.random.default_rng(0).standard_normal((4, 10))
    cost = of_data(correlated(10, 50), weights)
    np.testing.assert_allclose(cost.unscaled(cost.optimum()), weights, rtol=1e-8)
    assert cost.relative_error(cost.original) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("groups", [1, 2])
def test_error_is_that_of_the_data(groups):
    rng = np.random.default_rng(0)
    x, weights, other = correlated(10, 50), rng.standard_normal((4, 10)), rng.standard_normal((4, 10))
    cost = of_data(x, weights, groups=groups)
    expected = ((x @ (weights - other).T) ** 2).sum() / ((x @ weights.T) ** 2).sum()
    scaled = other.reshape(cost.B.shape) * cost.scale
    assert cost.relative_error(scaled) == pytest.approx(expected)


def test_other_inputs_than_the_originals_are_made_up_for():
    rng = np.random.default_rng(0)
    x, weights = correlated(10, 400), rng.standard_normal((4, 10))
    seen = x + 0.3 * rng.standard_normal(x.shape)
    y = x @ weights.T
    cost = Quadratic.of((seen.T @ seen)[None], (y.T @ seen)[None], weights[None], float((y**2).sum()), 1e-6)
    expected = np.linalg.lstsq(seen, y, rcond=None)[0].T
    np.testing.assert_allclose(cost.unscaled(cost.optimum()), expected, rtol=1e-3, atol=1e-4)
    residual = ((y - seen @ expected.T) ** 2).sum() / (y**2).sum()
    assert cost.relative_error(cost.optimum()) == pytest.approx(residual, rel=1e-3)


def test_what_the_data_says_nothing_about_stays():
    x = correlated(6, 30)
    x[:, 2] = 0
    weights = np.random.default_rng(0).standard_normal((3, 6))
    cost = of_data(x, weights)
    np.testing.assert_allclose(cost.unscaled(cost.optimum())[:, 2], weights[:, 2])


def test_no_data_at_all():
    weights = np.ones((2, 4))
    cost = of_data(np.zeros((5, 4)), weights)
    np.testing.assert_allclose(cost.unscaled(cost.optimum()), weights)
    assert cost.relative_error(cost.original) == 0


def test_some_rows_have_an_error_of_their_own():
    rng = np.random.default_rng(0)
    x, weights = correlated(10, 50), rng.standard_normal((64, 10))
    part = of_data(x, weights).some_rows(32)
    assert part.shape == (32, 10)
    assert part.relative_error(part.original) == pytest.approx(0, abs=1e-9)
    assert part.relative_error(np.zeros_like(part.original)) == pytest.approx(1)
