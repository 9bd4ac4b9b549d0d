"""Pruning while training, in PyTorch: the techniques of the Scalpel paper (Yu et al., ISCA 2017) in pieces.

They work on any `torch.nn.Module` and change none of its code:

- `GroupPruner` prunes weights in groups (SIMD-aware pruning; ``1x1`` is traditional pruning);
- `MaskLayer`, `insert_masks` and `NodePruner` prune nodes: neurons and channels;
- `linear_stages`, `cubic_stages` and `DropoutScaler` say what changes from stage to stage;
- `simd_aware_pruning`, `node_pruning` and `combined_pruning` put these together as the paper does;
- `export_onnx` writes what ``scalpel-opt`` then makes small and fast.
"""

try:
    import torch as _torch  # noqa: F401 - so that its absence is said once, here
except ModuleNotFoundError as error:
    if error.name != "torch":
        raise
    raise ImportError("scalpel_graph.torch needs PyTorch: pip install 'scalpel-graph[torch]'") from None

from scalpel_graph.torch.dropout import DropoutScaler
from scalpel_graph.torch.export import export_onnx
from scalpel_graph.torch.group_pruner import GroupPruner
from scalpel_graph.torch.insert_masks import insert_masks
from scalpel_graph.torch.mask_layer import MaskLayer, mask_layers
from scalpel_graph.torch.node_pruner import NodePruner
from scalpel_graph.torch.stages import cubic_stages, linear_stages
from scalpel_graph.torch.techniques import Train, combined_pruning, node_pruning, simd_aware_pruning

__all__ = [
    "DropoutScaler",
    "GroupPruner",
    "MaskLayer",
    "NodePruner",
    "Train",
    "combined_pruning",
    "cubic_stages",
    "export_onnx",
    "insert_masks",
    "linear_stages",
    "mask_layers",
    "node_pruning",
    "simd_aware_pruning",
]
