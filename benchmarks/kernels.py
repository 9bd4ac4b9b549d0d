"""Times the kernels on layers of real networks, next to dense ONNX Runtime and the multiply-add peak.

Each layer is one row: dense ONNX Runtime (a model of that single node), then every group shape at one density
of random weights. Everything of a row is measured in turns, several times, and the medians are compared:
absolute times of a shared machine mean little, ratios within a row do.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from statistics import geometric_mean
from typing import Any

import numpy as np

from benchmarks import options as option_types
from benchmarks.layer_timers import Timer, dense_timer, encoded, medians, random_input, sparse_timer
from benchmarks.layers import LAYERS, layer_name
from benchmarks.tables import Results, percent
from scalpel_graph import _kernels
from scalpel_graph.calibration.layers import LayerShape
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape

_PROG = "python -m benchmarks.kernels"
#: From so many on, columns fill the vectors of every instruction set.
MANY_COLUMNS = 32
GROUP_SHAPES: tuple[GroupShape, ...] = ((1, 1), (1, 8), (1, 16), (2, 1), (4, 1), (8, 1), (16, 1))


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns its exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    layers = [layer for layer in LAYERS if options.layers in layer_name(layer)]
    if not layers:
        raise InputError(f"--layers {options.layers}: no layer has this in its name")
    if options.json:
        console.check_folder(options.json)
    isas = options.isa or [_kernels.chosen_isa()]
    group_shapes = options.group_shape or GROUP_SHAPES
    peaks = {isa: _peak(isa, options.threads, options.rounds) for isa in isas}
    results = []
    with console.counted("timing layers", len(layers), False) as advance:
        for layer in layers:
            results.append(measure(layer, isas, group_shapes, options))
            advance()
    out = console.output_console()
    if not options.markdown:
        out.print(_caption(peaks, options), style="dim")
    _table(results, peaks, group_shapes).print(out, markdown=options.markdown)
    if options.json:
        facts = {"threads": options.threads, "density": options.density, "peak_gflops": peaks}
        console.write_file(options.json, json.dumps({**facts, "layers": results}, indent=1) + "\n")
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(
        prog=_PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--density", type=option_types.fraction, default=0.1, help="groups kept (default 0.1)"
    )
    parser.add_argument("--threads", type=console.positive, default=1)
    parser.add_argument(
        "--isa",
        action="append",
        choices=_kernels.isas(),
        help="repeatable; default: the one that operators use",
    )
    option_types.add_layer_timing_options(parser, GROUP_SHAPES)
    return parser


def measure(
    layer: LayerShape, isas: Sequence[str], group_shapes: Sequence[GroupShape], options: argparse.Namespace
) -> dict[str, Any]:
    """Medians of one layer: dense, and each group shape with each instruction set."""
    rng = np.random.default_rng(0)
    X = random_input(layer, rng)
    matrices = [encoded(layer, rng, group_shape, options.density) for group_shape in group_shapes]
    cases = [(isa, matrix) for isa in isas for matrix in matrices]
    timers: list[Timer] = [dense_timer(layer, layer.weights(rng, (1, 1), 1.0), X, options.threads)]
    timers += [sparse_timer(layer, matrix, X, options.threads, isa) for isa, matrix in cases]
    dense, *sparse = medians(timers, options.rounds, options.seconds)
    shapes = [
        {
            "isa": isa,
            "group_shape": matrix.group_shape,
            "us": seconds * 1e6,
            "gflops_on_nonzeros": 2e-9 * np.count_nonzero(matrix.values) * layer.work.N / seconds,
            "matrix_gb_per_s": 1e-9 * matrix.nbytes / seconds,
            "speedup_over_dense": dense / seconds,
        }
        for (isa, matrix), seconds in zip(cases, sparse, strict=True)
    ]
    return {
        "layer": layer_name(layer),
        "columns": layer.work.N,
        "dense_us": dense * 1e6,
        "group_shapes": shapes,
    }


def _peak(isa: str, threads: int, rounds: int) -> float:
    """GFLOP/s of multiply-adds; that of the scalar reference is not known."""
    if isa == "scalar":
        return float("inf")
    return max(_kernels.peak_flops(isa, threads=threads) for _ in range(rounds)) / 1e9


def _caption(peaks: dict[str, float], options: argparse.Namespace) -> str:
    of_each = ", ".join(f"{isa} {peak:.0f} GFLOP/s" for isa, peak in peaks.items())
    return (
        f"density {options.density}, {options.threads} thread(s), peak of {of_each}\n"
        "share of the peak that non-zeros reach (one column: GB/s of the matrix) · times faster than dense\n"
    )


def _table(
    results: Sequence[dict[str, Any]], peaks: dict[str, float], group_shapes: Sequence[GroupShape]
) -> Results:
    headings = [f"{isa} {r}×{c}" for isa in peaks for r, c in group_shapes]
    table = Results(["layer", "dense µs", *headings])
    for result in results:
        cells = []
        for shape in result["group_shapes"]:
            share = shape["gflops_on_nonzeros"] / peaks[shape["isa"]]
            rate = f"{shape['matrix_gb_per_s']:.0f} GB/s" if result["columns"] == 1 else percent(share)
            cells.append(f"{rate} · {shape['speedup_over_dense']:.1f}")
        table.rows.append([result["layer"], f"{result['dense_us']:.0f}", *cells])
    many = [result["group_shapes"] for result in results if result["columns"] >= MANY_COLUMNS]
    if many:
        cells = []
        for column in zip(*many, strict=True):
            share = geometric_mean(shape["gflops_on_nonzeros"] for shape in column) / peaks[column[0]["isa"]]
            faster = geometric_mean(shape["speedup_over_dense"] for shape in column)
            cells.append(f"{percent(share)} · {faster:.1f}")
        table.rows.append([f"geometric mean, N ≥ {MANY_COLUMNS}", "", *cells])
    return table


if __name__ == "__main__":
    sys.exit(main())
