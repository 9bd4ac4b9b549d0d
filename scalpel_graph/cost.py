"""Predicts how long a layer takes, dense in ONNX Runtime and sparse in our kernels, in microseconds.

A layer's time is a sum of what it does, each at the price that was measured for it: every call, multiply-add,
stored weight, input and output element costs so much, and no price is negative, so more work never looks
faster. Some prices depend on size, and are points to interpolate between: a multiply-add costs more where
there are few pixels, a weight costs more the farther away from the core it is kept. `target.OPERATIONS` lists
what is counted; the prices are the target's profile, which ``scalpel-calibrate`` fits
(`scalpel_graph.calibration`).

Weights are read from wherever they are kept between two runs of the *network*: a small matrix in a large
network comes from memory each time. `LayerWork.network_bytes` says how large the network is; the sparse form
of a layer is taken to live among layers as sparse as itself.

What a layer's choice does to its neighbours (layout changes) is `scalpel_graph.layout`'s business.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from math import exp, log, prod

from scalpel_graph import group_csr
from scalpel_graph.group_csr import Array, GroupShape
from scalpel_graph.layout import is_blocked_conv
from scalpel_graph.report import Candidate
from scalpel_graph.target import (
    DEPTHWISE_KERNEL,
    QUANTIZED_DEPTHWISE_KERNEL,
    CpuTarget,
    Kernel,
    Prices,
    QuantizedPrices,
    Table,
)

_FLOAT_BYTES = 4
_KIB = 1024
#: Blocks of output channels that ONNX Runtime computes together: with fewer, a load serves fewer of them.
_BLOCKS_AT_ONCE = 4
#: Rows of X up to which our kernels may multiply by one at a time (`runtime_ext/kernels/vector_gemm.cpp`).
_FEW_ROWS = 6
#: Row blocks of fewer rows load about as much as they multiply; then the input of a pointwise Conv is aligned
#: if each of its vectors is loaded this often (`runtime_ext/kernels/vector_conv.cpp`).
_ROWS_ENOUGH = 4
_LOADS_PER_COPY = 12
#: Sizes and strides of `runtime_ext/kernels/generic_depthwise.h`.
DEPTHWISE_KERNELS = {(3, 1), (3, 2), (5, 1), (5, 2)}
#: Bytes that a Conv may store, as a share of its dense weight: all groups of 8×1 or 16×1 and their indices,
#: of float32 and of integers of 8 bits; and that count for nothing (rows that a few outputs are filled up
#: with).
_MOST_CONV_BYTES = 1.07
_MOST_QUANTIZED_CONV_BYTES = 1.3
_FREE_BYTES = 1024
#: Output channels that ONNX Runtime's Conv of integers takes together.
_CHANNELS_AT_ONCE = 16
#: For an element of a window; measured on an AMD EPYC (Zen 5), where it is 50 times what channels last take.
_PLAIN_POOL_NS = 2.0
#: Inputs that an instruction of integers multiplies together.
_QUAD = 4
#: Rows of X in a tile of our kernels, about.
_TILE = 64
#: Vectors of a tile of one row, and of several (`runtime_ext/kernels/neon.cpp`, `avx2.cpp` and `avx512.cpp`),
#: by lanes.
_TILE_VECTORS = {4: (14, 6), 8: (7, 4), 16: (14, 6)}
#: Bytes of activations in the first cache.
_FIRST_CACHE = 48 * _KIB
#: Floats in a page of memory.
_PAGE = 1024


@dataclass(frozen=True)
class LayerWork:
    """What a layer has to compute.

    Attributes:
        op: ``Conv``, ``Gemm`` or ``MatMul``.
        M: outputs: neurons, or output channels of all groups together.
        K: multiply-adds per output.
        N: columns: rows of X, or output pixels of the whole batch.
        group: groups of a Conv.
        kernel, strides, dilations, in_size, out_size: of a Conv, one number for each spatial axis; else
            empty.
        pads: of a Conv, begins, then ends.
        network_bytes: weights of all layers of the network together; 0 if this layer is all there is.
        value_bytes: of a weight in the sparse form: 4, or 2 (`scalpel_graph.value_types`), or 1 if quantized.
        quantized: whether weights and activations are integers of 8 bits.
    """

    op: str
    M: int
    K: int
    N: int
    group: int = 1
    kernel: tuple[int, ...] = ()
    strides: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    in_size: tuple[int, ...] = ()
    out_size: tuple[int, ...] = ()
    network_bytes: int = 0
    value_bytes: int = _FLOAT_BYTES
    quantized: bool = False

    @property
    def is_conv(self) -> bool:
        """Whether it is a convolution."""
        return self.op == "Conv"

    @property
    def is_depthwise(self) -> bool:
        """Whether it is a convolution whose groups have one input channel each."""
        return self.is_conv and self.group > 1 and prod(self.kernel) == self.K

    @property
    def channels(self) -> int:
        """Input channels of all groups of a Conv."""
        return self.K // prod(self.kernel) * self.group

    @property
    def batch(self) -> int:
        """Images that a Conv computes."""
        return self.N // prod(self.out_size)

    @property
    def inputs(self) -> int:
        """Elements of X."""
        return self.batch * self.channels * prod(self.in_size) if self.is_conv else self.N * self.K

    @property
    def item_bytes(self) -> int:
        """Of a number, unless it is a stored weight."""
        return 1 if self.quantized else _FLOAT_BYTES

    @property
    def weight_bytes(self) -> int:
        """Of the dense weight."""
        return self.item_bytes * self.M * self.K

    @property
    def macs(self) -> int:
        """Multiply-adds of the dense layer."""
        return self.M * self.K * self.N


@dataclass(frozen=True)
class Amount:
    """How much of something a layer does.

    Attributes:
        count: how many times.
        size: the size that its price depends on, for prices that are tables.
        bytes: how many bytes each has, over those that the price was measured with.
    """

    count: float
    size: float = 1.0
    bytes: float = 1.0


def candidates(work: LayerWork, weights: Array, target: CpuTarget, threads: int) -> list[Candidate]:
    """Every way to run a layer, dense first, then each group shape of the profile that fits it.

    A shape of which our kernels would read as many bytes as the dense weight has or more does not fit; for a
    Conv, a little more does: where ONNX Runtime has to unroll one, our kernels are faster even if there is
    nothing to leave out. A depthwise Conv that our kernels have a form for has one group a channel. A
    quantized layer has no candidates at all where the profile has no prices for it.

    Args:
        work: the layer.
        weights: its dense matrix ``[M, K]``.
        target: the profile.
        threads: intra-op threads.
    """
    if work.quantized and target.quantized is None:
        return []
    ways = [Candidate("dense", None, 1.0, dense_us(work, target, threads))]
    density = cache(partial(group_csr.density, weights))
    if has_depthwise_kernel(work):
        # There is nothing to leave out, but its neighbours may be sparse, and in the plain layout.
        if _depthwise_prices(work, target):
            shape = (1, work.K)
            time = sparse_us(work, shape, density(shape), target, threads)
            ways.append(Candidate("group_csr", shape, density(shape), time))
        return ways
    if work.is_depthwise or (work.is_conv and target.min_columns > work.K):
        return ways
    most = float(work.weight_bytes)
    if work.is_conv and work.quantized:
        most = most * _MOST_QUANTIZED_CONV_BYTES + _FREE_BYTES
    elif work.is_conv:
        most *= _MOST_CONV_BYTES
    for kernel in kernels(work, target):
        shape = kernel.group_shape
        if (work.M // work.group) % shape[0] and work.group > 1:
            continue
        if read_bytes(work, shape, density(shape)) >= most:
            continue
        time = sparse_us(work, shape, density(runs_as(work, shape)), target, threads)
        ways.append(Candidate("group_csr", shape, density(shape), time))
    return ways


def choose(ways: Sequence[Candidate], margin: float) -> Candidate:
    """The fastest candidate; dense unless a sparse one takes less than ``1 - margin`` of its time."""
    dense = ways[0]
    best = fastest_sparse(ways)
    return best if best is not None and best.predicted_us < (1 - margin) * dense.predicted_us else dense


def fastest_sparse(ways: Sequence[Candidate]) -> Candidate | None:
    """The fastest candidate that is not dense; of equals the one that stores least; None if there is none."""
    return min(
        (way for way in ways if way.decision != "dense"),
        key=lambda way: (way.predicted_us, way.density),
        default=None,
    )


def dense_us(work: LayerWork, target: CpuTarget, threads: int) -> float:
    """Microseconds of the dense layer in ONNX Runtime."""
    operation = dense_operation(work, target.block)
    dense = target.quantized.dense if work.quantized and target.quantized is not None else target.dense
    return price_us(dense[operation], dense_amounts(work, target.block), threads)


def sparse_us(
    work: LayerWork, group_shape: GroupShape, density: float, target: CpuTarget, threads: int
) -> float:
    """Microseconds of the layer in our kernel for one group shape.

    Args:
        work: the layer.
        group_shape: one of the profile's; of a depthwise Conv any.
        density: fraction of groups that are stored, of the group shape that the layer `runs_as`.
        target: the profile.
        threads: intra-op threads.
    """
    if has_depthwise_kernel(work):
        prices = _depthwise_prices(work, target)
        return price_us(prices, depthwise_kernel_amounts(work, target.lanes), threads)
    kernel = next(kernel for kernel in kernels(work, target) if kernel.group_shape == group_shape)
    amounts = sparse_amounts(work, runs_as(work, group_shape), density, target.lanes)
    return price_us(kernel.prices[sparse_operation(work)], amounts, threads)


def reorder_us(elements: int, target: CpuTarget, threads: int) -> float:
    """Microseconds that ONNX Runtime takes to bring a float tensor from NCHW to its blocked layout, or
    back."""
    return price_us(target.dense["reorder"], {"input": Amount(elements)}, threads)


def quantized_reorder_us(elements: int, prices: QuantizedPrices, threads: int) -> float:
    """Microseconds that ONNX Runtime takes to bring a tensor of 8 bits from NCHW to channels last, or
    back."""
    return price_us(prices.dense["quantized_reorder"], {"input": Amount(elements)}, threads)


def quantized_pool_us(elements: int) -> float:
    """Microseconds that ONNX Runtime takes for MaxPool of 8-bit integers in the plain layout, if its windows
    have so many elements together; channels last it takes next to nothing."""
    return elements * _PLAIN_POOL_NS / 1000


def kernels(work: LayerWork, target: CpuTarget) -> tuple[Kernel, ...]:
    """Our kernels that a layer could run in: what they take, for each group shape."""
    if not work.quantized:
        return target.kernels
    return () if target.quantized is None else target.quantized.kernels


def dense_operation(work: LayerWork, block: int) -> str:
    """Which of `target.OPERATIONS` the dense layer is in ONNX Runtime.

    Args:
        work: the layer.
        block: channels in a block of its blocked layout.
    """
    if work.quantized:
        if work.is_conv:
            return "quantized_depthwise" if work.is_depthwise else "quantized_conv"
        return "quantized_gemv" if work.N == 1 else "quantized_gemm"
    if not work.is_conv:
        return "gemv" if work.N == 1 else "gemm"
    weight_shape = (work.M, work.channels // work.group, *work.kernel)
    if not is_blocked_conv(weight_shape, work.group, block):
        return "plain_conv"
    if work.is_depthwise:
        return "depthwise"
    return "pointwise" if prod(work.kernel) == 1 else "conv"


def sparse_operation(work: LayerWork) -> str:
    """Which of `target.OPERATIONS` the layer is in our kernels."""
    if has_depthwise_kernel(work):
        return QUANTIZED_DEPTHWISE_KERNEL if work.quantized else DEPTHWISE_KERNEL
    if work.quantized:
        if work.is_conv:
            return "quantized_sparse_conv"
        return "quantized_sparse_gemv" if work.N == 1 else "quantized_sparse_gemm"
    if work.is_conv:
        return "sparse_conv"
    if work.N == 1:
        return "sparse_gemv"
    return "sparse_few_rows" if work.N <= _FEW_ROWS else "sparse_gemm"


def dense_amounts(work: LayerWork, block: int) -> dict[str, Amount]:
    """What the dense layer does, as `dense_operation` counts it."""
    resident = max(work.weight_bytes, work.network_bytes) / _KIB
    M, K = work.M, work.K
    operation = dense_operation(work, block)
    if operation in ("pointwise", "conv"):
        M = _round_up(M, block)
        if work.channels > block:
            K = _round_up(work.channels // work.group, block) * prod(work.kernel)
    macs = M * K * work.N
    unrolled = 0.0 if _reads_in_place(work) else float(K * work.N * work.group)
    left_over = (work.M if work.is_depthwise else work.M // work.group) % _CHANNELS_AT_ONCE
    return {
        "multiply_add": Amount(macs, work.N if not work.is_conv else K),
        "few_multiply_adds": Amount(macs, macs),
        "narrow": Amount(macs * (_BLOCKS_AT_ONCE / min(-(-M // block), _BLOCKS_AT_ONCE) - 1)),
        "edge": Amount(macs * _edge_columns(work) / work.out_size[-1] if work.is_conv else 0.0),
        "input": Amount(work.inputs),
        "output": Amount(M * work.N),
        "unrolled": Amount(unrolled),
        # Runs of the channels of a group, one for each place of the kernel.
        "copy": Amount(unrolled * work.group / work.channels if work.is_conv else 0.0),
        # Outputs of channels that do not fill a vector.
        "left_over": Amount(work.N * (K if work.is_depthwise else work.group) * left_over),
        "weight": Amount(M * K, resident),
    }


def runs_as(work: LayerWork, group_shape: GroupShape) -> GroupShape:
    """The group shape that our kernels compute a layer in.

    With more than a few columns they go through the weights of a row block one by one and leave out those
    that are zero in a stored group: how a row's weights are grouped in the file makes no difference. Those of
    integers always do.
    """
    by_column = work.is_conv or work.N > _FEW_ROWS or work.quantized
    return (group_shape[0], 1) if by_column else group_shape


def sparse_amounts(work: LayerWork, group_shape: GroupShape, density: float, lanes: int) -> dict[str, Amount]:
    """What the layer does in our kernels, as `sparse_operation` counts it.

    Args:
        work: the layer.
        group_shape: ``(r, c)``.
        density: fraction of groups of that shape that are stored.
        lanes: floats in a vector.
    """
    r, c = group_shape
    nbytes = read_bytes(work, group_shape, density)
    network = work.network_bytes * nbytes / work.weight_bytes
    wide = stored_bytes(replace(work, value_bytes=work.item_bytes), group_shape, density)
    stored = _groups(work, group_shape, density) * r * c
    pixels = _pixels(work, lanes, r, stored // r)
    strided = any(stride != 1 for stride in work.strides)
    row = work.out_size[-1] if work.is_conv else 1
    macs = stored * pixels.covered
    return {
        "multiply_add": Amount(macs, work.N),
        "few_multiply_adds": Amount(macs, macs),
        "missed": Amount(macs * _missed(work, lanes, r, stored)),
        "large_input": Amount(macs, work.item_bytes * pixels.near / _KIB),
        "input": Amount(work.inputs, work.item_bytes * max(pixels.copied, work.inputs) / _KIB),
        "output": Amount(work.M * work.N, work.item_bytes * work.M * work.N / _KIB),
        "padded": Amount(0 if strided else pixels.copied, row),
        "strided": Amount(pixels.copied if strided else 0, row),
        "weight": Amount(stored, max(nbytes, network) / _KIB, nbytes / wide),
    }


def has_depthwise_kernel(work: LayerWork) -> bool:
    """Whether a layer is a depthwise Conv that our kernels have a form for."""
    if not work.is_depthwise or work.group != work.M:
        return False
    if work.quantized:
        return True
    if len(work.kernel) != 2:
        return False
    square = len({*work.kernel}) == len({*work.strides}) == 1 and {*work.dilations} == {1}
    return square and (work.kernel[0], work.strides[0]) in DEPTHWISE_KERNELS


def depthwise_kernel_amounts(work: LayerWork, lanes: int) -> dict[str, Amount]:
    """What a depthwise Conv does in our kernels, as `sparse_operation` counts it.

    Those of integers take the taps of a kernel by four, the pixels of a picture as one row in tiles of four
    vectors, and with strides first copy the picture row by row
    (`runtime_ext/kernels/vector_quantized_depthwise.cpp`).
    """
    channels = work.batch * work.channels
    *heights, width = work.out_size
    is_strided = any(stride != 1 for stride in work.strides)
    if work.quantized:
        tile = 4 * lanes
        macs = channels * _round_up(work.K, _QUAD) * _round_up(prod(work.out_size), tile)
        strided = channels * prod(work.strides) * prod(heights) * _round_up(width, tile)
    else:
        macs = strided = channels * work.K * prod(heights) * _round_up(width, lanes)
    return {
        "multiply_add": Amount(macs),
        "strided": Amount(strided if is_strided else 0),
        "input": Amount(work.inputs, work.item_bytes * work.inputs / _KIB),
        "output": Amount(work.M * work.N, work.item_bytes * work.M * work.N / _KIB),
        "channel": Amount(channels),
    }


def _depthwise_prices(work: LayerWork, target: CpuTarget) -> Prices:
    if not work.quantized:
        return target.depthwise_kernel
    return {} if target.quantized is None else target.quantized.depthwise_kernel


def stored_bytes(work: LayerWork, group_shape: GroupShape, density: float) -> int:
    """Bytes of the layer's group-CSR form in the file."""
    n_groups = _groups(work, group_shape, density)
    return group_csr.encoded_bytes((work.M, work.K), group_shape, n_groups, work.value_bytes)


