"""How much each node matters for what reads it: second-order, from activations.

A node is a block of columns of every layer that reads it. What it costs a layer to lose them, with its other
weights making up for it, is the optimal brain surgeon's answer for blocks of all rows (`greedy`). The costs
of several readers add up, each as a part of what that reader gives.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from onnx import ModelProto

from scalpel_graph.group_csr import Array
from scalpel_graph.pruning import greedy
from scalpel_graph.pruning.layers import WeightLayer
from scalpel_graph.pruning.nodes import Nodes
from scalpel_graph.pruning.reconstruct import by_group, moments_of_original
from scalpel_graph.pruning.samples import Samples
from scalpel_graph.pruning.weights import Weights

#: The exact order is found where it updates no more elements of the inverse than this; else nodes are scored
#: each as if it went alone.
_GREEDY_WORK = 2e9


def second_order(
    model: ModelProto,
    nodes: Nodes,
    readers: Sequence[WeightLayer],
    weights: Weights,
    samples: Samples,
    *,
    threads: int,
    done: Callable[[str], None],
) -> npt.NDArray[np.float64]:
    """``[nodes]``: what the readers lose without each.

    Args:
        model: the original.
        nodes: all.
        readers: the layers that read those that may go, in graph order.
        weights: of the model.
        samples: inputs to run it on.
        threads: of ONNX Runtime.
        done: is told the name of each layer that is finished.
    """
    scores = np.zeros(nodes.count)
    for layer, moments in moments_of_original(model, readers, weights.matrix, samples, threads=threads):
        numbers = nodes.read[layer.name]
        cost = moments.cost(by_group(layer, weights.matrix(layer)))
        for group in range(layer.group):
            losses = column_losses(cost.original[group], cost.A[group], numbers.shape[1])
            known = numbers[group] >= 0
            np.add.at(scores, numbers[group][known], losses[known] / max(cost.energy, 1e-30))
        done(layer.name)
    return scores


def column_losses(weights: Array, A: Array, channels: int) -> npt.NDArray[np.float64]:
    """``[channels]``: what it costs to lose each input channel.

    Args:
        weights: ``[M, K]``, the optimum.
        A: ``[K, K]``.
        channels: blocks of ``K / channels`` columns.
    """
    K = weights.shape[1]
    width = K // channels
    inverse = np.linalg.inv(A)
    if greedy.work((1, K), (1, width)) <= _GREEDY_WORK:
        return np.asarray(greedy.removal_order(weights, inverse, (len(weights), width)).scores()[0])
    places = np.arange(channels)
    blocks = inverse.reshape(channels, width, channels, width)[places, :, places]
    w = weights.reshape(-1, channels, width).transpose(1, 2, 0)
    return np.asarray((np.linalg.solve(blocks, w) * w).sum(axis=(1, 2)), dtype=np.float64)
