"""Mask layers: one switch for each node, driven by a trained number."""

from typing import Any

import torch
from torch import Tensor, nn

from scalpel_graph.errors import InputError


class MaskLayer(nn.Module):
    """``y = α · x`` with one α in {0, 1} for each node, which a trained β drives.

    A node is a neuron or a channel: an index along one dimension. α becomes 0 when β falls below the
    threshold ``T``, and 1 again when it rises to ``T + ε``; in between it stays. The gradient of β is the sum
    over all other dimensions of output gradient × *unmasked* input, straight through the switch, so that a
    blocked node can come back. A mask layer belongs behind a layer's activation, pooling and normalization,
    never behind the output layer.

    Source: Scalpel (Yu et al., ISCA 2017), node pruning; the numbers are those of the code released with it
    (with ``maximum`` 0.82 for NIN and 0.81 for AlexNet).

    Who drives β is up to `NodePruner`. Cast a model to half precision before its masks are made, not after: β
    moves in steps that only float32 resolves.

    Attributes:
        alpha: ``[nodes]`` float32 buffer of zeros and ones.
        beta: ``[nodes]`` float32 parameter.
    """

    alpha: Tensor

    def __init__(
        self,
        nodes: int,
        dim: int = 1,
        *,
        threshold: float = 0.8,
        epsilon: float = 1e-4,
        start: float = 0.8002,
        maximum: float = 0.802,
    ) -> None:
        """Blocks nothing yet.

        Args:
            nodes: how many.
            dim: dimension of the input that counts them; 1 for ``[batch, features]`` and for
                ``[batch, channels, ...]``.
            threshold: ``T``.
            epsilon: ``ε``.
            start: β at first.
            maximum: β is kept in ``[0, maximum]``.

        Raises:
            InputError: unless ``0 <= T <= T + ε <= start <= maximum``, or there are no nodes.
        """
        super().__init__()
        if nodes < 1:
            raise InputError(f"a mask layer has at least one node, got {nodes}")
        if not 0 <= threshold <= threshold + epsilon <= start <= maximum:
            raise InputError(
                "a mask layer needs 0 <= threshold <= threshold + epsilon <= start <= maximum, got threshold"
                f" {threshold}, epsilon {epsilon}, start {start}, maximum {maximum}"
            )
        self.dim = dim
        self.threshold = threshold
        self.epsilon = epsilon
        self.maximum = maximum
        self.register_buffer("alpha", torch.ones(nodes))
        self.beta = nn.Parameter(torch.full((nodes,), float(start)))

    @property
    def nodes(self) -> int:
        """How many there are, blocked ones too."""
        return self.alpha.numel()

    @property
    def blocked(self) -> int:
        """How many are blocked."""
        return int((self.alpha == 0).sum())

    @property
    def frozen(self) -> bool:
        """Whether α no longer changes."""
        return not self.beta.requires_grad

    def freeze(self) -> None:
        """Keeps α as it is from now on; β gets no gradient any more."""
        self.beta.requires_grad_(False)
        self.beta.grad = None

    @torch.no_grad()
    def update(self, most: int | None = None) -> None:
        """Brings β back into its range, and α up to date with it. Does nothing once frozen.

        Args:
            most: how many nodes may be blocked; those with the least β are. None: all.
        """
        if self.frozen:
            return
        self.beta.clamp_(0, self.maximum)
        blocked = self.beta < self.threshold
        blocked |= (self.beta < self.threshold + self.epsilon) & (self.alpha == 0)
        if most is not None and int(blocked.sum()) > most:
            least = self.beta.masked_fill(~blocked, torch.inf).argsort(stable=True)[:most]
            blocked = torch.zeros_like(blocked).index_fill_(0, least, True)
        self.alpha.copy_(~blocked)

    def forward(self, x: Tensor) -> Tensor:
        """Zeros in place of the blocked nodes.

        Args:
            x: any shape whose dimension ``dim`` counts the nodes.

        Raises:
            InputError: it does not.
        """
        if not -x.ndim <= self.dim < x.ndim or x.shape[self.dim] != self.nodes:
            raise InputError(
                f"a mask layer of {self.nodes} nodes in dimension {self.dim} got an input of shape"
                f" {list(x.shape)}"
            )
        shape = [1] * x.ndim
        shape[self.dim] = -1
        alpha = self.alpha.to(x.dtype).view(shape)
        if self.frozen or not torch.is_grad_enabled():
            return x * alpha
        masked: Tensor = _StraightThrough.apply(x, alpha, self.beta, self.dim)  # type: ignore[no-untyped-call]
        return masked

    def extra_repr(self) -> str:
        """What ``print(model)`` says of it."""
        return f"nodes={self.nodes}, blocked={self.blocked}, dim={self.dim}"


def mask_layers(model: nn.Module) -> dict[str, MaskLayer]:
    """The mask layers in a module, by name."""
    return {name: module for name, module in model.named_modules() if isinstance(module, MaskLayer)}


class _StraightThrough(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, alpha: Tensor, beta: Tensor, dim: int) -> Tensor:
        ctx.save_for_backward(x, alpha)
        ctx.dim = dim % x.ndim
        ctx.dtype = beta.dtype
        return x * alpha

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, Tensor, None]:
        x, alpha = ctx.saved_tensors
        (grad,) = grads
        others = [d for d in range(x.ndim) if d != ctx.dim]
        through = grad * x
        of_beta = through.sum(others, dtype=ctx.dtype) if others else through.to(ctx.dtype)
        return grad * alpha, None, of_beta, None
