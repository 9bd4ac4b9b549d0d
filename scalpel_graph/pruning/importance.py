"""How much a group of weights matters, and which groups go."""

from collections.abc import Callable
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from scalpel_graph.group_csr import Array, GroupShape

Importance = Literal["rms", "mean", "max"]

#: The measures that the Scalpel paper compares (section 4.1); root mean square won.
IMPORTANCES: tuple[Importance, ...] = get_args(Importance)

_Scores = npt.NDArray[np.float64]


def group_importance(weights: Array, group_shape: GroupShape, importance: Importance = "rms") -> _Scores:
    """Importance of each aligned group.

    Padding counts as zero weights: a group at the edge costs as much to store as any other.

    Args:
        weights: ``[M, K]``, floating point.
        group_shape: ``(r, c)``.
        importance: root mean square, mean of magnitudes, or largest magnitude.

    Returns:
        ``[ceil(M / r), ceil(K / c)]`` float64.
    """
    r, c = group_shape
    M, K = weights.shape
    if weights.dtype.kind != "f":  # bfloat16 has no arithmetic of its own
        weights = weights.astype(np.float32)
    blocks = np.pad(weights, ((0, -M % r), (0, -K % c))).reshape(-(-M // r), r, -(-K // c), c)
    return _MEASURES[importance](blocks)


def zero_least_important(
    weights: Array, group_shape: GroupShape, sparsity: float, importance: Importance = "rms"
) -> Array:
    """A copy of ``weights`` with the least important groups set to zero.

    Of ``n`` groups the ``floor(sparsity · n)`` least important are zero afterwards; among equals the first
    ones, in row-major order, go first.

    Args:
        weights: ``[M, K]``, floating point.
        group_shape: ``(r, c)``.
        sparsity: fraction of groups to set to zero, in [0, 1].
        importance: see `group_importance`.
    """
    scores = group_importance(weights, group_shape, importance)
    drop = least_important(scores, count_of(scores.size, sparsity))
    pruned = weights.copy()
    pruned[expand(drop, group_shape, weights.shape)] = 0
    return pruned


def count_of(n: int, fraction: float) -> int:
    """``floor(fraction · n)``, where decimal fractions mean what they say: 0.29 · 100 is 29."""
    return int(np.floor(fraction * n + 1e-6))


def least_important(scores: _Scores, count: int) -> npt.NDArray[np.bool_]:
    """Which ``count`` scores are the least; among equals the first ones, in row-major order."""
    drop = np.zeros(scores.shape, dtype=np.bool_)
    if count <= 0:
        return drop
    threshold = np.partition(scores, count - 1, axis=None)[count - 1]
    drop |= scores < threshold
    ties = np.flatnonzero(scores == threshold)
    drop.flat[ties[: count - int(drop.sum())]] = True
    return drop


def expand(
    groups: npt.NDArray[np.bool_], group_shape: GroupShape, shape: tuple[int, ...]
) -> npt.NDArray[np.bool_]:
    """One entry for each weight of a matrix of ``shape`` ``[M, K]``, from one for each group."""
    r, c = group_shape
    M, K = shape
    return np.asarray(groups.repeat(r, axis=0)[:M].repeat(c, axis=1)[:, :K])


def _rms(blocks: Array) -> _Scores:
    rms: _Scores = np.sqrt(np.square(blocks, dtype=np.float64).mean(axis=(1, 3)))
    return rms


def _mean(blocks: Array) -> _Scores:
    mean: _Scores = np.abs(blocks).mean(axis=(1, 3), dtype=np.float64)
    return mean


def _max(blocks: Array) -> _Scores:
    largest: _Scores = np.abs(blocks).max(axis=(1, 3)).astype(np.float64)
    return largest


_MEASURES: dict[str, Callable[[Any], _Scores]] = {"rms": _rms, "mean": _mean, "max": _max}
