"""Which weights go together: the shapes that zeros can come in, and which of them go first."""

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scalpel_graph import group_csr
from scalpel_graph.channels_last import AS_GIVEN, ChannelsLast
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array, GroupShape
from scalpel_graph.pruning.importance import (
    Importance,
    count_of,
    expand,
    group_importance,
    least_important,
)
from scalpel_graph.pruning.layers import WeightLayer

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Groups:
    """Aligned groups of a matrix ``W[M, K]``, as group-CSR stores them.

    Attributes:
        shape: ``(r, c)``; ``(1, 1)`` is single weights.
        order: of the columns that they are cut from.
    """

    shape: GroupShape
    order: ChannelsLast = AS_GIVEN

    def __str__(self) -> str:
        return f"{self.shape[0]}x{self.shape[1]}"

    def drop(self, weights: Array, sparsity: float, importance: Importance = "rms") -> Mask:
        """Which weights go: ``floor(sparsity · n)`` of ``n`` groups, least important ones first.

        Args:
            weights: ``[M, K]``.
            sparsity: fraction of groups that go, in [0, 1].
            importance: see `scalpel_graph.pruning.importance`.
        """
        matrix = self.ordered(weights)
        scores = group_importance(matrix, self.shape, importance)
        drop = least_important(scores, count_of(scores.size, sparsity))
        columns = self.order.columns(weights.shape[1], self.shape[1])
        mask = np.zeros(weights.shape, np.bool_)
        mask[:, columns[columns >= 0]] = expand(drop, self.shape, matrix.shape)[:, columns >= 0]
        return mask

    def density(self, weights: Array) -> float:
        """Fraction of the groups of ``[M, K]`` with a weight that is not zero."""
        return group_csr.density(self.ordered(weights), self.shape)

    def ordered(self, weights: Array) -> Array:
        """``[M, K]`` in the order of the groups, with columns of zeros where that order is filled up."""
        columns = self.order.columns(weights.shape[1], self.shape[1])
        padded = np.pad(weights, ((0, 0), (0, 1)))
        return np.asarray(padded[:, columns])


@dataclass(frozen=True)
class NofM:
    """At most ``n`` of ``m`` consecutive inputs of an output: what sparse tensor cores multiply.

    The inputs are counted as the hardware does: features, or input channels of a Conv at one place of its
    kernel. Those that are left over at the end, fewer than ``m``, may also be ``n``.

    Attributes:
        n, m: at least 1 and less than ``m``.
        positions: places of the kernel.
    """

    n: int
    m: int
    positions: int = 1

    def __str__(self) -> str:
        return f"{self.n}:{self.m}"

    @property
    def sparsity(self) -> float:
        """The fraction of weights that go."""
        return 1 - self.n / self.m

    def of(self, layer: WeightLayer) -> "NofM":
        """The same, for the kernel of a layer."""
        return NofM(self.n, self.m, int(np.prod(layer.weight_shape[2:])) if layer.op == "Conv" else 1)

    def drop(self, weights: Array, sparsity: float = 0.0, importance: Importance = "rms") -> Mask:
        """Which weights go: in each ``m``, all but the ``n`` largest. Neither option makes a difference."""
        M, K = weights.shape
        channels = K // self.positions
        magnitudes = np.abs(weights.astype(np.float64)).reshape(M, channels, self.positions)
        # What is not there is smaller than anything.
        padded = np.pad(magnitudes, ((0, 0), (0, -channels % self.m), (0, 0)), constant_values=-1)
        parts = padded.reshape(M, -1, self.m, self.positions)
        order = np.argsort(-parts, axis=2, kind="stable")
        drop = np.zeros(parts.shape, dtype=np.bool_)
        np.put_along_axis(drop, order[:, :, self.n :], True, axis=2)
        return np.asarray(drop.reshape(padded.shape)[:, :channels].reshape(M, K))


Structure = Groups | NofM


def parse_n_of_m(text: str) -> NofM:
    """``NofM(2, 4)`` from ``2:4``.

    Raises:
        InputError: it is not two whole numbers, the first at least 1 and less than the second.
    """
    match = re.fullmatch(r"(\d+):(\d+)", text)
    if match is None or not 1 <= int(match[1]) < int(match[2]):
        raise InputError(f"n:m must be two whole numbers, the first smaller, such as 2:4, got {text!r}")
    return NofM(int(match[1]), int(match[2]))
