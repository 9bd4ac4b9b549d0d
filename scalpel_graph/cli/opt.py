"""``scalpel-opt``: makes the zeros of a pruned network pay, and proves that its answers stay the same."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from scalpel_graph import inputs, io, report_html
from scalpel_graph.api import OptimizeResult, list_passes, optimize
from scalpel_graph.cli import console as cli
from scalpel_graph.cli import summary
from scalpel_graph.cli.output import check_report, file_report_suffix
from scalpel_graph.errors import InputError
from scalpel_graph.mcu import emit_c
from scalpel_graph.mcu.agreement import MOST_ERROR
from scalpel_graph.mcu.network import DTYPES
from scalpel_graph.quantize import QUANTIZED_TYPES
from scalpel_graph.report import BeforeAfter, Report
from scalpel_graph.target import load_target, target_names
from scalpel_graph.value_types import VALUE_TYPES
from scalpel_graph.verify import ATOL, RTOL
from scalpel_graph.version import __version__

_PROG = "scalpel-opt"
_EPILOG = """\
examples:
  scalpel-opt pruned.onnx fast.onnx --target cpu
  scalpel-opt pruned.onnx fast.onnx --report report.html --input-shape images:1,3,224,224
  scalpel-opt pruned.onnx fast.onnx --quantize int8 --calibration inputs.npz
  scalpel-opt pruned.onnx --dry-run

OUT is written only after it gave the same answers as IN, and whole or not at all. Exit code: 0 written
and verified; 2 the input or an option is unusable; 3 the result failed its check and was not written.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.list_passes:
        _show_passes()
        return 0
    _check_options(options)
    quiet = options.quiet
    started = time.perf_counter()

    with cli.progress(quiet) as step:
        source = io.load(options.input)
        result = optimize(
            source,
            options.target,
            threads=options.threads,
            input_shapes=inputs.parse_input_shapes(options.input_shape, source.proto),
            check=not options.no_check,
            check_inputs=options.check_inputs,
            rtol=options.rtol,
            atol=options.atol,
            skip_passes=options.skip_pass,
            autotune=options.autotune,
            weights=options.weights,
            calibration=options.calibration,
            dtype=options.dtype,
            most_error=options.max_error,
            quantize=options.quantize,
            progress=step,
        )
        report = result.report
        if not options.dry_run:
            step(f"writing {options.output}")
            report = _write(result, source, options.output)
            if options.emit_c:
                step(f"writing {options.emit_c}")
                _emit_c(result, options.output, options.emit_c)
    if options.report:
        _write_report(report, options.report)
    out = cli.output_console(quiet)
    summary.print_summary(out, report, verbose=options.verbose)
    if options.report:
        out.print(f"Report: {options.report}", soft_wrap=True)
    out.print(f"Took {time.perf_counter() - started:.1f} s.", style="dim")
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog=_PROG,
        usage=f"{_PROG} IN.onnx OUT.onnx [--target cpu] [options]",
        description="Rewrites a pruned ONNX network so that its zeros save space and time on one kind of "
        "hardware.\nWhat it computes does not change, and that is checked before anything is written.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("input", metavar="IN.onnx", nargs="?", type=Path, help="the trained, pruned network")
    parser.add_argument("output", metavar="OUT.onnx", nargs="?", type=Path, help="where the result goes")
    parser.add_argument(
        "--target",
        metavar="NAME",
        default="cpu",
        help=f"hardware to optimize for: {', '.join(target_names())}, or a FILE.toml (default: cpu, this"
        " machine's instruction set)",
    )
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="write what was done and why: FILE.json or FILE.html"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="write nothing but the report; OUT can be left out"
    )

    check = parser.add_argument_group("checking the result")
    check.add_argument(
        "--check-inputs", metavar="X.npz", type=Path, help="compare on these inputs instead of random ones"
    )
    check.add_argument(
        "--rtol", metavar="F", type=_tolerance, default=RTOL, help="relative tolerance (default: %(default)g)"
    )
    check.add_argument(
        "--atol", metavar="F", type=_tolerance, default=ATOL, help="absolute tolerance (default: %(default)g)"
    )
    check.add_argument("--no-check", action="store_true", help="write the result without comparing it")

    integers = parser.add_argument_group("quantizing")
    integers.add_argument(
        "--quantize",
        choices=QUANTIZED_TYPES,
        help="make the network one of 8-bit integers first, by ONNX Runtime's quantizer; needs --calibration."
        " What that changes is reported; the result is checked against the quantized network",
    )
    integers.add_argument(
        "--calibration",
        metavar="X.npz",
        type=Path,
        help="inputs to find the ranges of activations on: an array for each input; its first axis counts"
        " samples",
    )

    mcu = parser.add_argument_group("microcontrollers (--target mcu)")
    mcu.add_argument(
        "--dtype",
        choices=DTYPES,
        help="16-bit fixed point, 8-bit integers, or 8-bit weights with 16-bit activations (default: what a"
        " quantized model has, else q15)",
    )
    mcu.add_argument(
        "--emit-c", metavar="DIR", type=Path, help="also write the network as a C99 bundle into this folder"
    )
    mcu.add_argument(
        "--max-error",
        metavar="F",
        type=_tolerance,
        help="how far the answers may be from the float ones on the calibration inputs, as a fraction of"
        f" their norm (default: {', '.join(f'{n:g} for {t}' for t, n in MOST_ERROR.items())})",
    )

    model = parser.add_argument_group("the model and its passes")
    model.add_argument(
        "--input-shape",
        metavar="NAME:1,3,224,224",
        action="append",
        default=[],
        help="size of an input with symbolic dimensions, assumed for choosing and for checking; repeatable",
    )
    model.add_argument(
        "--threads", metavar="N", type=cli.positive, default=1, help="threads it will run on (default: 1)"
    )
    model.add_argument(
        "--autotune",
        action="store_true",
        help="time the candidates of each layer on this machine instead of predicting them",
    )
    model.add_argument(
        "--weights",
        choices=VALUE_TYPES,
        default="fp32",
        help="store the weights of sparse layers in 16 bits; they are rounded, what is computed with them is"
        " float32 (default: fp32)",
    )
    model.add_argument(
        "--skip-pass", metavar="NAME", action="append", default=[], help="leave a pass out; repeatable"
    )
    model.add_argument("--list-passes", action="store_true", help="list the passes in their order, and end")

    talk = parser.add_argument_group("what is printed").add_mutually_exclusive_group()
    talk.add_argument(
        "-v", "--verbose", action="store_true", help="also list the passes and what each left alone"
    )
    talk.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--version", action="version", version=f"Scalpel Graph {__version__}")
    return parser


