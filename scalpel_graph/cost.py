"""Predicts how long a layer takes, dense in ONNX Runtime and sparse in our kernels, in microseconds.

The prediction is a roofline read from the target's profile. With ``t(bytes)`` the time to stream from the
smallest memory that holds them:

- dense: ``overhead + max(operations / rate, t(weights) + t(input + output))``
- sparse: ``overhead + operations on stored groups / rate + t(stored groups) + t(input + output) + copy``

The sum in the sparse line where the dense one has a maximum is on purpose: a static profile should err on the
side of what ONNX Runtime does already. What a layer's choice does to its neighbours (layout changes) is
`scalpel_graph.layout`'s business.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from math import log, prod

from scalpel_graph import group_csr
from scalpel_graph.group_csr import Array
from scalpel_graph.report import Candidate
from scalpel_graph.target import CpuTarget, Kernel, Table


@dataclass(frozen=True)
class LayerWork:
    """What a layer has to compute.

    Attributes:
        op: ``Conv``, ``Gemm`` or ``MatMul``.
        M: outputs: neurons, or output channels of all groups together.
        K: multiply-adds per output.
        N: columns: rows of X, or output pixels of the whole batch.
        group: groups of a Conv.
        kernel: its spatial kernel shape; empty for Gemm and MatMul.
        needs_copy: whether a sparse Conv lays out its input anew: it pads, strides or is larger than 1×1.
        input_bytes, output_bytes: of the activations.
    """

    op: str
    M: int
    K: int
    N: int
    group: int = 1
    kernel: tuple[int, ...] = ()
    needs_copy: bool = False
    input_bytes: int = 0
    output_bytes: int = 0

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return self.op == "Conv"

    @property
    def is_depthwise(self) -> bool:
        """Whether it is a convolution whose groups have one input channel each."""
        return self.is_conv and self.group > 1 and prod(self.kernel) == self.K

    @property
    def macs(self) -> int:
        """Multiply-adds of the dense layer."""
        return self.M * self.K * self.N


def candidates(work: LayerWork, weights: Array, target: CpuTarget, threads: int) -> list[Candidate]:
    """Every way to run a layer, dense first, then each group shape of the profile that fits it.

    A shape that would store as many bytes as the dense weight or more does not fit.

    Args:
        work: the layer.
        weights: its dense matrix ``[M, K]``.
        target: the profile.
        threads: intra-op threads.
    """
    ways = [Candidate("dense", None, 1.0, dense_us(work, target, threads))]
    if work.is_depthwise or (work.is_conv and target.sparse.min_columns > work.K):
        return ways
    for kernel in target.kernels:
        if (work.M // work.group) % kernel.group_shape[0] and work.group > 1:
            continue
        density = group_csr.density(weights, kernel.group_shape)
        if _stored_bytes(work, kernel, density) >= 4 * work.M * work.K:
            continue
        time = sparse_us(work, kernel, density, target, threads)
        ways.append(Candidate("group_csr", kernel.group_shape, density, time))
    return ways


def choose(ways: Sequence[Candidate], margin: float) -> Candidate:
    """The fastest candidate; dense unless a sparse one takes less than ``1 - margin`` of its time."""
    dense = ways[0]
    best = fastest_sparse(ways)
    return best if best is not None and best.predicted_us < (1 - margin) * dense.predicted_us else dense


def fastest_sparse(ways: Sequence[Candidate]) -> Candidate | None:
    """The fastest candidate that is not dense, the first of equals; None if there is none."""
    return min(
        (way for way in ways if way.decision != "dense"), key=lambda way: way.predicted_us, default=None
    )


def dense_us(work: LayerWork, target: CpuTarget, threads: int) -> float:
    """Microseconds of the dense layer in ONNX Runtime."""
    dense = target.dense
    if not work.is_conv:
        rate = interpolate(dense.gemm_gflops, work.N)
    elif work.is_depthwise:
        rate = dense.depthwise_gflops
    elif len(work.kernel) == 1:
        rate = dense.conv1d_gflops
    else:
        rate = interpolate(dense.conv_gflops, work.K)
    compute = 2 * work.macs / _per_us(rate) / _speedup(dense.thread_efficiency, target, threads)
    memory = stream_us(4 * work.M * work.K, target, threads)
    memory += stream_us(work.input_bytes + work.output_bytes, target, threads)
    return dense.overhead_us + max(compute, memory)


def sparse_us(work: LayerWork, kernel: Kernel, density: float, target: CpuTarget, threads: int) -> float:
    """Microseconds of the layer in our kernel for one group shape.

    Args:
        work: the layer.
        kernel: the group shape and its rates.
        density: fraction of groups of that shape that are stored.
        target: the profile.
        threads: intra-op threads.
    """
    r, c = kernel.group_shape
    groups = _groups(work, kernel, density)
    table = kernel.conv_gflops if work.is_conv else kernel.gemm_gflops
    speedup = _speedup(target.sparse.thread_efficiency, target, threads)
    compute = 2 * groups * r * c * work.N / _per_us(interpolate(table, work.N)) / speedup
    memory = stream_us(_stored_bytes(work, kernel, density), target, threads)
    memory += stream_us(work.input_bytes + work.output_bytes, target, threads)
    copy = work.input_bytes / _per_us(target.sparse.copy_gbps) / speedup if work.needs_copy else 0.0
    return target.sparse.overhead_us + compute + memory + copy


def _groups(work: LayerWork, kernel: Kernel, density: float) -> int:
    r, c = kernel.group_shape
    return round(density * -(-work.M // r) * -(-work.K // c))


def _stored_bytes(work: LayerWork, kernel: Kernel, density: float) -> int:
    groups = _groups(work, kernel, density)
    return group_csr.encoded_bytes((work.M, work.K), kernel.group_shape, groups)


def reorder_us(nbytes: int, target: CpuTarget, threads: int) -> float:
    """Microseconds that ONNX Runtime takes to bring a tensor from NCHW to its blocked layout, or back."""
    time = (
        nbytes
        / _per_us(target.dense.reorder_gbps)
        / _speedup(target.dense.thread_efficiency, target, threads)
    )
    return target.dense.overhead_us + time


def stream_us(nbytes: int, target: CpuTarget, threads: int) -> float:
    """Microseconds to read bytes once from the smallest memory that holds them."""
    memory, more = target.memory, _threads(target, threads) - 1
    if nbytes <= memory.l2_bytes:
        return nbytes / _per_us(memory.l2_gbps * (1 + more))
    rate = memory.l3_gbps if nbytes <= memory.l3_bytes else memory.dram_gbps
    return nbytes / _per_us(rate * (1 + more * memory.thread_scaling))


def interpolate(table: Table, x: float) -> float:
    """The rate at ``x``, linear in log x between points, constant outside them."""
    place = bisect_right([point[0] for point in table], x)
    if place == 0:
        return table[0][1]
    if place == len(table):
        return table[-1][1]
    (x0, y0), (x1, y1) = table[place - 1], table[place]
    return y0 + (y1 - y0) * log(x / x0) / log(x1 / x0)


def _per_us(giga_per_second: float) -> float:
    return giga_per_second * 1e3


def _threads(target: CpuTarget, threads: int) -> int:
    return max(1, min(threads, target.cores))


def _speedup(efficiency: float, target: CpuTarget, threads: int) -> float:
    return 1 + efficiency * (_threads(target, threads) - 1)
