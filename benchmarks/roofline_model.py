"""Roofline model: the least time that a machine allows a sparse layer.

A layer has to do its multiply-adds on stored weights. It has to read those and their indices once, and
the channels of X that any of them is for, and to write Y once, from and to the nearest level that holds
all this together. The longer of both times is the least that the layer can take: the bound. (Williams,
Waterman, Patterson: Roofline, an insightful visual performance model for multicore architectures, CACM
2009.) Kernels move more than that, such as the same activations for each row block: the bound holds for
all kernels, not just ours.
"""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from scalpel_graph.cost import LayerWork
from scalpel_graph.group_csr import Array, GroupShape

MEMORY = "memory"
#: What bounds a layer that has enough multiply-adds for its bytes.
MULTIPLY_ADDS = "multiply-adds"


@dataclass(frozen=True)
class Level:
    """A cache, or the memory.

    Attributes:
        name: ``L1``, ``L2``, ... or ``memory``.
        size: bytes that the caches of all threads hold together; None for memory.
        read: bytes per second of all threads that only read.
        copy: bytes per second, read and written together, of all threads that write as much as they read.
    """

    name: str
    size: int | None
    read: float
    copy: float

    def seconds(self, read_bytes: int, written_bytes: int) -> float:
        """The least time to move this much: what is read, and what writing adds to that in a copy."""
        written = max(0.0, 2 / self.copy - 1 / self.read)
        return read_bytes / self.read + written_bytes * written


@dataclass(frozen=True)
class Machine:
    """What so many threads can do at most with an instruction set.

    Attributes:
        isa: the instruction set.
        threads: on different cores.
        peak: floating-point operations per second.
        levels: nearest first; the last is the memory.
    """

    isa: str
    threads: int
    peak: float
    levels: tuple[Level, ...]

    def home(self, working_set: int) -> Level:
        """The nearest level that holds this many bytes."""
        return next(level for level in self.levels if level.size is None or working_set <= level.size)


@dataclass(frozen=True)
class Case:
    """One layer as it was run.

    Attributes:
        layer: its name.
        isa: instruction set of the kernel.
        threads: of the run.
        group_shape: ``(r, c)``.
        density: share of groups that are stored.
        us: median microseconds.
        flops: floating-point operations on stored weights.
        read_bytes: of bias, stored weights and indices, and of the X that they are for.
        written_bytes: of Y.
        level: the nearest that holds them together.
        bound_us: the least time it can take.
        bound_by: `MULTIPLY_ADDS`, or the level.
    """

    layer: str
    isa: str
    threads: int
    group_shape: GroupShape
    density: float
    us: float
    flops: int
    read_bytes: int
    written_bytes: int
    level: str
    bound_us: float
    bound_by: str

    @property
    def intensity(self) -> float:
        """Floating-point operations per byte moved."""
        return self.flops / (self.read_bytes + self.written_bytes)

    @property
    def gflops(self) -> float:
        """Reached, on stored weights."""
        return 1e-3 * self.flops / self.us

    @property
    def share(self) -> float:
        """Of the bound that was reached; 1 is the best there can be."""
        return self.bound_us / self.us


def bound(machine: Machine, *, flops: int, read_bytes: int, written_bytes: int, **facts: Any) -> Case:
    """A case with its bound; ``facts`` are its other attributes."""
    level = machine.home(read_bytes + written_bytes)
    computing, moving = flops / machine.peak, level.seconds(read_bytes, written_bytes)
    return Case(
        isa=machine.isa,
        threads=machine.threads,
        flops=flops,
        read_bytes=read_bytes,
        written_bytes=written_bytes,
        level=level.name,
        bound_us=max(computing, moving) * 1e6,
        bound_by=MULTIPLY_ADDS if computing >= moving else level.name,
        **facts,
    )


def used_inputs(W: Array, work: LayerWork) -> int:
    """Elements of X in the channels that have a weight; of a Gemm, in the columns.

    Args:
        W: ``[M, K]``.
        work: what the layer computes.
    """
    channels = work.K // prod(work.kernel)
    blocks = W.reshape(work.group, -1, channels, prod(work.kernel))
    used = int(np.count_nonzero((blocks != 0).any(axis=(1, 3))))
    return used * (work.inputs // (work.group * channels))
