"""The way a model flows: file, graph, passes in the target's order, check.

The only module that knows the passes.
"""

import contextlib
import dataclasses
import gc
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from onnx import ModelProto

from scalpel_graph import inputs, io, stats
from scalpel_graph.autotune import Autotuner, cache_path, measure_on_host
from scalpel_graph.cost import LayerWork
from scalpel_graph.errors import CheckError, GraphError, InputError, Unverifiable
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.library import custom_op_library
from scalpel_graph.mcu.agreement import MOST_ERROR, Agreement, compare
from scalpel_graph.mcu.cost import dense_instructions, instructions
from scalpel_graph.mcu.network import DTYPES, Dtype
from scalpel_graph.mcu.program import Program, accumulator_bits, stored_as
from scalpel_graph.passes import pipelines, sparse_layers
from scalpel_graph.passes.base import PassContext, Quantization, Refusal
from scalpel_graph.passes.expand_lrn import ExpandLrn
from scalpel_graph.passes.fold_constants import FoldConstants
from scalpel_graph.passes.fold_shapes import FoldShapes
from scalpel_graph.passes.manager import PassManager
from scalpel_graph.passes.matching import is_standard
from scalpel_graph.passes.quantize import Quantize
from scalpel_graph.pruning.samples import Samples, load_samples
from scalpel_graph.quantize import QUANTIZED_TYPES, QuantizedType
from scalpel_graph.quantize import quantize as quantize_model
from scalpel_graph.report import (
    BeforeAfter,
    IntegerLayerReport,
    McuReport,
    PassRun,
    QuantizationReport,
    Report,
    SkippedNode,
)
from scalpel_graph.target import McuTarget, Target, load_target
from scalpel_graph.value_types import VALUE_TYPES, ValueType, allowance
from scalpel_graph.verify import ATOL, RTOL, RUNS, Verification, verify
from scalpel_graph.version import __version__


@dataclass(frozen=True)
class OptimizeResult:
    """What `optimize` gives back.

    Attributes:
        model: the optimized model; the one that was given (the same object) if there was nothing to change.
        report: what was done and why.
        program: the quantized network as it runs on a microcontroller; None for other targets.
        samples: the calibration inputs; None where there are none.
    """

    model: ModelProto
    report: Report
    program: Program | None = None
    samples: Samples | None = None


