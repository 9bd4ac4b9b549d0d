"""One turn of a call that is timed against others (`timing`).

Needs nothing of this package: processes of other engines load it by its path, in environments without it.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

#: The worker threads of an ONNX Runtime session go on spinning after a run, for some 40 ms. Before a turn,
#: wait until the process uses less than this fraction of a core; look this often, and wait at most so long.
_QUIET_LOAD = 0.25
_QUIET_WINDOW_S = 0.01
_QUIET_LIMIT_S = 0.2


def time_turn(call: Callable[[], Any], turn_s: float) -> float:
    """Seconds of a call, in one turn.

    A turn begins by waiting until the threads of the previous call have stopped spinning, and with a call
    that is not counted, so that each finds the caches as its own last run left them. Then the call is
    repeated for ``turn_s``, at least once. The turn counts as the lower quartile of its calls: what
    interferes only adds time, and the quartile, unlike the minimum, does not fall with the number of calls.
    """
    wait_until_quiet()
    call()
    spent: list[float] = []
    end = time.perf_counter() + turn_s
    while not spent or time.perf_counter() < end:
        start = time.perf_counter()
        call()
        spent.append(time.perf_counter() - start)
    return float(np.quantile(spent, 0.25))


def wait_until_quiet() -> None:
    """Waits until this process uses hardly any processor time, or for 0.2 s."""
    limit = time.perf_counter() + _QUIET_LIMIT_S
    load = 1.0
    while load > _QUIET_LOAD and time.perf_counter() < limit:
        start, used = time.perf_counter(), time.process_time()
        time.sleep(_QUIET_WINDOW_S)
        load = (time.process_time() - used) / (time.perf_counter() - start)
