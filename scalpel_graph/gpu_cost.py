"""Predicts how long a matrix product takes on a GPU, dense and in our CUDA kernels, in microseconds.

The time is ``call + Σ count × price(size)``, as on a CPU (`scalpel_graph.cost`), of three things: bytes of
weights, which are priced by how many KiB the network has (they come from the cache or from memory),
multiply-adds, by rows of X, and elements of X and Y. What a GPU gains by sparsity it gains where reading the
weights takes most of the time, and that is where X has few rows; everything else stays dense.
"""

from collections.abc import Sequence

from scalpel_graph import group_csr
from scalpel_graph.cost import Amount, LayerWork, price_us
from scalpel_graph.group_csr import Array, GroupShape
from scalpel_graph.report import Candidate
from scalpel_graph.target import GpuPrices, GpuTarget

#: Rows of X beyond which a layer has enough to compute for each weight.
MOST_ROWS = 32
_KIB = 1024


def why_dense(work: LayerWork) -> str:
    """Why a layer has to stay dense, whatever its weights are; empty if it need not."""
    if work.is_conv:
        return "on a GPU only matrix products are made sparse"
    if work.N > MOST_ROWS:
        return f"{work.N} rows of input are enough to keep a GPU computing"
    return ""


def candidates(work: LayerWork, weights: Array, target: GpuTarget) -> list[Candidate]:
    """Every way to run a matrix product, dense first, then each group shape that stores less.

    Args:
        work: the layer, for which `why_dense` says nothing.
        weights: its dense matrix ``[M, K]``.
        target: a profile that has kernels.
    """
    ways = [Candidate("dense", None, 1.0, dense_us(work, target))]
    for kernel in target.kernels:
        density = group_csr.density(weights, kernel.group_shape)
        if stored_bytes(work, kernel.group_shape, density) < work.weight_bytes:
            time = sparse_us(work, kernel.group_shape, density, target)
            ways.append(Candidate("group_csr", kernel.group_shape, density, time))
    return ways


def dense_us(work: LayerWork, target: GpuTarget) -> float:
    """Microseconds of the dense product."""
    return _us(target.dense, dense_amounts(work))


def sparse_us(work: LayerWork, group_shape: GroupShape, density: float, target: GpuTarget) -> float:
    """Microseconds in our kernel for one of the profile's group shapes, with this share of groups stored."""
    kernel = next(kernel for kernel in target.kernels if kernel.group_shape == group_shape)
    return _us(kernel.prices, sparse_amounts(work, group_shape, density))


def dense_amounts(work: LayerWork) -> dict[str, Amount]:
    """What the dense product does, as `target.GPU_AMOUNTS` are counted."""
    return _amounts(work, work.weight_bytes, work.M * work.K)


def sparse_amounts(work: LayerWork, group_shape: GroupShape, density: float) -> dict[str, Amount]:
    """What our kernel does, likewise."""
    r, c = group_shape
    return _amounts(
        work, stored_bytes(work, group_shape, density), _groups(work, group_shape, density) * r * c
    )


def stored_bytes(work: LayerWork, group_shape: GroupShape, density: float) -> int:
    """Bytes of the layer's group-CSR form, which are those that the kernel reads."""
    n_groups = _groups(work, group_shape, density)
    return group_csr.encoded_bytes((work.M, work.K), group_shape, n_groups, work.value_bytes)


def _groups(work: LayerWork, group_shape: GroupShape, density: float) -> int:
    r, c = group_shape
    return round(density * -(-work.M // r) * -(-work.K // c))


def _amounts(work: LayerWork, nbytes: int, weights: int) -> dict[str, Amount]:
    # The network is taken to be as sparse as the layer.
    network = work.network_bytes * nbytes / work.weight_bytes
    return {
        "byte": Amount(nbytes, max(nbytes, network) / _KIB),
        "multiply_add": Amount(weights * work.N, work.N),
        "activation": Amount(work.N * (work.K + work.M)),
    }


def _us(prices: GpuPrices, amounts: dict[str, Amount]) -> float:
    return price_us({1: prices}, amounts, 1)


def group_shapes() -> Sequence[GroupShape]:
    """The group shapes that our CUDA kernels are made for (`runtime_ext/cuda/packed_matrix.h`)."""
    return ((8, 1), (16, 1), (4, 1), (1, 8), (1, 1))
