"""Pruning: deciding which weights a network can do without. It only ever writes zeros."""

from scalpel_graph.pruning.group_shape import parse_group_shape
from scalpel_graph.pruning.importance import IMPORTANCES, Importance
from scalpel_graph.pruning.layers import WeightLayer, weight_layers
from scalpel_graph.pruning.magnitude import MagnitudeResult, PrunedLayer, prune_magnitude

__all__ = [
    "IMPORTANCES",
    "Importance",
    "MagnitudeResult",
    "PrunedLayer",
    "WeightLayer",
    "parse_group_shape",
    "prune_magnitude",
    "weight_layers",
]
