import itertools
import math

import numpy as np
import pytest

from scalpel_graph import timing


class Clock:
    """A clock that only moves when a call or a sleep says how long it took.

    Attributes:
        spin: seconds for which a call's worker threads go on using a core after it.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.used = 0.0
        self.spin = 0.0
        self.spinning = 0.0
        self.log: list[str] = []

    def call(self, name: str, seconds: float, drift: float = 0.0):
        def run() -> None:
            self.log.append(name)
            self.now += seconds * (1 + drift * self.now)
            self.spinning = self.spin

        return run

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.used += min(seconds, self.spinning)
        self.spinning = max(0.0, self.spinning - seconds)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock.now)
    monkeypatch.setattr(timing.time, "process_time", lambda: clock.used)
    monkeypatch.setattr(timing.time, "sleep", clock.sleep)
    return clock


def test_takes_turns_in_alternating_order(clock):
    timing.time_interleaved([clock.call("a", 1.0), clock.call("b", 1.0)], budget_s=0.0)
    warm_up, first_round, second_round = clock.log[:2], clock.log[2:10], clock.log[10:18]
    assert warm_up == ["a", "b"]
    assert first_round == second_round == ["a", "a", "b", "b", "b", "b", "a", "a"]


def test_medians_and_ratio(clock):
    times = timing.time_interleaved([clock.call("a", 0.3), clock.call("b", 0.1)], budget_s=0.0)
    assert times.rounds == timing.MIN_ROUNDS
    assert times.median(0) == pytest.approx(0.3)
    assert times.median(1) == pytest.approx(0.1)
    assert times.ratio(1).median == pytest.approx(3.0)
    assert times.ratio(0, baseline=1).median == pytest.approx(1 / 3)
    assert times.ratio(0).median == 1.0


def test_drift_cancels(clock):
    drift = 0.02
    calls = [clock.call("a", 0.1, drift), clock.call("b", 0.1, drift)]
    times = timing.time_interleaved(calls, budget_s=0.0)
    assert times.seconds[-1].mean() > 1.05 * times.seconds[0].mean()
    assert times.ratio(1).median == pytest.approx(1.0, abs=1e-4)


def test_budget_and_limit_bound_the_rounds(clock):
    by_budget = timing.time_interleaved([clock.call("a", 0.01)], budget_s=1.0, turn_s=0.0)
    assert by_budget.rounds == math.ceil(1.0 / (2 * (2 * 0.01 + 0.01)))
    by_limit = timing.time_interleaved([clock.call("a", 0.01)], budget_s=100.0, max_rounds=9)
    assert by_limit.rounds == 9


def test_short_calls_repeat_within_a_turn(clock):
    timing.time_interleaved([clock.call("a", 0.001)], budget_s=0.0, turn_s=0.0095, max_rounds=6)
    assert len(clock.log) == 1 + 6 * 2 * (1 + 10)


def test_waits_until_the_previous_call_has_stopped_spinning(clock):
    clock.spin = 0.043
    found_spinning = []
    call = clock.call("a", 0.001)

    def watched() -> None:
        found_spinning.append(clock.spinning)
        call()

    timing.time_interleaved([watched], budget_s=0.0, turn_s=0.0, max_rounds=6)
    first_of_each_turn = found_spinning[1::2]
    assert first_of_each_turn == [0.0] * 12
    assert clock.now == pytest.approx(25 * 0.001 + 12 * 0.06)


def test_does_not_wait_forever_for_other_threads(clock):
    clock.spin = 1e9
    timing.time_interleaved([clock.call("a", 0.001)], budget_s=0.0, turn_s=0.0, max_rounds=6)
    assert clock.now == pytest.approx(25 * 0.001 + 12 * 0.2, rel=0.05)


def test_a_turn_is_the_lower_quartile_of_its_calls(clock):
    warm_up, not_counted, counted = [0.5], [0.7], [0.009, 0.001, 0.002, 0.003]
    seconds = itertools.chain(warm_up, itertools.cycle(not_counted + counted))

    def call() -> None:
        clock.now += next(seconds)

    times = timing.time_interleaved([call], budget_s=0.0, turn_s=0.0145, max_rounds=6)
    assert times.seconds.shape == (6, 2, 1)
    np.testing.assert_allclose(times.seconds, 0.00175)


def test_nothing_to_time():
    with pytest.raises(ValueError, match="nothing to time"):
        timing.time_interleaved([])
    with pytest.raises(ValueError, match="max_rounds"):
        timing.time_interleaved([lambda: None], max_rounds=1)


@pytest.mark.parametrize(
    ("n", "low", "high"),
    # Published tables of the sign-test interval of the median at 95 %: ranks counted from 1.
    [
        (1, 1, 1),
        (5, 1, 5),
        (6, 1, 6),
        (8, 1, 8),
        (9, 2, 8),
        (10, 2, 9),
        (20, 6, 15),
        (50, 18, 33),
        (100, 40, 61),
    ],
)
def test_median_interval_ranks(n, low, high):
    samples = np.random.default_rng(n).permutation(np.arange(1, n + 1))
    assert timing.median_interval(samples) == ((n + 1) / 2, low, high)


def test_median_interval_covers_the_median():
    draws = np.random.default_rng(0).lognormal(size=(2000, 15))
    hits = [low <= 1.0 <= high for _, low, high in map(timing.median_interval, draws)]
    assert np.mean(hits) >= 0.945


def test_median_of_nothing():
    with pytest.raises(ValueError, match="no samples"):
        timing.median_interval([])
