"""How the error of a layer grows with its sparsity, estimated before anything is chosen."""

from collections.abc import Sequence

import numpy as np

from scalpel_graph.group_csr import Array, GroupShape
from scalpel_graph.pruning.importance import group_importance
from scalpel_graph.pruning.masked_fit import masked_fit
from scalpel_graph.pruning.quadratic import Quadratic
from scalpel_graph.pruning.structure import Groups

#: Densities at which errors are found by a fit; between them their logarithms are interpolated.
_ANCHORS = (0.6, 0.35, 0.2, 0.1, 0.04, 0.015)
#: Iterations of such a fit, and rows of a layer that it looks at (a multiple of the largest row block).
_ITERATIONS = 8
_ROWS = 128
#: What is taken for an error of nothing, where its logarithm is needed.
_TINY = 1e-12


def by_magnitude(weights: Array, group_shape: GroupShape, densities: Sequence[float]) -> list[float]:
    """The part of the weights, by their squares, that goes where the least important groups go.

    Args:
        weights: ``[M, K]``.
        group_shape: ``(r, c)``.
        densities: parts of the groups that stay.
    """
    squares = np.sort((group_importance(weights, group_shape) ** 2).ravel())
    lost = np.concatenate([[0.0], np.cumsum(squares)])
    total = max(lost[-1], _TINY)
    return [float(lost[round((1 - density) * len(squares))] / total) for density in densities]


def by_fit(cost: Quadratic, group_shape: GroupShape, densities: Sequence[float]) -> list[float]:
    """The part of a layer's output that it does not give with the weights that stay fitted.

    Args:
        cost: of the layer's weights.
        group_shape: ``(r, c)``.
        densities: parts of the groups that stay.
    """
    part = cost.some_rows(_ROWS)
    anchors = []
    for density in _ANCHORS:
        drop = Groups(group_shape).drop(part.original.reshape(part.shape), 1 - density)
        drop = drop.reshape(part.original.shape)
        weights = masked_fit(part, part.original, drop, _ITERATIONS)
        anchors.append(np.log(max(part.relative_error(weights), _TINY)))
    # Nothing is lost where nothing goes, and all where all goes.
    return [
        float(np.exp(np.interp(density, [0, *reversed(_ANCHORS)], [0.0, *reversed(anchors)])))
        if density <= _ANCHORS[0]
        else float(np.exp(anchors[0]) * (1 - density) / (1 - _ANCHORS[0]))
        for density in densities
    ]
