"""Comparing what two models computed.

Integers, booleans, strings, and the structure of sequences, maps and optionals must be equal, as must shapes
and element types, and NaN and infinities must stand in the same places. For the elements ``a`` (expected) and
``b`` of a floating-point tensor the criterion is

    |a − b| ≤ atol + rtol · (|a| + max|a| / 10) + of_largest · max|a|

An element is thus held to ``rtol`` of itself, plus a tenth of that of the tensor's largest: sums taken in
another order leave an error that goes with the size of the terms, not with the size of what is left of them.
``of_largest`` is for what rounding weights does to an output, whose terms all change. Of n < 16 elements even
the largest may be small by chance, next to the terms it is the sum of: there it counts 16 / n times.
Where ``steps`` are given, elements of 8-bit integers may be so many apart: networks of integers round what
they compute. For types coarser than float32, ``rtol`` is at least four times the distance from 1 to the
type's next number.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np

from scalpel_graph.group_csr import Array

_SHARE_OF_LARGEST = 0.1
_ROUNDINGS = 4
_ENOUGH_ELEMENTS = 16


@dataclass(frozen=True)
class Difference:
    """How far two values are apart.

    Attributes:
        max_abs: the largest |a − b| of any finite floating-point element.
        max_rel: the largest, over tensors, of max|a − b| over the largest magnitude in either; at most 2.
        reason: why they do not count as equal, as a clause; empty if they do.
    """

    max_abs: float = 0.0
    max_rel: float = 0.0
    reason: str = ""


def compare(
    expected: Any, actual: Any, *, rtol: float, atol: float, of_largest: float = 0.0, steps: int = 0
) -> Difference:
    """Compares two outputs of ONNX Runtime: arrays, lists of them, maps, scalars or None.

    Raises:
        TypeError: a value of a kind that cannot be compared.
    """
    return _compare(expected, actual, _Tolerance(rtol, atol, of_largest, steps))


def worst(differences: Iterable[Difference]) -> Difference:
    """The largest of each figure, and the first reason."""
    total = Difference()
    for difference in differences:
        total = Difference(
            max(total.max_abs, difference.max_abs),
            max(total.max_rel, difference.max_rel),
            total.reason or difference.reason,
        )
    return total


@dataclass(frozen=True)
class _Tolerance:
    """How far elements may be apart; see the module's docstring."""

    rtol: float
    atol: float
    of_largest: float = 0.0
    steps: int = 0

    def allowed(self, magnitude: Array, largest: float) -> Array:
        """For elements of some magnitudes, in a tensor whose largest magnitude is ``largest``."""
        by_chance = max(1.0, _ENOUGH_ELEMENTS / max(magnitude.size, 1))
        share = self.rtol * _SHARE_OF_LARGEST + self.of_largest * by_chance
        return np.asarray(self.atol + self.rtol * magnitude + share * largest)


_VALUES = (np.ndarray, np.generic, bool, int, float, str)


def _compare(expected: Any, actual: Any, tolerance: _Tolerance) -> Difference:
    if isinstance(expected, list) and isinstance(actual, list):
        if len(expected) != len(actual):
            return Difference(reason=f"is a sequence of {len(actual)} values instead of {len(expected)}")
        return worst(
            _at(f"[{i}]", _compare(a, b, tolerance))
            for i, (a, b) in enumerate(zip(expected, actual, strict=True))
        )
    if isinstance(expected, dict) and isinstance(actual, dict):
        if expected.keys() != actual.keys():
            return Difference(reason="is a map with other keys")
        return worst(
            _at(f"[{key!r}]", _compare(value, actual[key], tolerance)) for key, value in expected.items()
        )
    if expected is None and actual is None:
        return Difference()
    if isinstance(expected, _VALUES) and isinstance(actual, _VALUES):
        return _compare_arrays(np.asarray(expected), np.asarray(actual), tolerance)
    for value in (expected, actual):
        if not isinstance(value, (*_VALUES, list, dict, type(None))):
            raise TypeError(f"a value of type {type(value).__name__} cannot be compared")
    return Difference(reason=f"is {_kind(actual)} instead of {_kind(expected)}")


