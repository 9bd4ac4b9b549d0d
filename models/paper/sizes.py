"""How large a pruned network is in the paper's form, and what is left of it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx

from models.paper.onnx_files import arrays_of, weights_of
from scalpel_graph import group_csr
from scalpel_graph.pruning.structure import Groups


@dataclass(frozen=True)
class Size:
    """What is stored of a network's weights, biases apart.

    Attributes:
        weights: of the dense network.
        kept: that are not zero.
        original_bytes: of the dense weights.
        bytes: of all weight matrices as they are stored: those with groups as group-CSR (A', IA' and JA'),
            the others dense.
    """

    weights: int
    kept: int
    original_bytes: int
    bytes: int

    @property
    def share(self) -> float:
        """Of the original."""
        return self.bytes / self.original_bytes


def measure(
    original: onnx.ModelProto, removed: onnx.ModelProto, groups: Mapping[str, Groups], weight_bytes: int
) -> Size:
    """Counts.

    Args:
        original: the dense network.
        removed: the pruned one without its dead nodes.
        groups: of each layer that has them.
        weight_bytes: of one weight: 2 on the microcontroller, else 4.
    """
    stored = kept = 0
    arrays = arrays_of(removed)
    names = {layer.name for layer in weights_of(original)}
    for layer in weights_of(removed):
        if layer.name not in names:  # a rewrite's own, such as a normalization written as a convolution
            continue
        matrix = layer.matrix(arrays[layer.weight])
        kept += int(np.count_nonzero(matrix))
        if layer.name in groups:
            own = groups[layer.name]
            n_groups = group_csr.encode(own.ordered(matrix), own.shape).n_groups
            stored += group_csr.encoded_bytes(layer.shape, own.shape, n_groups, weight_bytes)
        else:
            stored += matrix.size * weight_bytes
    total = sum(layer.shape[0] * layer.shape[1] for layer in weights_of(original))
    return Size(weights=total, kept=kept, original_bytes=total * weight_bytes, bytes=stored)


def fewer_nodes(original: onnx.ModelProto, removed: onnx.ModelProto) -> dict[str, tuple[int, int]]:
    """By layer, how many nodes there were and how many there are, where that differs."""
    after = {layer.name: layer.shape[0] for layer in weights_of(removed)}
    found = {layer.name: (layer.shape[0], after[layer.name]) for layer in weights_of(original)}
    return {name: (before, left) for name, (before, left) in found.items() if left < before}
