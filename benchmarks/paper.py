"""The Scalpel paper's networks on this CPU: each way of pruning against dense ONNX Runtime, in one run.

``python -m models reproduce all`` makes the networks, trained or seeded; ``python -m benchmarks.paper`` then
times every variant for the CPU, in turns with the dense network in plain ONNX Runtime:

- ``optimizer``: the dense network through ``scalpel-opt``, to tell what is not pruning's doing;
- ``traditional``: single weights everywhere, all layers sparse that a sparse form makes smaller;
- ``optimized``: single weights only where the cost model expects a gain;
- ``scalpel``: the paper's choice, 1×8 groups in fully connected layers, nodes in convolutions;
- ``cost-model``: groups of the shapes that the cost model likes best, in convolutions too.
"""

import json
import math
import platform
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import onnxruntime

import scalpel_graph
from benchmarks import options as option_types
from benchmarks.tables import Results, add_markdown_option, percent
from models import NETWORKS
from models.paper.published import FIGURES, MEAN_SPEED_UP, Published
from models.paper.recipes import RECIPES, TARGETS, TECHNIQUES
from models.paper.reproduce import DENSE, MODEL_FILE, optimized_for
from scalpel_graph import io
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError
from scalpel_graph.host import processor
from scalpel_graph.session import session
from scalpel_graph.timing import Ratio, time_interleaved

_PROG = "python -m benchmarks.paper"
OPTIMIZER = "optimizer"
_COLUMNS = (OPTIMIZER, *TECHNIQUES)


@dataclass(frozen=True)
class Result:
    """Times of one network.

    Attributes:
        network: its name.
        trained: whether its weights were trained.
        threads: of ONNX Runtime.
        dense_us: median time of the dense network in plain ONNX Runtime.
        us: median time of each variant.
        speed_up: times faster than dense, of each variant.
        rounds: of the measurement.
    """

    network: str
    trained: bool
    threads: int
    dense_us: float
    us: dict[str, float]
    speed_up: dict[str, Ratio]
    rounds: int


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns its exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    console.check_folder(options.json)
    results: list[Result] = []
    with console.progress(False) as step:
        for name in options.network or RECIPES:
            variants = _variants(options.results / f"{name}.json")
            for threads in options.threads or (1,):
                step(f"{name}, {threads} threads")
                results.append(_measure(name, variants, options.work, threads, options.seconds))
                console.write_file(options.json, json.dumps(_as_json(results), indent=1) + "\n")
    out = console.output_console()
    everything = {name: _variants(options.results / f"{name}.json") for name in options.network or RECIPES}
    _results_table(everything, results).print(out, markdown=options.markdown)
    out.print()
    for threads in dict.fromkeys(result.threads for result in results):
        _table([result for result in results if result.threads == threads]).print(
            out, markdown=options.markdown
        )
    out.print(f"written to {options.json}")
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(prog=_PROG, description="The Scalpel paper's networks on this CPU.")
    parser.add_argument("--network", choices=RECIPES, action="append", help="repeatable; default: all")
    parser.add_argument("--threads", action="append", type=console.positive, help="repeatable; default: 1")
    parser.add_argument(
        "--seconds", type=option_types.seconds, default=8.0, help="time for each network (default: 8)"
    )
    option_types.add_work_option(parser)
    parser.add_argument(
        "--results",
        metavar="DIR",
        type=Path,
        default=Path("build/paper/results"),
        help="likewise (%(default)s)",
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        default=Path("build/paper/results/speed.json"),
        help="%(default)s",
    )
    add_markdown_option(parser)
    return parser


def _variants(path: Path) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing: run python -m models reproduce {path.stem} first") from error
    return found


def _measure(name: str, found: Mapping[str, Any], work: Path, threads: int, seconds: float) -> Result:
    def model(run: str) -> onnx.ModelProto:
        return io.load(work / name / run / MODEL_FILE).proto

    dense = model(DENSE)
    library = scalpel_graph.custom_op_library()
    fast = {OPTIMIZER: scalpel_graph.optimize(dense, target="cpu", threads=threads).model}
    for variant in found["variants"]:
        if variant["target"] == "cpu":
            technique = variant["technique"]
            optimized, _ = optimized_for(model(variant["run"]), technique, "cpu", threads)
            assert optimized is not None
            fast[technique] = optimized
    sessions = [session(dense, threads=threads)]
    sessions += [session(one, library=library, threads=threads) for one in fast.values()]
    feed = {dense.graph.input[0].name: NETWORKS[name].sample_input()}
    times = time_interleaved([partial(one.run, None, feed) for one in sessions], budget_s=seconds)
    return Result(
        network=name,
        trained=found["dense"]["accuracy"] is not None,
        threads=threads,
        dense_us=times.median(0) * 1e6,
        us={variant: times.median(number) * 1e6 for number, variant in enumerate(fast, start=1)},
        speed_up={variant: times.ratio(number) for number, variant in enumerate(fast, start=1)},
        rounds=times.rounds,
    )


