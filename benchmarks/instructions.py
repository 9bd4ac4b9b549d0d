"""Counts the instructions of the AArch64 kernels in QEMU.

No time is measured here: QEMU says how many instructions run, exactly, and nothing about how long they take.
"""

import os
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

from benchmarks.tables import Results, add_markdown_option
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape

_PROG = "python -m benchmarks.instructions"
_ROOT = Path(__file__).parents[1]
_RUNTIME = _ROOT / "runtime_ext"
GROUP_SHAPES: tuple[GroupShape, ...] = ((1, 1), (1, 4), (1, 8), (2, 1), (4, 1), (8, 1), (16, 1))


@dataclass(frozen=True)
class Layer:
    """A layer as ``run_kernel.cpp`` takes it."""

    name: str
    arguments: tuple[str | int, ...]


LAYERS = (
    Layer("FC 1024×1024, 1 row", ("gemm", 1024, 1024, 1)),
    Layer("FC 1024×1024, 4 rows", ("gemm", 1024, 1024, 4)),
    Layer("FC 1024×1024, 64 rows", ("gemm", 1024, 1024, 64)),
    Layer("Conv 1×1, 256→256, 14²", ("conv", 256, 256, 1, 1, 1, 14)),
    Layer("Conv 3×3, 64→64, 28²", ("conv", 64, 64, 3, 1, 1, 28)),
    Layer("Conv 3×3, 256→256, 7²", ("conv", 256, 256, 3, 1, 1, 7)),
)
#: Which have no zeros to leave out.
DEPTHWISE_LAYERS = tuple(
    Layer(f"depthwise {size}×{size}/{stride}, {channels}, {width}²",
          ("conv", channels, channels, size, stride, channels, width))
    for size in (3, 5) for stride in (1, 2) for channels, width in ((64, 28), (128, 14))
)  # fmt: skip

#: By name of a set of kernels of quantized layers: what the table calls it.
QUANTIZED_SETS = {"neon": "NEON", "neon_dotprod": "SDOT"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Counts and returns the exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    table = Results(["layer", *(f"{r}×{c}" for r, c in GROUP_SHAPES)])
    with tempfile.TemporaryDirectory() as folder:
        program, plugin = _build(options.build, Path(folder))
        command = ["qemu-aarch64", "-cpu", options.cpu, "-plugin", plugin, program]
        for layer in LAYERS:
            counts = [count(command, options.isa, layer, shape, options.density) for shape in GROUP_SHAPES]
            table.rows.append([layer.name, *(f"{per_multiply_add:.3f}" for per_multiply_add in counts)])
        for layer in DEPTHWISE_LAYERS:
            dense = count(command, options.isa, layer, (1, 1), 1.0)
            table.rows.append([layer.name, f"{dense:.3f}", *[""] * (len(GROUP_SHAPES) - 1)])
        # Columns of their weights are gathered by four: what counts of a group shape is its rows.
        for layer, (kernels, title) in product(LAYERS, QUANTIZED_SETS.items()):
            operation, *sizes = layer.arguments
            quantized = Layer(f"{layer.name}, int8, {title}", (f"quantized_{operation}", *sizes))
            row = (
                f"{count(command, kernels, quantized, (r, c), options.density):.3f}" if c == 1 else ""
                for r, c in GROUP_SHAPES
            )
            table.rows.append([quantized.name, *row])
    table.print(console.output_console(), markdown=options.markdown)
    return 0


def count(command: Sequence[str | Path], isa: str, layer: Layer, shape: GroupShape, density: float) -> float:
    """Instructions of a run for each multiply-add by a stored weight.

    What the program does beside its runs is the same for any number of them, and drops out.

    Args:
        command: that runs ``run_kernel.cpp`` in QEMU and prints the number of instructions.
        isa: instruction set of the kernels, or name of those of quantized layers.
        layer: the layer.
        shape: of its groups of weights.
        density: fraction of groups that are stored.
    """

    def once(runs: int) -> tuple[int, float]:
        done = _run(*command, isa, *shape, density, runs, *layer.arguments)
        return int(done.stderr), float(done.stdout)

    (one, multiply_adds), (three, _) = once(1), once(3)
    return (three - one) / 2 / multiply_adds


def _build(build: Path, folder: Path) -> tuple[Path, Path]:
    kernels = build / "runtime_ext" / "kernels" / "libscalpel_kernels.a"
    if not kernels.is_file():
        raise InputError(
            f"{kernels}: not there; make it as {_RUNTIME / 'toolchains'}/aarch64-linux-gnu.cmake says"
        )
    program, plugin = folder / "run_kernel", folder / "count_instructions.so"
    here = Path(__file__).parent
    flags = ("-std=c++17", "-O2", "-static", f"-I{_RUNTIME}")
    _run("aarch64-linux-gnu-g++", *flags, here / "run_kernel.cpp", kernels, "-o", program)
    compiler = os.environ.get("CC", "cc")
    _run(compiler, "-O2", "-fPIC", "-shared", here / "count_instructions.c", "-o", plugin)
    return program, plugin


def _run(*command: str | float | Path) -> subprocess.CompletedProcess[str]:
    words = [str(word) for word in command]
    try:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
    except OSError as error:
        raise InputError(f"{words[0]}: cannot be run: {error.strerror}") from error
    if done.returncode != 0:
        raise InputError(f"{' '.join(words)}: exit code {done.returncode}: {' '.join(done.stderr.split())}")
    return done


def _parser() -> console.Parser:
    parser = console.Parser(
        prog=_PROG,
        description="Counts instructions of the AArch64 kernels per multiply-add by a stored weight.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--build", type=Path, default=_ROOT / "build" / "aarch64", metavar="DIR", help="the cross build"
    )
    parser.add_argument("--cpu", default="cortex-a76", metavar="NAME", help="QEMU's name of a processor")
    parser.add_argument(
        "--isa", default="neon", metavar="NAME", help="instruction set of the kernels of float32"
    )
    parser.add_argument("--density", type=float, default=0.1, metavar="F", help="of the weights")
    add_markdown_option(parser)
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
