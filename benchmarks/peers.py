"""Pruned networks in our operators and in other engines, side by side in one run.

``python -m benchmarks.peers`` prunes each network, optimizes it for the CPU, and times it against the same
pruned network

- in ONNX Runtime, dense fp32;
- in ONNX Runtime, dense int8, as its own quantizer makes it: what one would use instead of pruning;
- in our operators, that same int8 network: pruned and quantized;
- in OpenVINO, fp32, and in DeepSparse, each in the environment of the Python interpreter that is named with
  ``--openvino`` and ``--deepsparse``.

Each engine has a process of its own (`benchmarks.engine_process`); they take turns. Answers are compared: all
fp32 engines must agree. Ratios are times faster than dense fp32 ONNX Runtime; int8 is less exact.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from fnmatch import fnmatchcase
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

import scalpel_graph
from benchmarks.quantizing import quantize
from benchmarks.tables import Results, add_markdown_option
from models import NETWORKS
from scalpel_graph import formatting
from scalpel_graph.cli import console
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning import prune_magnitude
from scalpel_graph.timing import Ratio, take_turns

_PROG = "python -m benchmarks.peers"
_WORKER = Path(__file__).with_name("engine_process.py")

DENSE, OURS, INT8, OURS_INT8 = "dense", "scalpel", "int8", "scalpel-int8"
#: Of the engines, for people.
_NAMES = {
    DENSE: "ONNX Runtime",
    OURS: "Scalpel Graph",
    INT8: "ONNX Runtime int8",
    OURS_INT8: "Scalpel Graph int8",
    "openvino": "OpenVINO",
    "deepsparse": "DeepSparse",
}


@dataclass(frozen=True)
class Case:
    """A network, how it is pruned and how many inputs it gets at once.

    Attributes:
        network: name in `models.NETWORKS`.
        sparsity: fraction of groups set to zero in the network's pruned layers.
        group_shape: ``(r, c)``.
        batch: inputs at once.
        nodes: for each layer named, the fraction of its filters that is zero.
        dynamic: whether int8 means weights only ahead of time, as ONNX Runtime advises for transformers.
    """

    network: str
    sparsity: float
    group_shape: GroupShape
    batch: int = 1
    nodes: Mapping[str, float] = field(default_factory=dict)
    dynamic: bool = False

    @property
    def name(self) -> str:
        """For people, and for ``--case``."""
        batch = "" if self.batch == 1 else f" batch {self.batch}"
        nodes = " and nodes" if self.nodes else ""
        return f"{self.network}{batch} {self.sparsity:.0%} {'x'.join(map(str, self.group_shape))}{nodes}"


#: What AlexNet's node pruning leaves out in the Scalpel paper (ISCA 2017), as fractions of filters.
_ALEXNET_NODES = {"conv1": 0.03, "conv2": 0.20, "conv3": 0.24, "conv4": 0.18}

CASES = (
    Case("resnet-50", 0.80, (4, 1)),
    Case("resnet-50", 0.90, (4, 1)),
    Case("resnet-50", 0.95, (4, 1)),
    Case("resnet-50", 0.90, (1, 1)),
    Case("mobilenet-v1", 0.90, (4, 1)),
    Case("mlp", 0.90, (8, 1)),
    Case("mlp", 0.90, (4, 1), batch=64),
    Case("alexnet", 0.90, (1, 8), nodes=_ALEXNET_NODES),
    Case("bert-base", 0.90, (4, 1), dynamic=True),
)


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        case: its name.
        threads: of each engine.
        ms: median time of each engine, milliseconds.
        speed_up: times faster than dense fp32 ONNX Runtime, by engine.
        difference: largest difference from its answers, over their largest magnitude, by engine.
        versions: of the engines.
        rounds: of the measurement.
    """

    case: str
    threads: int
    ms: dict[str, float]
    speed_up: dict[str, Ratio]
    difference: dict[str, float]
    versions: dict[str, str]
    rounds: int