def means(results: Sequence[Result]) -> dict[str, float]:
    """Geometric mean of the speed-ups of each variant that all networks have."""
    found = {}
    for column in _COLUMNS:
        ratios = [result.speed_up[column].median for result in results if column in result.speed_up]
        if len(ratios) == len(results) > 0:
            found[column] = math.exp(sum(map(math.log, ratios)) / len(ratios))
    return found


def _as_json(results: Sequence[Result]) -> dict[str, Any]:
    threads = dict.fromkeys(result.threads for result in results)
    return {
        "scalpel_graph": scalpel_graph.__version__,
        "onnxruntime": onnxruntime.__version__,
        "processor": processor(),
        "system": platform.platform(),
        "results": [asdict(result) for result in results],
        "geometric_means": {
            str(count): means([result for result in results if result.threads == count]) for count in threads
        },
    }


def _table(results: Sequence[Result]) -> Results:
    table = Results(["network", "dense, µs", *_columns_with_paper()])
    for result in results:
        paper = _published(FIGURES["cpu", result.network])
        cells = list(_cells({key: ratio.median for key, ratio in result.speed_up.items()}, paper))
        table.rows.append([result.network, f"{result.dense_us:.1f}", *cells])
    paper_means = {"traditional": 1.06, "scalpel": MEAN_SPEED_UP["cpu"]}
    table.rows.append(["geometric mean", "", *_cells(means(results), paper_means)])
    return table


def _results_table(found: Mapping[str, Any], speeds: Sequence[Result]) -> Results:
    """All that is known of each network, target and technique; speeds are those of the first thread count."""
    first = {result.network: result for result in reversed(speeds)}
    table = Results(
        ["network", "target", "technique", "accuracy", "change", "size", "paper's", "speed-up", "paper's"],
        names=3,
    )
    for network, content in found.items():
        dense = content["dense"]["accuracy"]
        table.rows.append([network, "", "dense", "" if dense is None else percent(dense, 2), *[""] * 5])
        order = [(target, technique) for target in TARGETS for technique in TECHNIQUES]
        for variant in sorted(
            content["variants"], key=lambda entry: order.index((entry["target"], entry["technique"]))
        ):
            target, technique = variant["target"], variant["technique"]
            accuracy = variant["accuracy"]
            ratio = first[network].speed_up.get(technique) if target == "cpu" else None
            published = FIGURES[target, network]
            size = {"scalpel": published.size, "traditional": published.traditional_size}.get(technique)
            faster = _published(published).get(technique)
            table.rows.append(
                [
                    network,
                    target,
                    technique,
                    "" if accuracy is None else percent(accuracy, 2),
                    "" if accuracy is None else f"{100 * (accuracy - dense):+.2f}",
                    percent(variant["size"]["share"], 2),
                    "" if size is None else f"{size:.2f} %",
                    "" if ratio is None else f"{ratio.median:.2f}",
                    "" if faster is None else f"{faster:.2f}",
                ]
            )
    return table


def _published(figures: Published) -> dict[str, float | None]:
    """The paper's speed-ups by technique."""
    return {
        "traditional": figures.traditional,
        "optimized": figures.optimized,
        "scalpel": figures.speed_up,
    }


def _columns_with_paper() -> Iterator[str]:
    for column in _COLUMNS:
        yield column
        if column in ("traditional", "optimized", "scalpel"):
            yield "paper's"


def _cells(ours: Mapping[str, float], paper: Mapping[str, float | None]) -> Iterator[str]:
    for column in _COLUMNS:
        yield f"{ours[column]:.2f}" if column in ours else ""
        if column in ("traditional", "optimized", "scalpel"):
            figure = paper.get(column)
            yield "" if figure is None else f"{figure:.2f}"


if __name__ == "__main__":
    sys.exit(main())
