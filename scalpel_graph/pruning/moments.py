"""Second moments of what goes into a layer and what it should give: all that a fit needs of the data."""

import numpy as np

from scalpel_graph.group_csr import Array
from scalpel_graph.pruning.quadratic import Quadratic

#: Layers with more inputs than this are summed and solved in float32.
_DOUBLE_INPUTS = 1024

#: λ as a fraction of the mean second moment of the inputs.
DAMPING = 0.01


class Moments:
    """Sums over all rows of inputs ``x`` and outputs ``y`` of a layer.

    Attributes:
        rows: how many rows were added.

    Args:
        groups: groups of a Conv; 1 for others.
        outputs: ``M / groups``.
        inputs: ``K``.
        centred: whether a bias takes care of the means.
    """

    def __init__(self, groups: int, outputs: int, inputs: int, *, centred: bool) -> None:
        self.dtype: type[np.floating] = np.float64 if inputs <= _DOUBLE_INPUTS else np.float32
        self.rows = 0
        self.centred = centred
        self._xx: Array = np.zeros((groups, inputs, inputs), self.dtype)
        self._yx: Array = np.zeros((groups, outputs, inputs), self.dtype)
        self._x: Array = np.zeros((groups, 1, inputs))
        self._y: Array = np.zeros((groups, 1, outputs))
        self._yy = 0.0
        # Sums are taken of differences from numbers near the means, where that is possible without loss.
        self._near_x, self._near_y = np.zeros_like(self._x), np.zeros_like(self._y)

    def add(self, x: Array, y: Array) -> None:
        """Adds rows.

        Args:
            x: ``[groups, rows, inputs]``.
            y: ``[groups, rows, outputs]``.
        """
        if self.centred and not self.rows:
            self._near_x = x.mean(axis=1, keepdims=True, dtype=np.float64)
            self._near_y = y.mean(axis=1, keepdims=True, dtype=np.float64)
        x = (x - self._near_x).astype(self.dtype)
        y = (y - self._near_y).astype(self.dtype)
        self.rows += x.shape[1]
        transposed = x.transpose(0, 2, 1)
        self._xx += transposed @ x
        self._yx += y.transpose(0, 2, 1) @ x
        self._x += x.sum(axis=1, keepdims=True, dtype=np.float64)
        self._y += y.sum(axis=1, keepdims=True, dtype=np.float64)
        self._yy += float(np.vdot(y, y))

    def cost(self, weights: Array, damping: float = DAMPING) -> Quadratic:
        """The cost function of the layer; the sums are gone afterwards.

        Args:
            weights: ``[groups, outputs, inputs]``: what the layer has now.
            damping: see `Quadratic.of`.
        """
        energy = self._yy
        H, C = self._xx, self._yx
        del self._xx, self._yx
        if self.centred:
            n = max(self.rows, 1)
            x: Array = (self._x / n).astype(self.dtype)
            y: Array = (self._y / n).astype(self.dtype)
            H -= n * (x.transpose(0, 2, 1) @ x)
            C -= n * (y.transpose(0, 2, 1) @ x)
            energy -= float(n * (self._y / n).ravel() @ (self._y / n).ravel())
        return Quadratic.of(H, C, weights, max(energy, 0.0), damping)

    def bias(self, weights: Array) -> Array:
        """``[groups · outputs]``: what has to be added to ``W·x`` to meet the mean of ``y``.

        Args:
            weights: ``[groups, outputs, inputs]``.
        """
        n = max(self.rows, 1)
        x, y = self._near_x + self._x / n, self._near_y + self._y / n
        return np.asarray((y - x @ weights.transpose(0, 2, 1)).reshape(-1))