def optimize(
    model: str | os.PathLike[str] | ModelProto | io.LoadedModel,
    target: str | Target = "cpu",
    *,
    threads: int = 1,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    check: bool = True,
    check_inputs: str | os.PathLike[str] | None = None,
    rtol: float = RTOL,
    atol: float = ATOL,
    runs: int = RUNS,
    seed: int = 0,
    skip_passes: Sequence[str] = (),
    autotune: bool = False,
    weights: ValueType = "fp32",
    calibration: str | os.PathLike[str] | None = None,
    dtype: Dtype | None = None,
    most_error: float | None = None,
    quantize: QuantizedType | None = None,
    progress: Callable[[str], None] | None = None,
) -> OptimizeResult:
    """Makes the zeros of a pruned model pay on one kind of hardware, checking that its answers stay.

    Args:
        model: a file, or a model in memory. It is never changed.
        target: name of a hardware profile, or path of a TOML file.
        threads: intra-op threads the model will run on.
        input_shapes: sizes to assume for inputs with symbolic dimensions, by input name. The model stays
            symbolic; a symbol that gets no size here counts as 1.
        check: run the model before and after on the same inputs. check_inputs: an ``.npz`` file with one
        array for each input; None makes seeded random ones. rtol, atol: relative and absolute tolerance of
        the check, for each output element. runs: sets of random inputs that are compared. seed: of the random
        inputs. skip_passes: names of passes to leave out. autotune: time the candidates of each layer on this
        machine instead of predicting them. weights: what the values of sparse layers are stored as, ``fp32``,
        ``fp16``, ``bf16`` or ``int8``. Everything is
            computed in float32; the check allows for their rounding.
        calibration: for microcontrollers and to quantize, an ``.npz`` file with an array for each input whose
            first axis counts samples; the ranges of activations are found on them, and the answers compared.
        dtype: for microcontrollers, what to compute in: ``q15``, ``int8`` or ``int8x16`` (8-bit weights,
            16-bit activations); None for what a quantized model is in, else ``q15``.
        most_error: for microcontrollers, how far the answers may be from the float model's on the calibration
            inputs: norm of the difference over norm of the answers; None for `mcu.agreement.MOST_ERROR`.
        quantize: for CPUs, ``int8`` to quantize the float model first (`scalpel_graph.quantize`). What that
            changes is in the report; the check compares with the quantized model.
        progress: is told what is being done, in a few words, each time that changes.

    Raises:
        InputError: the model, the target or an option is unusable.
        CheckError: a pass failed, or the optimized model gives other answers.
    """
    if threads < 1:
        raise InputError(f"threads must be at least 1, got {threads}")
    if weights not in VALUE_TYPES:
        raise InputError(
            f"weights must be {', '.join(VALUE_TYPES[:-1])} or {VALUE_TYPES[-1]}, got {weights!r}"
        )
    tell = progress or (lambda step: None)
    source = loaded(model)
    profile = load_target(target) if isinstance(target, str) else target
    shapes = inputs.parse_input_shapes(shape_options(input_shapes or {}), source.proto)
    _check_kind(
        profile, calibration=calibration, dtype=dtype, most_error=most_error, check_inputs=check_inputs,
        autotune=autotune, weights=weights, check=check, rtol=rtol, atol=atol, skip_passes=skip_passes,
        quantize=quantize,
    )  # fmt: skip
    quantization = None
    samples = None if calibration is None else load_samples(Path(calibration), source.proto)
    if profile.kind == "mcu":
        quantization = Quantization(dtype, samples)
    given_source, name = source, source.path or "the model"
    source, quantized = _quantized_first(source, quantize, samples, tell)
    given = None if check_inputs is None else inputs.load_check_inputs(Path(check_inputs), source.proto)
    context = PassContext(
        target=profile,
        threads=threads,
        tuner=Autotuner(measure_on_host, cache_path(), tell) if autotune else None,
        weights=weights,
        dimensions=inputs.symbol_sizes(source.proto, shapes),
        quantization=quantization,
    )

    def tell_pass(name: str, number: int, total: int) -> None:
        tell(f"pass {number} of {total}: {name}")

    manager = PassManager(pipelines.pipeline_for(profile), skip=skip_passes, on_pass=tell_pass)
    try:
        optimized, runs_of_passes = _rewrite(source.proto, manager, context)
        # Nodes and tensors refer to each other, so the weights that passes made would still be there.
        gc.collect()
        agreement: Agreement | None = None
        if optimized is None:
            outcome = _unchanged("no pass found anything to change")
        elif context.program is not None and quantization is not None and quantization.samples is not None:
            tell("comparing the answers on the calibration inputs")
            agreement = compare(
                source,
                optimized,
                context.program.network,
                quantization.samples,
                most_error=MOST_ERROR[context.program.network.dtype] if most_error is None else most_error,
                library=custom_op_library(),
            )
            outcome = agreement.verified
        elif check:
            tell("checking that the answers stay the same")
            outcome = verify(
                source,
                optimized,
                runs=runs,
                seed=seed,
                dimensions=context.dimensions,
                shapes=shapes,
                check_inputs=given,
                rtol=rtol,
                atol=atol,
                of_largest=allowance(layer.values for layer in context.layers),
                threads=context.threads,
                library=custom_op_library(),
            )
        else:
            outcome = dataclasses.replace(_unchanged("the check was turned off"), ok=False)
    except (GraphError, Unverifiable) as error:
        if profile.kind == "mcu":
            raise InputError(f"{name}: {error}") from error
        # What cannot be represented or compared is left as it is, and so nothing was decided about it.
        optimized, runs_of_passes, outcome = None, [], _unchanged(str(error))
        context.layers.clear()
        context.removed_nodes.clear()
    _raise_unless_verified(outcome, name, check=check, weights=weights, is_integer=agreement is not None)

    before = stats.measure(given_source.proto, context.dimensions)
    result = source.proto if optimized is None else optimized
    after = before if result is given_source.proto else stats.measure(result, context.dimensions)
    size = given_source.size_bytes if result is given_source.proto else io.encoded_bytes(result)
    report = Report(
        version=__version__,
        input=None if given_source.path is None else str(given_source.path),
        output=None,
        target=profile.name,
        times="measured" if autotune else "predicted",
        weights=weights,
        verified=outcome,
        size_bytes=BeforeAfter(given_source.size_bytes, size),
        parameters=BeforeAfter(before.parameters, after.parameters),
        macs=BeforeAfter(before.macs, after.macs),
        layers=list(context.layers),
        removed_nodes=list(context.removed_nodes),
        passes=runs_of_passes,
        microcontroller=None if agreement is None else _mcu_report(context, agreement),
        quantization=quantized,
    )
    return OptimizeResult(result, report, context.program, samples)


