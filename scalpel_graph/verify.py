"""Checking that a rewritten model computes what the original computes, in ONNX Runtime.

The original runs on seeded inputs (or on given ones), then the result runs on the same, both ways a person
can meet it: with the custom-op library, and without it through the functions that the file carries. The
criterion is that of `scalpel_graph.compare`; where quantized layers became sparse, one step of the last
integers more.
"""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import AttributeProto, ModelProto, NodeProto

from scalpel_graph import io, ops, qlinear_ops
from scalpel_graph.compare import Difference, compare, is_float, worst
from scalpel_graph.errors import InputError, Unverifiable
from scalpel_graph.inputs import Recipe, has_open_dimensions, make_inputs
from scalpel_graph.last_steps import last_steps
from scalpel_graph.session import IN_MEMORY_BYTES, SessionError, loadable, run, session

__all__ = ["Unverifiable", "Verification", "verify"]

#: Sets of generated inputs, and tolerances that allow for rounding alone.
RUNS = 2
RTOL = 1e-3
ATOL = 1e-5
#: Times as far as its answers without fusions may be those of a network that quantizes while it runs.
_AMPLIFIED = 2.0

#: Operators that draw random numbers. Two runs of a model may agree by luck.
_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}


@dataclass(frozen=True)
class Verification:
    """What the check found.

    Attributes:
        ok: whether every output of every run agreed, every way the result was run.
        max_abs_diff: largest difference of any floating-point element.
        max_rel_diff: largest difference over the largest magnitude of its tensor.
        runs: number of input sets.
        custom_ops: whether the result was run with the custom-op library, and agreed. False for a result that
            has none of our operators: there is nothing in it that the library would run.
        fallback: whether the result was run without the library, and agreed.
        reason: one sentence that says what disagreed; empty if nothing did.
    """

    ok: bool
    max_abs_diff: float
    max_rel_diff: float
    runs: int
    custom_ops: bool
    fallback: bool
    reason: str = ""


@dataclass(frozen=True)
class _Run:
    """One set of inputs, and what the original makes of it."""

    inputs: Mapping[str, Any]
    outputs: Mapping[str, Any]


def verify(
    before: io.LoadedModel,
    after: ModelProto,
    *,
    runs: int = RUNS,
    seed: int = 0,
    dimensions: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    check_inputs: Mapping[str, Any] | None = None,
    rtol: float = RTOL,
    atol: float = ATOL,
    of_largest: float = 0.0,
    threads: int = 1,
    library: str | Path | None = None,
) -> Verification:
    """Runs the original and the result and compares their outputs.

    Where the batch is open it is 1 and 2 in turn, if the model takes that. If ONNX Runtime refuses the
    generated values, other sizes and other ranges of values are tried.

    Args:
        before: the original.
        after: the result.
        runs: number of generated input sets, at least 1.
        seed: seed of the first set; each further set takes the next.
        dimensions: size of symbolic dimensions.
        shapes: shape of inputs.
        check_inputs: inputs of one run, which takes the place of the generated ones.
        rtol, atol, of_largest: tolerance for floating-point outputs; see `scalpel_graph.compare`.
        threads: intra-op threads.
        library: custom-op library; None checks the result without it only.

    Raises:
        Unverifiable: ONNX Runtime cannot load or run the original, the original gives other outputs each
            time, or no inputs can be made.
        InputError: the library cannot be loaded, ``shapes`` contradicts the model, or ONNX Runtime refuses
            ``check_inputs``.
    """
    is_large = before.size_bytes > IN_MEMORY_BYTES
    # What is rounded to integers may be rounded otherwise where it lies between two.
    is_quantized = any(node.op_type in qlinear_ops.OPERATORS for node in _nodes(after))
    steps = last_steps(before.proto) if is_quantized else {}
    settings = _Settings(rtol, atol, of_largest, threads, is_large, steps)
    generator = _Generator(before.proto, runs, seed, dimensions, shapes)
    references = _run_original(before, generator, check_inputs, settings)
    if is_quantized and any(node.op_type == "DynamicQuantizeLinear" for node in _nodes(before.proto)):
        settings = replace(settings, steps=_amplified(before, references, settings))
    ours = _uses_our_ops(after)
    with loadable(after) as result:
        with_library = None
        if ours and library is not None:
            with_library = _check(result, ours, references, settings, library)
        without_library = _check(result, ours, references, settings, None)
    total = worst((with_library or Difference(), without_library))
    if total.reason:
        _raise_if_random(before.proto)
    return Verification(
        ok=not total.reason,
        max_abs_diff=total.max_abs,
        max_rel_diff=total.max_rel,
        runs=len(references),
        custom_ops=with_library is not None and not with_library.reason,
        fallback=not without_library.reason,
        reason=total.reason,
    )


