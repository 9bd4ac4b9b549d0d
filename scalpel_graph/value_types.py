"""What the values of a sparse layer can be stored as: float32, or 16 or 8 bits that are widened when used.

Integers of 8 bits are multiples of a scale for each output.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np

from scalpel_graph.group_csr import Array

ValueType = Literal["fp32", "fp16", "bf16", "int8"]
VALUE_TYPES: tuple[ValueType, ...] = get_args(ValueType)
FLOAT_TYPES: tuple[ValueType, ...] = ("fp32", "fp16", "bf16")

_DTYPES: dict[ValueType, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
    "int8": np.dtype(np.int8),
}
#: Of the error of an output's weights; it is 1 at most if none of them is below the smallest normal number.
_MOST_ROUNDOFFS = 4
#: Of integers, that error; of normally distributed weights it is 0.01 at most.
_MOST_INTEGER_ERROR = 0.03
_LARGEST_INTEGER = 127
#: Weights that are looked at together.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Storage:
    """What a layer's values are stored as.

    Attributes:
        type: of the values.
        error: the largest error of the weights of any one output, relative to them, both as Euclidean norms.
        reason: why it is not the type that was asked for, as a clause; empty if it is.
        scale: ``[M]`` float32, what the integers of each output are multiples of; None for other types.
    """

    type: ValueType = "fp32"
    error: float = 0.0
    reason: str = ""
    scale: Array | None = field(default=None, compare=False, repr=False)

    def values(self, weights: Array) -> Array:
        """Weights ``[M, K]`` as they are stored."""
        if self.scale is not None:
            weights = np.rint(weights / self.scale[:, np.newaxis])
        return np.asarray(weights, dtype=dtype(self.type), order="C")


def dtype(value_type: ValueType) -> np.dtype[Any]:
    """Of numpy's or ml_dtypes'."""
    return _DTYPES[value_type]


def unit_roundoff(value_type: ValueType) -> float:
    """The largest relative error of rounding a number to a floating-point type, far from its largest and
    smallest."""
    return float(ml_dtypes.finfo(dtype(value_type)).eps) / 2  # type: ignore[no-untyped-call]


def allowance(storages: Iterable[Storage]) -> float:
    """How far the outputs of a network may move by rounding its weights, over the largest element of each.

    An output of one layer moves by at most a unit roundoff of the sum of its terms' magnitudes; since the
    errors of the terms have either sign, in practice by less than that of the largest output. The errors of
    several layers are independent, and add up as their squares.

    Args:
        storages: of the layers of the network.
    """

    def error(stored: Storage) -> float:
        return stored.error if stored.type == "int8" else max(unit_roundoff(stored.type), stored.error)

    return math.sqrt(sum(error(stored) ** 2 for stored in storages if stored.type != "fp32"))


def storage(weights: Array, wanted: ValueType) -> Storage:
    """Decides what to store a layer's weights as.

    It is the type that is wanted, unless that has no number near some of them: beyond its largest, or so far
    below its smallest normal one that the error of an output's weights is out of proportion.

    Args:
        weights: ``[M, K]`` float32, a row for each output.
        wanted: the type that was asked for.
    """
    if wanted == "fp32":
        return Storage()
    if wanted == "int8":
        return _integers(weights)
    largest = 0.0
    for first, rows in _chunks(weights):
        with np.errstate(over="ignore"):
            rounded = rows.astype(dtype(wanted)).astype(np.float64)
        if not np.isfinite(rows).all():
            return Storage(reason="not all of its weights are finite")
        if not np.isfinite(rounded).all():
            return Storage(reason=f"a weight of {float(np.abs(rows).max()):.3g} is too large for {wanted}")
        exact = rows.astype(np.float64)
        norms = np.linalg.norm(exact, axis=1)
        errors = np.linalg.norm(rounded - exact, axis=1) / np.where(norms > 0, norms, 1.0)
        worst = int(errors.argmax())
        if errors[worst] > _MOST_ROUNDOFFS * unit_roundoff(wanted):
            return Storage(reason=f"the weights of output {first + worst} are too small for {wanted}")
        largest = max(largest, float(errors[worst]))
    return Storage(wanted, largest)


def _integers(weights: Array) -> Storage:
    """Of a layer whose weights are to be integers: the largest of each output becomes the largest integer."""
    scale = np.ones(weights.shape[0], np.float32)
    worst = 0.0
    for first, rows in _chunks(weights):
        if not np.isfinite(rows).all():
            return Storage(reason="not all of its weights are finite")
        exact = rows.astype(np.float64)
        norms = np.linalg.norm(exact, axis=1)
        steps = (np.abs(exact).max(axis=1) / _LARGEST_INTEGER).astype(np.float32)
        small = (steps < np.finfo(np.float32).tiny) & (norms > 0)
        if small.any():
            return Storage(
                reason=f"the weights of output {first + int(small.argmax())} are too small for int8"
            )
        steps = np.where(norms > 0, steps, np.float32(1))
        rounded = np.rint(exact / steps[:, np.newaxis]) * steps[:, np.newaxis]
        errors = np.linalg.norm(rounded - exact, axis=1) / np.where(norms > 0, norms, 1.0)
        if errors.max() > _MOST_INTEGER_ERROR:
            output = first + int(errors.argmax())
            return Storage(
                reason=f"the largest weight of output {output} is too far from the others for int8"
            )
        scale[first : first + len(steps)] = steps
        worst = max(worst, float(errors.max()))
    return Storage("int8", worst, scale=scale)


def _chunks(weights: Array) -> list[tuple[int, Array]]:
    """The rows of a matrix, some at a time, each time with the number of the first."""
    step = max(1, _CHUNK // max(1, weights.shape[1]))
    return [(first, weights[first : first + step]) for first in range(0, weights.shape[0], step)]
