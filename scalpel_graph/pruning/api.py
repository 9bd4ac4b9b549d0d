"""`sg.prune`: takes what a person gives, has it pruned, and reports."""

import contextlib
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from scalpel_graph import inputs, io
from scalpel_graph.api import layer_works, loaded, shape_options, understood
from scalpel_graph.channels_last import column_orders
from scalpel_graph.cost import LayerWork
from scalpel_graph.errors import GraphError, InputError, Unverifiable
from scalpel_graph.graph import ModelGraph
from scalpel_graph.group_csr import Array, GroupShape
from scalpel_graph.inputs import make_inputs
from scalpel_graph.pruning.agreement import agreement
from scalpel_graph.pruning.budget import Budget
from scalpel_graph.pruning.measured import measured_speed_up
from scalpel_graph.pruning.network import Network, Request
from scalpel_graph.pruning.nodes import Understand
from scalpel_graph.pruning.progress import Progress
from scalpel_graph.pruning.prune import Planner, Pruned, prune_model
from scalpel_graph.pruning.quantized_form import QuantizedForm
from scalpel_graph.pruning.recipe import Recipe, load_recipe, parse_recipe
from scalpel_graph.pruning.report import PruneReport
from scalpel_graph.pruning.samples import Samples, check_samples, load_labels, load_samples, random_samples
from scalpel_graph.pruning.settings import Settings
from scalpel_graph.pruning.speed import Speed
from scalpel_graph.pruning.techniques import Kind
from scalpel_graph.target import CpuTarget, Target, load_target
from scalpel_graph.version import __version__

#: Part of the calibration inputs that answers are compared on, and is not fitted on.
HELD_BACK = 0.2
#: Random inputs that answers are compared on for want of others.
RANDOM_SAMPLES = 4


@dataclass(frozen=True)
class PruneResult:
    """What `prune` gives back.

    Attributes:
        model: the pruned model: an ordinary one, as large as before, with zeros in its weights.
        report: what was done and what it cost.
    """

    model: ModelProto
    report: PruneReport


