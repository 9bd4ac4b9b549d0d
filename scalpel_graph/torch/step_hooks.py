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
    if optimizer is None:
        register_before, register_after = register_optimizer_step_pre_hook, register_optimizer_step_post_hook
    else:
        register_before, register_after = optimizer.register_step_pre_hook, optimizer.register_step_post_hook
    if before is not None:
        stack.callback(register_before(guarded(before)).remove)
    stack.callback(register_after(guarded(after)).remove)
    return stack


def _drives(optimizer: Optimizer, model: nn.Module) -> bool:
    own = {id(parameter) for parameter in model.parameters()}
    return any(id(parameter) in own for group in optimizer.param_groups for parameter in group["params"])
