"""Comparing running times on a machine that does other things too.

Absolute times drift: clocks change, caches are shared, other programs run. What holds still is the ratio of
two things timed at nearly the same moment. `time_interleaved` therefore takes turns: in each pass every call
gets a short turn, and every second pass goes in the opposite order (A B, B A), so that a drift during a pass
cancels. One forward and one backward pass make a round; ratios are taken within a round, and their median is
reported with a confidence interval.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from scalpel_graph.near_cores import while_near
from scalpel_graph.timed_turn import time_turn

#: Fewest rounds: of six, the lowest and the highest enclose the true median with 97 % confidence.
MIN_ROUNDS = 6

_Call = TypeVar("_Call")


@dataclass(frozen=True)
class Ratio:
    """How many times faster than the baseline: above 1 is faster.

    Attributes:
        median: median over the rounds.
        low: lower end of the 95 % confidence interval of the median.
        high: its upper end.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class InterleavedTimes:
    """What `time_interleaved` measured.

    Attributes:
        seconds: ``[rounds, 2, calls]`` float64: seconds per call, of each round's forward and backward pass.
    """

    seconds: npt.NDArray[np.float64]

    @property
    def rounds(self) -> int:
        """Number of rounds."""
        return int(self.seconds.shape[0])

    def median(self, call: int) -> float:
        """Median seconds of the call of that number, over all turns."""
        return float(np.median(self.seconds[:, :, call]))

    def ratio(self, call: int, baseline: int = 0) -> Ratio:
        """Time of ``baseline`` over time of ``call``, round by round."""
        logs = np.log(self.seconds[:, :, baseline]) - np.log(self.seconds[:, :, call])
        return Ratio(*median_interval(np.exp(logs.mean(axis=1))))


def time_interleaved(
    calls: Sequence[Callable[[], Any]],
    *,
    budget_s: float = 3.0,
    turn_s: float = 0.02,
    max_rounds: int = 200,
    threads: int = 1,
) -> InterleavedTimes:
    """Times calls against each other, in turns (`time_turn`).

    Args:
        calls: what to time; each does the same work every time.
        budget_s: go on until this many seconds are spent. The first `MIN_ROUNDS` rounds are run in any case.
        turn_s: length of one turn in seconds.
        max_rounds: stop after this many rounds even if the budget is not spent; at least `MIN_ROUNDS`.
        threads: that a call uses: of several, rounds count while their cores are near each other.

    Raises:
        ValueError: ``calls`` is empty, or ``max_rounds`` is less than `MIN_ROUNDS`.
    """
    for call in calls:
        call()
    return take_turns(
        calls, time_turn, budget_s=budget_s, turn_s=turn_s, max_rounds=max_rounds, threads=threads
    )


def take_turns(
    calls: Sequence[_Call],
    time_turn: Callable[[_Call, float], float],
    *,
    budget_s: float = 3.0,
    turn_s: float = 0.02,
    max_rounds: int = 200,
    threads: int = 1,
) -> InterleavedTimes:
    """Like `time_interleaved`, of whatever ``time_turn(call, turn_s)`` gives the seconds of a call of."""
    if not calls:
        raise ValueError("there is nothing to time")
    if max_rounds < MIN_ROUNDS:
        raise ValueError(f"max_rounds must be at least {MIN_ROUNDS}, got {max_rounds}")
    rounds: list[list[list[float]]] = []
    start = time.perf_counter()
    while len(rounds) < MIN_ROUNDS or (len(rounds) < max_rounds and time.perf_counter() - start < budget_s):
        rounds.append(take_round(calls, time_turn, turn_s, threads))
    return InterleavedTimes(np.array(rounds, dtype=np.float64))


def take_round(
    calls: Sequence[_Call],
    time_turn: Callable[[_Call, float], float],
    turn_s: float = 0.02,
    threads: int = 1,
) -> list[list[float]]:
    """One round of `take_turns`: ``[2, calls]`` seconds, of a forward and a backward pass.

    Of several threads it counts if their cores were near each other (`near_cores`), and is else taken again.
    """

    def measure() -> list[list[float]]:
        forward = [time_turn(call, turn_s) for call in calls]
        backward = [time_turn(call, turn_s) for call in reversed(calls)]
        return [forward, backward[::-1]]

    return while_near(threads, measure)


def median_interval(samples: npt.ArrayLike, confidence: float = 0.95) -> tuple[float, float, float]:
    """Median, and the narrowest symmetric pair of order statistics that encloses the true median.

    Free of assumptions about the distribution: each sample lies under the true median with probability 1/2,
    so the number that do is binomial (e.g. Conover, Practical Nonparametric Statistics, 3.2). With too few
    samples for ``confidence`` the pair is the lowest and the highest.

    Args:
        samples: ``[n]``, n at least 1.
        confidence: least probability that the interval holds the true median.

    Returns:
        ``(median, low, high)``.

    Raises:
        ValueError: ``samples`` is empty.
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64).ravel())
    n = ordered.size
    if n == 0:
        raise ValueError("the median of no samples is not defined")
    skip, tail = 0, 0.5**n
    while skip < (n - 1) // 2:
        tail += math.comb(n, skip + 1) * 0.5**n
        if 1 - 2 * tail < confidence:
            break
        skip += 1
    return float(np.median(ordered)), float(ordered[skip]), float(ordered[n - 1 - skip])
