"""How long ONNX Runtime takes for the nodes of a model, from its own profiler.

A session's time holds more than its nodes: for a small layer mostly the way into ONNX Runtime and out of it,
for a dense Conv also the changes to the blocked layout and back, which a network of many such layers does not
have. The profiler tells them apart.
"""

import json
import os
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from scalpel_graph.caches import Sweeper
from scalpel_graph.library import custom_op_library
from scalpel_graph.near_cores import usable_cores
from scalpel_graph.session import session

_SUFFIX = "_kernel_time"
#: The profiler counts whole microseconds and cuts off the rest: half of one on average.
_CUT_OFF_US = 0.5
#: The mean of the lower part of a node's times counts: what interferes only adds time, and of whole numbers a
#: mean says more than any one of them.
_LOWER_PART = 0.4
_MIN_RUNS = 5
_LINE_BYTES = 64
_MAX_RUNS = 200


class NodeTimer:
    """A session whose nodes are timed, one at a time, to be used as a context.

    Each thread has a core of its own from beginning to end, where the system lets one choose: where other
        programs
    run too, it would else now and then put two of them on one.

    Args:
        model: what to run.
        feed: its inputs.
        threads: intra-op threads.
    """

    def __init__(self, model: onnx.ModelProto, feed: dict[str, Any], threads: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="scalpel-profile-")
        prefix = Path(self._folder.name) / "profile"
        self._all_cores = usable_cores()
        pinned = self._all_cores[:threads] if len(self._all_cores) >= threads else []
        if pinned:
            os.sched_setaffinity(0, pinned[:1])
        self._session = session(
            model, library=custom_op_library(), threads=threads, profile=prefix, cores=pinned[1:]
        )
        self._feed = {name: _aligned(value) for name, value in feed.items()}
        self._binding = self._session.io_binding()
        for name, value in self._feed.items():
            self._binding.bind_cpu_input(name, value)
        for output in self._session.get_outputs():
            self._binding.bind_output(output.name)
        self.run_once()  # which allocates, and is not counted

    def run_once(self) -> None:
        """Runs the model."""
        self._session.run_with_iobinding(self._binding)

    def run(self, seconds: float) -> None:
        """Runs the model for so long, from `_MIN_RUNS` to `_MAX_RUNS` times."""
        end = time.perf_counter() + seconds
        runs = 0
        while runs < _MIN_RUNS or (runs < _MAX_RUNS and time.perf_counter() < end):
            self.run_once()
            runs += 1

    def run_cold(self, runs: int, sweeper: Sweeper) -> None:
        """Runs the model so often, each time with weights that come from memory.

        Its inputs come from the caches all the same: in a network the layer before has just written them.
        """
        for _ in range(runs):
            sweeper.sweep()
            for value in self._feed.values():
                value.sum()
            self.run_once()

    def finish(self) -> dict[str, float]:
        """Ends the measurement and returns microseconds by operator type, its nodes together."""
        path = Path(self._session.end_profiling())
        events = json.loads(path.read_text(encoding="utf-8"))
        times: dict[str, list[float]] = {}
        nodes: dict[str, set[str]] = {}
        for event in events:
            name = event.get("name", "")
            if event.get("cat") == "Node" and name.endswith(_SUFFIX):
                op_type = event["args"]["op_name"]
                times.setdefault(op_type, []).append(event["dur"])
                nodes.setdefault(op_type, set()).add(name)
        return {
            op_type: len(nodes[op_type]) * (_lower_mean(found[len(nodes[op_type]) :]) + _CUT_OFF_US)
            for op_type, found in times.items()
        }

    def __enter__(self) -> "NodeTimer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        del self._session, self._binding
        if self._all_cores:
            os.sched_setaffinity(0, self._all_cores)
        self._folder.cleanup()


def _aligned(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """A copy that begins where a cache line does, as ONNX Runtime's own tensors do and numpy's need not.

    Vectors that straddle two lines take twice as long to load.
    """
    room = np.empty(array.nbytes + _LINE_BYTES, dtype=np.uint8)
    start = -room.ctypes.data % _LINE_BYTES
    copy = room[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def _lower_mean(times: list[float]) -> float:
    return float(np.sort(times)[: max(1, round(_LOWER_PART * len(times)))].mean())
