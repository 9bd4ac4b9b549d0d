"""Where the mask layers of the paper go, and what they leave of the weights."""

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

_WITH_WEIGHTS = (nn.Conv2d, nn.Linear)


def mask_places(model: nn.Sequential, layers: Iterable[str]) -> dict[str, str]:
    """The module behind which each layer's mask goes: after activation, pooling and normalisation.

    Args:
        model: named layers one after another.
        layers: names of those that lose nodes.
    """
    places: dict[str, str] = {}
    current = ""
    for name, module in model.named_children():
        if isinstance(module, _WITH_WEIGHTS):
            current = name
        if current and not isinstance(module, nn.Flatten):
            places[current] = name
    return {layer: places[layer] for layer in layers}


@torch.no_grad()
def zero_what_reads_blocked(model: nn.Sequential, places: Mapping[str, str]) -> None:
    """Sets weights to zero that read blocked nodes: no gradient moves them, yet they would seem important.

    Args:
        model: named layers one after another, with masks.
        places: of the masks, by layer.
    """
    modules = dict(model.named_children())
    names = [name for name, module in modules.items() if isinstance(module, _WITH_WEIGHTS)]
    for layer, place in places.items():
        weight = model.get_parameter(f"{names[names.index(layer) + 1]}.weight")
        alpha = model.get_buffer(f"{place}.mask.alpha")
        # A node's outputs lie side by side: they are a channel's positions, flattened or not.
        dead = (alpha == 0).repeat_interleave(weight[0].numel() // len(alpha))
        weight.masked_fill_(dead.reshape(weight.shape[1:]), 0)


def without_blocked(state: Mapping[str, Tensor], places: Mapping[str, str]) -> dict[str, Tensor]:
    """Weights and biases, zero for blocked nodes.

    The same function as with masks: zeros pass through activation, pooling and normalisation as zeros.

    Args:
        state: of a model with masks.
        places: of its masks, by layer.
    """
    found = {name: value for name, value in state.items() if ".mask." not in name}
    for layer, place in places.items():
        blocked = state[f"{place}.mask.alpha"] == 0
        for part in ("weight", "bias"):
            values = found[f"{layer}.{part}"].clone()
            values[blocked] = 0
            found[f"{layer}.{part}"] = values
    return found


def shares(model: nn.Sequential, nodes: Mapping[str, float]) -> dict[str, float]:
    """Parts of nodes that are whole numbers of them: the nearest to those asked for."""
    counts = {layer: len(model.get_parameter(f"{layer}.weight")) for layer in nodes}
    return {layer: round(share * counts[layer]) / counts[layer] for layer, share in nodes.items()}


def has_all_blocked(
    state: Mapping[str, Tensor], wanted: Mapping[str, float], places: Mapping[str, str]
) -> bool:
    """Whether as many nodes are blocked as were wanted."""
    blocked = {
        layer: float((state[f"{place}.mask.alpha"] == 0).float().mean()) for layer, place in places.items()
    }
    return all(blocked[layer] >= share - torch.finfo(torch.float32).eps for layer, share in wanted.items())
