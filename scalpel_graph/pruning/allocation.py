"""One choice for each layer, of least error together, within a budget: the multiple-choice knapsack problem.

Solved by dynamic programming over budgets in steps, each cost rounded up to whole steps: what is chosen is
within the budget, and the best there is within the budget less a step for each layer.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: Steps of the budget.
STEPS = 4000


@dataclass(frozen=True)
class Choice:
    """A way to do something.

    Attributes:
        cost: what it takes of the budget; not negative.
        error: what it loses.
    """

    cost: float
    error: float


def choose(options: Sequence[Sequence[Choice]], budget: float, steps: int = STEPS) -> list[int] | None:
    """The choice for each layer.

    Args:
        options: of each layer, at least one.
        budget: what all costs together may come to; positive.
        steps: the finer, the closer to the best.

    Returns:
        which option of each; None if even the cheapest are beyond the budget.
    """
    best = np.zeros(steps + 1)
    taken = []
    for layer in options:
        sizes = [int(np.ceil(option.cost / budget * steps - 1e-9)) for option in layer]
        totals = np.full((len(layer), steps + 1), np.inf)
        for row, option, size in zip(totals, layer, sizes, strict=True):
            if size <= steps:
                row[size:] = best[: steps + 1 - size] + option.error
        chosen = totals.argmin(axis=0)
        best = np.take_along_axis(totals, chosen[None], axis=0)[0]
        taken.append((chosen, sizes))
    if not np.isfinite(best[steps]):
        return None
    left, answer = steps, []
    for chosen, sizes in reversed(taken):
        answer.append(int(chosen[left]))
        left -= sizes[answer[-1]]
    return answer[::-1]
