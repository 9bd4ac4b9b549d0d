"""What values stored in 16 bits gain over float32, layer by layer and in whole networks.

``python -m benchmarks.weights16`` times fully connected layers of one row of X: with weights that come from
memory each time, as in a network that no cache holds, and with weights that are where the last run left them.
Then it times networks, as ``scalpel-opt --weights`` writes them. The three types take turns, each in a
session of its own, so what else the machine does falls on all of them alike. Next to the gains of a layer
stands what the cost model predicts.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime
from rich.table import Table

import scalpel_graph
from models import NETWORKS
from scalpel_graph import cost, formatting
from scalpel_graph.caches import Sweeper
from scalpel_graph.calibration.layers import LayerShape, gemm
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.kernel_table import chosen_isa
from scalpel_graph.node_timing import NodeTimer
from scalpel_graph.one_layer import INPUT, one_layer
from scalpel_graph.pruning import prune_magnitude
from scalpel_graph.session import session
from scalpel_graph.target import CpuTarget, load_target
from scalpel_graph.timing import Ratio, time_interleaved
from scalpel_graph.value_types import FLOAT_TYPES, ValueType, dtype

_PROG = "python -m benchmarks.weights16"
#: Of AlexNet, VGG and an MLP.
LAYERS = (gemm(9216, 4096), gemm(4096, 4096), gemm(2048, 2048))
GROUP_SHAPES: tuple[GroupShape, ...] = ((1, 8), (1, 16), (8, 1), (16, 1), (4, 1), (2, 1), (1, 1))
#: Each with the group shape that it is pruned in.
PRUNED_NETWORKS: tuple[tuple[str, GroupShape], ...] = (("alexnet-fc", (1, 8)), ("mlp", (8, 1)))
_COLD_RUNS = 8
_TURN_S = 0.02
#: Larger than any cache.
_ENDLESS = 1 << 50


@dataclass(frozen=True)
class LayerCase:
    """Microseconds of one layer, by the type of its values.

    Attributes:
        layer: outputs × inputs.
        group_shape: of its weights.
        from_memory: whether its weights come from there in each run.
        us: measured.
        predicted_us: by the cost model.
    """

    layer: str
    group_shape: GroupShape
    from_memory: bool
    us: Mapping[ValueType, float]
    predicted_us: Mapping[ValueType, float]

    def gain(self, value_type: ValueType) -> float:
        """How many times faster than float32."""
        return self.us["fp32"] / self.us[value_type]

    def predicted_gain(self, value_type: ValueType) -> float:
        """The same, as predicted."""
        return self.predicted_us["fp32"] / self.predicted_us[value_type]


@dataclass(frozen=True)
class NetworkCase:
    """One network stored in one type.

    Attributes:
        network: its name.
        group_shape: that it was pruned in.
        value_type: of its sparse layers.
        ms: median of a run.
        gain: how many times faster than float32.
        size_bytes: of the file.
        rounding_error: the largest of any layer, as in the report.
        max_rel_diff: from the answers of the original, as in the report.
    """

    network: str
    group_shape: GroupShape
    value_type: ValueType
    ms: float
    gain: Ratio
    size_bytes: int
    rounding_error: float
    max_rel_diff: float


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    target = load_target(options.target)
    if not isinstance(target, CpuTarget):
        raise InputError(f"--target {options.target}: is not a CPU")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    console.check_folder(options.json)
    density = 1 - options.sparsity
    layers: list[LayerCase] = []
    with console.counted("timing layers", 2 * len(LAYERS) * len(GROUP_SHAPES), False) as advance:
        for case in measure_layers(density, options.threads, options.rounds, target):
            layers.append(case)
            advance()
    networks: list[NetworkCase] = []
    with console.progress(False) as step:
        for name, group_shape in PRUNED_NETWORKS:
            step(f"timing {name}")
            networks += measure_network(name, group_shape, options.sparsity, options.threads, options.seconds)
    facts = {
        "scalpel_graph": scalpel_graph.__version__,
        "onnxruntime": onnxruntime.__version__,
        "isa": chosen_isa(),
        "profile": target.name,
        "threads": options.threads,
        "sparsity": options.sparsity,
    }
    content = {
        **facts,
        "layers": [asdict(case) for case in layers],
        "networks": [asdict(case) for case in networks],
    }
    console.write_file(options.json, json.dumps(content, indent=1) + "\n")
    out = console.output_console()
    out.print(f"{chosen_isa()}, {options.sparsity:.0%} of groups zero, {options.threads} thr.; times faster")
    out.print(_layer_table(layers))
    out.print(_network_table(networks))
    out.print(f"\nwritten to {options.json}")
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(prog=_PROG, description="What values stored in 16 bits gain over float32.")
    parser.add_argument("--target", default="cpu", help="profile to predict from (default: cpu)")
    parser.add_argument("--sparsity", type=float, default=0.9, help="share of groups that are zero (0.9)")
    parser.add_argument("--threads", type=console.positive, default=1, help="of ONNX Runtime (default: 1)")
    parser.add_argument("--rounds", type=console.positive, default=5, help="turns of each layer (default: 5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each network (default: 5)")
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        default=Path("build/benchmarks/weights16.json"),
        help="%(default)s",
    )
    return parser


def measure_layers(density: float, threads: int, rounds: int, target: CpuTarget) -> Iterator[LayerCase]:
    """Times every layer in every group shape, from memory and near."""
    rng = np.random.default_rng(0)
    sweeper = Sweeper()
    known = {kernel.group_shape for kernel in target.kernels}
    for layer, group_shape in product(LAYERS, GROUP_SHAPES):
        weights = layer.weights(rng, group_shape, density)
        x = rng.standard_normal(layer.x_shape).astype(np.float32)
        models = {t: one_layer(weights, layer.attributes, layer.x_shape, group_shape, t) for t in FLOAT_TYPES}
        for from_memory in (True, False):
            times: dict[ValueType, list[float]] = {value_type: [] for value_type in FLOAT_TYPES}
            for _, (value_type, model) in product(range(rounds), models.items()):
                with NodeTimer(model, {INPUT: x}, threads) as timer:
                    if from_memory:
                        timer.run_cold(_COLD_RUNS, sweeper)
                    else:
                        timer.run(_TURN_S)
                    times[value_type].append(sum(timer.finish().values()))
            yield LayerCase(
                f"{layer.work.M}×{layer.work.K}",
                group_shape,
                from_memory,
                {value_type: median(found) for value_type, found in times.items()},
                _predicted(
                    layer, group_shape, density, from_memory=from_memory, target=target, threads=threads
                )
                if group_shape in known
                else {},
            )


def _predicted(
    layer: LayerShape,
    group_shape: GroupShape,
    density: float,
    *,
    from_memory: bool,
    target: CpuTarget,
    threads: int,
) -> dict[ValueType, float]:
    work = replace(layer.work, network_bytes=_ENDLESS if from_memory else 0)
    works = {t: replace(work, value_bytes=dtype(t).itemsize) for t in FLOAT_TYPES}
    return {t: cost.sparse_us(works[t], group_shape, density, target, threads) for t in FLOAT_TYPES}


def measure_network(
    name: str, group_shape: GroupShape, sparsity: float, threads: int, seconds: float
) -> list[NetworkCase]:
    """Times a pruned network in each type."""
    network = NETWORKS[name]
    pruned = prune_magnitude(network.build(), sparsity, group_shape, layers=network.pruned_layers).model
    results = {t: scalpel_graph.optimize(pruned, threads=threads, weights=t) for t in FLOAT_TYPES}
    sessions = [
        session(result.model, library=scalpel_graph.custom_op_library(), threads=threads)
        for result in results.values()
    ]
    feed = {pruned.graph.input[0].name: network.sample_input()}
    times = time_interleaved(
        [partial(one.run, None, feed) for one in sessions], budget_s=seconds, threads=threads
    )
    return [
        NetworkCase(
            name,
            group_shape,
            value_type,
            times.median(i) * 1e3,
            times.ratio(i),
            result.report.size_bytes.after,
            max((layer.values.error for layer in result.report.layers), default=0.0),
            result.report.verified.max_rel_diff,
        )
        for i, (value_type, result) in enumerate(results.items())
    ]


def _layer_table(cases: Sequence[LayerCase]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("layer", "groups"):
        table.add_column(heading, no_wrap=True)
    for where in ("from memory", "near"):
        for heading in ("fp32", "fp16", "bf16", "predicted"):
            table.add_column(f"{where}: {heading}", justify="right")
    for cold, warm in zip(cases[::2], cases[1::2], strict=True):
        cells = [cold.layer, _shape(cold.group_shape)]
        for case in (cold, warm):
            cells += [formatting.microseconds(case.us["fp32"]), f"{case.gain('fp16'):.2f}×"]
            cells += [f"{case.gain('bf16'):.2f}×"]
            cells += [f"{case.predicted_gain('fp16'):.2f}×" if case.predicted_us else ""]
        table.add_row(*cells)
    return table


def _network_table(cases: Sequence[NetworkCase]) -> Table:
    table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for heading in ("network", "groups", "weights"):
        table.add_column(heading, no_wrap=True)
    for heading in ("file", "time", "gain", "95 % interval", "rounding error", "difference"):
        table.add_column(heading, justify="right")
    for case in cases:
        table.add_row(
            case.network,
            _shape(case.group_shape),
            case.value_type,
            formatting.size(case.size_bytes),
            formatting.microseconds(case.ms * 1e3),
            f"{case.gain.median:.2f}×",
            f"{case.gain.low:.2f}–{case.gain.high:.2f}",
            f"{case.rounding_error:.1e}",
            f"{case.max_rel_diff:.1e}",
        )
    return table


def _shape(group_shape: GroupShape) -> str:
    return "×".join(map(str, group_shape))


if __name__ == "__main__":
    sys.exit(main())
