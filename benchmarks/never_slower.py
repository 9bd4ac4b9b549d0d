"""Whether an optimized network is ever slower than what came in, at any sparsity.

``python -m benchmarks.never_slower`` prunes each network by magnitude to sparsities from none to nearly
all, in several group shapes, optimizes it for the CPU, and times it against the dense network in plain ONNX
Runtime, whose time does not depend on the weights. Where optimization changes nothing, the file that goes
out is the one that came in, and there is nothing to time.

Each measurement goes on until it is clear: until the 95 % confidence interval of the median slow-down lies
under the limit. What is not clear after some seconds is said to be over the limit, or in doubt. Rows are
written as they come, one line of JSON each; ``--resume`` goes on where a run stopped, and measures again
what was not clear.

``--quantized`` asks the same of networks of 8-bit integers, which ONNX Runtime's quantizer makes of both.

Nothing is checked here: ``benchmarks.networks`` compares the answers.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from itertools import groupby, product
from pathlib import Path
from typing import Any

import numpy as np
import onnx

import scalpel_graph
from benchmarks import options as option_types
from benchmarks.quantizing import quantize
from benchmarks.tables import Results, add_markdown_option, shape_name
from models import NETWORKS
from scalpel_graph import formatting, io
from scalpel_graph.cli import console
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning import prune_magnitude
from scalpel_graph.session import session
from scalpel_graph.timed_turn import time_turn
from scalpel_graph.timing import MIN_ROUNDS, InterleavedTimes, take_round

_PROG = "python -m benchmarks.never_slower"

SPARSITIES = (0.0, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
GROUP_SHAPES: tuple[GroupShape, ...] = ((1, 1), (4, 1), (8, 1), (1, 8))
THREADS = (1, 2)
#: The longest that an optimized network may take, over what the dense one takes.
LIMIT = 1.03
#: Two rounds are enough where each shows it to be this much faster.
_FAR = 1.15
#: What is not clear is measured for at least so many.
_MANY_ROUNDS = 24
_TURN_S = 0.01
_WORST = 10

UNCHANGED, OK, DOUBT, OVER = "unchanged", "ok", "in doubt", "over the limit"


@dataclass(frozen=True)
class Job:
    """A network as it is pruned."""

    network: str
    sparsity: float
    group_shape: GroupShape


@dataclass(frozen=True)
class Row:
    """What came of a job on some threads.

    Attributes:
        network: name in `models.NETWORKS`.
        sparsity: fraction of groups that were set to zero in each pruned layer.
        group_shape: ``(r, c)``.
        threads: of ONNX Runtime.
        verdict: `UNCHANGED`, `OK`, `DOUBT` or `OVER`.
        slowdown: median time over that of the dense network; 1 for the same file.
        low: lower end of the 95 % confidence interval of the median.
        high: its upper end.
        rounds: of the measurement.
    """

    network: str
    sparsity: float
    group_shape: GroupShape
    threads: int
    verdict: str
    slowdown: float = 1.0
    low: float = 1.0
    high: float = 1.0
    rounds: int = 0

    @property
    def key(self) -> tuple[Job, int]:
        """What it is about."""
        return Job(self.network, self.sparsity, self.group_shape), self.threads


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns its exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    form = "-int8" if options.quantized else ""
    options.json = options.json or Path(f"build/benchmarks/never_slower{form}.jsonl")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    console.check_folder(options.json)
    threads = options.threads or THREADS
    jobs = all_jobs(
        options.network or list(NETWORKS), options.sparsity or SPARSITIES, options.group_shape or GROUP_SHAPES
    )
    wanted = set(product(jobs, threads))
    known = read_rows(options.json) if options.resume else []
    rows = [row for row in known if row.key not in wanted or row.verdict in (UNCHANGED, OK)]
    console.write_file(options.json, "".join(map(_line, rows)))
    missing = wanted - {row.key for row in rows}
    with (
        console.counted("timing networks", len(missing), False) as advance,
        options.json.open("a", encoding="utf-8") as file,
    ):
        for row in measure(jobs, threads, missing, options):
            rows.append(row)
            file.write(_line(row))
            file.flush()
            advance()
    out = console.output_console()
    for table in (_by_sparsity(rows), _worst(rows)):
        table.print(out, markdown=options.markdown)
        out.print()
    counts = {
        verdict: sum(row.verdict == verdict for row in rows) for verdict in (UNCHANGED, OK, DOUBT, OVER)
    }
    out.print(", ".join(f"{count} {verdict}" for verdict, count in counts.items()))
    out.print(f"written to {options.json}")
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(
        prog=_PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--network", action="append", type=option_types.network, help="repeatable; default: all"
    )
    parser.add_argument(
        "--sparsity", action="append", type=option_types.fraction, help="repeatable; default: 0 to 0.98"
    )
    parser.add_argument(
        "--group-shape",
        action="append",
        type=option_types.group_shape,
        help="repeatable; default: 1x1 4x1 8x1 1x8",
    )
    parser.add_argument("--threads", action="append", type=console.positive, help="repeatable; default: 1 2")
    parser.add_argument(
        "--seconds",
        type=option_types.seconds,
        default=8.0,
        help="for each measurement that does not become clear (default: 8)",
    )
    parser.add_argument(
        "--jobs",
        type=console.positive,
        default=os.cpu_count() or 1,
        help="processes that optimize, while nothing is timed (default: one for each processor)",
    )
    parser.add_argument(
        "--quantized", action="store_true", help="networks of 8-bit integers, against dense ones of them"
    )
    parser.add_argument(
        "--resume", action="store_true", help="keep what the file has, but for what is not clear"
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        help="default: build/benchmarks/never_slower.jsonl, or never_slower-int8.jsonl",
    )
    add_markdown_option(parser)
    return parser


def all_jobs(
    networks: Sequence[str], sparsities: Sequence[float], group_shapes: Sequence[GroupShape]
) -> list[Job]:
    """Every network at every sparsity in every group shape, which without zeros are all one."""
    return [
        Job(network, sparsity, group_shape)
        for network, sparsity in product(networks, sparsities)
        for group_shape in (group_shapes if sparsity else group_shapes[:1])
    ]


def read_rows(path: Path) -> list[Row]:
    """The rows in a file; none if there is no such file, and not the last if it was cut short."""
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            facts = json.loads(line)
        except ValueError:
            break
        rows.append(Row(**facts | {"group_shape": tuple(facts["group_shape"])}))
    return rows


def measure(
    jobs: Sequence[Job], threads: Sequence[int], missing: set[tuple[Job, int]], options: argparse.Namespace
) -> Iterator[Row]:
    """Optimizes and times what is missing; networks of one sparsity are optimized at the same time."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(options.jobs, context, initializer=_ignore_interrupts) as pool:
        for name, of_network in groupby(jobs, key=lambda job: job.network):
            dense: dict[int, Callable[[], Any]] = {}
            for _, alike in groupby(of_network, key=lambda job: job.sparsity):
                batch = {
                    job: counts
                    for job in alike
                    if (counts := [count for count in threads if (job, count) in missing])
                }
                if not batch:
                    continue
                if not dense:
                    model = _built(name)
                    model = _quantized(name, model) if options.quantized else model
                    dense = {count: _runner(name, session(model, threads=count)) for count in threads}
                with tempfile.TemporaryDirectory() as folder:
                    of_job = partial(prepare, folder=folder, quantized=options.quantized)
                    prepared = pool.map(of_job, batch, batch.values())
                    # All of them, before anything is timed.
                    for job, paths in list(zip(batch, prepared, strict=True)):
                        for count, path in zip(batch[job], paths, strict=True):
                            yield _measure(job, count, dense[count], path, options.seconds)


