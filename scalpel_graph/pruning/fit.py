"""Prunes one layer by its cost function: chooses the weights that go, and has the others make up for them."""

from dataclasses import dataclass

import numpy as np

from scalpel_graph.group_csr import Array
from scalpel_graph.pruning import greedy
from scalpel_graph.pruning.admm import choose_by_admm
from scalpel_graph.pruning.importance import Importance, count_of, expand
from scalpel_graph.pruning.masked_fit import masked_fit
from scalpel_graph.pruning.quadratic import Quadratic
from scalpel_graph.pruning.structure import Groups, Mask, Structure

#: The exact order of removal is found where it updates no more elements of inverses than this: seconds.
GREEDY_WORK = 5e8


@dataclass(frozen=True)
class Without:
    """A structure in which some weights are gone already; they count as the first to go.

    Attributes:
        structure: the structure; None where nothing else goes.
        dead: ``[M, K]``.
    """

    structure: Structure | None
    dead: Mask

    def drop(self, weights: Array, sparsity: float, importance: Importance = "rms") -> Mask:
        """See `Groups.drop`."""
        if self.structure is None:
            return self.dead
        kept = np.where(self.dead, weights.dtype.type(0), weights)
        return np.asarray(self.structure.drop(kept, sparsity, importance) | self.dead)


@dataclass(frozen=True)
class Fitted:
    """The weights that a layer is left with.

    Attributes:
        weights: ``[M, K]``, zeros where weights went.
        error: part of the layer's output, by its squares, that they do not give.
    """

    weights: Array
    error: float


def prune_by_cost(
    cost: Quadratic, structure: Structure | None, sparsity: float, dead: Mask | None = None
) -> Fitted:
    """Prunes a layer at the least cost that is found.

    Args:
        cost: the cost function of its weights.
        structure: the shape of the zeros; None where only ``dead`` weights go.
        sparsity: fraction of what has that shape that goes.
        dead: ``[M, K]``: weights that go in any case.
    """
    optimum = cost.optimum()
    gone = np.zeros(cost.shape, dtype=np.bool_) if dead is None else dead
    within = Without(structure, gone)
    choices = [choose_by_admm(cost, optimum, within, sparsity) if structure else gone]
    if dead is None and isinstance(structure, Groups) and _is_small(cost, structure):
        choices.append(_choose_greedily(cost, optimum, structure, sparsity))
    best: Fitted | None = None
    for choice in choices:
        drop = choice.reshape(optimum.shape)
        weights = masked_fit(cost, np.where(drop, 0, optimum), drop)
        error = cost.relative_error(weights)
        if best is None or error < best.error:
            best = Fitted(cost.unscaled(weights), error)
    assert best is not None
    return best


def _is_small(cost: Quadratic, structure: Groups) -> bool:
    return structure.order.places == 1 and greedy.work(cost.shape, structure.shape) <= GREEDY_WORK


def _choose_greedily(cost: Quadratic, optimum: Array, structure: Groups, sparsity: float) -> Mask:
    orders = [
        greedy.removal_order(weights, np.linalg.inv(A), structure.shape)
        for weights, A in zip(optimum, cost.A, strict=True)
    ]
    together = greedy.Removal(
        np.concatenate([order.order for order in orders]), np.concatenate([order.losses for order in orders])
    )
    drop = together.drop(count_of(together.losses.size, sparsity))
    per_group = np.split(drop, len(orders))
    rows = optimum.shape[1:]
    return np.stack([expand(part, structure.shape, rows) for part in per_group])
