"""What pruning a layer costs: a quadratic function of its weights.

With inputs ``x`` (of the network pruned so far) and outputs ``y`` (of the original), both less their means,
the squared error of weights ``W`` is

    Σ |y − W·x|² = |y|² − 2·⟨W, C⟩ + ⟨W·H, W⟩    with H = Σ x·xᵀ and C = Σ y·xᵀ.

``λ·|W − W₀|²`` is added (damping), which keeps weights that the data says nothing about where they were.
With ``A = H + λ·I`` and ``B = C + λ·W₀`` the dense optimum is ``B·A⁻¹``: the original weights if the inputs
are the original's, and otherwise weights that make up for what went before.

The layers of a Conv's groups are separate problems: all arrays have a leading axis for them.
"""

from dataclasses import dataclass

import numpy as np

from scalpel_graph.group_csr import Array


@dataclass(frozen=True)
class Quadratic:
    """The cost of the weights of one layer, with coordinates scaled so that ``A`` has a diagonal of ones.

    In these coordinates a weight counts as much as the output that it makes.

    Attributes:
        A: ``[G, K, K]``.
        B: ``[G, M / G, K]``.
        original: ``[G, M / G, K]``: ``W₀``.
        scale: ``[G, 1, K]``: what weights are multiplied by to get these coordinates.
        damping: ``[G]``: λ, in the unscaled coordinates.
        energy: ``|y|²``.
    """

    A: Array
    B: Array
    original: Array
    scale: Array
    damping: Array
    energy: float

    @classmethod
    def of(cls, H: Array, C: Array, weights: Array, energy: float, damping: float) -> "Quadratic":
        """The cost function of a layer.

        Args:
            H: ``[G, K, K]``, symmetric; is overwritten.
            C: ``[G, M / G, K]``.
            weights: ``[G, M / G, K]``: ``W₀``.
            energy: ``|y|²``.
            damping: λ as a fraction of the mean of H's diagonal.
        """
        diagonal = np.einsum("gkk->gk", H)
        amount = damping * np.maximum(diagonal.mean(axis=1), 0)
        amount = np.where(amount > 0, amount, 1.0).astype(H.dtype)
        original = weights.astype(H.dtype)
        scale = np.sqrt(diagonal + amount[:, None])[:, None, :]
        B = (C + amount[:, None, None] * original) / scale
        diagonal += amount[:, None]
        H /= scale
        H /= scale.transpose(0, 2, 1)
        return cls(H, B, original * scale, scale, amount, energy)

    @property
    def shape(self) -> tuple[int, int]:
        """``(M, K)`` of the layer."""
        groups, rows, K = self.B.shape
        return groups * rows, K

    def optimum(self) -> Array:
        """The dense weights that cost least."""
        return np.linalg.solve(self.A, self.B.transpose(0, 2, 1)).transpose(0, 2, 1)

    def some_rows(self, count: int) -> "Quadratic":
        """The cost of some outputs of each group, in runs of 16, as an estimate of that of all."""
        rows = self.B.shape[1]
        if rows <= count:
            return self
        starts = np.linspace(0, rows - 16, count // 16).astype(np.int64)
        chosen = np.unique(starts[:, None] + np.arange(16))
        # Of what the outputs are there is only the sum: what the original weights give stands for it.
        original, B = self.original[:, chosen], self.B[:, chosen]
        damped = np.vdot(original @ self.A, original)
        start = original / self.scale
        energy = float(damped) - float((self.damping[:, None, None] * start**2).sum(dtype=np.float64))
        return Quadratic(self.A, B, original, self.scale, self.damping, max(energy, 0.0))

    def unscaled(self, weights: Array) -> Array:
        """``[M, K]`` in the layer's own coordinates."""
        return np.asarray((weights / self.scale).reshape(self.shape))

    def relative_error(self, weights: Array) -> float:
        """``Σ |y − W·x|² / Σ |y|²`` of weights ``[G, M / G, K]``, damping not counted."""
        damped = np.vdot(weights @ self.A - 2 * self.B, weights).astype(np.float64)
        pulls = self.damping[:, None, None] * (self.unscaled_groups(weights) ** 2)
        start = self.original / self.scale
        cross = 2 * self.damping[:, None, None] * self.unscaled_groups(weights) * start
        cost = float(damped) - float((pulls - cross).sum(dtype=np.float64)) + self.energy
        return max(cost, 0.0) / self.energy if self.energy > 0 else 0.0

    def unscaled_groups(self, weights: Array) -> Array:
        """``[G, M / G, K]`` in the layer's own coordinates."""
        return np.asarray(weights / self.scale)
