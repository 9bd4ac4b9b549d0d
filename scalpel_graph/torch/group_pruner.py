"""SIMD-aware weight pruning: weights go in aligned groups, and stay zero while the others are retrained."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from scalpel_graph.channels_last import AS_GIVEN
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array, GroupShape
from scalpel_graph.pruning.group_shape import parse_group_shape, why_straddles
from scalpel_graph.pruning.importance import (
    IMPORTANCES,
    Importance,
    count_of,
    expand,
    group_importance,
    least_important,
)
from scalpel_graph.torch.blocked_inputs import blocked_inputs
from scalpel_graph.torch.column_orders import column_orders
from scalpel_graph.torch.layers import PrunableLayer, select_layers
from scalpel_graph.torch.per_layer import check_fractions, per_layer
from scalpel_graph.torch.step_hooks import around_steps

_Groups = npt.NDArray[np.bool_]
Shape = str | GroupShape
ShapeOf = Callable[[str, nn.Module], Shape | None]

_WHAT = "layer of this pruner"


class GroupPruner:
    """Prunes the weights of Linear, Conv1d and Conv2d layers in aligned groups, and holds them at zero.

    A layer's weights are the matrix ``W[M, K]`` of group-CSR: ``M`` outputs, ``K`` inputs of one output (for
    a Conv ``in_channels / groups · kernel``). It is cut into groups of ``r`` outputs × ``c`` inputs; at the
    edges, groups are padded with zeros. A group that was pruned never comes back.

    The columns of a Conv, and of a Linear behind a Flatten, come channel by channel, as in PyTorch and ONNX.
    Microcontrollers store activations channels last, and `scalpel-opt` keeps groups whole that are cut in
    that order: give ``channels_last``.

    Nothing is added to the model: zeros are written into its weights, so its ``state_dict`` keeps its keys.
    An optimizer would move them (by gradients, momentum or Adam's moments), so they are written again after
    each of its steps: see `attach`.

    Source: Scalpel (Yu et al., ISCA 2017), SIMD-aware weight pruning. With ``group_shape="1x1"`` it is the
    traditional pruning of single weights (Han et al., NIPS 2015).

    Attributes:
        model: the module.
        layers: what is pruned, by name.
        group_shapes: ``(r, c)`` of each layer.
        importance: what a group counts.
    """

    def __init__(
        self,
        model: nn.Module,
        group_shape: Shape | Mapping[str, Shape] | ShapeOf = "1x8",
        *,
        layers: Iterable[str] = ("*",),
        exclude: Iterable[str] = (),
        importance: Importance = "rms",
        channels_last: bool = False,
        example_inputs: Any = None,
    ) -> None:
        """Prunes nothing yet.

        Args:
            model: any module.
            group_shape: outputs × inputs of a group, as ``"1x8"`` or ``(1, 8)``: one for all; one for each
                pattern of layer names (later ones win); or a function of a layer's name and module. Layers
                that no pattern names, and those for which the function gives None, are left alone.
            layers: names or patterns (``*``, ``?``, ``[ab]``) of the layers to prune; depthwise ones are
                left alone.
            exclude: names or patterns of layers to leave alone.
            importance: root mean square of a group's weights, mean of magnitudes, or largest magnitude.
            channels_last: cut groups along the input channels at one place of a kernel, or of the image that
                was flattened before a Linear (where channels do not make whole groups, on along the width):
                for target ``mcu``.
            example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments; needed for
                ``channels_last``: the model runs on it, in evaluation mode.

        Raises:
            InputError: a pattern names no layer, a group shape is malformed or a row block would straddle two
                groups of a Conv, the importance is unknown, or there are no example inputs.
        """
        if importance not in IMPORTANCES:
            raise InputError(f"importance must be one of {', '.join(IMPORTANCES)}, got {importance!r}")
        self.model = model
        self.importance: Importance = importance
        self.layers: dict[str, PrunableLayer] = {}
        self.group_shapes: dict[str, GroupShape] = {}
        candidates = select_layers(model, layers, exclude)
        for name, shape in _group_shapes(group_shape, candidates).items():
            if straddles := why_straddles(candidates[name], shape):
                raise InputError(f"{name!r} cannot be cut into {shape[0]}x{shape[1]} groups: {straddles}")
            self.layers[name] = candidates[name]
            self.group_shapes[name] = shape
        self._orders = dict.fromkeys(self.layers, AS_GIVEN)
        if channels_last:
            if example_inputs is None:
                raise InputError("channels_last needs example_inputs, to see what is flattened")
            self._orders = column_orders(model, self.layers, example_inputs)
        self._columns = {name: self._cut(name) for name in self.layers}
        self._groups: dict[str, _Groups] = {name: self._nothing(name) for name in self.layers}
        self._pruned: dict[str, Tensor] = {}

    def skip_blocked_inputs(self, example_inputs: Any) -> None:
        """Cuts the groups out of what is left once ``scalpel-opt`` has removed the nodes that masks block.

        Without this, groups behind a Flatten are no longer aligned afterwards, unless the positions of one
        channel are a multiple of ``c``. The weights that read blocked nodes belong to no group then, keep
        their values, and count in no rate. Call it once the masks are frozen, before anything is pruned.

        Args:
            example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments; the model runs on
                it twice, in evaluation mode.

        Raises:
            InputError: something is pruned already.
        """
        if any(groups.any() for groups in self._groups.values()):
            raise InputError("groups cannot be cut anew after some were pruned: skip blocked inputs first")
        for name, blocked in blocked_inputs(self.model, self.layers.values(), example_inputs).items():
            self._columns[name] = self._cut(name, ~blocked.numpy())
            self._groups[name] = self._nothing(name)

    def prune_below(self, threshold: float | Mapping[str, float]) -> None:
        """Prunes every group whose importance is less than a threshold.

        Args:
            threshold: one for all layers, as in the paper, or one for each pattern of layer names.

        Raises:
            InputError: it is negative or not a number, or weights are not finite.
        """
        chosen = per_layer(threshold, list(self.layers), _WHAT)
        for value in chosen.values():
            if not value >= 0:
                raise InputError(f"a threshold must be at least 0, got {value}")
        scores = {name: self._scores(name) for name in chosen}
        for name, value in chosen.items():
            self._groups[name] |= scores[name] < value
        self._update(chosen)

    def prune_to(self, rate: float | Mapping[str, float], *, overall: bool = False) -> None:
        """Prunes the least important groups until a part of them is gone.

        What is pruned already counts; a layer that has lost more stays as it is.

        Args:
            rate: the part of each layer's groups, in [0, 1]; or one for each pattern of layer names.
            overall: compare the groups of all layers with each other instead, and prune as many as hold this
                part of all their weights.

        Raises:
            InputError: it is out of range, weights are not finite, or an overall rate is not a number.
        """
        if overall:
            if isinstance(rate, Mapping):
                raise InputError("an overall rate is one number, not one for each layer")
            check_fractions([rate], "a pruning rate")
            self._prune_overall(rate)
            return
        chosen = per_layer(rate, list(self.layers), _WHAT)
        check_fractions(chosen.values(), "a pruning rate")
        scores = {name: self._scores(name) for name in chosen}
        for name, value in chosen.items():
            self._groups[name] |= least_important(scores[name], count_of(scores[name].size, value))
        self._update(chosen)

    def rates(self) -> dict[str, float]:
        """The part of each layer's weights that is pruned; those of skipped inputs apart."""
        return {name: self._lost(name) / int(self._sizes(name).sum()) for name in self.layers}

    @property
    def rate(self) -> float:
        """The part of all weights of these layers that is pruned; those of skipped inputs apart."""
        total = sum(int(self._sizes(name).sum()) for name in self.layers)
        return sum(map(self._lost, self.layers)) / total

    @torch.no_grad()
    def apply(self) -> None:
        """Writes the zeros into the weights.

        Only needed where no `torch.optim.Optimizer` drives the model, and after weights were loaded or
        averaged.
        """
        for name in self._pruned:
            weight = self.layers[name].weight
            self._pruned[name] = self._pruned[name].to(weight.device)
            weight.masked_fill_(self._pruned[name], 0)

    def attach(self, optimizer: Optimizer | None = None) -> ExitStack:
        """Holds the zeros after every step of an optimizer, whatever its kind, in any training loop.

        Gradients are left as they are: pruned weights still count in a norm that gradients are clipped to.

        Args:
            optimizer: one optimizer, or None for every optimizer that drives a parameter of the model, made
                already or later.

        Returns:
            A context manager that ends it; so does its ``close()``. It may be ignored.
        """
        return around_steps(self.model, optimizer, after=lambda _: self.apply())

    def state_dict(self) -> dict[str, Any]:
        """What a later run needs to go on: tensors and plain values, without the weights.

        Returns:
            For each layer its ``shape`` ``[M, K]``; ``group_shape`` ``[r, c]``; ``columns``, int64 ``[L]``:
            those that groups are cut from, in their order, −1 at the end of a line; and ``pruned``, bool
            ``[ceil(M / r), ceil(L / c)]``.
        """
        return {
            name: {
                "shape": list(self.layers[name].shape),
                "group_shape": list(self.group_shapes[name]),
                "columns": torch.from_numpy(self._columns[name].copy()),
                "pruned": torch.from_numpy(groups.copy()),
            }
            for name, groups in self._groups.items()
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict`, in place of what was pruned so far, and writes its zeros.

        Load the weights of the model too: groups that are pruned here but not there keep their zeros.

        Raises:
            InputError: it is of other layers, or of other groups.
        """
        if set(state) != set(self.layers):
            differing = sorted(set(state) ^ set(self.layers))
            raise InputError(f"the saved state is of other layers: {', '.join(differing)} is not in both")
        for name, saved in state.items():
            if tuple(saved["group_shape"]) != self.group_shapes[name]:
                there, here = ("x".join(map(str, s)) for s in (saved["group_shape"], self.group_shapes[name]))
                raise InputError(f"{name!r} was saved with groups of {there}, here they are {here}")
            if tuple(saved["shape"]) != self.layers[name].shape:
                raise InputError(f"{name!r} was saved with weights of another shape")
        for name, saved in state.items():
            self._columns[name] = saved["columns"].cpu().numpy().copy()
            self._groups[name] = saved["pruned"].cpu().numpy().copy()
        self._update(state)

    def _prune_overall(self, rate: float) -> None:
        scores = np.concatenate([self._scores(name).ravel() for name in self.layers])
        sizes = np.concatenate([self._sizes(name).ravel() for name in self.layers])
        order = np.argsort(scores, kind="stable")
        gone = np.zeros(scores.size, np.bool_)
        gone[order] = np.cumsum(sizes[order]) <= count_of(int(sizes.sum()), rate)
        start = 0
        for name, groups in self._groups.items():
            self._groups[name] = groups | gone[start : start + groups.size].reshape(groups.shape)
            start += groups.size
        self._update(self.layers)

    def _scores(self, name: str) -> npt.NDArray[np.float64]:
        """Importance of each group; less than any other if it is pruned already."""
        layer = self.layers[name]
        weight = layer.weight.detach().cpu()
        if weight.dtype != torch.float64:
            weight = weight.float()
        matrix = np.pad(weight.reshape(layer.shape).numpy(), ((0, 0), (0, 1)))[:, self._columns[name]]
        scores = group_importance(matrix, self.group_shapes[name], self.importance)
        scores[self._groups[name]] = -1
        if not np.isfinite(scores).all():
            raise InputError(f"the weights of {name!r} are not finite: its training has diverged")
        return scores

    def _cut(self, name: str, kept: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """The columns that groups are cut from, all or those that are kept."""
        return self._orders[name].columns(self.layers[name].shape[1], self.group_shapes[name][1], kept)

    def _sizes(self, name: str) -> Array:
        """How many weights each group holds, padding apart."""
        M, (r, c) = self.layers[name].shape[0], self.group_shapes[name]
        rows = np.minimum(r, M - np.arange(0, M, r))
        return np.outer(rows, (self._columns[name].reshape(-1, c) >= 0).sum(axis=1))

    def _nothing(self, name: str) -> _Groups:
        return np.zeros(self._sizes(name).shape, np.bool_)

    def _lost(self, name: str) -> int:
        return int(self._sizes(name)[self._groups[name]].sum())

    def _update(self, names: Iterable[str]) -> None:
        for name in names:
            layer, columns = self.layers[name], self._columns[name]
            pruned = np.zeros(layer.shape, np.bool_)
            groups = expand(self._groups[name], self.group_shapes[name], (len(pruned), len(columns)))
            pruned[:, columns[columns >= 0]] = groups[:, columns >= 0]
            self._pruned[name] = torch.from_numpy(pruned).reshape(layer.weight.shape)
        self.apply()


def _group_shapes(
    group_shape: Shape | Mapping[str, Shape] | ShapeOf, layers: Mapping[str, PrunableLayer]
) -> dict[str, GroupShape]:
    if callable(group_shape):
        given = {name: group_shape(name, layer.module) for name, layer in layers.items()}
    else:
        given = dict(per_layer(group_shape, list(layers), "layer that is to be pruned"))
    shapes = {name: _group_shape(shape) for name, shape in given.items() if shape is not None}
    if not shapes:
        raise InputError("no layer is left to prune: none was given a group shape")
    return shapes


def _group_shape(shape: Shape) -> GroupShape:
    return parse_group_shape(shape if isinstance(shape, str) else "x".join(map(str, shape)))