def read_bytes(work: LayerWork, group_shape: GroupShape, density: float) -> int:
    """Bytes of it that our kernels read in a run: values stored in 16 bits are widened in each run only
    where there are few columns, and else once, when the model is loaded.
    """
    if work.is_conv or work.N > _FEW_ROWS:
        work = replace(work, value_bytes=work.item_bytes)
    return stored_bytes(work, group_shape, density)


def price_us(prices: Prices, amounts: Mapping[str, Amount], threads: int) -> float:
    """Microseconds of an operation.

    Between two numbers of threads that the profile has prices for, the logarithm of the time is linear in the
    logarithm of the number; outside them the nearest counts.

    Args:
        prices: of the operation, for each number of threads.
        amounts: what it does; what has no price costs nothing.
        threads: intra-op threads.
    """
    known = sorted(prices)
    place = bisect_right(known, threads)
    if place == 0 or known[place - 1] == threads or place == len(known):
        return _sum_us(prices[known[max(place - 1, 0)]], amounts)
    low, high = known[place - 1], known[place]
    part = log(threads / low) / log(high / low)
    few, many = _sum_us(prices[low], amounts), _sum_us(prices[high], amounts)
    return exp((1 - part) * log(few) + part * log(many))


def interpolate(table: Table, x: float) -> float:
    """The value at ``x``, linear in log x between points, constant outside them."""
    place = bisect_right([point[0] for point in table], x)
    if place == 0:
        return table[0][1]
    if place == len(table):
        return table[-1][1]
    (x0, y0), (x1, y1) = table[place - 1], table[place]
    return y0 + (y1 - y0) * log(x / x0) / log(x1 / x0)


