"""How a threshold, a penalty or a pruning rate changes from stage to stage.

A stage is one round of pruning and retraining; what is here are plain lists with one number for each.
"""

import numpy as np

from scalpel_graph.errors import InputError


def linear_stages(first: float, last: float, stages: int) -> list[float]:
    """Evenly spaced numbers.

    ``linear_stages(0.04, 0.08, 5)`` are the thresholds of the code released with the Scalpel paper.

    Args:
        first: of the first stage.
        last: of the last stage, exactly.
        stages: how many, at least 1; one stage gets ``last``.

    Raises:
        InputError: there is no stage.
    """
    _check(stages)
    return [float(x) for x in np.linspace(first, last, stages)] if stages > 1 else [float(last)]


def cubic_stages(last: float, stages: int, first: float = 0.0) -> list[float]:
    """Pruning rates that rise fast while there is much to spare and slowly in the end.

    After stage ``t`` of ``n`` the rate is ``last + (first − last) · (1 − t / n)³`` (Zhu and Gupta, "To prune,
    or not to prune", 2017, equation 1).

    Args:
        last: rate after the last stage, exactly.
        stages: how many, at least 1.
        first: rate before the first stage.

    Raises:
        InputError: there is no stage.
    """
    _check(stages)
    left = 1 - np.arange(1, stages + 1) / stages
    return [float(x) for x in last + (first - last) * left**3]


def _check(stages: int) -> None:
    if stages < 1:
        raise InputError(f"stages must be at least 1, got {stages}")
