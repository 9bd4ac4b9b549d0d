"""Roofline: what the kernels reach on layers of real networks, against what the machine allows.

``python -m benchmarks.roofline`` measures, in one run,

- the peak of multiply-adds, and how fast each cache and the memory are read and copied;
- how fast each layer runs with random weights, by density, group shape, threads and instruction set;

and says what share of what is possible each reaches (`benchmarks.roofline_model`).
"""

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np

from benchmarks import options as option_types
from benchmarks import roofline_plot
from benchmarks.layer_timers import medians, random_input, sparse_timer
from benchmarks.layers import LAYERS, layer_name
from benchmarks.roofline_model import MEMORY, MULTIPLY_ADDS, Case, Level, Machine, bound, used_inputs
from benchmarks.tables import Results, add_markdown_option, percent, shape_name
from scalpel_graph import _kernels, formatting, group_csr
from scalpel_graph.caches import data_caches, last_cache_bytes
from scalpel_graph.calibration.layers import LayerShape
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.host import model_name
from scalpel_graph.version import __version__

_PROG = "python -m benchmarks.roofline"
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3, 0.5)
THREADS = (1, 2)
GROUP_SHAPES: tuple[GroupShape, ...] = ((4, 1), (8, 1), (1, 8), (1, 1))

#: A cache is measured within this share of it, memory with this many times the last cache.
_WITHIN = 0.5
_BEYOND = 4
_RATE_TRIES = 5


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns its exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    layers = [layer for layer in LAYERS if options.layers in layer_name(layer)]
    if not layers:
        raise InputError(f"--layers {options.layers}: no layer has this in its name")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    console.check_folder(options.json)
    if options.plot:
        console.check_folder(options.plot)
        roofline_plot.require_plotly()
    densities = options.density or DENSITIES
    isas = options.isa or [_default_isa()]
    with console.still("measuring the machine", False):
        machines = [measure_machine(*pair) for pair in product(isas, options.threads or THREADS)]
    cases: list[Case] = []
    with console.counted("timing layers", len(layers) * len(densities), False) as advance:
        for layer, density in product(layers, densities):
            cases += measure(layer, density, options.group_shape or GROUP_SHAPES, machines, options)
            advance()
    console.write_file(options.json, json.dumps(_as_json(machines, cases), indent=1) + "\n")
    if options.plot:
        console.write_file(options.plot, roofline_plot.page(model_name(), machines, cases))
    out = console.output_console()
    _rates(machines).print(out, markdown=options.markdown)
    for machine in () if options.markdown else machines:
        out.print(f"\n{machine.isa}, {formatting.plural(machine.threads, 'thread')}\n")
        _each(machine, cases).print(out)
    out.print()
    _summary("bound by", cases, [case.bound_by for case in cases]).print(out, markdown=options.markdown)
    computing = [case for case in cases if case.bound_by == MULTIPLY_ADDS]
    densities = [f"{case.density:g}" for case in computing]
    out.print(f"\nbound by {MULTIPLY_ADDS}\n")
    _summary("density", computing, densities).print(out, markdown=options.markdown)
    out.print()
    out.print("written to " + " and ".join(str(path) for path in (options.json, options.plot) if path))
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(
        prog=_PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--layers", default="", metavar="TEXT", help="only layers with this in their name")
    parser.add_argument(
        "--density", action="append", type=option_types.density, help="repeatable; default: 0.02 to 0.5"
    )
    parser.add_argument(
        "--group-shape",
        action="append",
        type=option_types.group_shape,
        help="repeatable; default: 4x1 8x1 1x8 1x1",
    )
    parser.add_argument("--threads", action="append", type=console.positive, help="repeatable; default: 1 2")
    parser.add_argument(
        "--isa",
        action="append",
        choices=[isa for isa in _kernels.isas() if isa != "scalar"],
        help="repeatable; default: the one that operators use",
    )
    parser.add_argument("--rounds", type=console.positive, default=3, help="turns of each (default: 3)")
    parser.add_argument(
        "--seconds", type=option_types.seconds, default=0.01, help="at least this long a turn (default: 0.01)"
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        default=Path("build/benchmarks/roofline.json"),
        help="%(default)s",
    )
    parser.add_argument("--plot", metavar="FILE.html", type=Path, help="draw it, too; needs Plotly")
    add_markdown_option(parser)
    return parser


def _default_isa() -> str:
    isa = _kernels.chosen_isa()
    if isa == "scalar":
        raise InputError("the scalar reference has no roofline; unset SCALPEL_ISA, or use a CPU with AVX2")
    return isa


def measure_machine(isa: str, threads: int, seconds: float = 0.05) -> Machine:
    """Measures peak and bandwidths, each several times, of which the best counts."""
    processors = os.cpu_count() or 1

    def bandwidth(nbytes: int, copy: bool) -> float:
        return max(
            _kernels.bandwidth(isa, nbytes, copy=copy, threads=threads, seconds=seconds)
            for _ in range(_RATE_TRIES)
        )

    levels = []
    for cache in data_caches():
        share = cache.share(threads, processors)
        read, copy = (bandwidth(round(_WITHIN * share), copy) for copy in (False, True))
        levels.append(Level(f"L{cache.level}", share * threads, read, copy))
    read, copy = (bandwidth(_BEYOND * last_cache_bytes() // threads, copy) for copy in (False, True))
    levels.append(Level(MEMORY, None, read, copy))
    peak = max(_kernels.peak_flops(isa, threads=threads, seconds=seconds) for _ in range(_RATE_TRIES))
    return Machine(isa, threads, peak, tuple(levels))


def measure(
    layer: LayerShape,
    density: float,
    group_shapes: Sequence[GroupShape],
    machines: Sequence[Machine],
    options: argparse.Namespace,
) -> Iterator[Case]:
    """Times one layer at one density in every group shape, in turns."""
    rng = np.random.default_rng(0)
    X, work = random_input(layer, rng), layer.work
    weights = [layer.weights(rng, group_shape, density) for group_shape in group_shapes]
    matrices = [
        group_csr.encode(W, group_shape) for W, group_shape in zip(weights, group_shapes, strict=True)
    ]
    pairs = list(product(machines, range(len(matrices))))
    timers = [
        sparse_timer(layer, matrices[number], X, machine.threads, machine.isa) for machine, number in pairs
    ]
    times = medians(timers, options.rounds, options.seconds)
    for (machine, number), seconds in zip(pairs, times, strict=True):
        W, matrix = weights[number], matrices[number]
        yield bound(
            machine,
            layer=layer_name(layer),
            group_shape=matrix.group_shape,
            density=density,
            us=seconds * 1e6,
            flops=2 * int(np.count_nonzero(W)) * work.N,
            read_bytes=4 * used_inputs(W, work) + 4 * work.M + matrix.nbytes,
            written_bytes=4 * work.M * work.N,
        )


def _as_json(machines: Sequence[Machine], cases: Sequence[Case]) -> dict[str, Any]:
    return {
        "scalpel_graph": __version__,
        "processor": model_name(),
        "machines": [asdict(machine) for machine in machines],
        "cases": [
            asdict(case) | {"gflops": case.gflops, "intensity": case.intensity, "share": case.share}
            for case in cases
        ],
    }


def _rates(machines: Sequence[Machine]) -> Results:
    """What was measured of the machine."""
    table = Results(["kernels", "threads", "GFLOP/s", "level", "size", "read GB/s", "copy GB/s"], names=2)
    for machine in machines:
        for level in machine.levels:
            size = "" if level.size is None else f"{level.size >> 10} KiB"
            rates = f"{level.read / 1e9:.0f}", f"{level.copy / 1e9:.0f}"
            table.rows.append(
                [machine.isa, str(machine.threads), f"{machine.peak / 1e9:.0f}", level.name, size, *rates]
            )
    return table


def _each(machine: Machine, cases: Sequence[Case]) -> Results:
    """Every case of a machine: GFLOP/s, the share of the bound, and what bounds it."""
    mine = [case for case in cases if (case.isa, case.threads) == (machine.isa, machine.threads)]
    rows: dict[tuple[str, str], dict[str, str]] = {}
    for case in mine:
        by = "" if case.bound_by == MULTIPLY_ADDS else f" {case.bound_by}"
        row = rows.setdefault((case.layer, f"{case.density:g}"), {})
        row[shape_name(case.group_shape)] = f"{case.gflops:.0f} · {percent(case.share)}{by}"
    shapes = list(dict.fromkeys(shape_name(case.group_shape) for case in mine))
    table = Results(["layer", "density", *shapes])
    for names, cells in rows.items():
        table.rows.append([*names, *(cells[shape] for shape in shapes)])
    return table


def _summary(heading: str, cases: Sequence[Case], facts: Sequence[str]) -> Results:
    """Geometric means of the shares, and of how many cases, by something that is said of each case."""
    shares: dict[tuple[str, int, str], dict[GroupShape, list[float]]] = {}
    for case, fact in zip(cases, facts, strict=True):
        row = shares.setdefault((case.isa, case.threads, fact), {})
        row.setdefault(case.group_shape, []).append(case.share)
    shapes = sorted({case.group_shape for case in cases})
    table = Results(["kernels", "threads", heading, *(shape_name(shape) for shape in shapes)], names=3)
    for (isa, threads, fact), of_shape in sorted(shares.items()):
        cells = (
            f"{percent(geometric_mean(found))} of {len(found)}" if (found := of_shape.get(shape)) else "–"
            for shape in shapes
        )
        table.rows.append([isa, str(threads), fact, *cells])
    return table


if __name__ == "__main__":
    sys.exit(main())
