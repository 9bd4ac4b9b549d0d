"""Integer weights in the arrays that the Cortex-M kernels read.

runtime_ext/cortex_m/scalpel_kernels.h specifies them. Weights of CONV layers are ``[M, kernel_h, kernel_w,
channels / groups]`` here, channels last as in the tensors. Groups are 2 columns wide for int16 weights and 4
for int8 weights, which lie in the order 0, 2, 1, 3.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scalpel_graph.group_csr import GroupShape, encode

Array = npt.NDArray[Any]

#: By group shape: pixels of a row that a CONV kernel computes together.
PIXELS_PER_TILE: Mapping[GroupShape, int] = {(1, 2): 4, (2, 2): 2, (4, 2): 1, (1, 4): 4, (2, 4): 2, (4, 4): 1}

#: Pixels of a row of a window whose maximum is taken together.
TAPS_OF_MAXIMUM = 3

_NARROW_COLUMNS = 1 << 8
_UNPACKED = [0, 2, 1, 3]


@dataclass(frozen=True)
class SparseArrays:
    """What a sparse kernel reads.

    Attributes:
        values: flat, of the dtype of the weights.
        columns: uint8 or uint16, of each group.
        counts: uint16, groups of each row block.
    """

    values: Array
    columns: Array
    counts: Array

    @property
    def nbytes(self) -> int:
        """Bytes of flash."""
        return self.values.nbytes + self.columns.nbytes + self.counts.nbytes


@dataclass(frozen=True)
class Runs:
    """The stretches of a window that lie together in the padded input: the kernels' ``scalpel_runs``.

    Attributes:
        offsets: uint32, of each, in elements from the window's first.
        length: elements of each.
        groups: of the convolution.
        group_channels: channels of the input that one of them sees.
    """

    offsets: Array
    length: int
    groups: int
    group_channels: int


@dataclass(frozen=True)
class PaddedInput:
    """What offsets into the padded input depend on.

    Attributes:
        width: of the padded input, in pixels.
        channels: of the padded input.
        dilations: of rows and columns.
        groups: of the convolution.
    """

    width: int
    channels: int
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1

    def taps(self, kernel: tuple[int, int]) -> Array:
        """``[kernel_h, kernel_w]``, uint32: elements from the window's first value to that of each tap."""
        rows, columns = (np.arange(n) * dilation for n, dilation in zip(kernel, self.dilations, strict=True))
        return ((rows[:, None] * self.width + columns) * self.channels).astype(np.uint32)


def sparse_fc(weights: Array, group_shape: GroupShape) -> SparseArrays:
    """Packs ``[M, K]``.

    Raises:
        ValueError: a column or a count of groups does not fit in uint16.
    """
    matrix = encode(weights, group_shape)
    c = group_shape[1]
    narrow = -(-weights.shape[1] // c) <= _NARROW_COLUMNS
    return SparseArrays(
        _ordered(matrix.values, c).reshape(-1),
        _fitting(matrix.column_indices, np.uint8 if narrow else np.uint16),
        _fitting(np.diff(matrix.row_offsets), np.uint16),
    )


def sparse_conv(weights: Array, group_shape: GroupShape, x: PaddedInput) -> SparseArrays:
    """Packs ``[M, kernel_h, kernel_w, channels / groups]``; groups of columns lie within a run (`runs`).

    Raises:
        ValueError: runs do not begin at multiples of c in the padded input, or the rows of a group are no
            multiple of r where there are several groups; or an offset or a count does not fit in uint16.
    """
    (r, c), M, own = group_shape, len(weights), runs(weights.shape, x)
    if (own.offsets % c).any() or (x.groups > 1 and (own.group_channels % c or M // x.groups % r)):
        raise ValueError(
            f"{own.group_channels} channels and {M // x.groups} rows of a group, in an input of {x.width} "
            f"times {x.channels} channels, do not divide into groups of {r}×{c}"
        )
    padding = -own.length % c
    rows = np.pad(weights.reshape(M, -1, own.length), ((0, 0), (0, 0), (0, padding)))
    matrix = encode(rows.reshape(M, -1), group_shape)
    offsets = (own.offsets.astype(np.int64)[:, None] + np.arange(0, own.length, c)).reshape(-1)
    counts = np.diff(matrix.row_offsets)
    first_channels = np.arange(len(counts)) * r // max(M // x.groups, 1) * own.group_channels
    columns = (offsets[matrix.column_indices] + np.repeat(first_channels, counts)) // c
    return SparseArrays(
        _ordered(matrix.values, c).reshape(-1), _fitting(columns, np.uint16), _fitting(counts, np.uint16)
    )


def dense_fc(weights: Array, c: int) -> Array:
    """Interleaves ``[M, K]``: blocks of 4 rows, then of 2 and 1."""
    return np.concatenate([_interleaved(block, c) for block in _row_blocks(weights, 4)])


def dense_conv(weights: Array, c: int, x: PaddedInput) -> Array:
    """Interleaves ``[M, kernel_h, kernel_w, channels / groups]``: blocks of 2 rows of a group, then of 1."""
    rows_of_runs = weights.reshape(len(weights), -1, runs(weights.shape, x).length)
    groups = np.split(rows_of_runs, x.groups)
    return np.concatenate([_interleaved(block, c) for group in groups for block in _row_blocks(group, 2)])


def runs(weight_shape: tuple[int, ...], x: PaddedInput) -> Runs:
    """Of weights of this shape, ``[M, kernel_h, kernel_w, channels / groups]``."""
    _, kernel_h, kernel_w, channels = weight_shape
    taps = x.taps((kernel_h, kernel_w))
    if x.groups == 1 and x.dilations[1] == 1:
        return Runs(np.ascontiguousarray(taps[:, 0]), kernel_w * channels, 1, channels)
    return Runs(taps.reshape(-1), channels, x.groups, channels)


def _row_blocks(weights: Array, largest: int) -> list[Array]:
    blocks, row = [], 0
    while row < len(weights):
        while largest > len(weights) - row:
            largest //= 2
        blocks.append(weights[row : row + largest])
        row += largest
    return blocks


def _interleaved(block: Array, c: int) -> Array:
    """``[r, ..., length]`` as flat ``[..., ceil(length / c), r, c]``, zero-padded."""
    block = block.reshape(len(block), -1, block.shape[-1])
    padded = np.pad(block, ((0, 0), (0, 0), (0, -block.shape[-1] % c)))
    columns = padded.reshape(*padded.shape[:2], -1, c).transpose(1, 2, 0, 3)
    return _ordered(columns, c).reshape(-1)


def _ordered(values: Array, c: int) -> Array:
    return np.ascontiguousarray(values[..., _UNPACKED] if c == len(_UNPACKED) else values)


def _fitting(numbers: Array, dtype: type[np.unsignedinteger[Any]]) -> Array:
    if numbers.size and numbers.max() > np.iinfo(dtype).max:
        raise ValueError(f"{numbers.max()} does not fit in {np.dtype(dtype)}")
    return numbers.astype(dtype)