def prepare(job: Job, threads: Sequence[int], folder: str, quantized: bool = False) -> list[Path | None]:
    """Prunes a network, quantizes it if that is asked for, and optimizes it for each number of threads.

    Returns:
        The files of the optimized networks; None where there was nothing to change.
    """
    layers = NETWORKS[job.network].pruned_layers
    pruned = prune_magnitude(_built(job.network), job.sparsity, job.group_shape, layers=layers).model
    if quantized:
        pruned = _quantized(job.network, pruned)
    paths: list[Path | None] = []
    for count in threads:
        result = scalpel_graph.optimize(pruned, target="cpu", threads=count, check=False)
        path = (
            Path(folder) / f"{shape_name(job.group_shape)}-{count}.onnx" if result.report.modified else None
        )
        if path is not None:
            io.save(result.model, path)
        paths.append(path)
    return paths


@lru_cache(maxsize=1)
def _built(network: str) -> onnx.ModelProto:
    return NETWORKS[network].build()


def _quantized(network: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """Statically, but for networks of words: their activations are of many sizes."""
    feeds = None
    if NETWORKS[network].vocabulary is None:
        name = model.graph.input[0].name
        feeds = [{name: NETWORKS[network].sample_input(seed=number)} for number in range(4)]
    return quantize(model, feeds)


def _ignore_interrupts() -> None:
    """The process that waits for this one hears of them as well."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def _measure(job: Job, threads: int, dense: Callable[[], Any], path: Path | None, seconds: float) -> Row:
    facts: dict[str, Any] = asdict(job) | {"threads": threads}
    if path is None:
        return Row(**facts, verdict=UNCHANGED)
    optimized = session(path, library=scalpel_graph.custom_op_library(), threads=threads)
    calls = [dense, _runner(job.network, optimized)]
    for call in calls:
        call()
    verdict, times = settle(partial(take_round, calls, time_turn, _TURN_S, threads), seconds)
    ratio = times.ratio(1)
    return Row(
        **facts,
        verdict=verdict,
        slowdown=1 / ratio.median,
        low=1 / ratio.high,
        high=1 / ratio.low,
        rounds=times.rounds,
    )


def _runner(network: str, one: Any) -> Callable[[], Any]:
    feed = {one.get_inputs()[0].name: NETWORKS[network].sample_input()}
    return partial(one.run, None, feed)


def settle(one_round: Callable[[], list[list[float]]], seconds: float) -> tuple[str, InterleavedTimes]:
    """Measures rounds of the dense and the optimized network until it is clear that the limit is kept.

    Args:
        one_round: gives the seconds of each in one round (`take_round`).
        seconds: give up after so many, and after `_MANY_ROUNDS`.

    Returns:
        The verdict, and what was measured.
    """
    rounds: list[list[list[float]]] = []
    start = time.perf_counter()
    while True:
        rounds.append(one_round())
        times = InterleavedTimes(np.array(rounds, dtype=np.float64))
        ratio = times.ratio(1)
        if len(rounds) >= 2 and ratio.low > _FAR:
            return OK, times
        if len(rounds) >= MIN_ROUNDS:
            if ratio.low >= 1 / LIMIT:
                return OK, times
            if len(rounds) >= _MANY_ROUNDS and time.perf_counter() - start >= seconds:
                return OVER if ratio.high < 1 / LIMIT else DOUBT, times


def _line(row: Row) -> str:
    return json.dumps(asdict(row)) + "\n"


def _by_sparsity(rows: Sequence[Row]) -> Results:
    """The worst slow-down of each sparsity."""
    counts = sorted({row.threads for row in rows})
    headings = [f"worst, {formatting.plural(count, 'thread')}" for count in counts]
    table = Results(["sparsity", *headings, "changed", "of"])
    for sparsity in sorted({row.sparsity for row in rows}):
        mine = [row for row in rows if row.sparsity == sparsity]
        worst = (
            max((row for row in mine if row.threads == count), key=lambda row: row.slowdown)
            for count in counts
        )
        cells = [f"{row.slowdown:.3f} {row.network if row.slowdown != 1 else ''}".strip() for row in worst]
        changed = sum(row.verdict != UNCHANGED for row in mine)
        table.rows.append([f"{100 * sparsity:.0f} %", *cells, str(changed), str(len(mine))])
    return table


def _worst(rows: Sequence[Row]) -> Results:
    """The rows with the worst slow-downs."""
    table = Results(
        ["network", "sparsity", "groups", "threads", "slow-down", "95 % interval", "verdict"], names=1
    )
    changed = [row for row in rows if row.verdict != UNCHANGED]
    for row in sorted(changed, key=lambda row: -row.slowdown)[:_WORST]:
        table.rows.append(
            [
                row.network,
                f"{100 * row.sparsity:.0f} %",
                shape_name(row.group_shape),
                str(row.threads),
                f"{row.slowdown:.3f}",
                f"{row.low:.3f}–{row.high:.3f}",
                row.verdict,
            ]
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
