import itertools

import pytest

from scalpel_graph import near_cores, timing
from scalpel_graph.near_cores import NearCores, while_near

NEAR, FAR = 100e9, 40e9


class Host:
    """Cores that are as near each other as a list of rates says, one rate each time somebody looks."""

    def __init__(self, *rates):
        self.rates = itertools.chain(rates, itertools.repeat(rates[-1]))
        self.slept = 0.0

    def cores(self, patience_s=60.0):
        return NearCores(patience_s, rate=lambda: next(self.rates), sleep=self.sleep)

    def sleep(self, seconds):
        self.slept += seconds


def test_measures_at_once_while_cores_are_near():
    host = Host(NEAR, 0.8 * NEAR)
    assert host.cores().during(lambda: "result") == "result"
    assert host.slept == 0


def test_waits_until_they_are():
    host = Host(NEAR, NEAR, FAR, FAR, NEAR)
    cores = host.cores()
    cores.during(lambda: None)
    taken = []
    cores.during(lambda: taken.append(host.slept))
    assert taken == [1.0]
    assert cores.waited_s == host.slept == 1.0


def test_measures_again_what_ended_far():
    host = Host(NEAR, FAR, NEAR, NEAR)
    results = iter(["far", "near"])
    assert host.cores().during(lambda: next(results)) == "near"


def test_patience_ends():
    host = Host(NEAR, NEAR, FAR)
    cores = host.cores(patience_s=2.0)
    cores.during(lambda: None)
    assert cores.during(lambda: "far after all") == "far after all"
    assert host.slept == 2.0
    assert cores.during(lambda: "at once") == "at once"
    assert host.slept == 2.0


def test_one_thread_has_no_neighbours(monkeypatch):
    monkeypatch.setattr(near_cores, "_cores", lambda: pytest.fail("looked at other cores"))
    assert while_near(1, lambda: 3) == 3


def test_neither_has_a_single_core(monkeypatch):
    monkeypatch.setattr(near_cores, "_cores", lambda: pytest.fail("looked at other cores"))
    monkeypatch.setattr(near_cores, "usable_cores", lambda: [5])
    assert while_near(2, lambda: 3) == 3


def test_a_round_that_ended_far_is_taken_again(monkeypatch):
    cores = Host(NEAR, FAR, NEAR).cores()
    monkeypatch.setattr(near_cores, "_cores", lambda: cores)
    monkeypatch.setattr(near_cores, "usable_cores", lambda: [0, 1])
    turns = itertools.count()
    assert timing.take_round(["a"], lambda call, turn_s: next(turns), threads=2) == [[2], [3]]
