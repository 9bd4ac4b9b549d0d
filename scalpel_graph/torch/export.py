"""Writes a pruned module as ONNX, zeros and mask layers as they are."""

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from scalpel_graph.errors import InputError


def export_onnx(
    model: nn.Module,
    example_inputs: Any,
    path: str | PathLike[str],
    *,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_batch: bool = True,
) -> None:
    """Writes what ``scalpel-opt`` (`scalpel_graph.optimize`) then makes small and fast.

    The model is exported as in evaluation; whether it trains is afterwards what it was. Weights keep every
    bit and the names that they have in the ``state_dict``; a mask layer is a Mul by a constant of zeros and ones.

    Args:
        model: any module that `torch.onnx.export` can write.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments. The batch that they
            hold should be of two or more, since a batch of one may be taken for what never changes.
        path: of the file.
        input_names: of the ONNX inputs; None takes what the exporter calls them.
        output_names: likewise.
        dynamic_batch: leave the first dimension of every input tensor open.

    Raises:
        InputError: the model cannot be exported; says what the exporter said.
    """
    args, kwargs = (), {}
    if isinstance(example_inputs, Mapping):
        kwargs = dict(example_inputs)
    elif isinstance(example_inputs, Tensor):
        args = (example_inputs,)
    else:
        args = tuple(example_inputs)
    shapes: Any = None
    if dynamic_batch:
        shapes = pytree.tree_map(_open_batch, kwargs or args)
    with _evaluating(model), _quiet():
        try:
            torch.onnx.export(
                model,
                args,
                fspath(path),
                kwargs=kwargs or None,
                input_names=input_names,
                output_names=output_names,
                dynamic_shapes=shapes,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise InputError(f"PyTorch cannot export the model: {_one_line(error)}") from error


def _open_batch(value: Any) -> Any:
    return {0: torch.export.Dim.DYNAMIC} if isinstance(value, Tensor) and value.ndim else None


def _one_line(error: BaseException) -> str:
    """What is at the root of an exporter's error."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    training = {module: module.training for module in model.modules()}
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in training.items():
            module.training = mode


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says of itself: packages it could use, and its own deprecations."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