def _kind(value: Any) -> str:
    if value is None:
        return "absent"
    if isinstance(value, list):
        return "a sequence"
    return "a map" if isinstance(value, dict) else "a tensor"


def _at(place: str, difference: Difference) -> Difference:
    return (
        replace(difference, reason=f"{difference.reason} (at {place})") if difference.reason else difference
    )


def _compare_arrays(a: Array, b: Array, tolerance: _Tolerance) -> Difference:
    if a.dtype != b.dtype:
        return Difference(reason=f"has type {b.dtype} instead of {a.dtype}")
    if a.shape != b.shape:
        return Difference(reason=f"has shape {list(b.shape)} instead of {list(a.shape)}")
    if np.iscomplexobj(a):
        parts = (("real part", a.real, b.real), ("imaginary part", a.imag, b.imag))
        return worst(_at(name, _compare_arrays(x, y, tolerance)) for name, x, y in parts)
    epsilon = _epsilon(a.dtype)
    if epsilon is not None:
        if epsilon > np.finfo(np.float32).eps:
            tolerance = replace(tolerance, rtol=max(tolerance.rtol, _ROUNDINGS * epsilon))
        return _compare_floats(a.astype(np.float64), b.astype(np.float64), tolerance)
    steps = tolerance.steps if a.dtype in (np.uint8, np.int8) else 0
    wrong = np.argwhere(np.abs(a.astype(np.int16) - b) > steps if steps else a != b)
    if len(wrong):
        place = tuple(int(i) for i in wrong[0])
        return Difference(
            reason=f"differs in {len(wrong)} of {a.size} elements, first at {list(place)}:"
            f" {b[place]} instead of {a[place]}"
        )
    return Difference()


def _compare_floats(a: Array, b: Array, tolerance: _Tolerance) -> Difference:
    finite = np.isfinite(a)
    misplaced = np.argwhere(
        (finite != np.isfinite(b)) | (~finite & ~((a == b) | (np.isnan(a) & np.isnan(b))))
    )
    both = finite & np.isfinite(b)
    magnitude = np.where(both, np.abs(a), 0.0)
    largest = float(magnitude.max(initial=0.0))
    with np.errstate(over="ignore", invalid="ignore"):
        distance = np.where(both, np.abs(a - b), 0.0)
    max_abs = float(distance.max(initial=0.0))
    largest_of_both = max(largest, float(np.where(both, np.abs(b), 0.0).max(initial=0.0)))
    max_rel = max_abs / largest_of_both if max_abs else 0.0
    reason = ""
    allowed = tolerance.allowed(magnitude, largest)
    excess = distance - allowed
    if len(misplaced):
        place = tuple(int(i) for i in misplaced[0])
        reason = f"is {b[place]:.6g} instead of {a[place]:.6g} at {list(place)}"
    elif excess.size and excess.max() > 0:
        place = tuple(int(i) for i in np.unravel_index(int(excess.argmax()), a.shape))
        reason = (
            f"is off by {distance[place]:.3g} at {list(place)} ({b[place]:.6g} instead of {a[place]:.6g}),"
            f" where {allowed[place]:.3g} is allowed"
        )
    return Difference(max_abs, max_rel, reason)


def is_float(dtype: np.dtype[Any]) -> bool:
    """Whether a type is a real floating-point type, of numpy's or ml_dtypes'."""
    return _epsilon(dtype) is not None


def _epsilon(dtype: np.dtype[Any]) -> float | None:
    """Distance from 1 to the next number of a floating-point type; None for other types."""
    try:
        return float(ml_dtypes.finfo(dtype).eps)  # type: ignore[no-untyped-call]
    except ValueError:
        return None