def _sum_us(prices: Mapping[str, Table], amounts: Mapping[str, Amount]) -> float:
    nanoseconds = sum(
        amounts[name].count * _price(table, amounts[name]) for name, table in prices.items() if name != "call"
    )
    return prices["call"][0][1] + nanoseconds / 1e3


def _price(table: Table, amount: Amount) -> float:
    """Nanoseconds of one.

    What it costs more than at its cheapest is what its bytes take on their way.
    """
    price = interpolate(table, amount.size)
    least = min(point[1] for point in table)
    return least + amount.bytes * (price - least)


def _groups(work: LayerWork, group_shape: GroupShape, density: float) -> int:
    r, c = group_shape
    return round(density * -(-work.M // r) * -(-work.K // c))


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple


def _reads_in_place(work: LayerWork) -> bool:
    """Whether the input of a Conv is the matrix that it multiplies by, as it stands."""
    strided = any(stride != 1 for stride in work.strides)
    return prod(work.kernel) == 1 and not strided and not any(work.pads)


def _edge_columns(work: LayerWork) -> int:
    """Columns of the output that read padding: ONNX Runtime computes them one by one."""
    width, stride, reach = work.in_size[-1], work.strides[-1], (work.kernel[-1] - 1) * work.dilations[-1]
    before = work.pads[len(work.kernel) - 1]
    outside = (x * stride - before for x in range(work.out_size[-1]))
    return sum(start < 0 or start + reach >= width for start in outside)


def _missed(work: LayerWork, lanes: int, rows: int, stored: int) -> float:
    """The share of a row block's loads of activations that the first cache does not have.

    Row blocks follow each other over a tile of pixels. One that reads more than the cache holds finds nothing
    there of what the one before it read; of less, it finds as much as the cache holds of all there is.
    """
    single, several = _TILE_VECTORS[max((known for known in _TILE_VECTORS if known <= lanes), default=4)]
    tile = work.item_bytes * min(lanes * (single if rows == 1 else several), work.N)
    everything, read = work.K * tile, stored / work.M * tile
    if read >= _FIRST_CACHE:
        return 1.0
    return 1.0 - min(1.0, _FIRST_CACHE / everything)


@dataclass(frozen=True)
class _Pixels:
    """How our kernels see the activations of a layer.

    Attributes:
        covered: lanes (of pixels, or rows of X) that vectors pass over.
        copied: floats of planes that the input is laid out in anew.
        near: floats of the input that a row block reads from for one tile, in whole pages of memory: those
            are what runs out first where a picture is large.
    """

    covered: int
    copied: int
    near: int


def _covered(pixels: int, lanes: int, rows: int) -> int:
    """Pixels in whole vectors; one left over takes a vector of the rows of a row block, if that has enough.

    See ``spmm`` in `runtime_ext/kernels/generic_spmm.h`.
    """
    height = next(height for height in (8, 4, 1) if rows % height == 0)
    if pixels > lanes and pixels % lanes == 1 and height > 1:
        return pixels - 1 + max(lanes // height, 1)
    return _round_up(pixels, lanes)


def _pixels(work: LayerWork, lanes: int, rows: int, steps: int) -> _Pixels:
    """The layout of `runtime_ext/kernels/vector_conv.cpp` and `vector_gemm.cpp`.

    The input of a Conv that pads, strides or shrinks is copied into planes of the output's width, one for
    each column of the kernel and each remainder of its rows by the stride. Any other is read in place, unless
    its channels begin anywhere in a vector and kernels of few ``rows`` load them often.
    """
    if not work.is_conv:
        return _Pixels(_covered(work.N, lanes, rows), 0, work.K * min(work.N, _TILE))
    covered = _covered(prod(work.out_size), lanes, rows) * work.batch
    channels = work.channels // work.group
    if not any(work.pads) and work.in_size == work.out_size:
        size = prod(work.in_size)
        aligns = size % lanes and rows < _ROWS_ENOUGH and steps >= _LOADS_PER_COPY * work.channels
        copied = work.batch * work.channels * _round_up(size, lanes) if aligns else 0
        return _Pixels(covered, copied, channels * min(_PAGE, size))
    *heights, width = work.out_size
    below = 0
    planes = work.kernel[-1]
    if heights:
        below = (work.kernel[0] - 1) * work.dilations[0] // work.strides[0]
        planes *= min(work.kernel[0], work.strides[0])
    plane = (prod(heights) + below) * width
    near = channels * planes * min(_PAGE + below * width, plane)
    return _Pixels(covered, work.batch * work.channels * planes * plane, near)
