"""``scalpel-prune`` on the Scalpel paper's trained networks: what one shot costs, how fast it is.

``python -m models reproduce NETWORK`` trains them; ``python -m benchmarks.one_shot`` then, for each,

- prunes groups of every layer at several sparsities, by magnitude and with calibration inputs, without any
  retraining, and measures the accuracy on the test images;
- asks ``scalpel-prune`` for speed-ups, and measures what the optimized network has on this machine.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import onnx

import scalpel_graph
from benchmarks import options as option_types
from benchmarks.tables import Results, add_markdown_option, percent
from models.paper.data import DATASETS, Data
from models.paper.onnx_files import accuracy
from models.paper.recipes import RECIPES
from models.paper.reproduce import DENSE, MODEL_FILE
from scalpel_graph import io
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.session import session
from scalpel_graph.timing import Ratio, time_interleaved

_PROG = "python -m benchmarks.one_shot"
SPARSITIES = (0.5, 0.7, 0.8, 0.9)
GROUP_SHAPE: GroupShape = (1, 8)
_TRAINED = tuple(name for name, recipe in RECIPES.items() if recipe.dataset is not None)


@dataclass(frozen=True)
class Loss:
    """Accuracy of one network pruned in one shot.

    Attributes:
        network: its name.
        sparsity: of the groups of every layer.
        dense: accuracy before.
        magnitude: after pruning by magnitude.
        calibrated: after pruning with calibration inputs.
    """

    network: str
    sparsity: float
    dense: float
    magnitude: float
    calibrated: float


@dataclass(frozen=True)
class Speed:
    """A speed-up that was asked for, and the one that was measured.

    Attributes:
        network: its name.
        asked: of ``--speedup``.
        measured: whether it was asked for with ``--measure``.
        speed_up: of the optimized network over the dense one in ONNX Runtime.
        accuracy: of the optimized network.
    """

    network: str
    asked: float
    measured: bool
    speed_up: Ratio
    accuracy: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns its exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    console.check_folder(options.json)
    losses: list[Loss] = []
    speeds: list[Speed] = []
    with console.progress(False) as step:
        for name in options.network or _TRAINED:
            path = options.work / name / DENSE / MODEL_FILE
            if not path.exists():
                raise InputError(f"{path} is missing: run python -m models reproduce {name} first")
            dense = io.load(path).proto
            dataset = RECIPES[name].dataset
            assert dataset is not None
            data = DATASETS[dataset](options.data)
            before = accuracy(dense, data.test_images, data.test_labels)
            for sparsity in SPARSITIES:
                step(f"{name}, {sparsity:.0%} of groups")
                losses.append(_loss(name, dense, data, before, sparsity=sparsity, images=options.images))
                _write(options.json, losses, speeds)
            for asked in options.speedup or ():
                for measured in (False, True):
                    step(f"{name}, {asked:g}× faster{', measured' * measured}")
                    speeds.append(_speed(name, dense, data, options, asked=asked, measured=measured))
                    _write(options.json, losses, speeds)
    out = console.output_console()
    _loss_table(losses).print(out, markdown=options.markdown)
    if speeds:
        out.print()
        _speed_table(speeds).print(out, markdown=options.markdown)
    out.print(f"written to {options.json}")
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(prog=_PROG, description="scalpel-prune on the paper's trained networks.")
    parser.add_argument(
        "--network", choices=_TRAINED, action="append", help="repeatable; default: all trained"
    )
    parser.add_argument("--data", metavar="DIR", type=Path, help="folder of the data set's files")
    parser.add_argument(
        "--images",
        type=console.positive,
        default=400,
        help="calibration inputs, from training (default: 400)",
    )
    parser.add_argument("--speedup", type=_speed_up, action="append", help="repeatable; default: none")
    parser.add_argument(
        "--seconds", type=option_types.seconds, default=4.0, help="time for each speed-up (default: 4)"
    )
    option_types.add_work_option(parser)
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        default=Path("build/paper/results/one-shot.json"),
        help="%(default)s",
    )
    add_markdown_option(parser)
    return parser


def _speed_up(text: str) -> float:
    number = option_types.seconds(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is less than 1")
    return number


def _calibration(dense: onnx.ModelProto, data: Data, images: int) -> dict[str, Any]:
    return {dense.graph.input[0].name: data.train_images[:images]}


def _loss(
    name: str, dense: onnx.ModelProto, data: Data, before: float, *, sparsity: float, images: int
) -> Loss:
    prune = partial(
        scalpel_graph.prune, dense, "cpu", method="group", group_shape=GROUP_SHAPE, sparsity=sparsity
    )
    by_magnitude = prune().model
    calibrated = prune(calibration=_calibration(dense, data, images)).model
    after = (accuracy(model, data.test_images, data.test_labels) for model in (by_magnitude, calibrated))
    return Loss(name, sparsity, before, *after)


def _speed(
    name: str,
    dense: onnx.ModelProto,
    data: Data,
    options: argparse.Namespace,
    *,
    asked: float,
    measured: bool,
) -> Speed:
    calibration = _calibration(dense, data, options.images)
    pruned = scalpel_graph.prune(dense, "cpu", speedup=asked, calibration=calibration, measure=measured).model
    fast = scalpel_graph.optimize(pruned, "cpu").model
    sessions = [session(dense), session(fast, library=scalpel_graph.custom_op_library())]
    feed = {dense.graph.input[0].name: data.test_images[:1]}
    times = time_interleaved([partial(one.run, None, feed) for one in sessions], budget_s=options.seconds)
    return Speed(name, asked, measured, times.ratio(1), accuracy(fast, data.test_images, data.test_labels))


def _write(path: Path, losses: Sequence[Loss], speeds: Sequence[Speed]) -> None:
    content = {
        "scalpel_graph": scalpel_graph.__version__,
        "group_shape": list(GROUP_SHAPE),
        "losses": [asdict(loss) for loss in losses],
        "speeds": [asdict(speed) for speed in speeds],
    }
    console.write_file(path, json.dumps(content, indent=1) + "\n")


def _loss_table(losses: Sequence[Loss]) -> Results:
    table = Results(["network", "groups zero", "dense", "magnitude", "calibrated", "of magnitude's loss"])
    for loss in losses:
        lost, of = loss.dense - loss.calibrated, loss.dense - loss.magnitude
        cells = [percent(value, 2) for value in (loss.dense, loss.magnitude, loss.calibrated)]
        part = f"{lost / of:.2f}" if of > 0 else ""
        table.rows.append([loss.network, percent(loss.sparsity), *cells, part])
    return table


def _speed_table(speeds: Sequence[Speed]) -> Results:
    table = Results(["network", "asked", "--measure", "measured", "95 % interval", "accuracy"])
    for speed in speeds:
        ratio = speed.speed_up
        table.rows.append(
            [
                speed.network,
                f"{speed.asked:g}",
                "yes" if speed.measured else "no",
                f"{ratio.median:.2f}",
                f"{ratio.low:.2f}–{ratio.high:.2f}",
                percent(speed.accuracy, 2),
            ]
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
