"""What the values of a sparse layer can be stored as: float32, or 16 bits that are widened when used."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

import ml_dtypes
import numpy as np

from scalpel_graph.group_csr import Array

ValueType = Literal["fp32", "fp16", "bf16"]
VALUE_TYPES: tuple[ValueType, ...] = get_args(ValueType)

_DTYPES: dict[ValueType, np.dtype[Any]] = {
    "fp32": np.dtype(np.float32),
    "fp16": np.dtype(np.float16),
    "bf16": np.dtype(ml_dtypes.bfloat16),
}
#: Of the error of an output's weights; it is 1 at most if none of them is below the smallest normal number.
_MOST_ROUNDOFFS = 4
#: Weights that are looked at together.
_CHUNK = 1 << 20


@dataclass(frozen=True)
class Storage:
    """What a layer's values are stored as.

    Attributes:
        type: of the values.
        error: the largest error of the weights of any one output, relative to them, both as Euclidean norms.
        reason: why it is not the type that was asked for, as a clause; empty if it is.
    """

    type: ValueType = "fp32"
    error: float = 0.0
    reason: str = ""


def dtype(value_type: ValueType) -> np.dtype[Any]:
    """Of numpy's or ml_dtypes'."""
    return _DTYPES[value_type]


def unit_roundoff(value_type: ValueType) -> float:
    """The largest relative error of rounding a number to the type, far from its largest and smallest."""
    return float(ml_dtypes.finfo(dtype(value_type)).eps) / 2  # type: ignore[no-untyped-call]


def allowance(storages: Iterable[Storage]) -> float:
    """How far the outputs of a network may move by rounding its weights, over the largest element of each.

    An output of one layer moves by at most a unit roundoff of the sum of its terms' magnitudes; since the
    errors of the terms have either sign, in practice by less than that of the largest output. The errors of
    several layers are independent, and add up as their squares.

    Args:
        storages: of the layers of the network.
    """
    return math.sqrt(sum(max(unit_roundoff(s.type), s.error) ** 2 for s in storages if s.type != "fp32"))


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


def _chunks(weights: Array) -> list[tuple[int, Array]]:
    """The rows of a matrix, some at a time, each time with the number of the first."""
    step = max(1, _CHUNK // max(1, weights.shape[1]))
    return [(first, weights[first : first + step]) for first in range(0, weights.shape[0], step)]
