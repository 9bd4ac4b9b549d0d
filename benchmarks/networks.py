"""Whole networks, pruned, before and after optimization: size against prediction, and speed.

``python -m benchmarks.networks`` builds each network, prunes it by magnitude, optimizes it for the CPU
(checked both ways), and times the pruned model in plain ONNX Runtime against the optimized one, in turns in
one process. What it prints and writes:

- layers that became sparse, of all that a choice was made about;
- the size of the optimized file, against the size that the weights' density and the format predict;
- the speed-up with the 95 % confidence interval of its median; nothing is timed where optimization changed
  nothing, since what goes out is then the file that came in;
- with ``--fallback``, the same without our library, which ONNX Runtime then runs as dense operators.
"""

import argparse
import json
import platform
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
from onnx import numpy_helper
from rich.text import Text

import scalpel_graph
from benchmarks import options as option_types
from benchmarks.tables import Results, add_markdown_option, percent, shape_name
from models import NETWORKS
from scalpel_graph import formatting, group_csr, ops
from scalpel_graph.cli import console
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning import WeightLayer, prune_magnitude, weight_layers
from scalpel_graph.report import LayerDecision
from scalpel_graph.session import session
from scalpel_graph.timing import Ratio, time_interleaved

_PROG = "python -m benchmarks.networks"

SPARSITIES = (0.5, 0.7, 0.8, 0.9, 0.95)
GROUP_SHAPES: tuple[GroupShape, ...] = ((1, 8), (8, 1), (4, 1), (1, 1))
THREADS = (1, 2)
_QUICK_SPARSITIES = (0.5, 0.9)
_QUICK_GROUP_SHAPES: tuple[GroupShape, ...] = ((1, 8), (4, 1))

