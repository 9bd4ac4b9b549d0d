"""``scalpel-calibrate``: measures this machine and writes its profile for ``scalpel-opt --target``."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from scalpel_graph import formatting as show
from scalpel_graph import gpu_cost
from scalpel_graph.calibration import gpu, measure, profile
from scalpel_graph.cli import console as cli
from scalpel_graph.cuda import Library, installed_card
from scalpel_graph.errors import InputError
from scalpel_graph.kernel_table import chosen_isa, group_shapes, lanes, quantized_group_shapes
from scalpel_graph.library import cuda_op_library
from scalpel_graph.target_toml import to_toml
from scalpel_graph.version import __version__

_PROG = "scalpel-calibrate"
_EPILOG = """\
examples:
  scalpel-calibrate laptop.toml
  scalpel-opt pruned.onnx fast.onnx --target laptop.toml

Let nothing else run meanwhile: at the end it says how steady the machine was. SCALPEL_ISA=avx2 measures the
kernels of an instruction set other than the best.
"""
#: Repeated measurements further apart than this say that something else was running.
_UNSTEADY = 0.1


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code."""
    return cli.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.output.suffix.lower() != ".toml":
        raise InputError(
            f"{options.output}: its name must end in .toml, so that --target takes it for a file"
        )
    cli.check_folder(options.output)
    if options.target == "gpu":
        return _gpu(options)
    isa = chosen_isa()
    threads = sorted(set(options.threads or measure.default_threads()))
    host_measure = measure.HostMeasure()
    block = measure.blocked_channels(host_measure)
    work = [
        *measure.jobs(group_shapes(), threads),
        *measure.jobs(quantized_group_shapes(), threads, quantized=True),
    ]
    samples = []
    with cli.counted(f"measuring {isa} kernels", len(work), options.quiet) as advance:
        for sample in measure.run(work, host_measure):
            samples.append(sample)
            advance()
    description, host = profile.describe_host(isa)
    target, quality = profile.build(
        samples,
        name=options.output.stem,
        description=description,
        isa=isa,
        lanes=lanes(isa),
        block=block,
        host=host,
    )
    cli.write_file(options.output, to_toml(target))
    _show(options, target.description, quality, len(samples))
    return 0


def _gpu(options: argparse.Namespace) -> int:
    if options.threads:
        raise InputError("--threads is for --target cpu")
    library = cuda_op_library()
    Library(library).devices()
    measure_gpu = gpu.SessionMeasure(library)
    card, driver = installed_card()
    work = gpu.jobs(gpu_cost.group_shapes())
    samples = []
    with cli.counted(f"measuring {card}", len(work), options.quiet) as advance:
        for sample in gpu.run(work, measure_gpu):
            samples.append(sample)
            advance()
    target, quality = gpu.build(
        samples, name=options.output.stem, description=card, host=gpu.describe_host(card, driver)
    )
    cli.write_file(options.output, to_toml(target))
    _show(options, target.description, quality, len(samples))
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog=_PROG,
        usage=f"{_PROG} OUT.toml [options]",
        description="Measures how fast this machine runs dense and sparse layers, in a few minutes, and\n"
        "writes it as a profile that scalpel-opt --target takes.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("output", metavar="OUT.toml", type=Path, help="where the profile goes")
    parser.add_argument(
        "--target",
        choices=("cpu", "gpu"),
        default="cpu",
        help="what to measure; gpu needs a CUDA device, nvcc when this was installed, and onnxruntime-gpu"
        " (default: cpu)",
    )
    parser.add_argument(
        "--threads",
        metavar="N",
        type=cli.positive,
        action="append",
        help="numbers of threads to measure with; repeatable (default: 1 and as many as there are cores)",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show where an unexpected error happened"
    )
    parser.add_argument("--version", action="version", version=f"Scalpel Graph {__version__}")
    return parser


def _show(options: argparse.Namespace, description: str, quality: profile.Quality, measured: int) -> None:
    out = cli.output_console(options.quiet)
    out.print(f"{description}: {show.plural(measured, 'measurement')}.")
    out.print(
        f"The model's error is {quality.typical:.1%} typically, and below {quality.bad:.0%} in nine of ten; "
        f"the same layer measured twice differs by {quality.steadiness:.1%}."
    )
    if quality.steadiness > _UNSTEADY:
        out.print("That is much: something else was running. Measure again when nothing is.", style="yellow")
    out.print(f"Wrote {options.output}. Use it with: scalpel-opt --target {options.output}", soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