def _raise_unless_verified(
    outcome: Verification, name: str | os.PathLike[str], *, check: bool, weights: ValueType, is_integer: bool
) -> None:
    if is_integer and not outcome.ok:
        raise CheckError(f"{name}: {outcome.reason}; nothing was written")
    if check and not outcome.ok:
        rounded = "" if weights == "fp32" else f", or leave out --weights {weights}"
        raise CheckError(
            f"{name}: {outcome.reason}; nothing was written; if rounding explains it, allow more with"
            f" --rtol or --atol{rounded}, else find the pass at fault by leaving out some (--skip-pass)"
        )


def _quantized_first(
    source: io.LoadedModel,
    quantize: QuantizedType | None,
    samples: Samples | None,
    tell: Callable[[str], None],
) -> tuple[io.LoadedModel, QuantizationReport | None]:
    """The model that is optimized, and what quantizing it did; as it is where nobody asks for that."""
    if quantize is None:
        return source, None
    tell("quantizing")
    assert samples is not None  # _check_kind() asks for it
    found = quantize_model(source, samples)
    report = QuantizationReport(quantize, found.relative_error, found.same_class, found.samples)
    return io.from_proto(found.model), report


def _check_kind(
    profile: Target,
    *,
    calibration: str | os.PathLike[str] | None,
    dtype: Dtype | None,
    most_error: float | None,
    check_inputs: str | os.PathLike[str] | None,
    autotune: bool,
    weights: ValueType,
    check: bool,
    rtol: float,
    atol: float,
    skip_passes: Sequence[str],
    quantize: QuantizedType | None,
) -> None:
    """Refuses options that the kind of target has no use for."""
    if quantize is not None:
        _check_quantize(profile, quantize, calibration)
    if dtype is not None and dtype not in DTYPES:
        raise InputError(f"dtype must be {', '.join(DTYPES[:-1])} or {DTYPES[-1]}, got {dtype!r}")
    only_mcu = {
        "--calibration": calibration is not None and quantize is None,
        "--dtype": dtype is not None,
        "--max-error": most_error is not None,
    }
    not_mcu = {
        "--rtol": rtol != RTOL,
        "--atol": atol != ATOL,
        "--check-inputs": check_inputs is not None,
        "--autotune": autotune,
        "--weights": weights != "fp32",
        "--no-check": not check,
    }
    if autotune and profile.kind == "gpu":
        raise InputError(
            f"--autotune times layers on the CPU here, and target {profile.name} is a GPU: leave it out;"
            " scalpel-calibrate --target gpu measures a GPU"
        )
    if weights == "int8" and profile.kind == "gpu":
        raise InputError(
            f"--weights int8 has no meaning for target {profile.name}: there are no kernels for it; give fp16"
            " or leave it out"
        )
    is_mcu = profile.kind == "mcu"
    if is_mcu and Quantize.name in skip_passes:
        raise InputError(
            f"--skip-pass {Quantize.name}: there is no target {profile.name} without it; leave it out"
        )
    for option, is_given in (not_mcu if is_mcu else only_mcu).items():
        if is_given:
            instead = "see --max-error" if option in ("--rtol", "--atol") else "it is for others"
            instead = instead if is_mcu else "it is for microcontrollers"
            if option == "--calibration" and profile.kind == "cpu":
                instead = "it is for microcontrollers and --quantize"
            raise InputError(f"{option} has no meaning for target {profile.name}: {instead}; leave it out")


def _check_quantize(profile: Target, quantize: str, calibration: str | os.PathLike[str] | None) -> None:
    if quantize not in QUANTIZED_TYPES:
        raise InputError(f"quantize must be {' or '.join(QUANTIZED_TYPES)}, got {quantize!r}")
    if profile.kind != "cpu":
        instead = "see --dtype" if profile.kind == "mcu" else "it is for CPUs"
        raise InputError(f"--quantize has no meaning for target {profile.name}: {instead}; leave it out")
    if calibration is None:
        raise InputError(
            "--quantize needs inputs to find the ranges of activations: give --calibration X.npz with some"
            " hundred of them"
        )


