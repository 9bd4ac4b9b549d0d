"""The index logic of the CUDA kernels, on the host: every thread of every thread block, against numpy.

Runs under the address and undefined-behaviour sanitizers in test_cuda_sanitizers.py. On a card the same cases
run in benchmarks/gpu_suite.py.
"""

from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest

from scalpel_graph import cuda, group_csr
from tests.runtime_ext import cuda_cases
from tests.runtime_ext.emulated_cuda.build import build
from tests.runtime_ext.kernel_reference import sparse_weights


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return cuda.Library(build(tmp_path_factory.mktemp("emulated") / "libemulated.so"))


@pytest.mark.parametrize("group_shape", cuda_cases.GROUP_SHAPES, ids=str)
@pytest.mark.parametrize("dtype", cuda_cases.DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_gemm(library, dtype, group_shape):
    assert sum(case.check(library) for case in cuda_cases.gemm_cases(dtype, group_shape)) > 50


@pytest.mark.parametrize("group_shape", cuda_cases.GROUP_SHAPES, ids=str)
@pytest.mark.parametrize("dtype", cuda_cases.DTYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_conv(library, dtype, group_shape):
    assert sum(case.check(library) for case in cuda_cases.conv_cases(dtype, group_shape)) > 4


@pytest.mark.parametrize("group_shape", [(1, 1), (1, 8), (8, 1)])
def test_columns_beyond_16_bits(library, group_shape):
    rng = np.random.default_rng(4)
    M, K = 19, 65600 * group_shape[1]
    W = np.zeros((M, K), np.float32)
    W[:, rng.integers(0, K, 200)] = 1.0
    W[:, [0, K - 1]] = 2.0
    matrix = group_csr.encode(W, group_shape)
    assert matrix.column_indices.dtype == np.int32
    X = rng.standard_normal((2, K)).astype(np.float32)
    Y = cuda.run_on_host_arrays(library, cuda.Gemm(library, matrix), X)
    np.testing.assert_allclose(Y, X.astype(np.float64) @ W.T, rtol=1e-4, atol=1e-4)


def test_bfloat16_is_widened(library):
    rng = np.random.default_rng(5)
    W = sparse_weights(rng, 21, 40, (1, 8), 0.5).astype(ml_dtypes.bfloat16)
    X = rng.standard_normal((3, 40)).astype(np.float32)
    plans = [cuda.Gemm(library, group_csr.encode(weights, (1, 8))) for weights in (W, W.astype(np.float32))]
    one, other = (cuda.run_on_host_arrays(library, plan, X) for plan in plans)
    np.testing.assert_array_equal(one, other)


def test_every_float16_is_read_as_numpy_reads_it(library):
    values = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    values = values[np.isfinite(values) & (values != 0)]
    matrix = group_csr.encode(np.diag(values[:4096]), (1, 1))
    for begin in range(0, len(values), 4096):
        some = np.resize(values[begin : begin + 4096], 4096)
        plan = cuda.Gemm(library, replace(matrix, values=some.reshape(-1, 1, 1)))
        Y = cuda.run_on_host_arrays(library, plan, np.ones((1, 4096), np.float32))
        np.testing.assert_array_equal(Y[0], some.astype(np.float32))


def test_nan_passes_the_activation_and_touches_nothing_else(library):
    W = np.eye(16, dtype=np.float32)
    X = np.arange(-8, 8, dtype=np.float32)[None]
    X[0, 3] = np.nan
    for group_shape in [(1, 1), (8, 1), (1, 8)]:
        plan = cuda.Gemm(library, group_csr.encode(W, group_shape), activation_min=0.0, activation_max=6.0)
        Y = cuda.run_on_host_arrays(library, plan, X)
        block = np.s_[0:8] if group_shape == (1, 8) else np.s_[3:4]
        clean = np.setdiff1d(np.arange(16), np.arange(16)[block])
        assert np.isnan(Y[0, 3])
        np.testing.assert_array_equal(Y[0, clean], np.clip(X[0, clean], 0, 6))


def test_bad_arrays_are_refused(library):
    matrix = group_csr.encode(np.eye(8, dtype=np.float32), (1, 1))
    bad = replace(matrix, column_indices=matrix.column_indices + np.uint16(1))
    with pytest.raises(cuda.CudaError, match=r"column_indices\[7\] = 8 is outside"):
        cuda.Gemm(library, bad)
    with pytest.raises(cuda.CudaError, match="is not 3 input channels"):
        cuda.Conv(library, matrix, (8, 3, 3, 3))
    with pytest.raises(cuda.CudaError, match=r"values must be float32, float16, bfloat16, got float64"):
        cuda.Gemm(library, replace(matrix, values=matrix.values.astype(np.float64)))
    with pytest.raises(cuda.CudaError, match=r"bias must be float32 \[8\]"):
        cuda.Gemm(library, matrix, bias=np.zeros(7, np.float32))
    with pytest.raises(cuda.CudaError, match=r"must have the shape \[N, 8\]"):
        cuda.Gemm(library, matrix).run(1, (1, 9), 1)


def test_a_library_that_is_not_there():
    with pytest.raises(cuda.CudaError, match="cannot be loaded"):
        cuda.Library("/nowhere/libscalpel_ort_cuda.so")