def prune(
    model: str | os.PathLike[str] | ModelProto | io.LoadedModel,
    target: str | Target = "cpu",
    *,
    sparsity: float | None = None,
    nodes: float | None = None,
    method: str | None = None,
    group_shape: str | GroupShape | None = None,
    importance: str | None = None,
    exclude: Sequence[str] = (),
    recipe: str | os.PathLike[str] | Mapping[str, Any] | None = None,
    calibration: str | os.PathLike[str] | Mapping[str, Array] | None = None,
    held_back: str | os.PathLike[str] | Mapping[str, Array] | None = None,
    labels: str | os.PathLike[str] | Array | None = None,
    speedup: float | None = None,
    size: float | None = None,
    measure: bool = False,
    threads: int = 1,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    progress: Progress | None = None,
) -> PruneResult:
    """Sets weights to zero in the shape that suits a kind of hardware.

    Args:
        model: a file, or a model in memory. It is never changed.
        target: name of a hardware profile, or path of a TOML file.
        sparsity: fraction of weights, or groups of weights, to set to zero in each layer.
        nodes: fraction of nodes (neurons, channels) to remove from layers that lose nodes.
        method: one of `scalpel_graph.pruning.settings.METHODS` or ``n:m``; None for the target's own.
        group_shape: ``(r, c)`` or text such as ``1x8``; None for what suits each layer.
        importance: ``rms`` (default), ``mean`` or ``max``, where there is no calibration.
        exclude: patterns of the names of layers to leave alone.
        recipe: a YAML file, or what it would hold.
        calibration: an ``.npz`` file, or arrays by input name, with one sample for each index of the first
            axis: weights are chosen and fitted by what they do on these. Some are held back.
        held_back: likewise, for comparing the answers; None for those held back from calibration.
        labels: the right answers for ``held_back``, or for ``calibration`` where that is not given.
        speedup: choose the sparsity of each layer for a predicted speed-up.
        size: choose it for weights of this part of their bytes.
        measure: correct the predicted speed-up by timing the network on this machine, all of it: its other
            operators count too.
        threads: intra-op threads, of the target and for ONNX Runtime here.
        input_shapes: sizes to assume for inputs with symbolic dimensions, by input name.
        progress: is told what is being done.

    Raises:
        InputError: the model, the target or an option is unusable.
    """
    started = time.perf_counter()
    tell = progress or Progress()
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    _check_amounts(sparsity, nodes, speedup, size)
    source = loaded(model)
    kind, name, profile = _prune_target(target)
    read = _recipe(recipe)
    options: dict[str, Any] = {
        "sparsity": sparsity,
        "nodes": nodes,
        "method": method,
        "importance": importance,
    }
    options |= {"group_shape": group_shape}
    given = {name: value for name, value in options.items() if value is not None}
    settings = Settings().changed(read.settings, f"{read.source}: ").changed(given)
    shapes = inputs.parse_input_shapes(shape_options(input_shapes or {}), source.proto)
    dimensions = inputs.symbol_sizes(source.proto, shapes)
    fitted, judged, where = _samples(source.proto, calibration, held_back, labels, dimensions)
    graph_of = partial(understood, expand_lrn=kind != "gpu")
    form, graph = _form(source, graph_of)
    timed = None
    if measure:
        if speedup is None or not isinstance(profile, CpuTarget):
            raise InputError("--measure corrects a --speedup for a CPU, this one; leave it out")
        example = make_inputs(source.proto, seed=0, shapes=shapes)
        timed = partial(_measured, form, source.proto, example=example, profile=profile, threads=threads)
    tell.say("asking the cost model")
    works = _works(graph, form, profile, dimensions)
    speed = Speed(profile, works, threads) if isinstance(profile, CpuTarget) else None
    orders = column_orders(graph, dimensions) if kind == "mcu" else {}
    request = Request(
        kind, settings, read, exclude, fitted, threads, speed, works, graph_of, orders, form.layers
    )
    if fitted is None and any(chosen.method == "obs" for chosen in (settings, *_of_layers(read, settings))):
        raise InputError("method 'obs' goes by what weights do on inputs: give --calibration X.npz")
    planner: Planner = Network.plans
    if speedup is not None or size is not None:
        planner = Budget(speedup, size, tell, timed).plans
    pruned = _pruned(form, request, tell, planner)
    found = None
    warnings = []
    if judged is not None:
        tell.say("comparing the answers")
        try:
            found = agreement(source.proto, pruned.model, judged, inputs=where, threads=threads)
        except InputError as error:
            if where != "random":
                raise
            warnings.append(f"the answers were not compared: {error}")
    if fitted is None:
        warnings.append("importance is by magnitude: inputs (--calibration X.npz) lose much less accuracy")
    if speedup is not None and speed is None:
        warnings.append(f"target {name} has no cost model: multiply-adds stand for time")
    report = PruneReport(
        version=__version__,
        input=None if source.path is None else str(source.path),
        output=None,
        target=name,
        method=settings.method,
        calibration=0 if fitted is None else fitted.count,
        asked_speed_up=speedup,
        asked_size=size,
        weights=pruned.weights,
        size_bytes=pruned.size_bytes,
        layers=pruned.layers,
        agreement=found,
        warnings=warnings,
        seconds=time.perf_counter() - started,
    )
    return PruneResult(pruned.model, report)


def _pruned(form: QuantizedForm, request: Request, progress: Progress, planner: Planner) -> Pruned:
    pruned = prune_model(form.model, request, progress, planner)
    return replace(pruned, model=form.restore(pruned.model))


def _measured(
    form: QuantizedForm,
    original: ModelProto,
    pruned: ModelProto,
    *,
    example: dict[str, Array],
    profile: Target,
    threads: int,
) -> float:
    """How much faster the network of which a pruned form is there is than the original."""
    return measured_speed_up(original, example, profile, threads, form.restore(pruned))


