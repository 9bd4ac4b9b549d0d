"""The format: what `scalpel_graph.group_csr` promises."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scalpel_graph import group_csr
from scalpel_graph.errors import GroupCsrError, ScalpelError
from scalpel_graph.group_csr import GroupCsr

Array = npt.NDArray[Any]

DTYPES = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int8, np.int16]
group_shapes = st.tuples(st.integers(1, 5), st.integers(1, 9))
matrices = st.builds(
    np.ndarray.astype,
    hnp.arrays(
        dtype=np.int8,
        shape=st.tuples(st.integers(0, 13), st.integers(0, 21)),
        elements=st.sampled_from([0, 0, 0, 0, 1, -2, 3]),
    ),
    st.sampled_from(DTYPES),
)

EXAMPLE = np.array(
    [
        [0, 0, 1, 2, 0],
        [0, 0, 0, 0, 5],
        [0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0],
        [7, 0, 0, 0, 9],
    ],
    np.float32,
)


def test_a_matrix_written_out() -> None:
    matrix = group_csr.encode(EXAMPLE, (2, 2))
    assert matrix.values.tolist() == [[[1, 2], [0, 0]], [[0, 0], [5, 0]], [[7, 0], [0, 0]], [[9, 0], [0, 0]]]
    assert matrix.row_offsets.tolist() == [0, 2, 2, 4]
    assert matrix.column_indices.tolist() == [1, 2, 0, 2]
    assert (matrix.values.dtype, matrix.row_offsets.dtype) == (np.float32, np.int32)
    assert (matrix.shape, matrix.group_shape, matrix.n_groups) == ((5, 5), (2, 2), 4)
    assert matrix.nbytes == 4 * 4 * 4 + 4 * 4 + 4 * 2


def test_groups_of_one_are_plain_csr() -> None:
    matrix = group_csr.encode(EXAMPLE, (1, 1))
    assert matrix.values.ravel().tolist() == [1, 2, 5, 7, 9]
    assert matrix.row_offsets.tolist() == [0, 2, 3, 3, 3, 5]
    assert matrix.column_indices.tolist() == [2, 3, 4, 0, 4]


@given(matrices, group_shapes)
def test_decoding_gives_back_what_was_encoded(weights: Array, group_shape: group_csr.GroupShape) -> None:
    before = weights.copy()
    matrix = group_csr.encode(weights, group_shape)
    decoded = group_csr.decode(matrix)
    np.testing.assert_array_equal(decoded, before)
    np.testing.assert_array_equal(weights, before)
    assert decoded.dtype == weights.dtype
    assert decoded.flags.c_contiguous
    assert matrix.values.flags.c_contiguous


@given(matrices, group_shapes)
def test_exactly_the_groups_with_a_nonzero_are_stored(
    weights: Array, group_shape: group_csr.GroupShape
) -> None:
    (M, K), (r, c) = weights.shape, group_shape
    kept = [
        [column for column in range(-(-K // c)) if weights[i : i + r, column * c : (column + 1) * c].any()]
        for i in range(0, M, r)
    ]
    matrix = group_csr.encode(weights, group_shape)
    assert matrix.column_indices.tolist() == [column for row in kept for column in row]
    assert np.diff(matrix.row_offsets).tolist() == [len(row) for row in kept]
    all_groups = len(kept) * -(-K // c)
    assert group_csr.density(weights, group_shape) == (matrix.n_groups / all_groups if all_groups else 0)
    assert matrix.nbytes == group_csr.encoded_bytes((M, K), group_shape, matrix.n_groups, weights.itemsize)


@given(matrices, group_shapes)
def test_what_is_encoded_is_valid(weights: Array, group_shape: group_csr.GroupShape) -> None:
    group_csr.validate(group_csr.encode(weights, group_shape))


@given(matrices, group_shapes, group_shapes)
def test_larger_groups_never_store_fewer_weights(
    weights: Array, small: group_csr.GroupShape, factor: tuple[int, int]
) -> None:
    large = (small[0] * factor[0], small[1] * factor[1])
    assert group_csr.encode(weights, small).values.size <= group_csr.encode(weights, large).values.size


def test_negative_zero_is_a_zero() -> None:
    assert group_csr.encode(np.array([[-0.0, 0.0]], np.float32), (1, 1)).n_groups == 0


def test_nan_is_no_zero() -> None:
    assert group_csr.encode(np.array([[np.nan, 0.0]], np.float32), (1, 1)).n_groups == 1


@pytest.mark.parametrize(
    ("K", "c", "dtype"),
    [
        (1, 1, np.uint16),
        (65535, 1, np.uint16),
        (65536, 1, np.uint16),
        (65537, 1, np.int32),
        (65536 * 8, 8, np.uint16),
        (65536 * 8 + 1, 8, np.int32),
    ],
)
def test_columns_are_uint16_where_every_number_fits(K: int, c: int, dtype: type) -> None:
    assert group_csr.column_index_dtype(K, (1, c)) == dtype
    weights = np.zeros((2, K), np.float32)
    weights[0, 0] = weights[1, -1] = 1
    matrix = group_csr.encode(weights, (1, c))
    assert matrix.column_indices.dtype == dtype
    assert matrix.column_indices.tolist() == ([0, -(-K // c) - 1])
    np.testing.assert_array_equal(group_csr.decode(matrix), weights)
    assert matrix.nbytes == group_csr.encoded_bytes((2, K), (1, c), 2)


@pytest.mark.parametrize("shape", [(0, 0), (0, 7), (7, 0)])
def test_a_matrix_without_weights(shape: tuple[int, int]) -> None:
    matrix = group_csr.encode(np.zeros(shape, np.float32), (2, 3))
    assert matrix.n_groups == 0
    assert group_csr.decode(matrix).shape == shape
    assert group_csr.density(np.zeros(shape, np.float32), (2, 3)) == 0


def test_density_of_known_matrices() -> None:
    assert group_csr.density(EXAMPLE, (1, 1)) == 5 / 25
    assert group_csr.density(EXAMPLE, (2, 2)) == 4 / 9
    assert group_csr.density(EXAMPLE, (5, 5)) == 1
    assert group_csr.density(np.ones((3, 3)), (2, 2)) == 1


@pytest.mark.parametrize("function", [group_csr.encode, group_csr.density])
@pytest.mark.parametrize(
    ("weights", "group_shape", "words"),
    [
        (np.zeros(3), (1, 1), r"expected a matrix \[M, K\], got shape \[3\]"),
        (np.zeros((2, 2, 2)), (1, 1), r"got shape \[2, 2, 2\]"),
        (np.zeros((2, 2)), (0, 1), "must be positive, got 0×1"),
        (np.zeros((2, 2)), (1, -1), "must be positive, got 1×-1"),
    ],
)
def test_what_cannot_be_encoded_is_refused(
    function: Callable[[Array, group_csr.GroupShape], Any],
    weights: Array,
    group_shape: group_csr.GroupShape,
    words: str,
) -> None:
    with pytest.raises(GroupCsrError, match=words):
        function(weights, group_shape)


def changed(array: Array, index: int, value: int) -> Array:
    array = array.copy()
    array[index] = value
    return array


VALID = group_csr.encode(EXAMPLE, (2, 2))
VALUES, OFFSETS, COLUMNS = VALID.values, VALID.row_offsets, VALID.column_indices

CORRUPTIONS: dict[str, tuple[dict[str, Any], str]] = {
    "shape-negative": ({"shape": (-1, 5)}, r"shape \[-1, 5\] has a negative dimension"),
    "shape-of-more-rows": ({"shape": (7, 5)}, r"row_offsets must be int32 \[5\] for M=7"),
    "shape-of-fewer-rows": ({"shape": (4, 5)}, r"row_offsets must be int32 \[3\] for M=4"),
    "shape-of-fewer-columns": (
        {"shape": (5, 4)},
        r"column_indices\[1\] = 2 is outside the 2 column groups of K=4",
    ),
    "values-matrix": ({"values": VALUES[:, 0]}, r"values must have shape \[n_groups, r, c\].*got \[4, 2\]"),
    "values-no-rows": ({"values": VALUES[:, :0]}, r"values must have .* got \[4, 0, 2\]"),
    "values-no-columns": ({"values": VALUES[:, :, :0]}, r"values must have .* got \[4, 2, 0\]"),
    "values-too-few": ({"values": VALUES[:3]}, r"column_indices must be .* \[3\], got uint16 \[4\]"),
    "offsets-int64": ({"row_offsets": OFFSETS.astype(np.int64)}, "row_offsets must be int32.*got int64"),
    "offsets-short": ({"row_offsets": OFFSETS[:-1]}, r"row_offsets must be int32 \[4\].*got int32 \[3\]"),
    "offsets-long": ({"row_offsets": np.append(OFFSETS, OFFSETS[-1:])}, r"row_offsets must be .*\[5\]"),
    "offsets-matrix": ({"row_offsets": OFFSETS[None]}, r"row_offsets must be int32"),
    "offsets-start": (
        {"row_offsets": changed(OFFSETS, 0, 1)},
        "row_offsets must run from 0 to 4, got 1 to 4",
    ),
    "offsets-start-negative": ({"row_offsets": changed(OFFSETS, 0, -1)}, "got -1 to 4"),
    "offsets-end-beyond": ({"row_offsets": changed(OFFSETS, -1, 5)}, "got 0 to 5"),
    "offsets-end-before": ({"row_offsets": changed(OFFSETS, -1, 3)}, "got 0 to 3"),
    "offsets-decrease": ({"row_offsets": changed(OFFSETS, 1, 3)}, "row_offsets decrease after row block 1"),
    "offsets-jump-beyond": (
        {"row_offsets": changed(OFFSETS, 1, 99)},
        "row_offsets decrease after row block 1",
    ),
    "offsets-fall-below": (
        {"row_offsets": changed(OFFSETS, 1, -(2**31))},
        "row_offsets decrease after row block 0",
    ),
    "columns-int64": ({"column_indices": COLUMNS.astype(np.int64)}, "column_indices must be .* got int64"),
    "columns-uint8": ({"column_indices": COLUMNS.astype(np.uint8)}, "column_indices must be .* got uint8"),
    "columns-short": ({"column_indices": COLUMNS[:-1]}, r"column_indices must be .* \[4\], got uint16 \[3\]"),
    "columns-matrix": ({"column_indices": COLUMNS[None]}, r"column_indices must be .* got uint16 \[1, 4\]"),
    "columns-outside": (
        {"column_indices": changed(COLUMNS, 3, 3)},
        r"column_indices\[3\] = 3 is outside the 3",
    ),
    "columns-negative": (
        {"column_indices": changed(COLUMNS.astype(np.int32), 2, -1)},
        r"column_indices\[2\] = -1 is outside",
    ),
    "columns-duplicated": (
        {"column_indices": changed(COLUMNS, 1, 1)},
        "column_indices must increase.*group 0",
    ),
    "columns-decrease": ({"column_indices": changed(COLUMNS, 3, 0)}, "column_indices must increase.*group 2"),
}


@pytest.mark.parametrize(("parts", "words"), CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_every_corruption_is_refused_and_named(parts: dict[str, Any], words: str) -> None:
    matrix: GroupCsr = replace(VALID, **parts)
    for function in (group_csr.validate, group_csr.decode):
        with pytest.raises(GroupCsrError, match=words):
            function(matrix)


def test_int32_columns_are_valid_where_uint16_would_do() -> None:
    matrix = replace(VALID, column_indices=COLUMNS.astype(np.int32))
    np.testing.assert_array_equal(group_csr.decode(matrix), EXAMPLE)


def test_columns_may_decrease_from_one_row_block_to_the_next() -> None:
    weights = np.array([[0, 1], [0, 0], [1, 0]], np.float32)
    group_csr.validate(group_csr.encode(weights, (1, 1)))


def test_the_error_is_one_for_a_person_and_a_value_error() -> None:
    assert issubclass(GroupCsrError, ScalpelError)
    assert issubclass(GroupCsrError, ValueError)
