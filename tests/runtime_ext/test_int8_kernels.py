"""The int8 kernels of AArch64: dot products where the processor has them, and scalar code where it has not.

All of them compute the same numbers exactly.
"""

import itertools

import numpy as np
import pytest

from scalpel_graph import group_csr
from tests.runtime_ext import emulated_kernels
from tests.runtime_ext.instruction_sets import EMULATED_CPUS

WITH_DOT_PRODUCTS = ("cortex-a76", "max")
GROUP_SHAPES = [(1, 4), (4, 4), (8, 4), (2, 4), (1, 8), (4, 8), (1, 1), (4, 2), (3, 4)]


def random_weights(rng, M, K, group_shape, density=0.4):
    """``[M, K]`` of any int8, with about ``density`` of its groups kept."""
    r, c = group_shape
    kept = rng.random((-(-M // r), -(-K // c))) < density
    mask = np.repeat(np.repeat(kept, r, axis=0), c, axis=1)[:M, :K]
    return np.where(mask, rng.integers(-128, 128, (M, K)), 0).astype(np.int8)


def kernel(cpu, W, group_shape, isa="neon"):
    matrix = group_csr.encode(W, group_shape)
    arrays = (matrix.values, matrix.row_offsets, matrix.column_indices)
    return emulated_kernels.Int8Gemm(cpu, *arrays, matrix.shape, isa)


def expected(W, X, bias=0):
    return X.astype(np.int32) @ W.astype(np.int32).T + np.int32(bias)


@pytest.mark.parametrize("cpu", EMULATED_CPUS)
def test_dot_products_are_used_where_the_processor_has_them(cpu):
    names = [name.decode() for name in emulated_kernels.server(cpu).ask("int8_kernels", "neon")]
    has = cpu in WITH_DOT_PRODUCTS
    assert names == (["int8_4x4_neon_dotprod", "int8_1x4_neon_dotprod"] if has else [])
    assert emulated_kernels.server(cpu).ask("int8_kernels", "scalar") == []


@pytest.mark.parametrize("cpu", EMULATED_CPUS)
@pytest.mark.parametrize("group_shape", GROUP_SHAPES)
def test_gemm_is_exact(cpu, group_shape):
    rng = np.random.default_rng(0)
    for M, K in [(1, 1), (37, 61), (64, 96), (9, 130), (7, 4)]:
        W = random_weights(rng, M, K, group_shape)
        plan = kernel(cpu, W, group_shape)
        for N in (0, 1, 2, 3, 4, 5, 8, 23, 24, 25, 56, 57, 80):
            X = rng.integers(-128, 128, (N, K)).astype(np.int8)
            bias = rng.integers(-(2**20), 2**20, M).astype(np.int32) if N % 2 else None
            Y = plan.run(X, bias=bias, threads=1 + N % 2)
            np.testing.assert_array_equal(Y, expected(W, X, 0 if bias is None else bias))


@pytest.mark.parametrize("cpu", EMULATED_CPUS[1:3])
def test_threads_do_not_change_the_result(cpu):
    rng = np.random.default_rng(1)
    W = random_weights(rng, 600, 512, (4, 4))
    plan = kernel(cpu, W, (4, 4))
    for N in (1, 40):
        X = rng.integers(-128, 128, (N, 512)).astype(np.int8)
        np.testing.assert_array_equal(plan.run(X, threads=3), expected(W, X))


@pytest.mark.parametrize("cpu", EMULATED_CPUS[1:3])
def test_the_largest_sum_fits_and_a_larger_one_is_refused(cpu):
    K = (2**31 - 1) // 2**14
    W = np.full((2, K), -128, np.int8)
    W[1] = 127
    for N in (1, 4):
        Y = kernel(cpu, W, (1, 4)).run(np.full((N, K), -128, np.int8))
        np.testing.assert_array_equal(Y, np.tile(np.array([K * 2**14, -K * 127 * 128], np.int32), (N, 1)))
    with pytest.raises(ValueError, match=f"K={K + 1} products of int8 could overflow their sum"):
        kernel(cpu, np.ones((1, K + 1), np.int8), (1, 4))


@pytest.mark.parametrize("cpu", EMULATED_CPUS[1:3])
def test_weights_outside_the_matrix_are_ignored(cpu):
    values = np.full((1, 4, 8), -128, np.int8)
    values[0, :3, :5] = 1
    arrays = (values, np.array([0, 1], np.int32), np.zeros(1, np.uint16), (3, 5))
    for N in (1, 9):
        Y = emulated_kernels.Int8Gemm(cpu, *arrays, "neon").run(np.ones((N, 5), np.int8))
        np.testing.assert_array_equal(Y, 5)


@pytest.mark.parametrize("cpu", EMULATED_CPUS[1:3])
def test_no_weights_give_the_bias(cpu):
    bias = np.arange(21, dtype=np.int32)
    plan = kernel(cpu, np.zeros((21, 13), np.int8), (4, 4))
    for N, groups in itertools.product((1, 9), (False, True)):
        Y = plan.run(np.ones((N, 13), np.int8), bias=bias if groups else None)
        np.testing.assert_array_equal(Y, np.tile(bias * groups, (N, 1)))


@pytest.mark.parametrize("cpu", EMULATED_CPUS[2:3])
def test_inconsistent_arrays_are_refused(cpu):
    matrix = group_csr.encode(np.ones((4, 8), np.int8), (4, 4))
    for columns in ([0, 2], [1, 0]):
        with pytest.raises(ValueError, match="column_indices"):
            arrays = (matrix.values, matrix.row_offsets, np.array(columns, np.int32))
            emulated_kernels.Int8Gemm(cpu, *arrays, matrix.shape, "neon")
