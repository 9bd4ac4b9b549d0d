"""The exact optimal brain surgeon: groups of weights go one by one, those that cost least first.

With ``P`` the inverse of ``A`` restricted to the inputs that a row still has, taking out inputs ``Q`` costs

    Σ over the rows of the block of  w_Q · (P_QQ)⁻¹ · w_Qᵀ

and the other weights of the row take over as well as they can: ``w −= w_Q·(P_QQ)⁻¹·P_Q`` (Hassibi and Stork,
1993; for groups as in Frantar and Alistarh's Optimal Brain Compression, 2022). Rows of a block lose the same
inputs and share ``P``: with blocks of all rows, whole nodes go.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scalpel_graph.group_csr import Array, GroupShape
from scalpel_graph.pruning.importance import least_important

#: Bytes of the inverses of the row blocks that are worked on together.
_BATCH_BYTES = 2**26


@dataclass(frozen=True)
class Removal:
    """The order in which groups go.

    Attributes:
        order: ``[row blocks, groups of a row]``: columns of groups, the first to go first.
        losses: likewise: what each removal adds to the cost.
    """

    order: npt.NDArray[np.int64]
    losses: Array

    def scores(self) -> Array:
        """``[row blocks, groups of a row]``: by place, what a group costs, not less than those before it."""
        scores = np.empty_like(self.losses)
        np.put_along_axis(scores, self.order, np.maximum.accumulate(self.losses, axis=1), axis=1)
        return scores

    def drop(self, count: int) -> npt.NDArray[np.bool_]:
        """``[row blocks, groups of a row]``: the ``count`` groups of all row blocks that cost least to lose.

        Within a row block they go in their order.
        """
        climbing = np.maximum.accumulate(self.losses, axis=1)
        drop = np.zeros(climbing.shape, dtype=np.bool_)
        np.put_along_axis(drop, self.order, least_important(climbing, count), axis=1)
        return drop


def work(shape: tuple[int, int], group_shape: GroupShape) -> float:
    """How many elements of inverses `removal_order` would update."""
    (M, K), (r, c) = shape, group_shape
    return float(-(-M // r)) * -(-K // c) * K * K


def removal_order(weights: Array, inverse: Array, group_shape: GroupShape) -> Removal:
    """Finds the order in which to remove the groups of each row block.

    Args:
        weights: ``[M, K]``: the dense optimum.
        inverse: ``[K, K]``: of ``A``.
        group_shape: ``(r, c)``; the last block of rows and of columns may be smaller.
    """
    r, c = group_shape
    M, K = weights.shape
    blocks, groups = -(-M // r), -(-K // c)
    padded = np.pad(weights.astype(np.float64), ((0, -M % r), (0, -K % c))).reshape(blocks, r, groups * c)
    # Columns of padding: weights of zero that nothing is correlated with.
    P = np.eye(groups * c)
    P[:K, :K] = inverse
    batch = max(1, int(_BATCH_BYTES // P.nbytes))
    parts = [_remove(padded[start : start + batch], P, groups) for start in range(0, blocks, batch)]
    return Removal(np.concatenate([order for order, _ in parts]), np.concatenate([loss for _, loss in parts]))


def _remove(weights: Array, inverse: Array, groups: int) -> tuple[npt.NDArray[np.int64], Array]:
    """Order and losses for row blocks ``[B, r, K]``."""
    weights = weights.copy()
    B, r, K = weights.shape
    c = K // groups
    P = np.repeat(inverse[None], B, axis=0)
    order = np.empty((B, groups), dtype=np.int64)
    losses = np.empty((B, groups))
    gone = np.zeros((B, groups), dtype=np.bool_)
    blocks = np.arange(B)
    within = np.arange(c)
    for step in range(groups):
        # Of P only the c×c blocks on the diagonal matter for the choice.
        diagonal = P.reshape(B, groups, c, groups, c)[:, np.arange(groups), :, np.arange(groups)]
        diagonal = diagonal.transpose(1, 0, 2, 3)
        diagonal[gone] = np.eye(c)
        w = weights.reshape(B, r, groups, c).transpose(0, 2, 3, 1)
        loss = (np.linalg.solve(diagonal, w) * w).sum(axis=(2, 3))
        loss[gone] = np.inf
        chosen = loss.argmin(axis=1)
        order[:, step], losses[:, step] = chosen, loss[blocks, chosen]
        gone[blocks, chosen] = True
        columns = chosen[:, None] * c + within
        rows_of_p = np.take_along_axis(P, columns[:, :, None], axis=1)
        taken = np.take_along_axis(weights, columns[:, None, :], axis=2)
        factor = np.linalg.solve(diagonal[blocks, chosen], rows_of_p)
        weights -= taken @ factor
        P -= rows_of_p.transpose(0, 2, 1) @ factor
    return order, np.maximum(losses, 0)
