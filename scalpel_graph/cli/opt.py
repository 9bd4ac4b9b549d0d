"""``scalpel-opt``: makes the zeros of a pruned network pay, and proves that its answers stay the same."""

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from scalpel_graph import formatting as show
from scalpel_graph import io, report_html
from scalpel_graph.api import OptimizeResult, list_passes, optimize
from scalpel_graph.cli import console as cli
from scalpel_graph.errors import InputError
from scalpel_graph.report import BeforeAfter, Report
from scalpel_graph.target import available_targets
from scalpel_graph.verify import ATOL, RTOL
from scalpel_graph.version import __version__

_PROG = "scalpel-opt"
_EPILOG = """\
examples:
  scalpel-opt pruned.onnx fast.onnx --target cpu
  scalpel-opt pruned.onnx fast.onnx --report report.html --input-shape images:1,3,224,224
  scalpel-opt pruned.onnx --dry-run

OUT is written only after it gave the same answers as IN, and whole or not at all. Exit code: 0 written
and verified; 2 the input or an option is unusable; 3 the result failed its check and was not written.
"""
_REPORT_SUFFIXES = (".json", ".html")

#: Names of layers that one line of the summary lists before it only counts the rest.
_NAMES_SHOWN = 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.list_passes:
        _show_passes(options.target)
        return 0
    _check_options(options)
    quiet = options.quiet
    started = time.perf_counter()

    source = io.load(options.input)
    with _progress(quiet) as step:
        result = optimize(
            source,
            options.target,
            threads=options.threads,
            input_shapes=options.input_shape,
            check=not options.no_check,
            check_inputs=options.check_inputs,
            rtol=options.rtol,
            atol=options.atol,
            skip_passes=options.skip_pass,
            progress=step,
        )
        report = result.report
        if not options.dry_run:
            step(f"writing {options.output}")
            report = _write(result, source, options.output)
    if options.report:
        _write_report(report, options.report)
    _show_summary(cli.output_console(quiet), report, time.perf_counter() - started, options)
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog=_PROG,
        usage=f"{_PROG} IN.onnx OUT.onnx [--target cpu] [options]",
        description="Rewrites a pruned ONNX network so that its zeros save space and time on one kind of hardware. "
        "The function it computes does not change, and that is checked before anything is written.",
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
        help=f"hardware to optimize for: {', '.join(available_targets())}, or a profile FILE.toml (default: cpu)",
    )
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="write what was done and why: FILE.json or FILE.html"
    )
    parser.add_argument("--dry-run", action="store_true", help="do everything but write OUT, which can be left out")

    check = parser.add_argument_group("checking the result")
    check.add_argument(
        "--check-inputs", metavar="X.npz", type=Path, help="compare on these inputs instead of random ones"
    )
    check.add_argument("--rtol", metavar="F", type=_tolerance, default=RTOL, help="relative tolerance (default: %(default)g)")
    check.add_argument("--atol", metavar="F", type=_tolerance, default=ATOL, help="absolute tolerance (default: %(default)g)")
    check.add_argument("--no-check", action="store_true", help="write the result without comparing it")

    model = parser.add_argument_group("the model and its passes")
    model.add_argument(
        "--input-shape",
        metavar="NAME:1,3,224,224",
        action="append",
        default=[],
        help="size of an input with symbolic dimensions, assumed for choosing and for checking; repeatable",
    )
    model.add_argument("--threads", metavar="N", type=positive, help="threads the model will run on")
    model.add_argument(
        "--skip-pass", metavar="NAME", action="append", default=[], help="leave a pass out; repeatable"
    )
    model.add_argument("--list-passes", action="store_true", help="list the passes in the order they run, and end")

    talk = parser.add_argument_group("what is printed").add_mutually_exclusive_group()
    talk.add_argument("-v", "--verbose", action="store_true", help="also list the passes and every node left alone")
    talk.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--version", action="version", version=f"Scalpel Graph {__version__}")
    return parser


