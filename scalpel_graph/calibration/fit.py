"""Fits prices to measured times: least squares without negative prices.

Each sample is one equation, scaled so that relative errors count. A price that depends on size is a sum of
hat functions over the logarithm of the size, so that the whole model stays linear; neighbouring points are
tied together lightly, where too few samples lie between them. Samples that the rest contradicts (something
else was running) lose weight step by step.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scalpel_graph.cost import Amount
from scalpel_graph.target import Table

_Floats = npt.NDArray[np.float64]

#: Sizes between which prices that depend on them are interpolated, where there are samples.
KNOTS: Mapping[str, Mapping[str, tuple[float, ...]]] = {
    "dense": {
        "multiply_add": (2, 8, 16, 32, 64, 256, 1024, 4096),
        "few_multiply_adds": (3e5, 1e6, 4e6, 1.6e7),
        "weight": (256, 1024, 4096, 16384, 65536),
    },
    "sparse": {
        "multiply_add": (2, 4, 8, 16, 32, 64, 256, 1024, 4096),
        "few_multiply_adds": (3e5, 1e6, 4e6, 1.6e7),
        "large_input": (64, 256, 512, 1024, 4096),
        "input": (64, 512, 2048, 8192, 32768),
        "output": (16, 128, 512, 2048, 8192),
        "padded": (8, 16, 64, 128),
        "strided": (8, 16, 64),
        "weight": (64, 256, 1024, 4096, 16384, 65536),
    },
}
#: Prices that are nothing at the last knot: they say what the small, or at the first: what the large cost
#: more.
_ZERO_AT_END = ("few_multiply_adds",)
_ZERO_AT_START = ("large_input",)
_SMOOTHNESS = 0.05
_REWEIGHTINGS = 4
#: Relative error beyond which a sample loses weight.
_TOLERATED = 0.1


@dataclass(frozen=True)
class Equation:
    """One measured time: ``call + sum of count × price(size)`` took so many microseconds."""

    amounts: Mapping[str, Amount]
    us: float


def fit(
    equations: Sequence[Equation], names: Sequence[str], knots: Mapping[str, Sequence[float]]
) -> dict[str, Table]:
    """The prices that explain measured times best.

    Args:
        equations: at least one.
        names: what has a price beside ``call``.
        knots: sizes for the prices that depend on them.

    Returns:
        ``call`` in microseconds, and each name whose price is not nothing, in nanoseconds.
    """
    times = np.array([equation.us for equation in equations])
    columns: list[_Floats] = [np.ones(len(times))]
    owners: list[tuple[str, float | None]] = [("call", None)]
    for name in names:
        counts = np.array([equation.amounts[name].count for equation in equations]) / 1e3
        if name not in knots:
            columns.append(counts)
            owners.append((name, None))
            continue
        sizes = np.array([equation.amounts[name].size for equation in equations])
        points = _used(knots[name], sizes)
        for number, point in enumerate(points):
            if (name in _ZERO_AT_END and number == len(points) - 1) or (
                name in _ZERO_AT_START and not number
            ):
                continue
            columns.append(counts * _hat(sizes, points, number))
            owners.append((name, point))
    A = np.column_stack(columns) / times[:, None]
    ties = _ties(owners, A)
    b = np.concatenate([np.ones(len(times)), np.zeros(len(ties))])
    weights = np.ones(len(times))
    for _ in range(_REWEIGHTINGS):
        scaled = np.vstack([A * weights[:, None], ties])
        solution = nnls(scaled, np.concatenate([weights, b[len(times) :]]))
        errors = np.abs(A @ solution - 1)
        weights = 1 / np.sqrt(1 + (errors / _TOLERATED) ** 2)
    return _tables(owners, solution, knots, equations)


def nnls(A: _Floats, b: _Floats) -> _Floats:
    """The ``x`` without negative entries that makes ``|A x - b|`` least.

    Lawson and Hanson, Solving Least Squares Problems, 1974, chapter 23.

    Args:
        A: ``[m, n]``.
        b: ``[m]``.
    """
    scale = np.linalg.norm(A, axis=0)
    A = A / np.where(scale > 0, scale, 1.0)
    n = A.shape[1]
    free = np.zeros(n, dtype=np.bool_)
    x = np.zeros(n)
    tolerance = 1e-9 * max(float(np.abs(A.T @ b).max()), 1e-300)
    for _ in range(3 * n):
        gradient = np.where(free, -np.inf, A.T @ (b - A @ x))
        best = int(gradient.argmax())
        if gradient[best] <= tolerance:
            break
        free[best] = True
        while True:
            trial = np.zeros(n)
            trial[free] = np.linalg.lstsq(A[:, free], b, rcond=None)[0]
            blocked = free & (trial <= 0)
            if not blocked.any():
                break
            step = float(np.min(x[blocked] / np.maximum(x[blocked] - trial[blocked], 1e-300)))
            x = x + step * (trial - x)
            free &= x > 1e-14
            x[~free] = 0
        x = trial
    return x / np.where(scale > 0, scale, 1.0)


def _used(knots: Sequence[float], sizes: _Floats) -> list[float]:
    """The knots around the sizes that occur; none beyond the first on either side."""
    low, high = sizes.min(), sizes.max()
    inside = [knot for knot in knots if low <= knot <= high]
    below = [knot for knot in knots if knot < low][-1:]
    above = [knot for knot in knots if knot > high][:1]
    return [*below, *inside, *above]


def _hat(sizes: _Floats, points: Sequence[float], number: int) -> _Floats:
    values = np.zeros(len(points))
    values[number] = 1.0
    return np.interp(np.log(sizes), np.log(points), values)


def _ties(owners: Sequence[tuple[str, float | None]], A: _Floats) -> _Floats:
    """Equations that say that neighbouring points of a price are alike."""
    rows = []
    for number in range(1, len(owners)):
        if owners[number][1] is None or owners[number - 1][0] != owners[number][0]:
            continue
        row = np.zeros(len(owners))
        typical = max(np.linalg.norm(A[:, number - 1]), np.linalg.norm(A[:, number]))
        row[number - 1], row[number] = _SMOOTHNESS * typical, -_SMOOTHNESS * typical
        rows.append(row)
    return np.array(rows).reshape(-1, len(owners))


def _tables(
    owners: Sequence[tuple[str, float | None]],
    solution: _Floats,
    knots: Mapping[str, Sequence[float]],
    equations: Sequence[Equation],
) -> dict[str, Table]:
    found: dict[str, list[tuple[float, float]]] = {}
    for (name, point), price in zip(owners, solution, strict=True):
        found.setdefault(name, []).append((1.0 if point is None else float(point), _rounded(price)))
    for name in (*_ZERO_AT_END, *_ZERO_AT_START):
        if name in found:
            sizes = np.array([equation.amounts[name].size for equation in equations])
            points = _used(knots[name], sizes)
            end = points[-1] if name in _ZERO_AT_END else points[0]
            found[name] = sorted([*found[name], (float(end), 0.0)])
    return {
        name: tuple(points) if len(points) > 1 else ((1.0, points[0][1]),)
        for name, points in found.items()
        if name == "call" or any(price > 0 for _, price in points)
    }


def _rounded(price: float) -> float:
    return float(f"{price:.4g}")
