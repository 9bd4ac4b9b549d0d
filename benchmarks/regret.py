"""Regret of the cost model: how much longer its choices take than the best ones.

``python -m benchmarks.regret`` takes layers of real networks that no calibration measures, prunes random
weights of their shapes to several sparsities in several group shapes, and times every way to run each: dense
in ONNX Runtime, and each group shape in our kernels, in turns. The regret of a choice is its time over the
least of all measured times, less 1. Next to the cost model's choices stand those of simple rules:

- always dense;
- always sparse, in the group shape that was pruned;
- sparse in that shape where at least two thirds of the weights are zero.

``--quantized`` asks the same of layers of 8-bit integers, dense in ONNX Runtime as its quantizer writes them.

Times are those of the nodes alone, as in a network whose other layers are run the same way; what a mixture of
dense and sparse Conv layers costs at its borders is measured by ``benchmarks.networks``.
"""

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from benchmarks.layers import layer_name
from benchmarks.tables import Results, add_markdown_option, percent, shape_name
from models import NETWORKS
from scalpel_graph import cost, formatting
from scalpel_graph.autotune import Question, measure_on_host
from scalpel_graph.calibration.layers import LAYERS, LayerShape
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError
from scalpel_graph.graph import ModelGraph
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.passes import sparse_layers
from scalpel_graph.passes.base import Refusal
from scalpel_graph.passes.matching import is_standard
from scalpel_graph.target import CpuTarget, load_target
from scalpel_graph.version import __version__

_PROG = "python -m benchmarks.regret"
SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
THREADS = (1, 2)
#: What fixed rules go by: sparse from this share of zeros on.
_TWO_THIRDS = 2 / 3


@dataclass(frozen=True)
class Way:
    """One way to run a layer; ``group_shape`` is None for dense."""

    group_shape: GroupShape | None
    predicted_us: float
    us: float


@dataclass(frozen=True)
class Case:
    """One layer with weights of one sparsity, on some threads.

    Attributes:
        layer: its operator and shapes.
        sparsity: share of groups that are zero.
        group_shape: that its weights were pruned in.
        threads: of ONNX Runtime.
        ways: every way to run it, dense first.
        chosen: index of the cost model's.
    """

    layer: str
    sparsity: float
    group_shape: GroupShape
    threads: int
    ways: list[Way]
    chosen: int

    def regret(self, way: int) -> float:
        """Time of a way over that of the best, less 1."""
        return self.ways[way].us / min(other.us for other in self.ways) - 1

    @property
    def pruned_way(self) -> int:
        """Index of the way whose group shape is that of the pruning; dense if that is no candidate."""
        shapes = [way.group_shape for way in self.ways]
        return shapes.index(self.group_shape) if self.group_shape in shapes else 0