def _mcu_report(context: PassContext, agreement: Agreement) -> McuReport:
    program, target = context.program, context.target
    assert program is not None and isinstance(target, McuTarget)
    layers = [
        IntegerLayerReport(
            name=code.layer.name,
            op=getattr(code.layer, "op", type(code.layer).__name__),
            stored=stored_as(code.layer),
            accumulator_bits=accumulator_bits(code),
            instructions=round(instructions(code, target)),
            flash_bytes=code.flash_bytes,
            ram_bytes=program.ram_bytes(code),
        )
        for code in program.layers
    ]
    return McuReport(
        dtype=program.network.dtype,
        instructions=sum(layer.instructions for layer in layers),
        dense_instructions=round(dense_instructions(program, target)),
        flash_bytes=program.flash_bytes,
        ram_bytes=program.arena_bytes,
        relative_error=agreement.relative_error,
        same_class=agreement.same_class,
        samples=agreement.samples,
        layers=layers,
    )


def list_passes() -> list[tuple[str, str]]:
    """Name and one-line summary of every pass, in the order they run."""
    return [(step.name, step.summary) for step in pipelines.list_passes()]


def understood(model: ModelProto, *, expand_lrn: bool = False) -> ModelGraph:
    """A graph of a model, in which what is constant is folded and types are known as far as they can be.

    Nodes that are layers have the labels that they have in the model.

    Args:
        model: the model.
        expand_lrn: have LRN made of other operators, as the pipeline for CPUs does.

    Raises:
        GraphError: the model cannot be represented.
    """
    graph = ModelGraph(model)
    manager = PassManager([*([ExpandLrn()] if expand_lrn else []), FoldConstants(), FoldShapes()])
    manager.run(graph, PassContext(target=load_target("gpu")))  # these passes are the same for every target
    graph.infer(strict=False)
    return graph


def layer_works(graph: ModelGraph, dimensions: Mapping[str, int]) -> dict[str, LayerWork]:
    """By label, what the layers of a graph have to compute; those that are not understood are missing.

    Args:
        graph: the graph.
        dimensions: sizes of symbolic dimensions; a symbol that is not there counts as 1.
    """
    shapes = graph.assumed_shapes(dimensions)
    described = []
    for node in graph.nodes:
        if is_standard(node, "Conv", "Gemm", "MatMul"):
            with contextlib.suppress(Refusal):
                described.append(sparse_layers.describe(graph, node, shapes))
    together = sparse_layers.in_one_network(described, "fp32")
    return {node_label(layer.node): layer.work for layer in together}


def loaded(model: str | os.PathLike[str] | ModelProto | io.LoadedModel) -> io.LoadedModel:
    """A model that is given as a file or in memory.

    Raises:
        InputError: it is unusable.
    """
    if isinstance(model, io.LoadedModel):
        return model
    return io.from_proto(model) if isinstance(model, ModelProto) else io.load(Path(model))


def _rewrite(
    proto: ModelProto, manager: PassManager, context: PassContext
) -> tuple[ModelProto | None, list[PassRun]]:
    """Runs the passes. The model is None if they changed nothing."""
    graph = ModelGraph(proto)
    records = manager.run(graph, context)
    runs = [
        PassRun(
            record.name,
            record.modified,
            record.seconds,
            [SkippedNode(skip.node, skip.reason) for skip in record.skipped],
        )
        for record in records
    ]
    return (graph.to_proto() if any(record.modified for record in records) else None), runs


def _unchanged(reason: str) -> Verification:
    """The outcome where nothing had to be compared: the model that goes out is the one that came in."""
    return Verification(
        ok=True, max_abs_diff=0.0, max_rel_diff=0.0, runs=0, custom_ops=False, fallback=False, reason=reason
    )


def shape_options(shapes: Mapping[str, Sequence[int]]) -> list[str]:
    """As the command line spells them, so that both ways in are checked alike."""
    return [f"{name}:{','.join(map(str, shape))}" for name, shape in shapes.items()]
