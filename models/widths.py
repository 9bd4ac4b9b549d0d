"""Widths of a network's layers: what they usually are, but for those that are given."""

from collections.abc import Mapping


class Widths:
    """Looks up output channels by name.

    Args:
        given: widths that differ from the usual ones.
    """

    def __init__(self, given: Mapping[str, int] | None) -> None:
        self._given = dict(given or {})
        self._known: set[str] = set()

    def __call__(self, name: str, usual: int) -> int:
        """The width of ``name``."""
        self._known.add(name)
        return self._given.get(name, usual)

    def finish(self) -> None:
        """Refuses names nobody asked for.

        Raises:
            ValueError: there is one.
        """
        unknown = sorted(self._given.keys() - self._known)
        if unknown:
            known = ", ".join(sorted(self._known))
            raise ValueError(f"no layers are called {', '.join(unknown)}: choose from {known}")