#: The pass that brings group-CSR in: without it, a model is what it would be if nothing were substituted.
_SUBSTITUTION = "substitute-group-csr"


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        network: name in `models.NETWORKS`.
        sparsity: fraction of groups set to zero in each pruned layer.
        group_shape: ``(r, c)`` that it was pruned in.
        threads: of ONNX Runtime.
        sparse_layers: layers that became group-CSR operators.
        layers: layers that a choice was made about.
        dense_bytes: size of the pruned model's file.
        optimized_bytes: size of the optimized model's file.
        predicted_bytes: size that density and format predict for it.
        dense_ms: median time of the pruned model in plain ONNX Runtime; None if nothing was timed.
        optimized_ms: median time of the optimized model with our operators.
        speed_up: times faster.
        fallback: times faster without our library; None if not asked for.
        rounds: of the measurement.
    """

    network: str
    sparsity: float
    group_shape: GroupShape
    threads: int
    sparse_layers: int
    layers: int
    dense_bytes: int
    optimized_bytes: int
    predicted_bytes: int
    dense_ms: float | None = None
    optimized_ms: float | None = None
    speed_up: Ratio | None = None
    fallback: Ratio | None = None
    rounds: int = 0

    @property
    def size_error(self) -> float:
        """Size of the file over its prediction, less 1."""
        return self.optimized_bytes / self.predicted_bytes - 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns its exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    console.check_folder(options.json)
    results: list[Result] = []
    out = console.output_console()
    with console.progress(False) as step:
        for result in _measure_all(options, step):
            results.append(result)
            console.write_file(options.json, json.dumps(_as_json(results), indent=2) + "\n")
    if options.markdown:
        for threads in dict.fromkeys(result.threads for result in results):
            out.print(f"### {formatting.plural(threads, 'thread')}\n")
            _speed_ups([result for result in results if result.threads == threads]).print(out, markdown=True)
    else:
        _table(results).print(out)
    timed = [(result.speed_up.median, _name(result)) for result in results if result.speed_up is not None]
    worst = max(results, key=lambda result: abs(result.size_error))
    out.print()
    if timed:
        out.print("slowest: {1} at {0:.2f}×".format(*min(timed)))
    out.print(f"furthest from its predicted size: {_name(worst)}, {worst.size_error:+.1%}")
    out.print(f"written to {options.json}")
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(prog=_PROG, description="Whole networks before and after optimization.")
    parser.add_argument(
        "--network", action="append", type=option_types.network, help="repeatable; default: all"
    )
    parser.add_argument(
        "--sparsity", action="append", type=option_types.fraction, help="repeatable; default: 0.5 to 0.95"
    )
    parser.add_argument(
        "--group-shape",
        action="append",
        type=option_types.group_shape,
        help="repeatable; default: 1x8 8x1 4x1 1x1",
    )
    parser.add_argument("--threads", action="append", type=console.positive, help="repeatable; default: 1 2")
    parser.add_argument(
        "--seconds", type=option_types.seconds, default=3.0, help="time for each comparison (default: 3)"
    )
    parser.add_argument("--fallback", action="store_true", help="also time it without our library")
    parser.add_argument("--quick", action="store_true", help="fewer sparsities and shapes, one second each")
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        default=Path("build/benchmarks/networks.json"),
        help="%(default)s",
    )
    add_markdown_option(parser)
    return parser


def _measure_all(options: argparse.Namespace, step: Any) -> Iterator[Result]:
    networks = options.network or list(NETWORKS)
    sparsities = options.sparsity or (_QUICK_SPARSITIES if options.quick else SPARSITIES)
    group_shapes = options.group_shape or (_QUICK_GROUP_SHAPES if options.quick else GROUP_SHAPES)
    seconds = 1.0 if options.quick else options.seconds
    for name in networks:
        step(f"building {name}")
        model = NETWORKS[name].build()
        for sparsity, group_shape in product(sparsities, group_shapes):
            layers = NETWORKS[name].pruned_layers
            pruned = prune_magnitude(model, sparsity, group_shape, layers=layers).model
            for threads in options.threads or THREADS:
                on = formatting.plural(threads, "thread")
                step(f"{name}, {sparsity:.0%} of {shape_name(group_shape)} groups zero, {on}")
                yield _measure(
                    name,
                    pruned,
                    sparsity,
                    group_shape,
                    threads=threads,
                    seconds=seconds,
                    fallback=options.fallback,
                )


def _measure(
    name: str,
    pruned: onnx.ModelProto,
    sparsity: float,
    group_shape: GroupShape,
    *,
    threads: int,
    seconds: float,
    fallback: bool,
) -> Result:
    result = scalpel_graph.optimize(pruned, target="cpu", threads=threads)
    unsubstituted = scalpel_graph.optimize(
        pruned, target="cpu", threads=threads, check=False, skip_passes=[_SUBSTITUTION]
    )
    decisions = result.report.layers
    sparse = [layer for layer in decisions if layer.chosen.decision == "group_csr"]
    outcome = Result(
        network=name,
        sparsity=sparsity,
        group_shape=group_shape,
        threads=threads,
        sparse_layers=len(sparse),
        layers=len(decisions),
        dense_bytes=result.report.size_bytes.before,
        optimized_bytes=result.report.size_bytes.after,
        predicted_bytes=predicted_bytes(unsubstituted.model, sparse, unsubstituted.report.size_bytes.after),
    )
    if not result.report.modified:
        return outcome
    sessions = [
        session(pruned, threads=threads),
        session(result.model, library=scalpel_graph.custom_op_library(), threads=threads),
    ]
    if fallback:
        sessions.append(session(result.model, threads=threads))
    feed = {pruned.graph.input[0].name: NETWORKS[name].sample_input()}
    times = time_interleaved(
        [partial(one.run, None, feed) for one in sessions], budget_s=seconds, threads=threads
    )
    return replace(
        outcome,
        dense_ms=times.median(0) * 1e3,
        optimized_ms=times.median(1) * 1e3,
        speed_up=times.ratio(1),
        fallback=times.ratio(2) if fallback else None,
        rounds=times.rounds,
    )


def predicted_bytes(
    unsubstituted: onnx.ModelProto, sparse: Sequence[LayerDecision], unsubstituted_bytes: int
) -> int:
    """Size of the optimized file by density and format: what optimization should have written.

    Everything that is not substituted, the weights of each substituted layer as group-CSR at the density they
    have in ``unsubstituted``, and one function for each operator that is used.

    Args:
        unsubstituted: the model after all other rewrites.
        sparse: the layers that were substituted, with the group shape chosen for each.
        unsubstituted_bytes: its size.
    """
    tensors = {tensor.name: tensor for tensor in unsubstituted.graph.initializer}
    layers = {layer.name: layer for layer in weight_layers(unsubstituted) if isinstance(layer, WeightLayer)}
    total = unsubstituted_bytes
    for decision in sparse:
        layer = layers[decision.name]
        tensor = numpy_helper.to_array(tensors[layer.weight])
        group_shape = decision.chosen.group_shape
        assert group_shape is not None, "a group-CSR layer has a group shape"
        n_groups = group_csr.encode(layer.matrix(tensor), group_shape).n_groups
        total += group_csr.encoded_bytes(layer.shape, group_shape, n_groups) - tensor.nbytes
    opset = unsubstituted.opset_import[0].version
    used = {ops.CONV if decision.op == "Conv" else ops.GEMM for decision in sparse}
    return total + sum(int(ops.function(operator, opset).ByteSize()) for operator in used)


def _as_json(results: Sequence[Result]) -> dict[str, Any]:
    return {
        "scalpel_graph": scalpel_graph.__version__,
        "onnxruntime": onnxruntime.__version__,
        "machine": platform.machine(),
        "system": platform.platform(),
        "results": [asdict(result) | {"size_error": result.size_error} for result in results],
    }


def _table(results: Sequence[Result]) -> Results:
    table = Results(
        [
            "network",
            "sparsity",
            "groups",
            "threads",
            "sparse",
            "file",
            "of predicted",
            "dense",
            "optimized",
            "speed-up",
            "95 % interval",
            "as plain ONNX",
        ]
    )
    for result in results:
        table.rows.append(
            [
                result.network,
                f"{result.sparsity:.0%}",
                shape_name(result.group_shape),
                str(result.threads),
                f"{result.sparse_layers}/{result.layers}",
                formatting.size(result.optimized_bytes),
                Text(f"{1 + result.size_error:.1%}", "red" if abs(result.size_error) > 0.03 else ""),
                *_times(result),
            ]
        )
    return table


def _speed_ups(results: Sequence[Result]) -> Results:
    """Times faster, a column for each group shape: what the documentation shows of one number of threads."""
    shapes = list(dict.fromkeys(shape_name(result.group_shape) for result in results))
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for result in results:
        cells = rows.setdefault((result.network, percent(result.sparsity)), {})
        ratio = result.speed_up
        cells[shape_name(result.group_shape)] = "same file" if ratio is None else f"{ratio.median:.2f}"
    table = Results(["network", "sparsity", *shapes])
    for names, cells in rows.items():
        table.rows.append([*names, *(cells.get(shape, "") for shape in shapes)])
    return table


def _times(result: Result) -> list[str | Text]:
    ratio = result.speed_up
    if ratio is None or result.dense_ms is None or result.optimized_ms is None:
        return ["", "", "same file", "", ""]
    style = "red" if ratio.median < 0.97 else "green" if ratio.low > 1 else ""
    return [
        formatting.microseconds(result.dense_ms * 1e3),
        formatting.microseconds(result.optimized_ms * 1e3),
        Text(f"{ratio.median:.2f}×", style),
        f"{ratio.low:.2f}–{ratio.high:.2f}",
        "" if result.fallback is None else f"{result.fallback.median:.2f}×",
    ]


def _name(result: Result) -> str:
    threads = formatting.plural(result.threads, "thread")
    return f"{result.network} at {result.sparsity:.0%} in {shape_name(result.group_shape)}, {threads}"


if __name__ == "__main__":
    sys.exit(main())
