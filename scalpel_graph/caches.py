"""The processor's caches: how large the last one is, and how to empty them."""

from pathlib import Path

import numpy as np

#: Size of the last cache where the system does not say.
_USUAL_BYTES = 1 << 25
_UNITS = {"K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def last_cache_bytes() -> int:
    """Bytes of the largest cache of the first core, as Linux says; else a usual size."""
    sizes = []
    for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size"):
        text = path.read_text(encoding="ascii").strip()
        sizes.append(int(text.rstrip("KMG")) * _UNITS.get(text[-1:], 1))
    return max(sizes, default=_USUAL_BYTES)


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
