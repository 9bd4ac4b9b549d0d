"""Group-CSR: the storage format of a matrix whose zeros come in aligned groups.

This module is the specification. A weight matrix ``W[M, K]`` (rows are outputs) is cut into aligned groups
of ``group_shape = (r, c)``; ``M`` and ``K`` that do not divide are padded with zeros inside the last group.
A group is stored whole if any weight in it is non-zero; the others are not stored at all.

``1×c`` is the SIMD group of the Scalpel paper (ISCA 2017, section 4: arrays A', IA', JA'), ``r×1`` a row
block, ``1×1`` plain CSR. Unlike the paper's, ``row_offsets`` counts groups and ``column_indices`` numbers
columns in groups, so that neither depends on ``c``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scalpel_graph.errors import GroupCsrError

GroupShape = tuple[int, int]
Array = npt.NDArray[Any]

_UINT16_COLUMNS = 1 << 16
_INT32_MAX = np.iinfo(np.int32).max


@dataclass(frozen=True)
class GroupCsr:
    """A group-CSR matrix.

    Attributes:
        values: ``[n_groups, r, c]``, any numeric dtype: the kept groups, row block by row block, left to
            right.
        row_offsets: ``[ceil(M / r) + 1]``, int32: first group of each row block, and the end.
        column_indices: ``[n_groups]``, uint16 or int32: column of each group, counted in groups.
        shape: ``(M, K)`` of the dense matrix.
    """

    values: Array
    row_offsets: Array
    column_indices: Array
    shape: tuple[int, int]

    @property
    def group_shape(self) -> GroupShape:
        """``(r, c)``."""
        return int(self.values.shape[1]), int(self.values.shape[2])

    @property
    def n_groups(self) -> int:
        """Number of stored groups."""
        return int(self.values.shape[0])

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return self.values.nbytes + self.row_offsets.nbytes + self.column_indices.nbytes


def encode(weights: Array, group_shape: GroupShape) -> GroupCsr:
    """Encodes a dense matrix.

    Args:
        weights: ``[M, K]``, any numeric dtype.
        group_shape: ``(r, c)``, both at least 1.

    Raises:
        GroupCsrError: ``weights`` is not a matrix, ``group_shape`` is not positive, or there are more groups
            than int32 can count.
    """
    blocks = _blocks(weights, group_shape)
    kept = (blocks != 0).any(axis=(2, 3))
    n_groups = int(kept.sum())
    if n_groups > _INT32_MAX:
        raise GroupCsrError(f"{n_groups} groups are more than int32 row offsets can count")
    row_offsets = np.zeros(kept.shape[0] + 1, dtype=np.int32)
    np.cumsum(kept.sum(axis=1), out=row_offsets[1:])
    column_indices = np.nonzero(kept)[1].astype(column_index_dtype(weights.shape[1], group_shape))
    return GroupCsr(
        values=np.ascontiguousarray(blocks[kept]),
        row_offsets=row_offsets,
        column_indices=column_indices,
        shape=(weights.shape[0], weights.shape[1]),
    )


def decode(matrix: GroupCsr) -> Array:
    """Gives back the dense ``[M, K]`` matrix.

    Raises:
        GroupCsrError: the arrays are inconsistent (see `validate`).
    """
    validate(matrix)
    (M, K), (r, c) = matrix.shape, matrix.group_shape
    row_blocks, column_groups = -(-M // r), -(-K // c)
    blocks = np.zeros((row_blocks, column_groups, r, c), dtype=matrix.values.dtype)
    rows = np.repeat(np.arange(row_blocks), np.diff(matrix.row_offsets))
    blocks[rows, matrix.column_indices.astype(np.int64)] = matrix.values
    return np.ascontiguousarray(
        blocks.transpose(0, 2, 1, 3).reshape(row_blocks * r, column_groups * c)[:M, :K]
    )


def validate(matrix: GroupCsr) -> None:
    """Checks everything a kernel relies on.

    Raises:
        GroupCsrError: says which array is wrong and where.
    """
    values, offsets, columns = matrix.values, matrix.row_offsets, matrix.column_indices
    M, K = matrix.shape
    if M < 0 or K < 0:
        raise GroupCsrError(f"shape [{M}, {K}] has a negative dimension")
    if values.ndim != 3 or values.shape[1] < 1 or values.shape[2] < 1:
        raise GroupCsrError(
            f"values must have shape [n_groups, r, c] with r, c >= 1, got {list(values.shape)}"
        )
    r, c = matrix.group_shape
    row_blocks, column_groups = -(-M // r), -(-K // c)
    if offsets.dtype != np.int32 or offsets.shape != (row_blocks + 1,):
        raise GroupCsrError(
            f"row_offsets must be int32 [{row_blocks + 1}] for M={M} in groups of {r} rows, "
            f"got {offsets.dtype} {list(offsets.shape)}"
        )
    if columns.dtype not in (np.uint16, np.int32) or columns.shape != (matrix.n_groups,):
        raise GroupCsrError(
            f"column_indices must be uint16 or int32 [{matrix.n_groups}], "
            f"got {columns.dtype} {list(columns.shape)}"
        )
    if offsets[0] != 0 or offsets[-1] != matrix.n_groups:
        raise GroupCsrError(
            f"row_offsets must run from 0 to {matrix.n_groups}, got {int(offsets[0])} to {int(offsets[-1])}"
        )
    steps = np.diff(offsets.astype(np.int64))
    if (steps < 0).any():
        raise GroupCsrError(f"row_offsets decrease after row block {int(np.argmax(steps < 0))}")
    wide = columns.astype(np.int64)
    outside = (wide < 0) | (wide >= column_groups)
    if outside.any():
        group = int(np.argmax(outside))
        raise GroupCsrError(
            f"column_indices[{group}] = {int(wide[group])} is outside the {column_groups} column groups "
            f"of K={K}"
        )
    same_row = np.ones(max(matrix.n_groups - 1, 0), dtype=bool)
    starts = offsets[1:-1].astype(np.int64)
    same_row[starts[(starts > 0) & (starts < matrix.n_groups)] - 1] = False
    unordered = same_row & (np.diff(wide) <= 0)
    if unordered.any():
        raise GroupCsrError(
            "column_indices must increase within a row block, "
            f"but do not after group {int(np.argmax(unordered))}"
        )


def density(weights: Array, group_shape: GroupShape) -> float:
    """Fraction of the groups of ``weights`` (``[M, K]``) with a non-zero: what the format would store."""
    blocks = _blocks(weights, group_shape)
    kept = (blocks != 0).any(axis=(2, 3))
    return float(kept.mean()) if kept.size else 0.0


def encoded_bytes(shape: tuple[int, int], group_shape: GroupShape, n_groups: int, itemsize: int = 4) -> int:
    """Bytes of the three arrays for ``n_groups`` groups of values of ``itemsize`` bytes."""
    (M, K), (r, c) = shape, group_shape
    index_bytes = column_index_dtype(K, group_shape).itemsize
    return n_groups * (r * c * itemsize + index_bytes) + (-(-M // r) + 1) * 4


def column_index_dtype(K: int, group_shape: GroupShape) -> np.dtype[Any]:
    """uint16 where every column group number fits, else int32."""
    return np.dtype(np.uint16 if -(-K // group_shape[1]) <= _UINT16_COLUMNS else np.int32)


def _blocks(weights: Array, group_shape: GroupShape) -> Array:
    """``[M, K]`` as ``[row blocks, column groups, r, c]``, zero-padded."""
    if weights.ndim != 2:
        raise GroupCsrError(f"expected a matrix [M, K], got shape {list(weights.shape)}")
    r, c = group_shape
    if r < 1 or c < 1:
        raise GroupCsrError(f"group shape must be positive, got {r}×{c}")
    M, K = weights.shape
    row_blocks, column_groups = -(-M // r), -(-K // c)
    if (row_blocks * r, column_groups * c) != (M, K):
        weights = np.pad(weights, ((0, row_blocks * r - M), (0, column_groups * c - K)))
    return weights.reshape(row_blocks, r, column_groups, c).transpose(0, 2, 1, 3)
