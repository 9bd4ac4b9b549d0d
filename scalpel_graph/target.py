"""Target profiles: what the cost model knows of a kind of hardware."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Target:
    """One hardware profile."""

    name: str
