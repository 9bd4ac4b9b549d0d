"""Instructions of the Cortex-M kernels, counted exactly in QEMU, sparse against dense.

``python -m benchmarks.cortex_m`` counts the layers that the project is judged by, at several shares of zeros,
and finds from which share on sparse takes fewer instructions than dense. ``--cycles`` models the cycles of a
Cortex-M4 too, at 90 % zeros (`benchmarks.cortex_m_cycles`); ``--costs FILE`` fits the prices that target
profiles hold instead.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from benchmarks.cortex_m_costs import fit
from benchmarks.cortex_m_cycles import modelled_cycles
from benchmarks.cortex_m_layers import (
    GROUP_SHAPES,
    ConvShape,
    Family,
    Layer,
    Weights,
    convolution,
    fully_connected,
)
from benchmarks.kernel_cases import M4, build_firmware, run_in_qemu
from benchmarks.tables import Results, add_markdown_option, percent, shape_name
from scalpel_graph.cli import console

_PROG = "python -m benchmarks.cortex_m"
#: What CMSIS-NN's last q15 kernels take: arm_fully_connected_q15 and arm_convolve_HWC_q15_fast of the commit
#: before they were removed (ARM-software/CMSIS_5, dafe87eb3), built with GCC 12.2 -O2 and counted alike.
CMSIS_NN = {"FC 300×784": 446_467, "CONV 3×3 32→32 16×16": 3_241_364}
ZEROS = (0.7, 0.8, 0.9, 0.95)
_CYCLES_ZEROS = 0.9
_BREAK_EVEN_ZEROS = tuple(n / 20 for n in range(1, 20))
_FAMILIES: tuple[Family, ...] = ("q15", "w8")

_LAYERS: dict[str, Callable[[Weights, np.random.Generator], Layer]] = {
    "FC 300×784": partial(fully_connected, 300, 784),
    "CONV 3×3 32→32 16×16": partial(convolution, ConvShape(32, 32, (3, 3), (16, 16))),
}


@dataclass(frozen=True)
class Count:
    """One layer with one kernel.

    Attributes:
        layer: its name.
        kernel: without ``scalpel_``.
        group: of a sparse layer.
        zeros: share of groups that are zero.
        instructions: of a call.
        cycles: modelled, where that was asked for.
        constant_bytes: of the layer, in flash.
    """

    layer: str
    kernel: str
    group: str
    zeros: float
    instructions: int
    cycles: int | None
    constant_bytes: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns its exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    console.check_folder(options.json)
    out = console.output_console()
    with TemporaryDirectory() as name:
        folder = Path(name)
        firmware = build_firmware(M4, folder / "cases.elf")
        if options.costs is not None:
            console.write_file(options.costs, fit(firmware, folder).toml())
            out.print(f"written to {options.costs}")
            return 0
        counts = [
            count for layer in _LAYERS for count in count_layer(layer, firmware, folder, options.cycles)
        ]
        even = {
            f"{layer}, {family}": break_even(layer, family, firmware, folder)
            for layer in _LAYERS
            for family in _FAMILIES
        }
    for layer in _LAYERS:
        out.print(layer)
        _table([count for count in counts if count.layer == layer]).print(out, markdown=options.markdown)
    out.print("fewer instructions than dense from this share of zeros on")
    _break_even_table(even).print(out, markdown=options.markdown)
    content = {"cmsis_nn": CMSIS_NN, "counts": [asdict(count) for count in counts], "break_even": even}
    console.write_file(options.json, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    out.print(f"written to {options.json}")
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(prog=_PROG, description="Exact instruction counts of the Cortex-M kernels.")
    parser.add_argument("--cycles", action="store_true", help="model the cycles of 90 %% zeros too (minutes)")
    parser.add_argument("--costs", metavar="FILE", type=Path, help="fit prices into this TOML file, and stop")
    default = Path("build/benchmarks/cortex_m.json")
    parser.add_argument("--json", metavar="FILE", type=Path, default=default, help="%(default)s")
    add_markdown_option(parser)
    return parser


def count_layer(layer: str, firmware: Path, folder: Path, cycles: bool = False) -> list[Count]:
    """Dense and sparse, with both types of weights, and 64-bit sums of int8 weights.

    Raises:
        InputError: a program is missing or failed.
    """
    rng = np.random.default_rng(0)
    calls = [(weights, _LAYERS[layer](weights, rng)) for weights in _variants()]
    cases = [call.case for _, call in calls]
    modelled = [
        modelled_cycles(M4, firmware, [call.case], folder)[0]
        if cycles and round(1 - weights.density, 2) in (0, _CYCLES_ZEROS)
        else None
        for weights, call in calls
    ]
    return [
        Count(
            layer,
            call.case.kernel,
            shape_name(weights.group_shape) if weights.group_shape else "dense",
            round(1 - weights.density, 2),
            outcome.instructions,
            some,
            call.constant_bytes,
        )
        for (weights, call), outcome, some in zip(
            calls, run_in_qemu(M4, firmware, cases, folder), modelled, strict=True
        )
    ]


def _variants() -> Iterator[Weights]:
    for family in _FAMILIES:
        yield Weights(family, None)
        for group_shape in GROUP_SHAPES[family]:
            yield from (Weights(family, group_shape, round(1 - zeros, 2)) for zeros in ZEROS)
    yield Weights("w8", None, acc64=True)
    for group_shape in GROUP_SHAPES["w8"]:
        yield Weights("w8", group_shape, round(1 - _CYCLES_ZEROS, 2), acc64=True)


def break_even(layer: str, family: Family, firmware: Path, folder: Path) -> dict[str, float]:
    """By group: the smallest share of zeros, in steps of 5 %, with fewer instructions than dense.

    Raises:
        InputError: a program is missing or failed.
    """
    rng = np.random.default_rng(0)
    found = {}
    dense = _LAYERS[layer](Weights(family, None), rng).case
    (limit,) = run_in_qemu(M4, firmware, [dense], folder)
    for group_shape in GROUP_SHAPES[family]:
        cases = [
            _LAYERS[layer](Weights(family, group_shape, 1 - zeros), rng).case for zeros in _BREAK_EVEN_ZEROS
        ]
        outcomes = run_in_qemu(M4, firmware, cases, folder)
        found[shape_name(group_shape)] = next(
            zeros
            for zeros, outcome in zip(_BREAK_EVEN_ZEROS, outcomes, strict=True)
            if outcome.instructions < limit.instructions
        )
    return found


def _table(counts: Sequence[Count]) -> Results:
    headings = ["kernel", "zeros", "instructions", "× dense", "× CMSIS-NN q15", "bytes", "× smaller"]
    with_cycles = counts[0].cycles is not None
    if with_cycles:
        headings += ["cycles", "× dense"]
    results = Results(headings)
    # Of a kernel's name: the type of its weights, and its accumulator.
    dense = {tuple(count.kernel.split("_")[2:]): count for count in counts if count.group == "dense"}
    for count in counts:
        own = next(each for names, each in dense.items() if {*names} <= {*count.kernel.split("_")})
        row = [
            count.kernel,
            "" if count.group == "dense" else percent(count.zeros),
            f"{count.instructions:,}",
            f"{own.instructions / count.instructions:.2f}",
            f"{CMSIS_NN[count.layer] / count.instructions:.2f}",
            f"{count.constant_bytes:,}",
            f"{own.constant_bytes / count.constant_bytes:.2f}",
        ]
        if count.cycles is not None and own.cycles is not None:
            row += [f"{count.cycles:,}", f"{own.cycles / count.cycles:.2f}"]
        elif with_cycles:
            row += ["", ""]
        results.rows.append(row)
    return results


def _break_even_table(even: dict[str, dict[str, float]]) -> Results:
    results = Results(["layer", "groups", "zeros"], names=2)
    for layer, shares in even.items():
        results.rows += [[layer, group, percent(zeros)] for group, zeros in shares.items()]
    return results


if __name__ == "__main__":
    sys.exit(main())
