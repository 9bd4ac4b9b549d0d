"""Node pruning: trains the mask layers of a model until nodes are blocked."""

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from scalpel_graph.errors import InputError
from scalpel_graph.pruning.importance import count_of
from scalpel_graph.torch.mask_layer import mask_layers
from scalpel_graph.torch.per_layer import check_fractions, per_layer
from scalpel_graph.torch.step_hooks import around_steps

_WHAT = "mask layer"


class NodePruner:
    """Drives the β of every `MaskLayer` of a model while an optimizer of yours trains its weights.

    The loss gains ``λ · Σ |β|``, as in the Scalpel paper (Yu et al., ISCA 2017, node pruning) and the code
    released with it: β takes a step of SGD with momentum and without weight decay on the gradient of the loss
    alone, then ``β ← β − λ · learning rate``, then it is brought back into its range and α up to date.

    Your optimizer may hold the parameters of the whole model, β too, and be of any kind: what it does to β is
    undone.

    Attributes:
        model: the module.
        masks: its mask layers, by name.
        penalty: ``λ``; raise it from stage to stage.
    """

    def __init__(
        self,
        model: nn.Module,
        penalty: float = 0.0,
        *,
        wanted: float | Mapping[str, float] | None = None,
        momentum: float = 0.9,
        lr: float | None = None,
    ) -> None:
        """Finds the mask layers.

        Args:
            model: any module with mask layers: your own, or those of `insert_masks`.
            penalty: ``λ``.
            wanted: the part of a mask layer's nodes that is to be blocked, in [0, 1]: one for all, or one for
                each pattern of mask layer names. A layer that has reached it, which it does exactly, is
                frozen. Layers without one lose what ``λ`` makes them lose. At least one node always stays.
            momentum: of the SGD that drives β.
            lr: its learning rate; None takes that of the first parameter group of the optimizer that steps.

        Raises:
            InputError: there are no mask layers, a pattern names none, or a number is out of range.
        """
        self.model = model
        self.masks = mask_layers(model)
        if not self.masks:
            raise InputError("the model has no mask layers: place MaskLayer modules, or use insert_masks")
        if not penalty >= 0:
            raise InputError(f"the penalty must be at least 0, got {penalty}")
        self.penalty = penalty
        self._lr = lr
        fractions = {} if wanted is None else per_layer(wanted, list(self.masks), _WHAT)
        check_fractions(fractions.values(), "the wanted part of nodes")
        self._wanted = {
            name: min(count_of(self.masks[name].nodes, part), self.masks[name].nodes - 1)
            for name, part in fractions.items()
        }
        self._sgd = SGD([mask.beta for mask in self.masks.values()], lr=lr or 0.0, momentum=momentum)
        self._before: dict[str, Tensor] = {}
        for name in self.masks:
            self._freeze_if_done(name)

    def attach(self, optimizer: Optimizer | None = None) -> ExitStack:
        """Drives β at every step of an optimizer, in any training loop.

        Args:
            optimizer: one optimizer, or None for every optimizer that drives a parameter of the model, made
                already or later. With a `torch.amp.GradScaler` it must hold β as well, and its gradients be
                unscaled (``scaler.unscale_(optimizer)``) before the step.

        Returns:
            A context manager that ends it; so does its ``close()``. It may be ignored.
        """
        return around_steps(self.model, optimizer, before=self._remember, after=self._step)

    def freeze(self) -> None:
        """Keeps the masks of all layers as they are, for retraining."""
        for mask in self.masks.values():
            mask.freeze()

    def blocked(self) -> dict[str, float]:
        """The part of each mask layer's nodes that is blocked."""
        return {name: mask.blocked / mask.nodes for name, mask in self.masks.items()}

    @property
    def kept(self) -> float:
        """The part of all nodes that is not blocked."""
        masks = self.masks.values()
        return 1 - sum(mask.blocked for mask in masks) / sum(mask.nodes for mask in masks)

    @property
    def done(self) -> bool:
        """Whether every mask layer is frozen, having lost what was wanted."""
        return all(mask.frozen for mask in self.masks.values())

    def state_dict(self) -> dict[str, Any]:
        """What a later run needs to go on, besides the ``state_dict`` of the model, which holds α and β.

        Returns:
            ``penalty``, ``masks`` and ``frozen`` (names of mask layers), ``sgd`` (the momentum of β).
        """
        return {
            "masks": list(self.masks),
            "penalty": self.penalty,
            "frozen": [name for name, mask in self.masks.items() if mask.frozen],
            "sgd": self._sgd.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on from a `state_dict`; load the model's too.

        Raises:
            InputError: it is of other mask layers.
        """
        if state["masks"] != list(self.masks):
            there, here = (", ".join(names) for names in (state["masks"], self.masks))
            raise InputError(f"the saved state is of other mask layers: {there}; here they are {here}")
        self.penalty = state["penalty"]
        self._sgd.load_state_dict(state["sgd"])
        for name, mask in self.masks.items():
            mask.beta.requires_grad_(name not in state["frozen"])

    def _remember(self, optimizer: Optimizer) -> None:
        if optimizer is self._sgd:
            return
        self._before = {name: mask.beta.detach().clone() for name, mask in self.masks.items()}

    @torch.no_grad()
    def _step(self, optimizer: Optimizer) -> None:
        if optimizer is self._sgd:
            return
        for name, before in self._before.items():
            self.masks[name].beta.copy_(before)
        self._before = {}
        lr = self._lr if self._lr is not None else float(optimizer.param_groups[0]["lr"])
        trained = [
            name for name, mask in self.masks.items() if mask.beta.grad is not None and not mask.frozen
        ]
        for group in self._sgd.param_groups:
            group["lr"] = lr
        self._sgd.step()
        for name in trained:
            mask = self.masks[name]
            mask.beta.sub_(self.penalty * lr)
            mask.update(self._wanted.get(name, mask.nodes - 1))
            self._freeze_if_done(name)
        self._sgd.zero_grad()

    def _freeze_if_done(self, name: str) -> None:
        if name in self._wanted and self.masks[name].blocked >= self._wanted[name]:
            self.masks[name].freeze()
