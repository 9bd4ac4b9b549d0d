"""``scalpel-prune``: sets weights to zero in the shape that suits the hardware, and says what that cost."""

import argparse
import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from scalpel_graph import inputs, io
from scalpel_graph.cli import console as cli
from scalpel_graph.cli.output import check_report, file_report_suffix
from scalpel_graph.cli.prune_summary import print_summary
from scalpel_graph.errors import InputError
from scalpel_graph.pruning import report_html
from scalpel_graph.pruning.api import prune
from scalpel_graph.pruning.importance import IMPORTANCES
from scalpel_graph.pruning.progress import Progress
from scalpel_graph.pruning.report import PruneReport
from scalpel_graph.pruning.settings import METHODS
from scalpel_graph.target import target_names
from scalpel_graph.version import __version__

_PROG = "scalpel-prune"
_EPILOG = """\
examples:
  scalpel-prune net.onnx pruned.onnx --target cpu --sparsity 0.9 --calibration inputs.npz
  scalpel-prune net.onnx pruned.onnx --target gpu --nodes 0.3 --calibration inputs.npz --labels labels.npy
  scalpel-prune net.onnx pruned.onnx --speedup 2.0 --calibration inputs.npz --report report.html
  scalpel-prune net.onnx pruned.onnx --recipe recipe.yaml

The result is an ordinary ONNX file, as large as before: scalpel-opt makes its zeros pay. A few hundred
calibration inputs, without labels, lose far less accuracy than none. Exit code: 0 written; 2 the input or an
option is unusable, and nothing was written.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    _check_options(options)
    with _terminal(options.quiet) as progress:
        progress.say("reading")
        source = io.load(options.input)
        result = prune(
            source,
            options.target,
            sparsity=options.sparsity,
            nodes=options.nodes,
            method=options.method,
            group_shape=options.group_shape,
            importance=options.importance,
            exclude=options.exclude,
            recipe=options.recipe,
            calibration=options.calibration,
            held_back=options.held_back,
            labels=options.labels,
            speedup=options.speedup,
            size=options.size,
            measure=options.measure,
            threads=options.threads,
            input_shapes=inputs.parse_input_shapes(options.input_shape, source.proto),
            progress=progress,
        )
        report = result.report
        if not options.dry_run:
            progress.say(f"writing {options.output}")
            io.save(result.model, options.output, external_data=source.uses_external_data, source=source.path)
            report = dataclasses.replace(report, output=str(options.output))
    if options.report:
        _write_report(report, options.report)
    for warning in report.warnings:
        if not options.quiet:
            print(f"{_PROG}: warning: {warning}", file=sys.stderr)
    out = cli.output_console(options.quiet)
    print_summary(out, report, verbose=options.verbose)
    if options.report:
        out.print(f"Report: {options.report}", soft_wrap=True)
    out.print(f"Took {report.seconds:.1f} s.", style="dim")
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog=_PROG,
        usage=f"{_PROG} IN.onnx OUT.onnx --sparsity 0.9 [--target cpu] [--calibration X.npz] [options]",
        description="Sets weights of a trained ONNX network to zero, in the shape that suits one kind of"
        " hardware.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("input", metavar="IN.onnx", nargs="?", type=Path, help="the trained network")
    parser.add_argument("output", metavar="OUT.onnx", nargs="?", type=Path, help="where the result goes")
    parser.add_argument(
        "--target",
        metavar="NAME",
        default="cpu",
        help=f"hardware to prune for: {', '.join(target_names())}, or a FILE.toml (default: cpu, this"
        " machine's instruction set)",
    )
    amount = parser.add_argument_group("how much")
    amount.add_argument(
        "--sparsity", metavar="F", type=float, help="part of the weights, or groups of them, that goes"
    )
    amount.add_argument(
        "--nodes", metavar="F", type=float, help="part of the nodes (neurons, channels) that goes"
    )
    amount.add_argument(
        "--speedup",
        metavar="F",
        type=float,
        help="instead: choose each layer's sparsity for a predicted speed-up of the layers, such as 2.0",
    )
    amount.add_argument(
        "--size", metavar="F", type=float, help="instead: choose it for this part of the bytes, such as 0.2"
    )

    amount.add_argument(
        "--measure",
        action="store_true",
        help="with --speedup: correct the prediction by timing the whole network on this machine",
    )

    how = parser.add_argument_group("how")
    how.add_argument(
        "--method",
        metavar="M",
        help=f"{', '.join(METHODS)}, or n:m such as 2:4 (default: auto, the target's own)",
    )
    how.add_argument(
        "--group-shape",
        metavar="RxC",
        help="outputs x inputs of a group, or auto (default: what suits each layer)",
    )
    how.add_argument(
        "--importance",
        metavar="|".join(IMPORTANCES),
        help="measure of groups where there is no calibration (default: rms)",
    )
    how.add_argument(
        "--exclude",
        metavar="GLOB",
        action="append",
        default=[],
        help="leave layers of this name alone; repeatable",
    )
    how.add_argument("--recipe", metavar="R.yaml", type=Path, help="settings, for all layers and for some")

    data = parser.add_argument_group("data")
    data.add_argument(
        "--calibration",
        metavar="X.npz",
        type=Path,
        help="inputs by name, first axis samples: fit the weights that stay; the last fifth is held back",
    )
    data.add_argument(
        "--held-back", metavar="X.npz", type=Path, help="compare the answers on these inputs instead"
    )
    data.add_argument(
        "--labels",
        metavar="L.npy",
        type=Path,
        help="the right answers for --held-back, else for --calibration: the report has the accuracy",
    )
    data.add_argument(
        "--input-shape",
        metavar="NAME:1,3,224,224",
        action="append",
        default=[],
        help="size of an input with symbolic dimensions, assumed for predicted times; repeatable",
    )
    parser.add_argument(
        "--threads", metavar="N", type=cli.positive, default=1, help="threads, there and here (default: 1)"
    )
    parser.add_argument(
        "--report", metavar="FILE", type=Path, help="write what was done: FILE.json or FILE.html"
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="write nothing but the report; OUT can be left out"
    )
    talk = parser.add_argument_group("what is printed").add_mutually_exclusive_group()
    talk.add_argument("-v", "--verbose", action="store_true", help="list every layer")
    talk.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument("--version", action="version", version=f"Scalpel Graph {__version__}")
    return parser


def _check_options(options: argparse.Namespace) -> None:
    """Refuses what cannot work before the work begins."""
    if options.input is None:
        raise InputError(f"IN.onnx is missing; give the model to prune (see {_PROG} --help)")
    if options.output is None and not options.dry_run:
        raise InputError("OUT.onnx is missing; say where the result goes, or use --dry-run")
    if options.output is not None and not options.dry_run:
        io.check_writable(options.output, options.input)
    if options.report:
        check_report(options.report, [options.input, options.output])


def _write_report(report: PruneReport, path: Path) -> None:
    if file_report_suffix(path) == ".html":
        cli.write_file(path, report_html.render(report))
    else:
        cli.write_file(path, json.dumps(report.to_json(), indent=2, ensure_ascii=False) + "\n")


class _Terminal(Progress):
    """Says on a terminal what is being done, with a bar where there is something to count."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("reading", total=None)

    def say(self, step: str) -> None:
        self._bars.reset(self._task, description=escape(step), total=None)

    @contextlib.contextmanager
    def counted(self, what: str, total: int) -> Iterator[Callable[[str], None]]:
        self._bars.reset(self._task, description=escape(what), total=total)

        def done(name: str) -> None:
            self._bars.update(self._task, advance=1, description=escape(f"{what}: {name}"))

        yield done


@contextlib.contextmanager
def _terminal(quiet: bool) -> Iterator[Progress]:
    console = Console(stderr=True, highlight=False)
    if quiet or not console.is_terminal:
        yield Progress()
        return
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Terminal(bars)


if __name__ == "__main__":
    sys.exit(main())
