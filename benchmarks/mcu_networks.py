"""Whole networks on an emulated Cortex-M4: ``python -m benchmarks.mcu_networks``.

The paper's networks at its pruning rates for a microcontroller, in groups along the channels, against the
same networks before pruning: exact instructions of QEMU, bytes of constants. And the bytes of every output:
numpy, ONNX Runtime with the operators and without, C here under the sanitizers of addresses and undefined
behaviour, and in QEMU, on inputs with extremes among them.

Weights are seeded, or with ``--work`` those that ``python -m models reproduce`` trained there for ``mcu``.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, fsum, log
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from models import NETWORKS
from models.paper.reproduce import DENSE, MODEL_FILE
from scalpel_graph import api
from scalpel_graph.channels_last import column_orders
from scalpel_graph.library import custom_op_library
from scalpel_graph.mcu import emit_c, reference
from scalpel_graph.mcu.network import DTYPES, LIMITS, STORED, Dtype, Network
from scalpel_graph.mcu.program import Program
from scalpel_graph.pruning.structure import Groups
from scalpel_graph.session import run, session

Array = npt.NDArray[Any]

#: Network: layers to prune, fraction of groups that go. The first Conv of LeNet-5 has 500 weights and stays.
RATES = {
    "lenet-300-100": (("fc1", "fc2", "fc3"), 0.95),
    "lenet-5": (("conv2", "fc1", "fc2"), 0.95),
    "convnet": (("conv1", "conv2", "conv3", "fc1"), 0.70),
}
#: Group shapes to prune in.
SHAPES: dict[Dtype, tuple[int, int]] = {"q15": (1, 2), "int8": (1, 4), "int8x16": (1, 4)}

_SAMPLES = 64
_BATCH_BYTES = 1 << 20
_SANITIZED = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"


@dataclass(frozen=True)
class Outcome:
    """One network in one type.

    Attributes:
        network, dtype: which.
        vectors: inputs on which all forms gave the same bytes.
        instructions, bytes: of the pruned network and of the one before pruning.
    """

    network: str
    dtype: Dtype
    vectors: int
    instructions: tuple[int, int]
    bytes: tuple[int, int]

    @property
    def ratio(self) -> float:
        """How many times fewer instructions."""
        return self.instructions[1] / self.instructions[0]


def pruned(
    model: onnx.ModelProto, layers: Sequence[str], rate: float, shape: tuple[int, int]
) -> onnx.ModelProto:
    """Zeros in aligned groups of outputs by neighbours in the device's memory."""
    orders = column_orders(api.understood(model), {})
    result = onnx.ModelProto()
    result.CopyFrom(model)
    for tensor in result.graph.initializer:
        name, _, kind = tensor.name.rpartition(".")
        if name in layers and kind == "weight":
            weights = numpy_helper.to_array(tensor)
            matrix = weights.reshape(len(weights), -1)
            drop = Groups(shape, orders[name]).drop(matrix, rate)
            kept = np.where(drop, np.float32(0), matrix).reshape(weights.shape)
            tensor.CopyFrom(numpy_helper.from_array(kept, tensor.name))
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mcu_networks", description=__doc__)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", help=f"of {', '.join(RATES)}; default: all")
    parser.add_argument("--dtype", choices=DTYPES, action="append", help="default: all")
    parser.add_argument(
        "--vectors", type=int, default=1000, help="inputs to compare on (default: %(default)s)"
    )
    parser.add_argument(
        "--work",
        metavar="DIR",
        type=Path,
        help="of models reproduce: take its dense and pruned networks, not seeded ones",
    )
    options = parser.parse_args(arguments)
    outcomes = []
    for name in options.networks or RATES:
        for dtype in options.dtype or DTYPES:
            pair = seeded(name, dtype) if options.work is None else trained(name, options.work)
            outcome = measure(name, pair, dtype, options.vectors)
            outcomes.append(outcome)
            sparse, dense = outcome.instructions
            small, large = outcome.bytes
            print(
                f"{name:14} {dtype:7} {outcome.vectors} vectors the same everywhere; {sparse:,} instructions"
                f" against {dense:,} unpruned: {outcome.ratio:.2f}x; {small:,} bytes against {large:,}:"
                f" {small / large:.1%}",
                flush=True,
            )
    for dtype in DTYPES:
        of_type = [outcome for outcome in outcomes if outcome.dtype == dtype]
        if len(of_type) > 1:
            ratio = exp(fsum(log(outcome.ratio) for outcome in of_type) / len(of_type))
            part = exp(fsum(log(o.bytes[0] / o.bytes[1]) for o in of_type) / len(of_type))
            print(f"geometric mean {dtype:7} {ratio:.2f}x fewer instructions, {part:.1%} of the bytes")
    return 0


