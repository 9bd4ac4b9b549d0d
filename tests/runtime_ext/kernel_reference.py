"""What the kernels are compared with: float64 numpy, written from ONNX's definitions, and random matrices."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from scalpel_graph import group_csr
from scalpel_graph.ops import Gate
from tests.runtime_ext import instruction_sets

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ConvCase:
    """The attributes of a Conv; one entry for each spatial dimension, ``pads`` begins first."""

    strides: tuple[int, ...]
    pads: tuple[int, ...]
    dilations: tuple[int, ...]
    group: int = 1


def gated(y: npt.NDArray[Any], gate: Gate) -> npt.NDArray[np.float64]:
    """``y · gate(y)``."""
    y = y.astype(np.float64)
    factors = {
        Gate.NONE: 1.0,
        Gate.HARD_SWISH: np.clip(y / 6 + 0.5, 0, 1),
        Gate.SILU: np.exp(-np.logaddexp(0, -y)),
        Gate.GELU: (1 + np.vectorize(math.erf)(y / np.sqrt(2))) / 2,
    }
    return np.asarray(y * factors[gate])


def sparse_weights(
    rng: np.random.Generator, M: int, K: int, group_shape: group_csr.GroupShape, density: float
) -> Floats:
    """``[M, K]`` with about ``density`` of its groups kept; some row blocks are empty."""
    r, c = group_shape
    kept = rng.random((-(-M // r), -(-K // c))) < density
    kept[rng.random(kept.shape[0]) < 0.1] = False
    mask = np.repeat(np.repeat(kept, r, axis=0), c, axis=1)[:M, :K]
    return np.where(mask, rng.standard_normal((M, K)), 0).astype(np.float32)


def random_int8_weights(
    rng: np.random.Generator, M: int, K: int, group_shape: group_csr.GroupShape, density: float = 0.4
) -> npt.NDArray[np.int8]:
    """``[M, K]`` of any int8, with about ``density`` of its groups kept."""
    r, c = group_shape
    kept = rng.random((-(-M // r), -(-K // c))) < density
    mask = np.repeat(np.repeat(kept, r, axis=0), c, axis=1)[:M, :K]
    return np.where(mask, rng.integers(-128, 128, (M, K)), 0).astype(np.int8)


def gemm_kernel(
    weights: npt.NDArray[Any], group_shape: group_csr.GroupShape, isa: str, wide_columns: bool = False
) -> Any:
    """The Gemm kernel of ``weights`` (``[M, K]``), stored in their own type."""
    matrix = group_csr.encode(weights, group_shape)
    columns = matrix.column_indices.astype(np.int32) if wide_columns else matrix.column_indices
    return instruction_sets.Gemm(matrix.values, matrix.row_offsets, columns, matrix.shape, isa=isa)


def conv_kernel(
    weights: npt.NDArray[Any], group_shape: group_csr.GroupShape, case: ConvCase, isa: str
) -> Any:
    """The Conv kernel of ``weights`` (``[M, C / group, kernel...]``), stored in their own type."""
    matrix = group_csr.encode(weights.reshape(weights.shape[0], -1), group_shape)
    return instruction_sets.Conv(
        matrix.values,
        matrix.row_offsets,
        matrix.column_indices,
        list(weights.shape),
        list(case.strides),
        list(case.dilations),
        list(case.pads),
        case.group,
        isa=isa,
    )


def conv(X: Floats, weights: Floats, case: ConvCase) -> npt.NDArray[np.float64]:
    """ONNX's Conv without bias, in float64."""
    spatial = X.ndim - 2
    begins, ends = case.pads[:spatial], case.pads[spatial:]
    padded = np.pad(X.astype(np.float64), [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
    kernel = weights.shape[2:]
    out = [
        (size - (k - 1) * dilation - 1) // stride + 1
        for size, k, dilation, stride in zip(
            padded.shape[2:], kernel, case.dilations, case.strides, strict=True
        )
    ]
    rows, channels = weights.shape[0] // case.group, weights.shape[1]
    Y = np.zeros((X.shape[0], weights.shape[0], *out))
    for g in range(case.group):
        block = padded[:, g * channels : (g + 1) * channels]
        W = weights[g * rows : (g + 1) * rows].astype(np.float64)
        for tap in np.ndindex(*kernel):
            window = tuple(
                slice(t * dilation, t * dilation + (size - 1) * stride + 1, stride)
                for t, dilation, size, stride in zip(tap, case.dilations, out, case.strides, strict=True)
            )
            Y[:, g * rows : (g + 1) * rows] += np.einsum(
                "mc,nc...->nm...",
                W[(slice(None), slice(None), *tap)],
                block[(slice(None), slice(None), *window)],
            )
    return Y


def assert_close(actual: Floats, expected: npt.NDArray[np.float64]) -> None:
    """Equal within the rounding of a float32 sum."""
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
