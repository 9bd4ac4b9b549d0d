"""Which inputs of a layer its mask layers block: columns of its weights that ``scalpel-opt`` will remove."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from scalpel_graph.torch.example_run import arguments, evaluating
from scalpel_graph.torch.layers import PrunableLayer
from scalpel_graph.torch.mask_layer import mask_layers


def blocked_inputs(
    model: nn.Module, layers: Iterable[PrunableLayer], example_inputs: Any
) -> dict[str, Tensor]:
    """Marks what comes from blocked nodes, and sees where it arrives.

    The model runs twice on the examples: once as it is, once with NaN in place of the zeros of its mask
    layers, which activations, poolings and reshapes pass on channel by channel. Every module with weights
    reads zeros instead. An input counts as blocked where NaN arrives in the second run, and zero in the
    first.

    Args:
        model: any module.
        layers: of the module; in a grouped Conv no input counts as blocked.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.

    Returns:
        For each layer with blocked inputs, bool ``[K]``: its columns.
    """
    by_module = {layer.module: layer for layer in layers if layer.group == 1}
    zero = _run(model, by_module, example_inputs, mark=False)
    marked = _run(model, by_module, example_inputs, mark=True)
    blocked = {name: zero[name] & marked[name] for name in zero}
    return {name: columns for name, columns in blocked.items() if columns.any() and not columns.all()}


def _run(
    model: nn.Module, layers: dict[Any, PrunableLayer], example_inputs: Any, *, mark: bool
) -> dict[str, Tensor]:
    """Which columns of each layer get nothing but zeros, or nothing but marks."""
    found: dict[str, Tensor] = {}

    def read(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        layer = layers.get(module)
        if layer is not None and isinstance(args[0], Tensor):
            seen = args[0].isnan() if mark else args[0] == 0
            columns = _columns(layer, seen)
            found[layer.name] = found.get(layer.name, columns) & columns
        return tuple(_without_marks(arg) for arg in args)

    handles = [mask.register_forward_hook(_mark) for mask in mask_layers(model).values() if mark]
    handles += [
        module.register_forward_pre_hook(read)
        for module in model.modules()
        if any(p.ndim > 1 for p in module.parameters(recurse=False))
    ]
    args, kwargs = arguments(example_inputs)
    try:
        with evaluating(model):
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _columns(layer: PrunableLayer, seen: Tensor) -> Tensor:
    """What holds for all samples and positions, for each column of the weights."""
    if isinstance(layer.module, nn.Linear):
        return seen.flatten(0, -2).all(0).cpu() if seen.ndim > 1 else seen.cpu()
    channels = seen.movedim(-len(layer.module.kernel_size) - 1, 0).flatten(1).all(1).cpu()
    return channels.repeat_interleave(layer.shape[1] // channels.numel())


def _mark(mask: Any, _: Any, output: Tensor) -> Tensor:
    shape = [1] * output.ndim
    shape[mask.dim] = -1
    return output.masked_fill((mask.alpha == 0).view(shape), torch.nan)


def _without_marks(arg: Any) -> Any:
    return torch.where(arg.isnan(), 0, arg) if isinstance(arg, Tensor) and arg.is_floating_point() else arg
