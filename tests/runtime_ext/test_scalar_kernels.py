"""The scalar kernels, the reference of all others, against numpy."""

import numpy as np
import pytest

from scalpel_graph.ops import Gate
from tests.runtime_ext import instruction_sets
from tests.runtime_ext.kernel_reference import (
    ConvCase,
    assert_close,
    conv,
    conv_kernel,
    gated,
    gemm_kernel,
    sparse_weights,
)


@pytest.mark.parametrize("group_shape", [(1, 1), (1, 8), (4, 1), (8, 1), (3, 5), (16, 16)])
@pytest.mark.parametrize(("M", "K", "N"), [(1, 1, 1), (13, 29, 1), (32, 64, 5), (70, 33, 3)])
@pytest.mark.parametrize("wide_columns", [False, True])
def test_gemm(group_shape, M, K, N, wide_columns):
    rng = np.random.default_rng(0)
    W = sparse_weights(rng, M, K, group_shape, 0.4)
    X, bias, residual = (rng.standard_normal(s).astype(np.float32) for s in [(N, K), (M,), (N, M)])
    kernel = gemm_kernel(W, group_shape, "scalar", wide_columns)
    product = X.astype(np.float64) @ W.T.astype(np.float64)
    assert_close(kernel.run(X), product)
    assert_close(
        kernel.run(X, bias=bias, residual=residual, activation_min=-0.5, activation_max=1.0),
        np.clip(product + bias + residual, -0.5, 1.0),
    )


CONVS = {
    "pointwise": ((8, 6, 1, 1), (5, 7), ConvCase((1, 1), (0, 0, 0, 0), (1, 1))),
    "3x3": ((8, 6, 3, 3), (9, 8), ConvCase((1, 1), (1, 1, 1, 1), (1, 1))),
    "strided": ((10, 3, 7, 7), (20, 23), ConvCase((2, 2), (3, 3, 3, 3), (1, 1))),
    "unequal everything": ((5, 4, 2, 3), (11, 9), ConvCase((2, 1), (0, 2, 1, 3), (3, 2))),
    "grouped": ((8, 3, 3, 3), (6, 6), ConvCase((1, 1), (1, 1, 1, 1), (1, 1), 2)),
    "depthwise": ((8, 1, 3, 3), (6, 6), ConvCase((2, 2), (1, 1, 1, 1), (1, 1), 8)),
    "1-D": ((8, 6, 5), (31,), ConvCase((2,), (2, 1), (2,))),
    "padding alone": ((4, 2, 2, 2), (1, 1), ConvCase((1, 1), (2, 2, 2, 2), (1, 1))),
}


@pytest.mark.parametrize("group_shape", [(1, 1), (1, 8), (4, 1), (2, 3)])
@pytest.mark.parametrize("name", CONVS)
def test_conv(group_shape, name):
    shape, spatial, case = CONVS[name]
    if case.group > 1 and (shape[0] // case.group) % group_shape[0]:
        group_shape = (1, group_shape[1])
    rng = np.random.default_rng(1)
    W = sparse_weights(rng, shape[0], int(np.prod(shape[1:])), group_shape, 0.5).reshape(shape)
    X = rng.standard_normal((2, shape[1] * case.group, *spatial)).astype(np.float32)
    product = conv(X, W, case)
    kernel = conv_kernel(W, group_shape, case, "scalar")
    assert_close(kernel.run(X, threads=2), product)
    bias = rng.standard_normal(shape[0]).astype(np.float32)
    residual = rng.standard_normal(product.shape).astype(np.float32)
    channel = (slice(None), *[None] * len(spatial))
    assert_close(
        kernel.run(X, bias=bias, residual=residual, activation_min=0.0),
        np.maximum(product + bias[channel] + residual, 0),
    )


def test_nan_passes_the_activation():
    kernel = gemm_kernel(np.ones((1, 1), np.float32), (1, 1), "scalar")
    X = np.array([[np.nan], [np.inf], [-np.inf]], np.float32)
    np.testing.assert_array_equal(
        kernel.run(X, activation_min=0.0, activation_max=6.0), [[np.nan], [6.0], [0.0]]
    )


#: Finite numbers of every size, and those at which a gate is open or shut for the first time.
_RESULTS = np.concatenate(
    [
        np.linspace(-12, 12, 4801),
        np.geomspace(1e-38, 3e38, 200),
        -np.geomspace(1e-38, 3e38, 200),
        [0.0, -0.0, 3.0, -3.0, 87.0, 88.0, 89.0, -87.0, -88.0, -89.0],
    ]
).astype(np.float32)


@pytest.mark.parametrize("gate", [gate for gate in Gate if gate != Gate.NONE])
@pytest.mark.parametrize("isa", instruction_sets.isas())
def test_gates(isa, gate):
    kernel = gemm_kernel(np.ones((1, 1), np.float32), (1, 1), isa)
    Y = kernel.run(_RESULTS[:, None], activation_gate=gate)[:, 0]
    expected = gated(_RESULTS, gate)
    np.testing.assert_allclose(Y, expected, rtol=1e-6, atol=1e-6)
    assert np.isnan(kernel.run(np.array([[np.nan]], np.float32), activation_gate=gate)).all()


def test_bounds_come_before_the_gate():
    kernel = gemm_kernel(np.ones((1, 1), np.float32), (1, 1), "scalar")
    X = np.array([[-2.0], [0.5], [4.0]], np.float32)
    Y = kernel.run(X, activation_min=-1.0, activation_max=2.0, activation_gate=Gate.HARD_SWISH)
    assert_close(Y, gated(np.clip(X, -1, 2), Gate.HARD_SWISH))
