"""The order of the columns of layers on a microcontroller: channels last, behind a flattened image too."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from scalpel_graph.channels_last import ChannelsLast
from scalpel_graph.torch.example_run import arguments, evaluating
from scalpel_graph.torch.layers import PrunableLayer


def column_orders(
    model: nn.Module, layers: Mapping[str, PrunableLayer], example_inputs: Any
) -> dict[str, ChannelsLast]:
    """The order of each layer's columns.

    Args:
        model: any module.
        layers: of the module, by name.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments.
    """
    places = _flattened_places(model, layers, example_inputs)
    return {
        name: ChannelsLast(places.get(name, 1))
        if isinstance(layer.module, nn.Linear)
        else ChannelsLast.of_conv(layer.module.kernel_size, layer.module.dilation[-1])
        for name, layer in layers.items()
    }


def _flattened_places(
    model: nn.Module, layers: Mapping[str, PrunableLayer], example_inputs: Any
) -> dict[str, int]:
    """The places of each channel of the images that Linear layers read flattened, by name of the layer.

    Marks every second channel of all images, and sees where the marks arrive.

    The model runs on the examples with NaN in the odd channels of its inputs and of what its modules make.
    Activations pass that on value by value, and flattening turns it into stretches of features, as long as
    a channel has places. Every module with weights reads zeros instead.
    """
    by_module: dict[nn.Module, PrunableLayer]
    by_module = {layer.module: layer for layer in layers.values() if isinstance(layer.module, nn.Linear)}
    found: dict[str, int] = {}

    def read(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
        layer = by_module.get(module)
        if layer is not None and isinstance(args[0], Tensor) and args[0].ndim == 2:
            found[layer.name] = _stretch(args[0][0].isnan())
        return tuple(_without_marks(arg) for arg in args)

    handles = [
        module.register_forward_pre_hook(read)
        for module in model.modules()
        if any(p.ndim > 1 for p in module.parameters(recurse=False))
    ]
    handles += [
        module.register_forward_hook(lambda _, __, output: _marked(output))
        for module in model.modules()
        if not any(module.children()) and not isinstance(module, nn.Linear)
    ]
    args, kwargs = arguments(example_inputs)
    try:
        with evaluating(model):
            model(*map(_marked, args), **{name: _marked(value) for name, value in kwargs.items()})
    finally:
        for handle in handles:
            handle.remove()
    return found


def _stretch(marked: Tensor) -> int:
    """The places of each channel, if the features are stretches without and with marks in turn; else 1."""
    places = int(marked.int().argmax())
    if not marked.any() or places == 0 or len(marked) % places:
        return 1
    expected = torch.arange(len(marked), device=marked.device) // places % 2 == 1
    return places if torch.equal(marked, expected) else 1


def _marked(value: Any) -> Any:
    """An image, or a sequence, with NaN in its odd channels; anything else as it is."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or value.ndim < 3:
        return value
    marked = _without_marks(value).clone()
    marked[:, 1::2] = torch.nan
    return marked


def _without_marks(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_floating_point():
        return torch.where(value.isnan(), 0, value)
    return value
