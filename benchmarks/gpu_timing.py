"""Times work on a CUDA device with PyTorch's events."""

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

import numpy as np

#: What a card's last cache holds, at most: weights are read in turn from copies of several times as much.
CACHE_BYTES = 64 << 20
_COPIES_OF_CACHE = 3
_ROUNDS = 7
_ROUND_MS = 20.0


def torch() -> Any:
    """PyTorch, which is there where the suite runs and nowhere needed else."""
    return import_module("torch")


def copies(nbytes: int) -> int:
    """How many copies of so many bytes no cache holds together."""
    return max(1, min(64, -(-_COPIES_OF_CACHE * CACHE_BYTES // max(nbytes, 1))))


class Repeated:
    """Calls in a row, recorded as a CUDA graph where they can be.

    Args:
        calls: each enqueues work on the current stream.
        least: repeat the calls until there are this many.
    """

    def __init__(self, calls: Sequence[Callable[[], Any]], least: int = 20) -> None:
        t = torch()
        calls = list(calls) * -(-least // len(calls))
        self.count = len(calls)
        stream = t.cuda.Stream()
        with t.cuda.stream(stream):
            for call in calls[:3]:
                call()
        stream.synchronize()
        self.how = "graph"
        graph = t.cuda.CUDAGraph()
        try:
            with t.cuda.graph(graph):
                for call in calls:
                    call()
            self._run: Callable[[], Any] = graph.replay
        except RuntimeError:
            t.cuda.synchronize()
            self.how = "loop"
            self._run = lambda: [call() for call in calls]
        self._graph = graph

    def us(self) -> float:
        """Microseconds of one call, of one turn of some 20 ms."""
        t = torch()
        begin, end = (t.cuda.Event(enable_timing=True) for _ in range(2))
        self._run()
        spent, runs = 0.0, 0
        while spent < _ROUND_MS:
            begin.record()
            self._run()
            end.record()
            end.synchronize()
            spent, runs = spent + begin.elapsed_time(end), runs + 1
        return spent / runs / self.count * 1e3


def in_turns(ways: dict[str, Repeated]) -> dict[str, float]:
    """Median microseconds of a call of each, measured in turns.

    Args:
        ways: by name.
    """
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(_ROUNDS):
        order = list(ways) if number % 2 == 0 else list(ways)[::-1]
        for name in order:
            times[name].append(ways[name].us())
    return {name: float(np.median(found)) for name, found in times.items()}


def copy_bytes_per_us() -> float:
    """Bytes read and written in a microsecond by a copy on the device."""
    t = torch()
    source = t.empty(1 << 28, dtype=t.float32, device="cuda").fill_(1.0)
    target = t.empty_like(source)
    us = Repeated([lambda: target.copy_(source)], least=3).us()
    return float(2 * source.numel() * 4 / us)