POLICIES: dict[str, Callable[[Case], int]] = {
    "the cost model": lambda case: case.chosen,
    "always dense": lambda case: 0,
    "always sparse": lambda case: case.pruned_way,
    "sparse from two thirds of zeros": lambda case: case.pruned_way if case.sparsity >= _TWO_THIRDS else 0,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    target = load_target(options.target)
    if not isinstance(target, CpuTarget):
        raise InputError(f"--target {options.target}: is not a CPU")
    options.json = options.json or Path(f"build/benchmarks/regret{'-int8' if options.quantized else ''}.json")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    console.check_folder(options.json)
    with console.progress(False) as step:
        step("building networks")
        layers = held_out_layers()
    if options.quantized:
        if target.quantized is None:
            raise InputError(f"--target {options.target}: has no prices for quantized layers")
        layers = [layer.of_integers() for layer in layers]
    rng = np.random.default_rng(options.seed)
    layers = [layers[i] for i in sorted(rng.permutation(len(layers))[: options.layers])]
    sparsities, threads = options.sparsity or SPARSITIES, options.threads or THREADS
    total = len(layers) * len(sparsities) * len(threads)
    cases: list[Case] = []
    with console.counted("timing layers", total, False) as advance:
        for case in measure(layers, sparsities, threads, target, rng):
            cases.append(case)
            advance()
    content = json.dumps(_as_json(cases, target), indent=1) + "\n"
    console.write_file(options.json, content)
    out = console.output_console()
    out.print(f"{len(cases)} cases: {len(layers)} layers, profile {target.name}\n")
    _table(cases).print(out, markdown=options.markdown)
    for case in sorted(cases, key=lambda case: -case.regret(case.chosen))[:5]:
        out.print(_described(case), soft_wrap=True)
    out.print(f"\nwritten to {options.json}")
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(
        prog=_PROG, description="Regret of the cost model on layers it was not fitted on."
    )
    parser.add_argument("--target", default="cpu", help="profile to judge (default: cpu)")
    parser.add_argument("--layers", type=console.positive, default=40, help="how many (default: 40)")
    parser.add_argument("--sparsity", action="append", type=float, help="repeatable; default: 0.5 to 0.98")
    parser.add_argument("--threads", action="append", type=console.positive, help="repeatable; default: 1 2")
    parser.add_argument(
        "--seed", type=int, default=0, help="of layers, group shapes and weights (default: 0)"
    )
    parser.add_argument(
        "--json",
        metavar="FILE",
        type=Path,
        help="default: build/benchmarks/regret.json, or regret-int8.json",
    )
    parser.add_argument("--quantized", action="store_true", help="layers of 8-bit integers")
    add_markdown_option(parser)
    return parser


def held_out_layers() -> list[LayerShape]:
    """The distinct layers of all networks that could be sparse and that no calibration measures."""
    fitted = {layer.work for layer in LAYERS}
    found: dict[Any, LayerShape] = {}
    for network in NETWORKS.values():
        graph = ModelGraph(network.build())
        shapes = graph.assumed_shapes({})
        for node in graph.nodes:
            if not is_standard(node, "Conv", "Gemm", "MatMul"):
                continue
            try:
                layer = sparse_layers.describe(graph, node, shapes)
            except Refusal:
                continue
            work = replace(layer.work, op="Conv" if layer.work.is_conv else "Gemm")
            if work.is_depthwise or work in fitted:
                continue
            x_shape = (work.batch, work.channels, *work.in_size) if work.is_conv else (work.N, work.K)
            found.setdefault(work, LayerShape(work, dict(layer.attributes), x_shape))
    return list(found.values())


def measure(
    layers: Sequence[LayerShape],
    sparsities: Sequence[float],
    threads: Sequence[int],
    target: CpuTarget,
    rng: np.random.Generator,
) -> Iterator[Case]:
    """Times every layer at every sparsity and number of threads, pruned in some group shape of the target."""
    for layer, sparsity in product(layers, sparsities):
        shapes = [kernel.group_shape for kernel in cost.kernels(layer.work, target)]
        fitting = [shape for shape in shapes if layer.work.M // layer.work.group % shape[0] == 0] or [(1, 1)]
        pruned = fitting[int(rng.integers(len(fitting)))]
        weights = layer.weights(rng, pruned, 1 - sparsity)
        for count in threads:
            ways = cost.candidates(layer.work, weights, target, count)
            group_shapes = [way.group_shape for way in ways]
            cold = [False] * len(ways)
            times = measure_on_host(
                Question(weights, layer.attributes, layer.x_shape, group_shapes, cold, count)
            )
            yield Case(
                layer_name(layer),
                sparsity,
                pruned,
                count,
                [Way(way.group_shape, way.predicted_us, us) for way, us in zip(ways, times, strict=True)],
                ways.index(cost.choose(ways, target.margin)),
            )


def summary(regrets: Sequence[float]) -> dict[str, float]:
    """Geometric mean, 95th percentile and maximum of regrets."""
    values = np.array(regrets)
    return {
        "geomean": float(np.exp(np.log1p(values).mean()) - 1),
        "p95": float(np.quantile(values, 0.95)),
        "max": float(values.max()),
    }


def _as_json(cases: Sequence[Case], target: CpuTarget) -> dict[str, Any]:
    return {
        "scalpel_graph": __version__,
        "onnxruntime": onnxruntime.__version__,
        "profile": target.name,
        "policies": {
            name: summary([case.regret(choose(case)) for case in cases]) for name, choose in POLICIES.items()
        },
        "cases": [asdict(case) for case in cases],
    }


def _table(cases: Sequence[Case]) -> Results:
    counts = sorted({case.threads for case in cases})
    figures = ("geometric mean", "95th percentile", "worst")
    headings = [
        f"{formatting.plural(count, 'thread')}: {figure}" if figure is figures[0] else figure
        for count in counts
        for figure in figures
    ]
    table = Results(["choice", *headings])
    for name, choose in POLICIES.items():
        cells: list[str] = []
        for count in counts:
            regrets = [case.regret(choose(case)) for case in cases if case.threads == count]
            cells += [percent(figure, 1 if figure < 0.1 else 0) for figure in summary(regrets).values()]
        table.rows.append([name, *cells])
    return table


def _described(case: Case) -> str:
    best = min(case.ways, key=lambda way: way.us)
    chosen = case.ways[case.chosen]
    pruned, chose, found = (
        "dense" if shape is None else shape_name(shape)
        for shape in (case.group_shape, chosen.group_shape, best.group_shape)
    )
    return (
        f"{case.layer}, {case.sparsity:.0%} of {pruned} zero, {case.threads} thr.: "
        f"chose {chose} ({chosen.us:.0f} µs, predicted {chosen.predicted_us:.0f}), "
        f"best {found} ({best.us:.0f} µs, predicted {best.predicted_us:.0f}): "
        f"{case.regret(case.chosen):+.0%}"
    )


if __name__ == "__main__":
    sys.exit(main())
