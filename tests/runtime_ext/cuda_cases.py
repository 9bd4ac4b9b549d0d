"""What the CUDA kernels are tried on: every kernel, all remainders, epilogues, geometries.

The same cases run on the host, emulated, and on a card (benchmarks/gpu_suite.py).
``python -m tests.runtime_ext.cuda_cases LIBRARY`` runs them all.
"""

import itertools
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from scalpel_graph import cuda, group_csr
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.ops import Gate
from tests.runtime_ext.kernel_reference import ConvCase, Floats, conv, gated, sparse_weights

#: Every kernel has one, and so have shapes that are cut into others.
GROUP_SHAPES: list[GroupShape] = [
    (1, 1), (1, 4), (1, 8), (4, 1), (8, 1), (16, 1), (1, 16), (12, 1), (2, 8), (4, 4), (3, 5),
]  # fmt: skip
DTYPES: tuple[Any, ...] = (np.float32, np.float16)
_ROWS_OF_X = (1, 2, 3, 4, 5, 7, 8, 9, 17)
_ACTIVATIONS = [
    *[(low, high, Gate.NONE) for low, high in ((-np.inf, np.inf), (0.0, np.inf), (-0.5, 0.75))],
    *[(-np.inf, np.inf, gate) for gate in (Gate.HARD_SWISH, Gate.SILU, Gate.GELU)],
    (-0.5, 0.75, Gate.SILU),
]
_EPILOGUES = list(itertools.product([False, True], [False, True], _ACTIVATIONS))


@dataclass(frozen=True)
class Case:
    """A layer, its input, and what it gives but for the epilogue.

    Attributes:
        name: for people.
        weights: ``[M, K]`` or as a Conv has them, of the type that they are stored in.
        group_shape: ``(r, c)``.
        x: input.
        product: of weights and input, float64.
        conv: geometry; None for Gemm.
        epilogue: has a bias, has a residual, bounds.
        seed: of the bias and the residual.
    """

    name: str
    weights: Any
    group_shape: GroupShape
    x: Floats
    product: Any
    conv: ConvCase | None
    epilogue: tuple[bool, bool, tuple[float, float]]
    seed: int

    def check(self, library: cuda.Library) -> bool:
        """Runs it and raises AssertionError where the output is not the product with its epilogue."""
        rng = np.random.default_rng(self.seed)
        has_bias, has_residual, (low, high, gate) = self.epilogue
        M = self.weights.shape[0]
        bias = rng.standard_normal(M).astype(np.float32) if has_bias else None
        residual = rng.standard_normal(self.product.shape).astype(np.float32) if has_residual else None
        matrix = group_csr.encode(self.weights.reshape(M, -1), self.group_shape)
        plan: cuda.Plan
        if self.conv is None:
            plan = cuda.Gemm(
                library, matrix, bias, activation_min=low, activation_max=high, activation_gate=gate
            )
        else:
            case = self.conv
            plan = cuda.Conv(
                library,
                matrix,
                self.weights.shape,
                strides=case.strides,
                dilations=case.dilations,
                pads=case.pads,
                group=case.group,
                bias=bias,
                activation_min=low,
                activation_max=high,
                activation_gate=gate,
            )
        expected = self.product
        if bias is not None:
            expected = expected + bias.reshape(-1, *(1,) * (expected.ndim - 2))
        if residual is not None:
            expected = expected + residual
        Y = cuda.run_on_host_arrays(library, plan, self.x, residual)
        np.testing.assert_allclose(
            Y, gated(np.clip(expected, low, high), gate), rtol=1e-4, atol=1e-4, err_msg=self.name
        )
        return True


def gemm_cases(dtype: Any, group_shape: GroupShape) -> Iterator[Case]:
    """Gemm of every remainder of rows, columns and rows of X, and of one that warps share."""
    rng = np.random.default_rng(1)
    epilogues = itertools.cycle(_EPILOGUES)
    sizes = [*itertools.product([1, 2, 7, 8, 9, 33], [1, 7, 8, 9, 31, 32]), (37, 61), (64, 96), (9, 130)]
    # Few row blocks of many groups, which several warps share, and so many that one warp has each.
    cases = [(M, K, N, 0.5) for (M, K), N in zip(sizes, itertools.cycle(_ROWS_OF_X), strict=False)]
    cases += [(37, 62, N, 0.4) for N in _ROWS_OF_X] + [(40, 64, N, 0.4) for N in _ROWS_OF_X]
    cases += [(19, 3000, 1, 0.7), (19, 3001, 3, 0.7), (2100, 40, 1, 0.3), (21, 13, 2, 0.0)]
    for seed, (M, K, N, density) in enumerate(cases):
        weights = sparse_weights(rng, M, K, group_shape, density).astype(dtype)
        x = rng.standard_normal((N, K)).astype(np.float32)
        name = f"gemm {M}×{K}, {N} rows of X, {group_shape} of {np.dtype(dtype)}"
        product = x.astype(np.float64) @ weights.T.astype(np.float64)
        yield Case(name, weights, group_shape, x, product, None, next(epilogues), seed)


_CONVS = [
    ((12, 8, 1, 1), (7, 9), ConvCase((1, 1), (0, 0, 0, 0), (1, 1))),
    ((12, 5, 3, 3), (9, 8), ConvCase((1, 1), (1, 1, 1, 1), (1, 1))),
    ((9, 4, 3, 2), (11, 12), ConvCase((2, 1), (1, 0, 2, 1), (1, 2))),
    ((11, 5, 2, 5), (14, 14), ConvCase((3, 2), (0, 2, 1, 3), (2, 1))),
    ((32, 3, 3, 3), (6, 6), ConvCase((1, 1), (1, 1, 1, 1), (1, 1), 2)),
    ((6, 1, 3, 3), (8, 17), ConvCase((1, 1), (1, 1, 1, 1), (1, 1), 6)),
    ((33, 6, 3, 3), (13, 11), ConvCase((1, 1), (1, 1, 1, 1), (1, 1))),
]


def conv_cases(dtype: Any, group_shape: GroupShape) -> Iterator[Case]:
    """Conv of several geometries, grouped and depthwise ones among them."""
    rng = np.random.default_rng(2)
    epilogues = itertools.cycle(_EPILOGUES)
    for seed, (shape, size, case) in enumerate(_CONVS):
        if case.group > 1 and shape[0] // case.group % group_shape[0]:
            continue
        K = int(np.prod(shape[1:]))
        weights = sparse_weights(rng, shape[0], K, group_shape, 0.5).reshape(shape).astype(dtype)
        x = rng.standard_normal((2, shape[1] * case.group, *size)).astype(np.float32)
        name = f"conv {shape} on {size}, {case}, {group_shape} of {np.dtype(dtype)}"
        product = conv(x, weights.astype(np.float32), case)
        yield Case(name, weights, group_shape, x, product, case, next(epilogues), seed)


def check_all(library: cuda.Library) -> int:
    """Checks every case and gives their number."""
    return sum(
        case.check(library)
        for dtype, group_shape in itertools.product(DTYPES, GROUP_SHAPES)
        for case in (*gemm_cases(dtype, group_shape), *conv_cases(dtype, group_shape))
    )


if __name__ == "__main__":
    print(f"{check_all(cuda.Library(sys.argv[1]))} cases agree")
