"""``scalpel-bench``: times models against each other on the same inputs, and compares their answers."""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from onnx import TensorProto
from rich.table import Table
from rich.text import Text

from scalpel_graph import formatting as show
from scalpel_graph import inputs, io
from scalpel_graph.cli import console as cli
from scalpel_graph.compare import compare
from scalpel_graph.errors import InputError
from scalpel_graph.library import custom_op_library
from scalpel_graph.session import SessionError, session
from scalpel_graph.timing import MIN_ROUNDS, InterleavedTimes, Ratio, time_interleaved
from scalpel_graph.version import __version__

_PROG = "scalpel-bench"
_EPILOG = f"""\
examples:
  scalpel-bench pruned.onnx fast.onnx
  scalpel-bench a.onnx b.onnx c.onnx --threads 4 --input-shape images:8,3,224,224 --json times.json

The models take turns, so what else the machine does slows all of them alike: believe the ratio more than the
times. The interval holds the true ratio with 95 % confidence; ± is half the range of the middle half of the
runs. At least {MIN_ROUNDS} rounds are run.
"""


@dataclass(frozen=True)
class Measurement:
    """One model's figures.

    Attributes:
        model: path.
        size_bytes: of the file, external data included.
        median_us: median time of a run, microseconds.
        low_us, high_us: first and third quartile.
        speed_up: times faster than the first model, with its confidence interval; 1 for the first.
        max_abs_diff: largest difference of any floating-point output element from the first model's; None
            where the outputs differ in another way.
        incomparable: that way, as a clause; else empty.
    """

    model: str
    size_bytes: int
    median_us: float
    low_us: float
    high_us: float
    speed_up: Ratio
    max_abs_diff: float | None
    incomparable: str


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.json:
        cli.check_folder(options.json)
    with cli.progress(options.quiet) as step:
        step("loading")
        models = [io.load(path) for path in options.models]
        feed = _shared_inputs(models, options)
        runs = [_Run(path, options.threads, feed) for path in options.models]
        answers = [run.first_answer() for run in runs]
    with cli.still(f"timing for {options.seconds:g} s", options.quiet):
        times = time_interleaved(runs, budget_s=options.seconds)
    measurements = [_measurement(model, times, number, answers) for number, model in enumerate(models)]
    if options.json:
        cli.write_file(options.json, json.dumps(_as_json(measurements, times, options), indent=2) + "\n")
    _show(measurements, times, options)
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog=_PROG,
        usage=f"{_PROG} A.onnx [B.onnx ...] [options]",
        description="Times models against each other on the same inputs, with our operators registered, "
        "and says how far their answers are from the first's.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "models", metavar="A.onnx", nargs="+", type=Path, help="the first is what others are compared to"
    )
    parser.add_argument(
        "--threads", metavar="N", type=cli.positive, default=1, help="ONNX Runtime's threads (default: 1)"
    )
    parser.add_argument(
        "--seconds", metavar="S", type=_seconds, default=3.0, help="how long to measure (default: 3)"
    )
    parser.add_argument(
        "--input-shape",
        metavar="NAME:1,3,224,224",
        action="append",
        default=[],
        help="size of an input with symbolic dimensions (1 where not given); repeatable",
    )
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the random inputs (default: 0)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write the figures")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show where an unexpected error happened"
    )
    parser.add_argument("--version", action="version", version=f"Scalpel Graph {__version__}")
    return parser


class _Run:
    """Runs one model on the same inputs each time it is called, with nothing around it that takes time."""

    def __init__(self, path: Path, threads: int, feed: dict[str, Any]) -> None:
        self._path = path
        try:
            self._session = session(path, library=custom_op_library(), threads=threads)
        except SessionError as error:
            raise InputError(f"{path}: ONNX Runtime cannot load it ({error})") from error
        self._feed = feed

    def __call__(self) -> list[Any]:
        return self._session.run(None, self._feed)  # type: ignore[no-any-return]

    def first_answer(self) -> list[Any]:
        """Runs it where ONNX Runtime may still refuse the inputs."""
        try:
            return self()
        except Exception as error:
            raise InputError(
                f"{self._path}: ONNX Runtime cannot run it on random inputs ({error})"
            ) from error