class Engine:
    """A process that runs one model (`benchmarks.engine_process`); a context manager."""

    def __init__(self, python: str, engine: str, *arguments: str) -> None:
        command = [python, str(_WORKER), engine, *arguments]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.version = str(self._answer()["version"])

    def time_turn(self, seconds: float) -> float:
        """Seconds of a run, in one turn."""
        return float(self._ask(f"turn {seconds}")["seconds"])

    def outputs(self, path: Path) -> list[npt.NDArray[Any]]:
        """What the model gives."""
        self._ask(f"outputs {path}")
        with np.load(path) as arrays:
            return [arrays[name] for name in arrays.files]

    def _ask(self, command: str) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None and self._process.stderr is not None
        line = self._process.stdout.readline()
        if not line:
            raise EngineError(self._process.stderr.read().strip().rpartition("\n")[2] or "no message")
        return json.loads(line)

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()


class EngineError(Exception):
    """An engine's process ended. The message is its last line on stderr."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns its exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    console.check_folder(options.json)
    cases = [
        case for case in CASES if any(fnmatchcase(case.name, pattern) for pattern in options.case or "*")
    ]
    peers = {name: python for name in ("openvino", "deepsparse") if (python := getattr(options, name))}
    results: list[Result] = []
    out = console.output_console()
    with console.progress(False) as step:
        for case, threads in product(cases, options.threads or (1, 2)):
            step(f"{case.name}, {formatting.plural(threads, 'thread')}")
            results.append(measure(case, threads, peers, options.seconds, out.print))
            console.write_file(options.json, json.dumps(_as_json(results), indent=2) + "\n")
    _table(results, [DENSE, OURS, INT8, OURS_INT8, *peers]).print(out, markdown=options.markdown)
    out.print(f"written to {options.json}")
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(prog=_PROG, description="Pruned networks in our operators and in other engines.")
    parser.add_argument(
        "--case",
        metavar="PATTERN",
        action="append",
        type=_pattern,
        help=f"repeatable; default: all of {', '.join(case.name for case in CASES)}".replace("%", "%%"),
    )
    parser.add_argument("--threads", action="append", type=console.positive, help="repeatable; default: 1 2")
    parser.add_argument("--openvino", metavar="PYTHON", help="interpreter of an environment that has it")
    parser.add_argument("--deepsparse", metavar="PYTHON", help="interpreter of an environment that has it")
    parser.add_argument("--seconds", type=float, default=10.0, help="time for each case (default: 10)")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, default=Path("build/benchmarks/peers.json"), help="%(default)s"
    )
    add_markdown_option(parser)
    return parser


def _pattern(text: str) -> str:
    if not any(fnmatchcase(case.name, text) for case in CASES):
        raise argparse.ArgumentTypeError(f"no case is called {text!r}")
    return text


def measure(
    case: Case, threads: int, peers: Mapping[str, str], seconds: float, tell: Callable[[str], None]
) -> Result:
    """Times one case in every engine.

    Args:
        case: what.
        threads: of each engine.
        peers: interpreters of other engines, by name.
        seconds: to spend.
        tell: hears of engines that cannot run the network; they are left out.
    """
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        inputs = write_models(case, threads, folder)
        options = [str(inputs), f"--threads={threads}", f"--batch={case.batch}"]
        library = f"--library={scalpel_graph.custom_op_library()}"
        here = sys.executable
        commands = {
            DENSE: (here, "onnxruntime", str(folder / "dense.onnx"), *options),
            OURS: (here, "onnxruntime", str(folder / "scalpel.onnx"), *options, library),
            INT8: (here, "onnxruntime", str(folder / "int8.onnx"), *options),
            OURS_INT8: (here, "onnxruntime", str(folder / "scalpel-int8.onnx"), *options, library),
            **{peer: (python, peer, str(folder / "dense.onnx"), *options) for peer, python in peers.items()},
        }
        engines: dict[str, Engine] = {}
        for engine, command in commands.items():
            try:
                engines[engine] = stack.enter_context(Engine(*command))
            except (EngineError, OSError) as error:
                tell(f"{case.name}: {engine} left out: {error}")
        outputs = {engine: process.outputs(folder / "out.npz") for engine, process in engines.items()}
        difference = {engine: _difference(outputs[DENSE], found) for engine, found in outputs.items()}
        times = take_turns(
            list(engines.values()), Engine.time_turn, budget_s=seconds, turn_s=0.05, threads=threads
        )
    return Result(
        case=case.name,
        threads=threads,
        ms={engine: times.median(number) * 1e3 for number, engine in enumerate(engines)},
        speed_up={engine: times.ratio(number) for number, engine in enumerate(engines)},
        difference=difference,
        versions={engine: process.version for engine, process in engines.items()},
        rounds=times.rounds,
    )


def write_models(case: Case, threads: int, folder: Path) -> Path:
    """Writes ``dense.onnx``, ``scalpel.onnx``, ``int8.onnx`` and ``scalpel-int8.onnx``, and inputs for them.

    Returns:
        the path of the inputs.
    """
    network = NETWORKS[case.network]
    model = network.build()
    for value in (*model.graph.input, *model.graph.output):
        # Engines that plan ahead want to know the batch; all get the same file.
        value.type.tensor_type.shape.dim[0].dim_value = case.batch
    zero_filters(model, case.nodes)
    pruned = prune_magnitude(model, case.sparsity, case.group_shape, layers=network.pruned_layers).model
    dense = folder / "dense.onnx"
    onnx.save(pruned, dense)
    onnx.save(scalpel_graph.optimize(pruned, target="cpu", threads=threads).model, folder / "scalpel.onnx")
    name = pruned.graph.input[0].name
    feeds = None if case.dynamic else [{name: network.sample_input(case.batch, n)} for n in range(4)]
    onnx.save(quantize(pruned, feeds), folder / "int8.onnx")
    quantized = scalpel_graph.optimize(folder / "int8.onnx", target="cpu", threads=threads)
    onnx.save(quantized.model, folder / "scalpel-int8.onnx")
    inputs = folder / "inputs.npz"
    np.savez(inputs, allow_pickle=False, **{name: network.sample_input(case.batch)})
    return inputs


def zero_filters(model: onnx.ModelProto, share: Mapping[str, float], seed: int = 0) -> None:
    """Makes this share of the filters of each layer zero, bias included, in place; at random."""
    rng = np.random.default_rng(seed)
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for layer, fraction in share.items():
        filters = tensors[f"{layer}.weight"].dims[0]
        dead = rng.permutation(filters)[: round(fraction * filters)]
        for part in ("weight", "bias"):
            values = numpy_helper.to_array(tensors[f"{layer}.{part}"]).copy()
            values[dead] = 0
            tensors[f"{layer}.{part}"].CopyFrom(numpy_helper.from_array(values, f"{layer}.{part}"))


def _difference(expected: Sequence[npt.NDArray[Any]], found: Sequence[npt.NDArray[Any]]) -> float:
    return max(
        float(np.abs(a.astype(np.float64) - b).max() / max(np.abs(a).max(), 1e-30))
        for a, b in zip(expected, found, strict=True)
    )


def _as_json(results: Sequence[Result]) -> dict[str, Any]:
    return {
        "scalpel_graph": scalpel_graph.__version__,
        "machine": platform.machine(),
        "system": platform.platform(),
        "results": [asdict(result) for result in results],
    }


def _table(results: Sequence[Result], engines: Sequence[str]) -> Results:
    table = Results(["network", "threads", *(_NAMES[engine] for engine in engines)])
    for result in results:
        cells = [f"{result.ms[DENSE]:.2f} ms"]
        for engine in engines:
            ratio = result.speed_up.get(engine)
            if engine == OURS and ratio:
                cells.append(f"{ratio.median:.2f} ({ratio.low:.2f}–{ratio.high:.2f})")
            elif engine != DENSE:
                cells.append(f"{ratio.median:.2f}" if ratio else "–")
        table.rows.append([result.case, str(result.threads), *cells])
    return table


if __name__ == "__main__":
    sys.exit(main())
