"""Which weights of a large layer to keep: alternating directions (ADMM).

Two copies of the weights, a dense one that minimizes the cost and a sparse one, pull each other together ever
harder until they agree on which weights are zero (Boyd et al., 2011, section 9.1; for pruning layer by layer
Meng et al., ALPS, 2024). One product with a ``K×K`` matrix serves all rows, and weights compete with those of
all other rows and columns for the places there are.
"""

from typing import Protocol

import numpy as np

from scalpel_graph.group_csr import Array
from scalpel_graph.pruning.quadratic import Quadratic
from scalpel_graph.pruning.structure import Mask

#: How hard the copies pull each other (in units of A's diagonal), and iterations for each. Each takes an
#: inverse, so there are fewer for many inputs, at an error that is one or two percent larger.
_FEW_INPUTS = 2048
_FINE = ((0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2), 6)
_COARSE = ((0.1, 0.3, 0.9, 2.7), 8)


class Droppable(Protocol):
    """A structure: `Groups`, `NofM`, or one of them with more to it."""

    def drop(self, weights: Array, sparsity: float) -> Mask:
        """Which weights ``[M, K]`` go."""


def choose_by_admm(cost: Quadratic, optimum: Array, structure: Droppable, sparsity: float) -> Mask:
    """Chooses the weights that go.

    Args:
        cost: the cost function of the layer.
        optimum: ``[G, M / G, K]``: the dense weights that cost least.
        structure: the shape of the zeros.
        sparsity: the fraction that goes.

    Returns:
        ``[G, M / G, K]``.
    """
    shape = optimum.shape

    def dropped(weights: Array) -> Mask:
        return np.asarray(structure.drop(weights.reshape(cost.shape), sparsity).reshape(shape))

    drop = dropped(optimum)
    sparse = np.where(drop, 0, optimum)
    dual = np.zeros_like(optimum)
    penalties, iterations = _FINE if cost.A.shape[-1] <= _FEW_INPUTS else _COARSE
    for penalty in penalties:
        damped = cost.A.copy()
        np.einsum("gkk->gk", damped)[...] += penalty
        inverse = np.linalg.inv(damped)
        before = drop
        for _ in range(iterations):
            dense = (cost.B + penalty * sparse - dual) @ inverse
            pulled = dense + dual / penalty
            drop = dropped(pulled)
            sparse = np.where(drop, 0, pulled)
            dual += penalty * (dense - sparse)
        if np.array_equal(before, drop):
            break
    return drop