def _shared_inputs(models: Sequence[io.LoadedModel], options: argparse.Namespace) -> dict[str, Any]:
    """Inputs that all models take: those of the model that leaves least open."""
    first = models[0]
    for other in models[1:]:
        if not _compatible(_signature(first), _signature(other)):
            raise InputError(
                f"{other.path}: its inputs are {_described(other)}, but those of {first.path} are "
                f"{_described(first)}; only models with the same inputs can be compared"
            )
    strictest = max(models, key=lambda model: _sizes_fixed(_signature(model)))
    shapes = inputs.parse_input_shapes(options.input_shape, strictest.proto)
    return inputs.make_inputs(strictest.proto, seed=options.seed, shapes=shapes)


_Signature = dict[str, tuple[int, list[int | None]]]


def _signature(model: io.LoadedModel) -> _Signature:
    """Element type and sizes of each input; None for a size that the model leaves open."""
    return {
        value.name: (
            value.type.tensor_type.elem_type,
            [
                dim.dim_value if dim.HasField("dim_value") else None
                for dim in value.type.tensor_type.shape.dim
            ],
        )
        for value in inputs.required_inputs(model.proto)
    }


def _compatible(one: _Signature, other: _Signature) -> bool:
    return one.keys() == other.keys() and all(
        one[name][0] == other[name][0]
        and len(one[name][1]) == len(other[name][1])
        and all(a is None or b is None or a == b for a, b in zip(one[name][1], other[name][1], strict=True))
        for name in one
    )


def _sizes_fixed(signature: _Signature) -> int:
    return sum(dim is not None for _, dims in signature.values() for dim in dims)


def _described(model: io.LoadedModel) -> str:
    def described(name: str, element: int, dims: Sequence[int | None]) -> str:
        sizes = ", ".join("?" if dim is None else str(dim) for dim in dims)
        return f"{name} {TensorProto.DataType.Name(element).lower()}[{sizes}]"

    return ", ".join(described(name, *rest) for name, rest in _signature(model).items()) or "none"


def _measurement(
    model: io.LoadedModel, times: InterleavedTimes, number: int, answers: Sequence[Sequence[Any]]
) -> Measurement:
    # No tolerance is asked for here: what is left to object to is another shape or type, or other integers.
    difference = compare(answers[0], answers[number], rtol=0, atol=np.inf)
    low, high = np.quantile(times.seconds[:, :, number], (0.25, 0.75))
    return Measurement(
        model=str(model.path),
        size_bytes=model.size_bytes,
        median_us=times.median(number) * 1e6,
        low_us=float(low) * 1e6,
        high_us=float(high) * 1e6,
        speed_up=times.ratio(number),
        max_abs_diff=None if difference.reason else difference.max_abs,
        incomparable=difference.reason,
    )


def _as_json(
    measurements: Sequence[Measurement], times: InterleavedTimes, options: argparse.Namespace
) -> dict[str, Any]:
    return {
        "scalpel_graph": __version__,
        "onnxruntime": onnxruntime.__version__,
        "threads": options.threads,
        "rounds": times.rounds,
        "models": [asdict(measurement) for measurement in measurements],
    }


def _show(measurements: Sequence[Measurement], times: InterleavedTimes, options: argparse.Namespace) -> None:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    table.add_column("model", overflow="fold")
    for heading in ("file", "median time", "speed-up (95 %)", "difference"):
        table.add_column(heading, justify="right")
    for number, one in enumerate(measurements):
        ratio = one.speed_up
        spread = (one.high_us - one.low_us) / 2 / one.median_us
        speed_up = f"{ratio.median:.2f}× ({ratio.low:.2f}–{ratio.high:.2f})"
        table.add_row(
            Text(one.model, "bold"),
            show.size(one.size_bytes),
            f"{show.microseconds(one.median_us)} ±{100 * spread:.0f} %",
            Text(speed_up, "green" if ratio.low > 1 else "") if number else "",
            (one.incomparable or f"{one.max_abs_diff:.2g}") if number else "",
        )
    out = cli.output_console(options.quiet)
    out.print()
    out.print(table)
    rounds, threads = show.plural(times.rounds, "round"), show.plural(options.threads, "thread")
    out.print(
        f"\n{rounds} in turns, {threads}, ONNX Runtime {onnxruntime.__version__}; "
        f"speed-up and difference are against {measurements[0].model}",
        style="dim",
        soft_wrap=True,
    )


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return number


if __name__ == "__main__":
    sys.exit(main())
