"""Removing channels: seconds of analysis and shrinking, how they grow with the graph, and peak memory.

``python -m benchmarks.channels`` runs the pass ``remove-channels`` on ResNet-50 with masks, on generated
graphs of 2,500, 5,000 and 10,000 nodes, and on one large layered model, each in a process of its own. Reading
the model and the shape inference that passes rely on are not part of the seconds; of the memory they are.
"""

import argparse
import gc
import json
import math
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper
from rich.table import Table

from models.builder import BATCH, OPSET, GraphBuilder
from models.resnet import resnet50
from scalpel_graph import formatting, io
from scalpel_graph.cli import console
from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from scalpel_graph.target import Target

_PROG = "python -m benchmarks.channels"
NODES = (2_500, 5_000, 10_000)
_TARGET = Target(name="exact", kind="gpu", description="widths as they come")


@dataclass(frozen=True)
class Result:
    """One line of the table.

    Attributes:
        nodes: of the graph.
        model_bytes: of its weights.
        seconds: of the pass, the least of the runs.
        layers: layers that got narrower.
        used_bytes: the most memory the process had, over what it had before it read the model.
    """

    nodes: int
    model_bytes: int
    seconds: float
    layers: int
    used_bytes: int


def masked_resnet() -> onnx.ModelProto:
    """ResNet-50 with a mask behind every second Relu, half of whose channels are zero."""
    model = resnet50()
    shapes = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    rng = np.random.default_rng(0)
    for node in list(model.graph.node):
        if not node.name.endswith((".relu1", ".relu2")):
            continue
        conv = node.name.replace("relu", "conv")
        channels = shapes[f"{conv}.weight"][0]
        mask = (rng.permutation(channels) < channels // 2).astype(np.float32).reshape(1, -1, 1, 1)
        model.graph.initializer.append(numpy_helper.from_array(mask, f"{node.name}.mask"))
        output, node.output[0] = node.output[0], f"{node.name}.unmasked"
        mul = helper.make_node("Mul", [node.output[0], f"{node.name}.mask"], [output])
        model.graph.node.insert(list(model.graph.node).index(node) + 1, mul)
    return model


def generated(nodes: int) -> onnx.ModelProto:
    """Residual blocks of Conv, BatchNormalization, Relu, mask, Conv, Add: about as many nodes as asked."""
    g = GraphBuilder("generated", seed=0, opset=OPSET)
    rng = np.random.default_rng(0)
    width = 16
    x = g.conv(g.input("input", [BATCH, 3, 8, 8]), "stem", 3, width, 3, pad=1)
    for number in range(nodes // 6):
        y = g.relu(g.conv_bn(x, f"{number}.conv1", width, width, 3), f"{number}.relu")
        mask = (rng.permutation(width) < width // 2).astype(np.float32).reshape(1, -1, 1, 1)
        y = g.node("Mul", f"{number}.masked", [y, g.initializer(f"{number}.mask", mask)])
        x = g.node("Add", f"{number}.add", [x, g.conv(y, f"{number}.conv2", width, width, 3, pad=1)])
    return g.model({x: [BATCH, width, 8, 8]})


def large(gigabytes: float) -> onnx.ModelProto:
    """Gemm, Relu in turn, of this size together; a third of the neurons have no weights."""
    width = 8192
    g = GraphBuilder("large", seed=0, opset=OPSET)
    x = g.input("input", [BATCH, width])
    rng = np.random.default_rng(0)
    for number in range(max(2, round(gigabytes * 1e9 / (4 * width * width)))):
        weight = rng.standard_normal((width, width), dtype=np.float32)
        weight[::3] = 0
        name = f"{number}.weight"
        y = g.node("Gemm", f"{number}.gemm", [x, g.initializer(name, weight)], transB=1)
        x = g.relu(y, f"{number}.relu")
    return g.model({x: [BATCH, width]})


def write(name: str, path: Path) -> None:
    """Writes a model to a file: ``resnet-50``, ``generated:NODES`` or ``large:GIGABYTES``."""
    kind, _, size = name.partition(":")
    makers: dict[str, Callable[[], onnx.ModelProto]] = {
        "resnet-50": masked_resnet,
        "generated": lambda: generated(int(size)),
        "large": lambda: large(float(size)),
    }
    onnx.save_model(makers[kind](), str(path), save_as_external_data=True, location=f"{path.name}.data")


def measure(path: Path, runs: int) -> Result:
    """Measures the model in a file, in this process."""
    base = _peak()
    model = io.load(path).proto
    model_bytes = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    seconds = []
    for _ in range(runs):
        graph, context = ModelGraph(model), PassContext(_TARGET)
        graph.infer()
        gc.collect()  # of what former runs left
        start = time.perf_counter()
        RemoveChannels().run(graph, context)
        seconds.append(time.perf_counter() - start)
    used = _peak() - base
    return Result(len(model.graph.node), model_bytes, min(seconds), len(context.removed_nodes), used)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark; returns its exit code."""
    return console.run(_run, _PROG, arguments)


def _run(arguments: Sequence[str]) -> int:
    parser = console.Parser(prog=_PROG, description="What it takes to remove channels.")
    parser.add_argument("--runs", type=int, default=3, help="the least time of so many (default: 3)")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of the large model (default: 1)")
    parser.add_argument("--write", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.write:
        write(options.write[0], Path(options.write[1]))
        return 0
    if options.measure:
        print(json.dumps(asdict(measure(Path(options.measure), options.runs))))
        return 0
    names = ["resnet-50", *(f"generated:{nodes}" for nodes in NODES), f"large:{options.gigabytes}"]
    seconds: dict[str, float] = {}
    table = Table("model", "nodes", "weights", "seconds", "layers narrower", "peak memory", "over weights")
    for name in names:
        runs = "1" if name.startswith("large") else str(options.runs)
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/model.onnx"
            _child("--write", name, path)
            result = Result(**json.loads(_child("--measure", path, "--runs", runs)))
        table.add_row(
            name,
            f"{result.nodes:,}",
            formatting.size(result.model_bytes),
            f"{result.seconds:.2f}",
            str(result.layers),
            formatting.size(result.used_bytes),
            f"{result.used_bytes / result.model_bytes:.2f}",
        )
        seconds[name] = result.seconds
    out = console.output_console()
    out.print(table)
    least, most = NODES[0], NODES[-1]
    ratio = seconds[f"generated:{most}"] / seconds[f"generated:{least}"]
    out.print(
        f"From {least:,} to {most:,} nodes the time grows {ratio:.1f} times, as their number to the power of"
        f" {math.log(ratio) / math.log(most / least):.2f}."
    )
    return 0


def _child(*arguments: str) -> str:
    """What this script prints in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.channels", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    sys.exit(main())
