import itertools

import numpy as np
import pytest

from scalpel_graph.pruning.allocation import Choice, choose


def brute_force(options, budget):
    """The least error of all combinations within a budget; None if there is none."""
    totals = [
        sum(choice.error for choice in chosen)
        for chosen in itertools.product(*options)
        if sum(choice.cost for choice in chosen) <= budget
    ]
    return min(totals, default=None)


def random_options(seed, layers=5, ways=4):
    rng = np.random.default_rng(seed)
    return [[Choice(c, e) for c, e in zip(rng.uniform(0, 10, ways), rng.exponential(1, ways), strict=True)]
            for _ in range(layers)]  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_against_brute_force(seed):
    options = random_options(seed)
    steps = 1000
    for budget in (8.0, 15.0, 25.0, 40.0):
        chosen = choose(options, budget, steps)
        exact = brute_force(options, budget)
        tighter = brute_force(options, budget * (1 - len(options) / steps))
        if chosen is None:
            assert tighter is None
            continue
        taken = [layer[i] for layer, i in zip(options, chosen, strict=True)]
        assert sum(choice.cost for choice in taken) <= budget
        error = sum(choice.error for choice in taken)
        assert exact <= error + 1e-12
        assert tighter is None or error <= tighter + 1e-12


def test_whole_numbers_are_exact():
    options = [[Choice(3, 0), Choice(1, 5)], [Choice(4, 0), Choice(2, 1)], [Choice(2, 0), Choice(0, 9)]]
    assert choose(options, 9, 9) == [0, 0, 0]
    assert choose(options, 7, 7) == [0, 1, 0]
    assert choose(options, 5, 5) == [1, 1, 0]
    assert choose(options, 2, 2) is None


def test_nothing_to_choose():
    assert choose([], 1.0) == []


def test_what_costs_nothing_needs_no_budget():
    assert choose([[Choice(5, 0), Choice(0, 1)]], 1e-9) == [1]
