"""How far the answers of a network are from those of another, over many inputs."""

from dataclasses import dataclass

import numpy as np

from scalpel_graph.group_csr import Array


@dataclass
class Tally:
    """Differences of answers, batch by batch. Indices (of ArgMax) are right or wrong.

    Attributes:
        largest: difference of any element.
        highest: magnitude of any element that was wanted.
        total: number of answers.
    """

    error: float = 0.0
    norm: float = 0.0
    largest: float = 0.0
    highest: float = 0.0
    same: int = 0
    total: int = 0
    has_classes: bool = True

    def add(self, wanted: Array, got: Array) -> None:
        """Counts a batch: what was wanted, and what came instead."""
        self.total += len(wanted)
        if wanted.dtype.kind == "i":
            right = int((wanted == got).sum())
            self.same += right
            self.error += len(wanted) - right
            self.norm += len(wanted)
            return
        reference = wanted.astype(np.float64)
        self.error += float(np.square(reference - got).sum())
        self.norm += float(np.square(reference).sum())
        self.largest = max(self.largest, float(np.abs(reference - got).max()))
        self.highest = max(self.highest, float(np.abs(reference).max()))
        self.has_classes = wanted.ndim == 2 and wanted.shape[1] > 1
        if self.has_classes:
            self.same += int((wanted.argmax(axis=1) == got.argmax(axis=1)).sum())

    @property
    def relative_error(self) -> float:
        """Norm of the difference over the norm of what was wanted."""
        return float(np.sqrt(self.error / self.norm if self.norm else self.error))

    @property
    def same_class(self) -> float | None:
        """Fraction of answers whose largest element is at the same place; None where they are no vectors."""
        return self.same / self.total if self.has_classes else None
