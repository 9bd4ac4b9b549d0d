import itertools

import numpy as np
import pytest

from scalpel_graph.pruning.admm import choose_by_admm
from scalpel_graph.pruning.fit import GREEDY_WORK, prune_by_cost
from scalpel_graph.pruning.masked_fit import masked_fit
from scalpel_graph.pruning.structure import Groups, NofM
from tests.scalpel_graph.pruning.quadratics import correlated, least_cost, of_data


def fitted_error(cost, drop):
    return cost.relative_error(masked_fit(cost, np.where(drop, 0, cost.optimum()), drop))


@pytest.mark.parametrize("seed", range(6))
def test_close_to_the_best_of_all_choices(seed):
    """One row of 10 weights: all 252 ways to keep five."""
    cost = of_data(correlated(10, 60, seed), np.random.default_rng(seed).standard_normal((1, 10)))
    costs = []
    for kept in itertools.combinations(range(10), 5):
        keep = np.isin(np.arange(10), kept)
        costs.append(least_cost(cost, keep)[0])
    drop = choose_by_admm(cost, cost.optimum(), Groups((1, 1)), 0.5)
    assert drop.sum() == 5
    found = least_cost(cost, ~drop[0, 0])[0]
    assert found <= sorted(costs)[10]
    best = prune_by_cost(cost, Groups((1, 1)), 0.5)
    assert best.error <= fitted_error(cost, drop) + 1e-9


@pytest.mark.parametrize("structure", [Groups((1, 1)), Groups((1, 8)), Groups((4, 1)), NofM(2, 4)], ids=str)
def test_better_than_by_magnitude(structure):
    x = correlated(64, 300)
    weights = np.random.default_rng(0).standard_normal((32, 64))
    cost = of_data(x, weights)
    by_magnitude = structure.drop(weights, 0.5)[None]
    error = fitted_error(cost, choose_by_admm(cost, cost.optimum(), structure, 0.5))
    assert error < 0.9 * fitted_error(cost, by_magnitude)


class TestPruneByCost:
    x = correlated(32, 200)
    weights = np.random.default_rng(0).standard_normal((16, 32))

    @pytest.mark.parametrize(
        "structure", [Groups((1, 4)), Groups((4, 1)), Groups((16, 2)), NofM(1, 4)], ids=str
    )
    @pytest.mark.parametrize("groups", [1, 2])
    def test_zeros_where_the_structure_says(self, structure, groups):
        if isinstance(structure, Groups) and structure.shape[0] > 16 // groups:
            structure = Groups((8, 2))
        cost = of_data(self.x, self.weights, groups=groups)
        found = prune_by_cost(cost, structure, 0.75)
        drop = found.weights == 0
        np.testing.assert_array_equal(structure.drop(found.weights, 0.75), drop)
        assert drop.mean() == 0.75
        before, lost = self.x @ self.weights.T, self.x @ (self.weights - found.weights).T
        error = (lost**2).sum() / (before**2).sum()
        assert found.error == pytest.approx(error, rel=1e-6)

    def test_weights_that_are_gone_count(self):
        dead = np.zeros((16, 32), dtype=bool)
        dead[:, :8] = True
        found = prune_by_cost(of_data(self.x, self.weights), Groups((1, 4)), 0.5, dead)
        assert not found.weights[dead].any()
        assert (found.weights == 0).mean() == 0.5

    def test_dead_weights_alone(self):
        dead = np.zeros((16, 32), dtype=bool)
        dead[:, ::2] = True
        cost = of_data(self.x, self.weights)
        found = prune_by_cost(cost, None, 0.0, dead)
        np.testing.assert_array_equal(found.weights == 0, dead)
        assert found.error == pytest.approx(fitted_error(cost, dead[None]), rel=1e-3)

    def test_large_layers_go_without_the_exact_order(self, monkeypatch):
        cost = of_data(self.x, self.weights)
        exact = prune_by_cost(cost, Groups((1, 4)), 0.75)
        monkeypatch.setattr("scalpel_graph.pruning.fit.GREEDY_WORK", 0)
        without = prune_by_cost(cost, Groups((1, 4)), 0.75)
        assert exact.error <= without.error < 1.2 * exact.error
        assert GREEDY_WORK > 1e6