def _tolerance(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
    return number


def _check_options(options: argparse.Namespace) -> None:
    """Refuses what cannot work before the work begins."""
    if options.input is None:
        raise InputError("IN.onnx is missing; give the model to optimize (see scalpel-opt --help)")
    if options.output is None and not options.dry_run:
        raise InputError("OUT.onnx is missing; say where the result goes, or use --dry-run")
    if options.check_inputs and options.no_check:
        raise InputError("--check-inputs and --no-check contradict each other; leave one out")
    if options.output is not None and not options.dry_run:
        io.check_writable(options.output, options.input)
    if options.report:
        check_report(options.report, [options.input, options.output])
    if options.emit_c and options.dry_run:
        raise InputError("--emit-c and --dry-run contradict each other; leave one out")
    if options.emit_c:
        target = load_target(options.target)
        if target.kind != "mcu":
            raise InputError(
                f"--emit-c has no meaning for target {target.name}: it is for microcontrollers; leave it out"
            )
        emit_c.check_folder(options.emit_c)


def _write(result: OptimizeResult, source: io.LoadedModel, path: Path) -> Report:
    """Writes the model and returns the report that knows where and how large."""
    if result.report.modified or source.uses_external_data:
        external = source.uses_external_data
        written = io.save(result.model, path, external_data=external, source=source.path)
    else:
        # The same bytes, which encoding the model again does not promise.
        assert source.path is not None
        content = source.path.read_bytes()
        cli.write_file(path, content)
        written = len(content)
    size = BeforeAfter(result.report.size_bytes.before, written)
    return dataclasses.replace(result.report, output=str(path), size_bytes=size)


def _emit_c(result: OptimizeResult, model: Path, folder: Path) -> None:
    report = result.report.microcontroller
    assert result.program is not None and result.samples is not None and report is not None
    emit_c.emit(result.program, result.samples, report, model.read_bytes(), folder)


def _write_report(report: Report, path: Path) -> None:
    if file_report_suffix(path) == ".html":
        cli.write_file(path, report_html.render(report))
    else:
        cli.write_file(path, json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")


def _show_passes() -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, what in list_passes():
        table.add_row(Text(name, "bold"), what)
    cli.output_console().print(table)


if __name__ == "__main__":
    sys.exit(main())
