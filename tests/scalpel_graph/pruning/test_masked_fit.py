import itertools

import numpy as np
import pytest

from scalpel_graph.pruning.masked_fit import masked_fit
from tests.scalpel_graph.pruning.quadratics import correlated, least_cost, of_data


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_solves_the_normal_equations_of_what_is_kept(seed, groups):
    rng = np.random.default_rng(seed)
    cost = of_data(correlated(12, 60, seed), rng.standard_normal((6, 12)), groups=groups)
    drop = rng.random(cost.B.shape) < 0.6
    fitted = masked_fit(cost, cost.optimum(), drop)
    assert not fitted[drop].any()
    for group in range(groups):
        for row in range(6 // groups):
            expected = least_cost(cost, ~drop[group, row], row, group)[1]
            np.testing.assert_allclose(fitted[group, row], expected, atol=1e-3)


def test_never_worse_than_the_start_and_better_with_more_iterations():
    rng = np.random.default_rng(0)
    cost = of_data(correlated(30, 80), rng.standard_normal((5, 30)))
    drop = rng.random(cost.B.shape) < 0.7
    start = np.where(drop, 0, cost.optimum())
    errors = [cost.relative_error(masked_fit(cost, start, drop, n)) for n in (0, 1, 3, 10, 100)]
    assert errors[0] == pytest.approx(cost.relative_error(start))
    assert all(later < earlier for earlier, later in itertools.pairwise(errors[:4]))


def test_all_gone():
    cost = of_data(correlated(6, 20), np.ones((2, 6)))
    assert not masked_fit(cost, cost.optimum(), np.ones(cost.B.shape, dtype=bool)).any()


def test_nothing_gone_is_the_optimum():
    cost = of_data(correlated(6, 20), np.random.default_rng(0).standard_normal((2, 6)))
    fitted = masked_fit(cost, np.zeros(cost.B.shape), np.zeros(cost.B.shape, dtype=bool))
    np.testing.assert_allclose(fitted, cost.optimum(), rtol=1e-3, atol=1e-4)
