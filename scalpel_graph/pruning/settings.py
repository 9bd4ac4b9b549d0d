"""What can be asked of each layer, checked."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning.group_shape import parse_group_shape
from scalpel_graph.pruning.importance import IMPORTANCES, Importance
from scalpel_graph.pruning.selection import did_you_mean
from scalpel_graph.pruning.structure import parse_n_of_m

#: Ways to prune, beside ``n:m`` with two numbers; ``auto`` is the target's own, ``none`` leaves layers alone.
METHODS = ("auto", "magnitude", "optimized", "group", "node", "combined", "obs", "none")


@dataclass(frozen=True)
class Settings:
    """How to prune a layer.

    Attributes:
        method: one of `METHODS`, or ``n:m`` such as ``2:4``.
        sparsity: fraction of its weights, or groups of weights, that go; None where that is chosen.
        nodes: fraction of its nodes (neurons, channels) that go; None where that follows from the sparsity.
        group_shape: ``(r, c)``; None for the one that suits the layer.
        importance: what groups are compared by where nothing is known of the inputs.
    """

    method: str = "auto"
    sparsity: float | None = None
    nodes: float | None = None
    group_shape: GroupShape | None = None
    importance: Importance = "rms"

    def changed(self, values: Mapping[str, Any], place: str = "") -> "Settings":
        """A copy with other values, as options or a recipe give them.

        Args:
            values: by name; group shapes also as text.
            place: what to put in front of a message about one.

        Raises:
            InputError: an unknown name or an unusable value.
        """
        checked: dict[str, Any] = {}
        for name, value in values.items():
            if name not in _CHECKS:
                hint = did_you_mean(name, _CHECKS) or f"choose from {', '.join(_CHECKS)}"
                raise InputError(f"{place}{name!r} is not a known key: {hint}")
            try:
                checked[name] = _CHECKS[name](value)
            except InputError as error:
                raise InputError(f"{place}{error}") from error
        return dataclasses.replace(self, **checked)


def check_fraction(value: Any, name: str) -> float:
    """A number from 0 up to, and without, 1.

    Raises:
        InputError: it is not.
    """
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value) or not 0 <= value < 1:
        raise InputError(f"{name} must be at least 0 and less than 1, got {value!r}")
    return float(value)


def _method(value: Any) -> str:
    if isinstance(value, str) and ":" in value:
        return str(parse_n_of_m(value))
    if value is None:  # a YAML file's null
        return "none"
    if value not in METHODS:
        hint = did_you_mean(str(value), METHODS)
        raise InputError(f"method {value!r}: {hint or 'choose from ' + ', '.join(METHODS) + ' or n:m'}")
    return str(value)


def _group_shape(value: Any) -> GroupShape | None:
    if value is None or value == "auto":
        return None
    if isinstance(value, str):
        return parse_group_shape(value)
    numbers = value if isinstance(value, list | tuple) else ()
    if len(numbers) != 2 or any(not isinstance(n, int) or isinstance(n, bool) or n < 1 for n in numbers):
        raise InputError(f"group shape must be two positive numbers such as 4x1, or auto, got {value!r}")
    return numbers[0], numbers[1]


def _importance(value: Any) -> Importance:
    for known in IMPORTANCES:
        if value == known:
            return known
    raise InputError(f"importance must be one of {', '.join(IMPORTANCES)}, got {value!r}")


_CHECKS = {
    "method": _method,
    "sparsity": lambda value: check_fraction(value, "sparsity"),
    "nodes": lambda value: check_fraction(value, "nodes"),
    "group_shape": _group_shape,
    "importance": _importance,
}
