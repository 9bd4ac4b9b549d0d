"""The layers of a module that have a weight matrix, and that matrix as group-CSR sees it."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from scalpel_graph.errors import InputError
from scalpel_graph.pruning.selection import check_pattern, matches

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d)


@dataclass(frozen=True)
class PrunableLayer:
    """A Linear, Conv1d or Conv2d.

    Attributes:
        name: its name in the module that was searched.
        module: it.
    """

    name: str
    module: nn.Linear | nn.Conv1d | nn.Conv2d

    @property
    def weight(self) -> Tensor:
        """``[outputs, inputs]``, or ``[outputs, inputs / groups, *kernel]``."""
        return self.module.weight

    @property
    def shape(self) -> tuple[int, int]:
        """``(M, K)``: outputs, and inputs of one output (for Conv: in_channels / groups · kernel)."""
        return self.weight.shape[0], math.prod(self.weight.shape[1:])

    @property
    def group(self) -> int:
        """Number of groups of a Conv; 1 for a Linear."""
        return 1 if isinstance(self.module, nn.Linear) else self.module.groups

    @property
    def depthwise(self) -> bool:
        """Whether it is a Conv with one input channel in each of several groups."""
        return self.group > 1 and self.weight.shape[1] == 1


def select_layers(
    model: nn.Module, layers: Iterable[str], exclude: Iterable[str] = ()
) -> dict[str, PrunableLayer]:
    """The layers whose name matches one of ``layers`` and none of ``exclude``, in the order of the module.

    Depthwise layers are left out: they have few weights to spare. Of layers that share their weights the
    first stands for all.

    Args:
        model: any module.
        layers: names as in ``model.named_modules()``, or patterns (``*``, ``?``, ``[ab]``).
        exclude: likewise.

    Raises:
        InputError: a pattern matches no such layer, nothing is left, or the weights of a layer that is left
            are no plain parameter.
    """
    layers, exclude = tuple(layers), tuple(exclude)
    known = {layer.name: layer for layer in _prunable(model)}
    for pattern in (*layers, *exclude):
        check_pattern(pattern, list(known), "Linear, Conv1d or Conv2d with weights to spare")
    chosen = {n: layer for n, layer in known.items() if matches(n, layers) and not matches(n, exclude)}
    if not chosen:
        raise InputError("no layer is left to prune: everything that was selected was also excluded")
    for name, layer in chosen.items():
        if not isinstance(layer.weight, nn.Parameter):
            raise InputError(
                f"the weights of {name!r} are computed from other parameters (a parametrization such as"
                " weight_norm): remove that first, or exclude the layer"
            )
    return chosen


def _prunable(model: nn.Module) -> Iterator[PrunableLayer]:
    seen: set[int] = set()
    for name, module in model.named_modules():
        if not isinstance(module, _KINDS):
            continue
        if isinstance(module.weight, UninitializedParameter):
            raise InputError(f"{name!r} has no weights yet: run the model once on an input first")
        layer = PrunableLayer(name, module)
        if not layer.depthwise and id(module.weight) not in seen:
            seen.add(id(module.weight))
            yield layer
