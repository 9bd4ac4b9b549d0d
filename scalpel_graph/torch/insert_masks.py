"""Putting mask layers into a module that has none, without changing its code."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch import Tensor, nn

from scalpel_graph.errors import InputError
from scalpel_graph.pruning.selection import did_you_mean, matches
from scalpel_graph.torch.example_run import arguments, evaluating
from scalpel_graph.torch.mask_layer import MaskLayer

#: Name of the mask layer inside the module that it stands behind.
_NAME = "mask"


def insert_masks(
    model: nn.Module,
    after: Iterable[str] | Mapping[str, int],
    example_inputs: Any,
    *,
    make: Callable[[int, int], MaskLayer] = MaskLayer,
) -> dict[str, MaskLayer]:
    """Puts a `MaskLayer` behind each of the named modules.

    Name the last module of each layer: its activation, or the pooling or normalization after that. The mask
    becomes a child of the named module (``pool1.mask``) and is applied to its output, by a forward hook or,
    in an `nn.Sequential`, as its last element; all other names in the ``state_dict`` stay. Models whose
    activations are functions, not modules, get their mask layers by hand: `NodePruner` finds them wherever
    they are.

    Args:
        model: any module.
        after: names as in ``model.named_modules()``, or patterns (``*``, ``?``, ``[ab]``); or for each the
            dimension of its output that counts nodes, which else is 1 (channels come after the batch).
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments; the model runs on it
            once, in evaluation mode, to see how many nodes there are.
        make: makes the mask layer of a number of nodes and a dimension:
            ``functools.partial(MaskLayer, maximum=0.82)``.

    Returns:
        The new mask layers, by their names.

    Raises:
        InputError: a pattern names no module; a module has a mask already, does not run exactly once, or
            gives something else than one tensor with that dimension; or no weights come behind it, as behind
            the output layer.
    """
    dims = _dims(model, after)
    outputs = _record(model, set(dims), example_inputs)
    modules = dict(model.named_modules())
    masks = {}
    for name, dim in dims.items():
        output, module = outputs[name], modules[name]
        if not -output.ndim <= dim < output.ndim:
            raise InputError(
                f"{name!r} gives a tensor of shape {list(output.shape)}, without dimension {dim}"
            )
        mask = make(output.shape[dim], dim).to(output.device)
        module.add_module(_NAME, mask)
        if type(module).forward is not nn.Sequential.forward:
            module.register_forward_hook(_apply)
        masks[f"{name}.{_NAME}"] = mask
    return masks


def _apply(module: nn.Module, _: Any, output: Tensor) -> Tensor:
    masked: Tensor = module.get_submodule(_NAME)(output)
    return masked


def _dims(model: nn.Module, after: Iterable[str] | Mapping[str, int]) -> dict[str, int]:
    if isinstance(after, str):
        after = [after]
    wanted = after if isinstance(after, Mapping) else dict.fromkeys(after, 1)
    names = [name for name, _ in model.named_modules() if name]
    dims = {}
    for pattern, dim in wanted.items():
        found = [name for name in names if matches(name, [pattern])]
        if not found:
            hint = did_you_mean(pattern, names) or f"there are {len(names)}, such as {', '.join(names[:3])}"
            raise InputError(f"no module is called {pattern!r}: {hint}")
        dims.update(dict.fromkeys(found, dim))
    if not dims:
        raise InputError("no module was named to put a mask layer behind")
    for name in dims:
        if _NAME in dict(model.get_submodule(name).named_children()):
            raise InputError(f"{name!r} has a child called {_NAME!r} already")
    return dims


def _record(model: nn.Module, names: set[str], example_inputs: Any) -> dict[str, Tensor]:
    """Runs the model, and gives the outputs of the named modules."""
    finished: list[str] = []
    outputs: dict[str, Any] = {}

    def record(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            finished.append(name)
            if name in names:
                outputs[name] = output

        return hook

    handles = [module.register_forward_hook(record(name)) for name, module in model.named_modules()]
    args, kwargs = arguments(example_inputs)
    try:
        with evaluating(model):
            model(*args, **kwargs)
    finally:
        for handle in handles:
            handle.remove()
    runs = Counter(finished)
    owners = {n for n, m in model.named_modules() if any(p.ndim > 1 for p in m.parameters(recurse=False))}
    for name in sorted(names):
        if runs[name] != 1:
            raise InputError(
                f"{name!r} runs {runs[name]} times, a mask layer belongs behind a module that runs once: give"
                " each place its own module"
            )
        if not isinstance(outputs[name], Tensor):
            raise InputError(f"{name!r} gives a {type(outputs[name]).__name__}, not one tensor")
        # Weights that a module owns count as behind another unless it finished before that did.
        if owners.isdisjoint(finished[finished.index(name) + 1 :]):
            raise InputError(
                f"no weights come behind {name!r}: it belongs to the output layer, whose nodes all count"
            )
    return outputs