def positive(text: str) -> int:
    """Parses an option that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive whole number")
    return int(text)


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
        if options.report.suffix.lower() not in _REPORT_SUFFIXES:
            raise InputError(f"--report {options.report}: the name must end in {' or '.join(_REPORT_SUFFIXES)}")
        cli.check_folder(options.report)


@contextmanager
def _progress(quiet: bool) -> Iterator[Callable[[str], None]]:
    """A line on the terminal that says what is being done; nothing where nobody is watching."""
    console = cli.progress_console(quiet)
    if quiet or not console.is_terminal:
        yield lambda step: None
        return
    with console.status("reading") as status:
        yield lambda step: status.update(step)


def _write(result: OptimizeResult, source: io.LoadedModel, output: Path) -> Report:
    """Writes the model and returns the report that knows where and how large."""
    written = io.save(result.model, output, external_data=source.uses_external_data, source=source)
    report = result.report
    return dataclasses.replace(
        report, output=str(output), size_bytes=BeforeAfter(report.size_bytes.before, written)
    )


def _write_report(report: Report, path: Path) -> None:
    if path.suffix.lower() == ".html":
        cli.write_text(path, report_html.render(report))
    else:
        cli.write_text(path, json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")


def _show_passes(target: str) -> None:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, summary in list_passes(target):
        table.add_row(Text(name, "bold"), summary)
    cli.output_console().print(table)


# -- the summary ------------------------------------------------------------------------------------------------


def _show_summary(out: Console, report: Report, seconds: float, options: argparse.Namespace) -> None:
    out.print()
    heading = Text.assemble((str(options.input), "bold"), " → ", (report.output or "(dry run)", "bold"))
    out.print(heading.append(f"  for {report.target}", "dim"))
    out.print()
    out.print(_indented(_figures(report)))
    sparse = [layer for layer in report.layers if layer.chosen.decision == "group_csr"]
    if sparse:
        out.print(f"\n[bold]Made sparse[/]: {len(sparse)} of {show.plural(len(report.layers), 'layer')}")
        out.print(_indented(_sparse_layers(report)))
    dense = show.left_dense(report.layers)
    if dense:
        out.print("\n[bold]Left dense[/]")
        for reason, names in dense:
            out.print(_indented(Text.assemble(f"{reason}: ", (_some(names), "dim"))))
    if not report.layers:
        out.print("\nNo layer to make sparse: no Conv, Gemm or MatMul with constant weights was considered.")
    if options.verbose:
        out.print("\n[bold]Passes[/]")
        out.print(_indented(_passes(report)))
    out.print()
    out.print(_verdict(report))
    _show_next_step(out, report, seconds, options)


def _figures(report: Report) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("")
    for heading in ("before", "after", "change"):
        table.add_column(heading, justify="right")
    for name, figure, unit in (
        ("file", report.size_bytes, show.size),
        ("parameters", report.parameters, show.count),
        ("multiply-accumulates", report.macs, show.count),
    ):
        table.add_row(name, unit(figure.before), unit(figure.after), show.change(figure.before, figure.after))
    if report.predicted_us:
        before, after = report.predicted_us
        gain = f"{before / after:.1f}× faster" if after > 0 else ""
        table.add_row("predicted time, these layers", show.microseconds(before), show.microseconds(after), gain)
    return table


def _sparse_layers(report: Report) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 3, 0, 0))
    table.add_column("layer", overflow="fold")
    table.add_column("operator")
    table.add_column("group")
    table.add_column("stored", justify="right")
    table.add_column("predicted", justify="right")
    table.add_column("against dense", justify="right")
    for layer in report.layers:
        if layer.chosen.decision == "group_csr":
            table.add_row(
                Text(layer.name),
                layer.op,
                show.group_shape(layer.chosen),
                show.fraction(layer.chosen.density),
                show.microseconds(layer.chosen.predicted_us),
                Text(show.speed_up(layer), "green"),
            )
    return table


def _passes(report: Report) -> Table:
    table = Table(box=None, show_header=False, padding=(0, 3, 0, 0))
    for run in report.passes:
        table.add_row(
            Text(run.name, "bold"),
            "changed the graph" if run.modified else Text("nothing to do", "dim"),
            show.microseconds(run.seconds * 1e6),
        )
        for skip in run.skipped:
            table.add_row("", Text(f"{skip.node}: {skip.reason}", "dim", overflow="fold"), "")
    return table


def _verdict(report: Report) -> Text:
    verified = report.verified
    if not report.modified:
        return Text(f"Unchanged: {verified.reason or 'nothing here gets faster by being made sparse'}.", "yellow")
    if not verified.ok:
        return Text(f"Not checked: {verified.reason}.", "yellow")
    ways = [
        way
        for way, done in (("with our operators", verified.custom_ops), ("as plain ONNX", verified.fallback))
        if done
    ]
    return Text(
        f"✓ Same answers: largest difference {verified.max_abs_diff:.2g} in {show.plural(verified.runs, 'run')}, "
        f"{' and '.join(ways)}.",
        "green",
    )


def _show_next_step(out: Console, report: Report, seconds: float, options: argparse.Namespace) -> None:
    if report.output is None:
        out.print(f"Nothing was written (--dry-run). Took {seconds:.1f} s.")
    else:
        out.print(f"Wrote {report.output}, {show.size(report.size_bytes.after)}, in {seconds:.1f} s.")
    if options.report:
        out.print(f"Report: {options.report}")
    if report.output is None or not any(layer.chosen.group_shape for layer in report.layers):
        return
    out.print("\nTo run it on the sparse kernels (without them it runs too, at dense speed):", style="dim")
    lines = (
        "options = onnxruntime.SessionOptions()",
        "options.register_custom_ops_library(str(scalpel_graph.custom_op_library()))",
        f'session = onnxruntime.InferenceSession("{report.output}", options)',
    )
    out.print(_indented(Text("\n".join(lines))))


def _some(names: Sequence[str]) -> str:
    rest = len(names) - _NAMES_SHOWN
    return ", ".join(names[:_NAMES_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _indented(what: Table | Text) -> Padding:
    return Padding(what, (0, 0, 0, 2))


if __name__ == "__main__":
    sys.exit(main())
