"""Running something around every step of an optimizer, without touching the training loop."""

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

StepHook = Callable[[Optimizer], None]


def around_steps(
    model: nn.Module, optimizer: Optimizer | None, *, before: StepHook | None = None, after: StepHook
) -> ExitStack:
    """Calls ``before`` and ``after`` around every step.

    Args:
        model: whose training it is about.
        optimizer: one optimizer, or None for every optimizer that drives a parameter of ``model``, made
            already or later.
        before: called with the optimizer before its step.
        after: called with the optimizer after its step.

    Returns:
        A context manager that ends it; so does its ``close()``. Nothing ends by itself.
    """

    def guarded(hook: StepHook) -> Callable[..., None]:
        def run(stepping: Optimizer, *_: Any) -> None:
            if optimizer is not None or _drives(stepping, model):
                hook(stepping)

        return run

    stack = ExitStack()
    if before is not None:
        run = guarded(before)
        handle = optimizer.register_step_pre_hook(run) if optimizer else register_optimizer_step_pre_hook(run)
        stack.callback(handle.remove)
    run = guarded(after)
    handle = optimizer.register_step_post_hook(run) if optimizer else register_optimizer_step_post_hook(run)
    stack.callback(handle.remove)
    return stack


def _drives(optimizer: Optimizer, model: nn.Module) -> bool:
    own = {id(parameter) for parameter in model.parameters()}
    return any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])
