"""The optimal brain surgeon against brute force: each candidate removed, least squares solved anew."""

import numpy as np
import pytest

from scalpel_graph.pruning.greedy import Removal, removal_order
from tests.scalpel_graph.pruning.quadratics import correlated, least_cost, of_data


def brute_force_order(cost, rows, c):
    """Order and losses of a block of rows: each step tries every group of ``c`` columns that is left."""
    K = cost.A.shape[1]
    gone: list[int] = []
    order, losses, so_far = [], [], 0.0
    for _ in range(-(-K // c)):
        totals = {}
        for group in range(-(-K // c)):
            if group in gone:
                continue
            keep = np.ones(K, dtype=bool)
            for other in [*gone, group]:
                keep[other * c : (other + 1) * c] = False
            totals[group] = sum(least_cost(cost, keep, row)[0] for row in rows)
        best = min(totals, key=totals.__getitem__)
        gone.append(best)
        order.append(best)
        losses.append(totals[best] - so_far)
        so_far = totals[best]
    return order, losses


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (4, 1), (2, 2), (8, 1), (8, 2), (3, 3), (1, 8)])
def test_against_brute_force_on_8x8(shape):
    cost = of_data(correlated(8, 40), np.random.default_rng(1).standard_normal((8, 8)))
    removal = removal_order(cost.optimum()[0], np.linalg.inv(cost.A[0]), shape)
    for block, start in enumerate(range(0, 8, shape[0])):
        order, losses = brute_force_order(cost, range(start, min(start + shape[0], 8)), shape[1])
        assert removal.order[block].tolist() == order
        np.testing.assert_allclose(removal.losses[block], losses, rtol=1e-6, atol=1e-9)


def test_the_last_loss_leaves_nothing():
    weights = np.random.default_rng(1).standard_normal((4, 6))
    cost = of_data(correlated(6, 30), weights)
    removal = removal_order(cost.optimum()[0], np.linalg.inv(cost.A[0]), (4, 1))
    w = cost.optimum()[0]
    assert removal.losses.sum() == pytest.approx(float(np.vdot(w @ cost.A[0], w)))


def test_batches_of_row_blocks_make_no_difference(monkeypatch):
    cost = of_data(correlated(12, 50), np.random.default_rng(1).standard_normal((10, 12)))
    arguments = cost.optimum()[0], np.linalg.inv(cost.A[0]), (2, 3)
    at_once = removal_order(*arguments)
    monkeypatch.setattr("scalpel_graph.pruning.greedy._BATCH_BYTES", 1)
    one_by_one = removal_order(*arguments)
    np.testing.assert_array_equal(at_once.order, one_by_one.order)
    np.testing.assert_allclose(at_once.losses, one_by_one.losses)


class TestChoiceAmongRowBlocks:
    removal = Removal(
        order=np.array([[2, 0, 1], [0, 1, 2]]), losses=np.array([[1.0, 5.0, 2.0], [3.0, 4.0, 9.0]])
    )

    def test_cheapest_first_in_their_order(self):
        assert self.removal.drop(1).tolist() == [[False, False, True], [False] * 3]
        assert self.removal.drop(3).tolist() == [[False, False, True], [True, True, False]]

    def test_what_comes_after_a_dear_one_counts_as_dear(self):
        # The third of the first block costs 2, but only after one that costs 5.
        assert self.removal.drop(4).tolist() == [[True, False, True], [True, True, False]]
        assert self.removal.scores().tolist() == [[5, 5, 1], [3, 4, 9]]