def seeded(name: str, dtype: Dtype) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The network pruned, and as it was."""
    layers, rate = RATES[name]
    dense = NETWORKS[name].build()
    return pruned(dense, layers, rate, SHAPES[dtype]), dense


def trained(name: str, work: Path) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """The same, of a folder of ``models reproduce``."""
    pair = [work / name / variant / MODEL_FILE for variant in ("scalpel-mcu", DENSE)]
    for path in pair:
        if not path.exists():
            sys.exit(
                f"{path}: not there; python -m models reproduce {name} --target mcu --work {work} makes it"
            )
    return onnx.load(pair[0]), onnx.load(pair[1])


def measure(name: str, pair: tuple[onnx.ModelProto, onnx.ModelProto], dtype: Dtype, vectors: int) -> Outcome:
    """Compiles a network pruned and unpruned, compares the bytes, and counts."""
    instructions, sizes = [], []
    for model in pair:
        with tempfile.TemporaryDirectory() as folder:
            result, program = _compiled(model, dtype, Path(folder))
            if model is pair[0]:
                _compare(result.model, program.network, Path(folder) / "c", vectors)
            counted = re.search(r"(\d+) instructions", _make(Path(folder) / "c", "count"))
            assert counted is not None
            instructions.append(int(counted[1]))
            sizes.append(program.flash_bytes)
    return Outcome(name, dtype, vectors, (instructions[0], instructions[1]), (sizes[0], sizes[1]))


def _compiled(model: onnx.ModelProto, dtype: Dtype, folder: Path) -> tuple[api.OptimizeResult, Program]:
    """The network and its bundle in ``folder / "c"``, each layer as is predicted to be fastest."""
    shape = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    x: Any = np.random.default_rng(0).standard_normal((_SAMPLES, *shape), dtype=np.float32)
    arrays: dict[str, Any] = {model.graph.input[0].name: x}
    np.savez(folder / "x.npz", **arrays)
    result = api.optimize(model, "mcu", calibration=folder / "x.npz", dtype=dtype)
    program, report, samples = result.program, result.report.microcontroller, result.samples
    assert program is not None and samples is not None and report is not None
    emit_c.emit(program, samples, report, result.model.SerializeToString(), folder / "c")
    return result, program


def _compare(model: onnx.ModelProto, network: Network, bundle: Path, vectors: int) -> None:
    """Exits if any form of the network gives other bytes than the reference."""
    value, dtype = network.values[network.input], STORED[network.dtype]
    low, high = LIMITS[network.dtype]
    edges = emit_c.edge_inputs(network)
    rng = np.random.default_rng(1)
    spread = rng.normal(0, (high - low) / 8, (vectors - len(edges), *value.shape))
    stored = np.concatenate([edges, np.clip(np.rint(spread), low, high).astype(np.int64)])
    form = network.values[network.output].format
    ways = {"operators": session(model, library=custom_op_library()), "functions": session(model)}
    _make(bundle, "host", f"CFLAGS={_SANITIZED}")
    per_batch = max(1, _BATCH_BYTES // (value.size * dtype.itemsize))
    for start in range(0, len(stored), per_batch):
        part = stored[start : start + per_batch]
        expected = reference.run(network, part)
        floats = ((part - value.format.zero_point) * value.format.scale).astype(np.float32)
        wanted = (expected.astype(np.float32) - np.float32(form.zero_point)) * np.float32(form.scale)
        for way, open_session in ways.items():
            if run(open_session, {network.input: floats})[network.output].tobytes() != wanted.tobytes():
                sys.exit(f"{network.name}: ONNX Runtime gives other bytes with {way}")
        emit_c.channels_last(part).astype(dtype).tofile(bundle / "in.bin")
        bytes_wanted = emit_c.channels_last(expected).astype(dtype).tobytes()
        subprocess.run(["build/host", "in.bin", "out.bin"], cwd=bundle, check=True)
        if (bundle / "out.bin").read_bytes() != bytes_wanted:
            sys.exit(f"{network.name}: the bundle gives other bytes on this machine")
        for core in ("cortex-m4", "cortex-m3"):
            _make(bundle, "qemu-full", f"CORE={core}")
            if (bundle / "out.bin").read_bytes() != bytes_wanted:
                sys.exit(f"{network.name}: the bundle gives other bytes on {core}")


def _make(folder: Path, *arguments: str) -> str:
    done = subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"make {' '.join(arguments)} failed\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


if __name__ == "__main__":
    sys.exit(main())
