"""Writes a pruned module as ONNX, zeros and mask layers as they are."""

import ast
import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from os import PathLike, fspath
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from scalpel_graph.errors import InputError
from scalpel_graph.torch.example_run import arguments, evaluating

_SCOPES = "pkg.torch.onnx.name_scopes"


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

    The model is exported as in evaluation; whether it trains is afterwards what it was. Zeros stay zeros, and
    a mask layer is a Mul by a constant of zeros and ones. The exporter folds a BatchNorm into the Conv before
    it; other weights keep every bit. Conv, Gemm and MatMul with weights are called as their modules are.

    Args:
        model: any module that `torch.onnx.export` can write.
        example_inputs: a tensor, a tuple of arguments or a dict of keyword arguments. With an open batch,
            theirs should be two or more: models may treat a batch of one in their own way.
        path: of the file; models over 2 GB get a second one beside it.
        input_names: of the ONNX inputs; None takes what the exporter calls them.
        output_names: likewise.
        dynamic_batch: leave the first dimension of every input tensor open.

    Raises:
        InputError: the model cannot be exported; says what the exporter said.
    """
    args, kwargs = arguments(example_inputs)
    open_batch = pytree.tree_map(_open_batch, kwargs or args) if dynamic_batch else None
    with evaluating(model), _quiet():
        try:
            program = torch.onnx.export(
                model,
                args,
                kwargs=kwargs,
                input_names=input_names,
                output_names=output_names,
                dynamic_shapes=open_batch,
                dynamo=True,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise InputError(f"PyTorch cannot export the model: {_root(error)}") from error
    assert program is not None
    _tidy(program.model.graph)
    program.save(fspath(path))


def _open_batch(value: Any) -> Any:
    return {0: torch.export.Dim.DYNAMIC} if isinstance(value, Tensor) and value.ndim else None


def _tidy(graph: Any) -> None:
    """Names weight layers after their modules, and drops stack traces, which outweigh small models.

    Args:
        graph: an ``onnx_ir.Graph``.
    """
    used = {node.name for node in graph.all_nodes()}
    for node in graph.all_nodes():
        if node.op_type in ("Conv", "Gemm", "MatMul") and node.inputs[1].const_value is not None:
            layer, dot, _ = node.inputs[1].name.rpartition(".weight")
            if not dot:
                scopes = ast.literal_eval(node.metadata_props.get(_SCOPES, "[]"))
                layer = scopes[-2] if len(scopes) > 1 else ""
            if layer and layer not in used:
                node.name = layer
                used.add(layer)
        node.metadata_props.clear()


def _root(error: BaseException) -> str:
    """What is at the root of an exporter's error, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    return " ".join(str(error).split())


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
