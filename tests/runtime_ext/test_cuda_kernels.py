"""The index logic of the CUDA kernels, on the host: every thread of every thread block, against numpy.

On a card the same cases run in benchmarks/gpu_suite.py.
"""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from scalpel_graph import cuda, group_csr
from tests.runtime_ext import cuda_cases
from tests.runtime_ext.compiler import COMPILER, run
from tests.runtime_ext.emulated_cuda.build import KERNELS, build
from tests.runtime_ext.kernel_reference import sparse_weights


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return cuda.Library(build(tmp_path_factory.mktemp("emulated") / "libemulated.so", *KERNELS))


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


def test_nan_passes_the_activation_and_stays_in_its_group(library):
    W = np.eye(16, dtype=np.float32)
    X = np.arange(-8, 8, dtype=np.float32)[None]
    X[0, 3] = np.nan
    for group_shape in [(1, 1), (8, 1), (1, 8)]:
        plan = cuda.Gemm(library, group_csr.encode(W, group_shape), activation_min=0.0, activation_max=6.0)
        Y = cuda.run_on_host_arrays(library, plan, X)
        clean = np.r_[0:3, 4:16] if group_shape == (1, 1) else np.r_[8:16]
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


def test_no_kernel_leaves_its_arrays(tmp_path):
    """Under the address sanitizer; device memory is the host's here."""
    library = build(tmp_path / "libemulated.so", *KERNELS, sanitize="address")
    preload = run(COMPILER, "-print-file-name=libasan.so").strip()
    environment = {**os.environ, "LD_PRELOAD": preload, "ASAN_OPTIONS": "detect_leaks=0"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime_ext.cuda_cases", str(library)],
        cwd=Path(__file__).parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cases agree" in done.stdout
