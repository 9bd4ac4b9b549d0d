"""Whether the cores that threads run on are near each other, and waiting until they are.

A virtual machine's cores move about. While two of them do not share a last cache, what one has written takes
the other twice as long to read or more, and layers whose threads read each other's results take up to twice
their time: a measurement then says more about the host than about what is measured. Such times last from
seconds to minutes. They show in the rate at which a thread reads what another has just written.
"""

import os
import time
from collections.abc import Callable
from functools import cache, partial
from typing import TypeVar

from scalpel_graph import _kernels

#: Cores are far from each other below this share of the best rate seen: on AMD Zen 5 it falls to 0.4.
_NEAR = 0.7
_PAUSE_S = 0.5

_Result = TypeVar("_Result")


def usable_cores() -> list[int]:
    """The cores that this process may use; empty where the system does not say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


class NearCores:
    """Tells whether cores are near each other, by the best that it has seen so far.

    Args:
        patience_s: how many seconds to wait for them, in all; when they are spent, any cores will do.
        rate: measures the rate, in bytes per second; by default between the first two cores of this process.
        sleep: waits for so many seconds.

    Attributes:
        waited_s: seconds that it has waited.
    """

    def __init__(
        self,
        patience_s: float = 120.0,
        *,
        rate: Callable[[], float] | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.waited_s = 0.0
        self._patience_s = patience_s
        self._rate = rate or partial(_kernels.exchange_bandwidth, *usable_cores()[:2])
        self._sleep = sleep
        self._best = 0.0

    def are_near(self) -> bool:
        """Whether they are now; also when there is no patience left."""
        if self.waited_s >= self._patience_s:
            return True
        rate = self._rate()
        self._best = max(self._best, rate)
        return rate >= _NEAR * self._best

    def during(self, measure: Callable[[], _Result]) -> _Result:
        """What ``measure`` gives when the cores are near each other before and after it."""
        while True:
            while not self.are_near():
                self._sleep(_PAUSE_S)
                self.waited_s += _PAUSE_S
            result = measure()
            if self.are_near():
                return result


def while_near(threads: int, measure: Callable[[], _Result]) -> _Result:
    """What ``measure`` gives, for more than one thread while this process's cores are near each other."""
    return measure() if threads == 1 or len(usable_cores()) < 2 else _cores().during(measure)


@cache
def _cores() -> NearCores:
    return NearCores()
