"""The best weights of a given sparsity pattern: least squares by conjugate gradients, all outputs at once.

Each row is a problem of its own, restricted to the weights that it keeps; one product with the common matrix
serves all rows. Every iteration lowers the cost of every row (Hestenes and Stiefel, 1952).
"""

import numpy as np

from scalpel_graph.group_csr import Array
from scalpel_graph.pruning.quadratic import Quadratic
from scalpel_graph.pruning.structure import Mask

#: Iterations at most, and the residual, against the first, at which a row is done.
ITERATIONS = 50
_TOLERANCE = 1e-4


def masked_fit(cost: Quadratic, start: Array, drop: Mask, iterations: int = ITERATIONS) -> Array:
    """Minimizes a cost over the weights that are kept.

    Args:
        cost: the cost function.
        start: ``[G, M / G, K]``: where to start.
        drop: ``[G, M / G, K]``: which weights are zero.
        iterations: at most.
    """
    keep = (~drop).astype(cost.A.dtype)
    weights: Array = start * keep
    residual = (cost.B - weights @ cost.A) * keep
    direction = residual.copy()
    size = (residual * residual).sum(axis=-1, keepdims=True)
    enough = size * _TOLERANCE**2
    for _ in range(iterations):
        open_ = size > enough
        if not open_.any():
            break
        product = (direction @ cost.A) * keep
        curvature = (direction * product).sum(axis=-1, keepdims=True)
        open_ &= curvature > 0
        step = np.where(open_, size / np.where(open_, curvature, 1), 0)
        weights += step * direction
        residual -= step * product
        after = (residual * residual).sum(axis=-1, keepdims=True)
        direction *= np.where(open_, after / np.where(open_, size, 1), 0)
        direction += residual
        size = np.where(open_, after, 0)
    return weights