@dataclass(frozen=True)
class _Settings:
    """How to run and how to compare.

    Attributes:
        steps: by output, the last step of a quantized network; empty for others.
    """

    rtol: float
    atol: float
    of_largest: float
    threads: int
    is_large: bool
    steps: Mapping[str, float]


@dataclass(frozen=True)
class _Generator:
    """Makes the input sets of a model, each by several recipes."""

    model: ModelProto
    runs: int
    seed: int
    dimensions: Mapping[str, int] | None
    shapes: Mapping[str, Sequence[int]] | None

    def attempts(self, number: int, proven: Recipe | None) -> Iterator[Recipe]:
        """Recipes to try for a run, best first, ending with one that an earlier run proved to work."""
        batch = 1 if number % 2 == 0 else 2
        sizes: list[tuple[int, int | None]] = [(1, 1)]
        if has_open_dimensions(self.model, self.dimensions, self.shapes):
            sizes = [(batch, size) for size in (None, 1, 224, 16)]
        if proven is not None:
            sizes = [(batch, proven.size)]
        integers: tuple[Any, ...] = ("indices", "bits", "ones", "zeros")
        floats: tuple[Any, ...] = ("normal", "positive", "ones")
        for (batch_size, size), kind, values in product(sizes, integers, floats):
            yield Recipe(batch_size, size, kind, values)
        if proven is not None:
            yield proven

    def make(self, number: int, recipe: Recipe) -> dict[str, Any]:
        return make_inputs(
            self.model, seed=self.seed + number, dimensions=self.dimensions, shapes=self.shapes, recipe=recipe
        )


def _run_original(
    before: io.LoadedModel,
    generator: _Generator,
    check_inputs: Mapping[str, Any] | None,
    settings: _Settings,
) -> list[_Run]:
    """Runs the original on every input set, and makes sure that it gives the same twice."""
    try:
        original = _session_of_original(before, settings)
    except SessionError as error:
        raise Unverifiable(f"ONNX Runtime cannot load the original model ({error})") from error
    references: list[_Run] = []
    if check_inputs is not None:
        try:
            references.append(_Run(check_inputs, run(original, check_inputs)))
        except SessionError as error:
            raise InputError(
                f"ONNX Runtime cannot run the original on the given inputs ({error}); correct --check-inputs"
            ) from error
    else:
        proven = None
        for number in range(generator.runs):
            reference, proven = _generated_run(original, generator, number, proven)
            references.append(reference)
    again = run(original, references[0].inputs)
    if _compare_outputs(references[0].outputs, again, settings).reason:
        raise Unverifiable("the original gives other outputs each time it runs")
    return references


def _amplified(
    before: io.LoadedModel, references: Sequence[_Run], settings: _Settings
) -> Mapping[str, float]:
    """The steps of a network that quantizes while it runs, with what rounding alone does to its outputs.

    What is rounded to integers by a scale that is computed may move by a step for the least difference before
    it, and then moves what comes behind. How much that is shows in how far the network's answers are from its
    own without ONNX Runtime's fusions, which round in another order.
    """
    plain = session(before.proto, threads=settings.threads, optimize=False)
    steps = dict(settings.steps)
    for reference in references:
        for name, value in run(plain, reference.inputs).items():
            if isinstance(value, np.ndarray) and is_float(value.dtype) and value.size:
                moved = float(np.abs(value.astype(np.float64) - reference.outputs[name]).max())
                steps[name] = max(steps.get(name, 0.0), _AMPLIFIED * moved)
    return steps


def _session_of_original(before: io.LoadedModel, settings: _Settings) -> ort.InferenceSession:
    """Of its file if it is large: its weights are then in memory once, as the proto, and otherwise mapped."""
    if before.path is not None and settings.is_large:
        # ONNX Runtime is stricter than `io` about links to data files.
        with contextlib.suppress(SessionError):
            return session(before.path, threads=settings.threads, prepack=False)
    return session(before.proto, threads=settings.threads)


