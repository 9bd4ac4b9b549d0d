"""Options that are one number for all layers, or one for each layer that a pattern names."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TypeVar

from scalpel_graph.errors import InputError
from scalpel_graph.pruning.selection import check_pattern, matches

T = TypeVar("T")


def per_layer(value: T | Mapping[str, T], names: Sequence[str], what: str) -> dict[str, T]:
    """The value of each layer.

    Args:
        value: one for all, or one for each pattern; of several patterns that match, the last wins, and layers
            that none matches are left out.
        names: of the layers.
        what: they are called in the message.

    Raises:
        InputError: a pattern matches no layer.
    """
    if not isinstance(value, Mapping):
        return dict.fromkeys(names, value)
    for pattern in value:
        check_pattern(pattern, names, what)
    found = {}
    for name in names:
        for pattern, of_pattern in value.items():
            if matches(name, [pattern]):
                found[name] = of_pattern
    return found


def check_fractions(fractions: Iterable[float], what: str) -> None:
    """Makes sure that all are between 0 and 1.

    Raises:
        InputError: one is not.
    """
    for fraction in fractions:
        if not 0 <= fraction <= 1:
            raise InputError(f"{what} must be between 0 and 1, got {fraction}")
