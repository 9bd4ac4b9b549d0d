"""Times the layers of a calibration, dense and in every group shape."""

import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from scalpel_graph import group_csr
from scalpel_graph.caches import Sweeper, last_cache_bytes
from scalpel_graph.calibration.layers import DENSITIES, DEPTHWISE_LAYERS, LAYERS, LayerShape, conv
from scalpel_graph.cost import runs_as, stored_bytes
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.near_cores import while_near
from scalpel_graph.node_timing import NodeTimer
from scalpel_graph.one_layer import INPUT, one_layer, random_input

#: How long each layer runs in each of its turns.
_TURN_S = 0.025
#: Runs of a layer whose weights are driven out of the caches before each.
_COLD_RUNS = 6
#: Matrices are measured cold too if they store at least this much. With less, what a network has at hand and
#: a sweep drives out as well (ONNX Runtime's own data and code) would count for more than the weights.
_COLD_BYTES = 1 << 19


@dataclass(frozen=True)
class Job:
    """One thing to measure.

    Attributes:
        layer: what runs.
        threads: on how many threads.
        group_shape: of the sparse operator; None for dense.
        density: share of groups that are stored.
        cold: whether its weights are driven out of the caches before each run.
    """

    layer: LayerShape
    threads: int
    group_shape: GroupShape | None = None
    density: float = 1.0
    cold: bool = False


@dataclass(frozen=True)
class Sample:
    """What was measured.

    Attributes:
        job: what ran.
        density: share of groups that were really stored.
        times: microseconds of each operator type.
    """

    job: Job
    density: float
    times: dict[str, float]


#: Runs a job; the second argument is its weights.
Measure = Callable[[Job, Any], dict[str, float]]


def jobs(group_shapes: Sequence[GroupShape], threads: Sequence[int], *, quantized: bool = False) -> list[Job]:
    """Everything to measure, in random order: what the machine does at some time falls on all kinds alike.

    Dense layers come twice, far from each other, which shows how steady the machine is.

    Args:
        group_shapes: of the sparse operators.
        threads: numbers of threads.
        quantized: measure layers of 8-bit integers, not of float32.
    """
    rng = random.Random(0)
    first: list[Job] = []
    second: list[Job] = []
    for count in threads:
        for layer in (*LAYERS, *DEPTHWISE_LAYERS):
            is_depthwise = layer.work.is_depthwise
            if quantized:
                layer = layer.of_integers()  # noqa: PLW2901
            first.append(Job(layer, count))
            second.append(Job(layer, count))
            if layer.work.weight_bytes >= _COLD_BYTES:
                second.append(Job(layer, count, cold=True))
            if is_depthwise:
                if group_shapes:
                    first.append(Job(layer, count, (1, layer.work.K)))
                continue
            for shape in group_shapes:
                if layer.work.group > 1 and layer.work.M // layer.work.group % shape[0]:
                    continue
                if runs_as(layer.work, shape) != shape:
                    continue
                one, other = rng.sample(DENSITIES, 2)
                first.append(Job(layer, count, shape, one))
                second.append(Job(layer, count, shape, other))
                cold = rng.choice(DENSITIES)
                if stored_bytes(layer.work, shape, cold) >= _COLD_BYTES:
                    second.append(Job(layer, count, shape, cold, cold=True))
    rng.shuffle(first)
    rng.shuffle(second)
    return [*first, *second]


def run(work: Sequence[Job], measure: Measure) -> Iterator[Sample]:
    """Measures one job after the other."""
    rng = np.random.default_rng(0)
    for job in work:
        shape = job.group_shape or (1, 1)
        weights = job.layer.weights(rng, shape, job.density)
        yield Sample(job, group_csr.density(weights, shape), measure(job, weights))


class HostMeasure:
    """Measures on this machine, in ONNX Runtime; on several threads while their cores are near each other."""

    def __init__(self) -> None:
        self._sweeper = Sweeper()
        self._rng = np.random.default_rng(0)

    def __call__(self, job: Job, weights: Any) -> dict[str, float]:
        """See `Measure`."""
        return while_near(job.threads, partial(self._time, job, weights))

    def _time(self, job: Job, weights: Any) -> dict[str, float]:
        model = one_layer(weights, job.layer.attributes, job.layer.x_shape, job.group_shape)
        x = random_input(job.layer.x_shape, weights, self._rng)
        with NodeTimer(model, {INPUT: x}, job.threads) as timer:
            if job.cold:
                timer.run_cold(_COLD_RUNS, self._sweeper)
            else:
                timer.run(_TURN_S)
            return timer.finish()


def blocked_channels(measure: Measure) -> int:
    """Channels in a block of ONNX Runtime's layout on this machine: 8 or 16, or 1 if it has no such layout.

    Without groups, channels always go into the blocked layout; eight in each group only where a block has no
    more.
    """
    for layer, block in ((conv(16, 16, 3, 8, group=2), 8), (conv(16, 16, 3, 8), 16)):
        weights = layer.weights(np.random.default_rng(0), (1, 1), 1.0)
        if "ReorderInput" in measure(Job(layer, 1), weights):
            return block
    return 1


def default_threads() -> list[int]:
    """One thread, and as many as this process may use."""
    return sorted(
        {1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1}
    )


def resident_bytes(sample: Sample) -> int:
    """The size of network that the caches of a cold job are those of; 0 for a warm one."""
    if not sample.job.cold:
        return 0
    # The cost model scales it by the layer's own share of stored bytes, for a network as sparse as the layer.
    work, shape = sample.job.layer.work, sample.job.group_shape
    stored = work.weight_bytes if shape is None else stored_bytes(work, shape, sample.density)
    return round(2 * last_cache_bytes() * work.weight_bytes / stored)
