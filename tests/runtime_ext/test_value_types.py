"""Values stored in 16 bits: each kernel computes exactly what it computes with the same values in float32."""

import itertools

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalpel_graph import _kernels, group_csr
from tests.runtime_ext import instruction_sets
from tests.runtime_ext.kernel_reference import (
    ConvCase,
    assert_close,
    conv_kernel,
    gemm_kernel,
    sparse_weights,
)

ISAS = instruction_sets.isas()
DTYPES = [np.float16, ml_dtypes.bfloat16]
GROUP_SHAPES = [(1, 1), (1, 8), (1, 16), (2, 1), (4, 1), (8, 1), (16, 1), (1, 3), (3, 1), (2, 8), (4, 4)]
EVERY_NUMBER = np.arange(1 << 16, dtype=np.uint16)


def stored(weights, dtype):
    """Weights rounded to a type, in it and as float32."""
    rounded = weights.astype(dtype)
    return rounded, rounded.astype(np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", [(1, 1), (1, 8), (1, 16), (4, 1), (8, 1), (16, 1)])
def test_every_number_is_widened_exactly(dtype, isa, group_shape):
    """Subnormals, infinities and NaN too: one group to a row block, times a column of the identity."""
    r, c = group_shape
    n = EVERY_NUMBER.size // (r * c)
    # One number of a group at a time: infinity times the zeros that stand for the others would be NaN.
    for place in range(c):
        values = np.zeros((n * c, r, c), dtype)
        values[:, :, place] = EVERY_NUMBER.view(dtype).reshape(n * c, r)
        offsets, columns = np.arange(n * c + 1, dtype=np.int32), np.zeros(n * c, np.uint16)
        kernel = instruction_sets.Gemm(values, offsets, columns, (n * c * r, c), isa=isa)
        expected = EVERY_NUMBER.view(dtype).astype(np.float32)
        for N in (1, 9):
            X = np.zeros((N, c), np.float32)
            X[:, place] = 1
            Y = kernel.run(X)
            np.testing.assert_array_equal(Y, np.tile(expected, (N, 1)))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_negative_zero_and_the_smallest_number_keep_their_sign_and_size(dtype, isa):
    """In a group that is stored for its other weight."""
    smallest = np.array([0x8001], np.uint16).view(dtype)[0]
    values = np.array([[[smallest, 1.0]], [[-0.0, 1.0]]], dtype)
    arrays = (values, np.array([0, 1, 2], np.int32), np.zeros(2, np.uint16), (2, 2))
    Y = instruction_sets.Gemm(*arrays, isa=isa).run(np.array([[2.0**10, 0.0]], np.float32))
    assert Y.tolist() == [[float(smallest) * 2.0**10, 0.0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", GROUP_SHAPES)
def test_gemm_is_that_of_the_widened_weights(dtype, isa, group_shape):
    rng = np.random.default_rng(20)
    for (M, K), wide_columns in itertools.product([(1, 1), (37, 61), (64, 96), (9, 130)], [False, True]):
        narrow, wide = stored(sparse_weights(rng, M, K, group_shape, 0.4), dtype)
        kernels = [gemm_kernel(W, group_shape, isa, wide_columns) for W in (narrow, wide)]
        for N in (1, 2, 3, 5, 7, 8, 17):
            X, bias, residual = (rng.standard_normal(s).astype(np.float32) for s in [(N, K), (M,), (N, M)])
            one, other = (
                kernel.run(X, bias=bias, residual=residual, activation_min=-0.5, activation_max=2.0)
                for kernel in kernels
            )
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("group_shape", [(1, 1), (1, 8), (4, 1), (3, 5)])
def test_the_scalar_gemm_is_numpys(dtype, group_shape):
    rng = np.random.default_rng(21)
    narrow, wide = stored(sparse_weights(rng, 13, 29, group_shape, 0.4), dtype)
    X = rng.standard_normal((3, 29)).astype(np.float32)
    Y = gemm_kernel(narrow, group_shape, "scalar").run(X)
    assert_close(Y, X.astype(np.float64) @ wide.T.astype(np.float64))


CONVS = {
    "pointwise": ((12, 8, 1, 1), (7, 9), ConvCase((1, 1), (0, 0, 0, 0), (1, 1))),
    "3x3": ((12, 5, 3, 3), (9, 8), ConvCase((1, 1), (1, 1, 1, 1), (1, 1))),
    "strided": ((9, 4, 3, 2), (11, 12), ConvCase((2, 1), (1, 0, 2, 1), (1, 2))),
    "grouped": ((16, 3, 3, 3), (6, 6), ConvCase((1, 1), (1, 1, 1, 1), (1, 1), 2)),
    "depthwise": ((6, 1, 3, 3), (8, 17), ConvCase((1, 1), (1, 1, 1, 1), (1, 1), 6)),
    "1-D": ((8, 6, 5), (31,), ConvCase((2,), (2, 1), (1,))),
}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", [(1, 1), (1, 8), (4, 1), (8, 1)])
@pytest.mark.parametrize("name", CONVS)
def test_conv_is_that_of_the_widened_weights(dtype, isa, group_shape, name):
    shape, spatial, case = CONVS[name]
    if case.group > 1 and (shape[0] // case.group) % group_shape[0]:
        group_shape = (1, group_shape[1])
    rng = np.random.default_rng(22)
    density = 1.0 if name == "depthwise" else 0.5
    K = int(np.prod(shape[1:]))
    dense = rng.standard_normal((shape[0], K)).astype(np.float32)
    weights = dense if density == 1.0 else sparse_weights(rng, shape[0], K, group_shape, density)
    narrow, wide = stored(weights.reshape(shape), dtype)
    X = rng.standard_normal((2, shape[1] * case.group, *spatial)).astype(np.float32)
    one, other = (conv_kernel(W, group_shape, case, isa).run(X, activation_min=0.0) for W in (narrow, wide))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(st.integers(1, 100), st.integers(1, 300), st.integers(1, 9)),
    group_shape=st.sampled_from(GROUP_SHAPES),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_gemm(isa, sizes, group_shape, dtype, seed):
    M, K, N = sizes
    rng = np.random.default_rng(seed)
    narrow, wide = stored(sparse_weights(rng, M, K, group_shape, rng.random()), dtype)
    X = rng.standard_normal((N, K)).astype(np.float32)
    one, other = (gemm_kernel(W, group_shape, isa).run(X, threads=2) for W in (narrow, wide))
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_threads_do_not_change_the_result(dtype, isa):
    rng = np.random.default_rng(23)
    W = sparse_weights(rng, 1200, 1200, (1, 8), 0.5).astype(dtype)
    X = rng.standard_normal((1, 1200)).astype(np.float32)
    kernel = gemm_kernel(W, (1, 8), isa)
    np.testing.assert_array_equal(kernel.run(X, threads=3), kernel.run(X))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_weights_outside_the_matrix_are_ignored(dtype, isa):
    group_values = np.full((1, 4, 8), np.nan, dtype)
    group_values[0, :3, :5] = 1.0
    arrays = (group_values, np.array([0, 1], np.int32), np.zeros(1, np.uint16), (3, 5))
    for N in (1, 9):
        Y = instruction_sets.Gemm(*arrays, isa=isa).run(np.ones((N, 5), np.float32))
        np.testing.assert_array_equal(Y, 5.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("isa", ISAS)
def test_a_matrix_without_weights_gives_the_bias(dtype, isa):
    kernel = gemm_kernel(np.zeros((21, 13), dtype), (4, 1), isa)
    bias = np.arange(21, dtype=np.float32)
    for N in (1, 9):
        Y = kernel.run(np.ones((N, 13), np.float32), bias=bias)
        np.testing.assert_array_equal(Y, np.tile(bias, (N, 1)))


def test_values_are_read_as_they_lie():
    values = np.ones((4, 1, 2), np.float16)
    arrays = (np.array([0, 1, 2, 3, 4], np.int32), np.zeros(4, np.uint16), (4, 2))
    _kernels.Gemm(values, *arrays)
    for wrong in (values[:, :, ::-1], np.ones((8, 1, 2), np.float16)[::2], values.view(np.uint16), values[0]):
        with pytest.raises(ValueError, match="float32, float16 or bfloat16"):
            _kernels.Gemm(wrong, *arrays)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", GROUP_SHAPES)
def test_gemm_of_integers_is_that_of_their_multiples(isa, group_shape):
    """Every integer, a scale for each row; sums are rounded before or after they are scaled."""
    rng = np.random.default_rng(21)
    for (M, K), wide_columns in itertools.product([(1, 1), (37, 61), (64, 96), (9, 130)], [False, True]):
        kept = sparse_weights(rng, M, K, group_shape, 0.4) != 0
        integers = (rng.integers(-128, 128, (M, K)) * kept).astype(np.int8)
        scale = (rng.random(M) + 0.5).astype(np.float32) / 100
        scale[0] = 0
        matrix = group_csr.encode(integers, group_shape)
        columns = matrix.column_indices.astype(np.int32) if wide_columns else matrix.column_indices
        kernel = instruction_sets.Gemm(
            matrix.values, matrix.row_offsets, columns, matrix.shape, scale, isa=isa
        )
        exact = integers.astype(np.float64) * scale[:, np.newaxis]
        for N in (1, 2, 3, 5, 7, 8, 17):
            X, bias, residual = (rng.standard_normal(s).astype(np.float32) for s in [(N, K), (M,), (N, M)])
            Y = kernel.run(X, bias=bias, residual=residual, activation_min=-0.5, activation_max=2.0)
            expected = np.clip(X.astype(np.float64) @ exact.T + bias + residual, -0.5, 2.0)
            np.testing.assert_allclose(Y, expected, rtol=1e-5, atol=1e-5)