def _generated_run(
    original: ort.InferenceSession, generator: _Generator, number: int, proven: Recipe | None
) -> tuple[_Run, Recipe]:
    """Finds inputs that the original takes, if possible such that no output is NaN or infinite."""
    candidate: tuple[_Run, Recipe] | None = None
    problem: SessionError | None = None
    tried: list[Mapping[str, Any]] = []
    for recipe in generator.attempts(number, proven):
        if candidate is not None and recipe.floats == "normal":
            break  # only other floating-point values could make the outputs finite
        inputs = generator.make(number, recipe)
        if any(_same(inputs, other) for other in tried):
            continue
        tried.append(inputs)
        try:
            outputs = run(original, inputs)
        except SessionError as error:
            problem = problem or error
            continue
        if _all_finite(outputs):
            return _Run(inputs, outputs), recipe
        candidate = candidate or (_Run(inputs, outputs), recipe)
    if candidate is None:
        raise Unverifiable(
            f"ONNX Runtime cannot run the original on generated inputs ({problem}); give --check-inputs"
        )
    return candidate


def _check(
    after: ModelProto | Path,
    ours: bool,
    references: list[_Run],
    settings: _Settings,
    library: str | Path | None,
) -> Difference:
    """Runs the result, which has operators of ours or not, one way on every input set."""
    way = ""
    if ours:
        way = f" ({'without' if library is None else 'with'} the operator library)"
    try:
        # Folding the functions of all layers at once takes several times the dense model.
        fold = not (settings.is_large and ours and library is None)
        result = session(after, library=library, threads=settings.threads, fold=fold)
    except SessionError as error:
        return Difference(reason=f"ONNX Runtime cannot load the result{way}: {error}")
    differences = []
    for number, reference in enumerate(references, 1):
        try:
            difference = _compare_outputs(reference.outputs, run(result, reference.inputs), settings)
        except SessionError as error:
            difference = Difference(reason=f"ONNX Runtime cannot run the result: {error}")
        if difference.reason:
            place = f"run {number} of {len(references)}{way}"
            difference = replace(difference, reason=f"{place}: {difference.reason}")
        differences.append(difference)
    return worst(differences)


def _compare_outputs(
    expected: Mapping[str, Any], actual: Mapping[str, Any], settings: _Settings
) -> Difference:
    if list(expected) != list(actual):
        return Difference(reason=f"the result has outputs {list(actual)} instead of {list(expected)}")
    differences = []
    for name, value in expected.items():
        try:
            difference = compare(
                value,
                actual[name],
                rtol=settings.rtol,
                atol=settings.atol + settings.steps.get(name, 0.0),
                of_largest=settings.of_largest,
                steps=1 if settings.steps else 0,
            )
        except TypeError as error:
            raise Unverifiable(f"output {name!r} cannot be compared ({error})") from error
        if difference.reason:
            difference = replace(difference, reason=f"output {name!r} {difference.reason}")
        differences.append(difference)
    return worst(differences)


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Mapping):
        return a.keys() == b.keys() and all(_same(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(_same, a, b))
    return bool(np.array_equal(a, b))


def _all_finite(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_all_finite, value.values()))
    if isinstance(value, list):
        return all(map(_all_finite, value))
    if isinstance(value, np.ndarray):
        return not is_float(value.dtype) or bool(np.isfinite(value).all())
    return not isinstance(value, float) or math.isfinite(value)


def _uses_our_ops(model: ModelProto) -> bool:
    return any(node.domain == ops.DOMAIN for node in _nodes(model))


def _raise_if_random(model: ModelProto) -> None:
    for node in _nodes(model):
        if node.op_type in _RANDOM and node.domain in ("", "ai.onnx"):
            raise Unverifiable(
                f"the original draws random numbers ({node.op_type} {node.name or node.output[0]!r})"
            )


def _nodes(model: ModelProto) -> Iterator[NodeProto]:
    """Every node of a model: main graph, subgraphs and functions that are not our own."""
    functions = (f for f in model.functions if f.domain != ops.DOMAIN)
    stack = list(chain(model.graph.node, chain.from_iterable(f.node for f in functions)))
    while stack:
        node = stack.pop()
        yield node
        for attribute in node.attribute:
            graphs = (attribute.g,) if attribute.type == AttributeProto.GRAPH else attribute.graphs
            stack.extend(chain.from_iterable(graph.node for graph in graphs))
