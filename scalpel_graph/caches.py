"""The processor's caches: which there are, and how to empty them."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

#: Size of the last cache where the system does not say.
_USUAL_BYTES = 1 << 25
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_FIRST_CORE = Path("/sys/devices/system/cpu/cpu0/cache")


@dataclass(frozen=True)
class Cache:
    """One cache that holds data.

    Attributes:
        level: 1 is next to the core.
        size: bytes.
        sharers: logical processors that use the same one.
    """

    level: int
    size: int
    sharers: int

    def share(self, threads: int, processors: int) -> int:
        """Bytes for each of ``threads`` that run on different ones of ``processors``, as evenly as can be."""
        return self.size * min(threads, max(1, processors // self.sharers)) // threads


def data_caches(folder: Path = _FIRST_CORE) -> list[Cache]:
    """The data caches of the first core, smallest first, as Linux says; none where it does not."""
    caches = []
    for index in folder.glob("index*"):
        facts = {
            name: (index / name).read_text(encoding="ascii").strip()
            for name in ("level", "type", "size", "shared_cpu_list")
            if (index / name).exists()
        }
        if len(facts) == 4 and facts["type"] != "Instruction":
            size = int(facts["size"].rstrip("KMG")) * _UNITS.get(facts["size"][-1:], 1)
            caches.append(Cache(int(facts["level"]), size, _count(facts["shared_cpu_list"])))
    return sorted(caches, key=lambda cache: cache.level)


def last_cache_bytes() -> int:
    """Bytes of the largest cache of the first core, as Linux says; else a usual size."""
    return max((cache.size for cache in data_caches()), default=_USUAL_BYTES)


def _count(processors: str) -> int:
    """How many a list such as ``0-3,8`` names."""
    ranges = (part.partition("-") for part in processors.split(","))
    return sum(int(last or first) - int(first) + 1 for first, _, last in ranges)


class Sweeper:
    """Drives everything out of the caches by going over more memory than they hold."""

    def __init__(self) -> None:
        self._elsewhere = np.zeros(2 * last_cache_bytes() // 4, dtype=np.float32)

    @property
    def nbytes(self) -> int:
        """Bytes that it goes over."""
        return self._elsewhere.nbytes

    def sweep(self) -> None:
        """Does it."""
        self._elsewhere += 1