def _form(source: io.LoadedModel, graph_of: Understand) -> tuple[QuantizedForm, ModelGraph]:
    form = QuantizedForm(source.proto)
    try:
        return form, graph_of(form.model)
    except GraphError as error:
        raise InputError(f"{source.path or 'the model'} cannot be pruned: {error}") from error


def _works(
    graph: ModelGraph, form: QuantizedForm, profile: Target | None, dimensions: Mapping[str, int]
) -> dict[str, LayerWork]:
    """What layers have to compute: in integers, where the profile has prices for that."""
    works = layer_works(graph, dimensions)
    if isinstance(profile, CpuTarget) and profile.quantized is not None:
        for name in form.layers & works.keys():
            works[name] = replace(works[name], quantized=True, value_bytes=1)
    return works


def _check_amounts(
    sparsity: float | None, nodes: float | None, speedup: float | None, size: float | None
) -> None:
    """Raises `InputError` for amounts that contradict each other or are out of range."""
    given = [
        name
        for name, value in (
            ("--sparsity", sparsity),
            ("--nodes", nodes),
            ("--speedup", speedup),
            ("--size", size),
        )
        if value is not None
    ]
    if (speedup is not None or size is not None) and len(given) > 1:
        raise InputError(f"{' and '.join(given)} contradict each other; give one of them")
    if speedup is not None and not 1 <= speedup < float("inf"):
        raise InputError(f"--speedup must be a number of at least 1, such as 2.0, got {speedup:g}")
    if size is not None and not 0 < size <= 1:
        raise InputError(f"--size must be more than 0 and at most 1, such as 0.2, got {size:g}")


def _prune_target(target: str | Target) -> tuple[Kind, str, Target | None]:
    """The kind of a target, what to call it, and its profile if it has a cost model for float32 layers."""
    profile = load_target(target) if isinstance(target, str) else target
    kind: Kind = "gpu" if profile.kind == "gpu" else "mcu" if profile.kind == "mcu" else "cpu"
    return kind, profile.name, None if kind == "mcu" else profile


def _recipe(recipe: str | os.PathLike[str] | Mapping[str, Any] | None) -> Recipe:
    if recipe is None:
        return Recipe()
    return parse_recipe(dict(recipe)) if isinstance(recipe, Mapping) else load_recipe(Path(recipe))


def _of_layers(recipe: Recipe, common: Settings) -> list[Settings]:
    return [common.changed(values) for values in recipe.layers.values()]


def _samples(
    model: ModelProto,
    calibration: str | os.PathLike[str] | Mapping[str, Array] | None,
    held_back: str | os.PathLike[str] | Mapping[str, Array] | None,
    labels: str | os.PathLike[str] | Array | None,
    dimensions: Mapping[str, int],
) -> tuple[Samples | None, Samples | None, str]:
    """What to fit on, what to compare the answers on, and where that comes from."""
    fitted = None if calibration is None else _read_samples(calibration, model, "calibration")
    judged = None if held_back is None else _read_samples(held_back, model, "held-back inputs")
    where = "given"
    if labels is not None:
        answers = labels if isinstance(labels, np.ndarray) else load_labels(Path(labels))
        source = "labels" if isinstance(labels, np.ndarray) else str(labels)
        if judged is not None:
            judged = judged.with_labels(answers, source)
        elif fitted is not None:
            fitted = fitted.with_labels(answers, source)
        else:
            raise InputError("labels need inputs that they belong to: give --held-back or --calibration")
    if judged is None and fitted is not None:
        (fitted, judged), where = fitted.split(HELD_BACK), "held back"
    if judged is None and fitted is None:
        with contextlib.suppress(InputError, Unverifiable):
            judged, where = random_samples(model, RANDOM_SAMPLES, dimensions), "random"
    return fitted, judged, where


def _read_samples(
    given: str | os.PathLike[str] | Mapping[str, Array], model: ModelProto, what: str
) -> Samples:
    if isinstance(given, Mapping):
        return check_samples(given, model, Path(what))
    return load_samples(Path(given), model)
