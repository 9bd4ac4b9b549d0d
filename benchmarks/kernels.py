"""Times the kernels on layers of real networks, next to dense ONNX Runtime and the multiply-add peak.

Each layer is one row: dense ONNX Runtime (a model of that single node), then every group shape at one density
of random weights. Everything of a row is measured in turns, several times, and the medians are compared:
absolute times of a shared machine mean little, ratios within a row do.
"""

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper
from rich.console import Console
from rich.progress import track
from rich.table import Table

from scalpel_graph import _kernels, group_csr
from scalpel_graph.group_csr import GroupShape

Floats = npt.NDArray[np.float32]
Timer = Callable[[float], list[float]]


@dataclass(frozen=True)
class Conv:
    """A square convolution that keeps its size but for the stride."""

    out_channels: int
    in_channels: int
    kernel: int
    size: int
    stride: int = 1

    @property
    def name(self) -> str:
        """As in the tables: channels, kernel, input size."""
        stride = f"/{self.stride}" if self.stride > 1 else ""
        channels = f"{self.in_channels}→{self.out_channels}"
        return f"conv {self.kernel}×{self.kernel}{stride} {channels} {self.size}²"

    @property
    def matrix(self) -> tuple[int, int]:
        """``(M, K)``."""
        return self.out_channels, self.in_channels * self.kernel**2

    @property
    def columns(self) -> int:
        """N: output pixels."""
        return int(-(-self.size // self.stride)) ** 2

    def input(self, rng: np.random.Generator) -> Floats:
        """One image."""
        return rng.standard_normal((1, self.in_channels, self.size, self.size)).astype(np.float32)

    def attributes(self) -> dict[str, Any]:
        """Of ONNX's Conv."""
        pad = (self.kernel - 1) // 2
        return {"strides": [self.stride] * 2, "pads": [pad] * 4, "dilations": [1, 1], "group": 1}

    def weight_shape(self) -> list[int]:
        """Of the dense weight."""
        return [self.out_channels, self.in_channels, self.kernel, self.kernel]

    def sparse(self, W: Floats, group_shape: GroupShape, isa: str) -> _kernels.Conv:
        """The kernel of ``W`` (``[M, K]``)."""
        matrix = group_csr.encode(W, group_shape)
        return _kernels.Conv(
            matrix.values,
            matrix.row_offsets,
            matrix.column_indices,
            self.weight_shape(),
            **self.attributes(),
            isa=isa,
        )

    def dense(self, W: Floats) -> tuple[onnx.NodeProto, Floats]:
        """The node, and its weight."""
        return helper.make_node("Conv", ["X", "W"], ["Y"], **self.attributes()), W.reshape(
            self.weight_shape()
        )


@dataclass(frozen=True)
class Gemm:
    """``Y[N, M] = X[N, K] · Wᵀ``."""

    M: int
    K: int
    N: int

    @property
    def name(self) -> str:
        """As in the tables."""
        return f"gemm {self.M}×{self.K} N={self.N}"

    @property
    def matrix(self) -> tuple[int, int]:
        """``(M, K)``."""
        return self.M, self.K

    @property
    def columns(self) -> int:
        """Rows of X."""
        return self.N

    def input(self, rng: np.random.Generator) -> Floats:
        """X."""
        return rng.standard_normal((self.N, self.K)).astype(np.float32)

    def sparse(self, W: Floats, group_shape: GroupShape, isa: str) -> _kernels.Gemm:
        """The kernel of ``W`` (``[M, K]``)."""
        matrix = group_csr.encode(W, group_shape)
        return _kernels.Gemm(matrix.values, matrix.row_offsets, matrix.column_indices, matrix.shape, isa=isa)

    def dense(self, W: Floats) -> tuple[onnx.NodeProto, Floats]:
        """The node, and its weight."""
        return helper.make_node("Gemm", ["X", "W"], ["Y"], transB=1), W


Layer = Conv | Gemm

LAYERS: list[Layer] = [
    Conv(64, 64, 1, 56),
    Conv(256, 64, 1, 56),
    Conv(64, 256, 1, 56),
    Conv(64, 64, 3, 56),
    Conv(128, 128, 3, 28),
    Conv(512, 128, 1, 28),
    Conv(256, 256, 3, 28, 2),
    Conv(512, 512, 1, 14),
    Conv(256, 256, 3, 14),
    Conv(1024, 256, 1, 14),
    Conv(512, 512, 1, 7),
    Conv(512, 512, 3, 7),
    Conv(2048, 512, 1, 7),
    Conv(128, 64, 1, 56),
    Conv(256, 256, 1, 28),
    Conv(1024, 1024, 1, 7),
    Gemm(2048, 2048, 64),
    Gemm(768, 768, 128),
    Gemm(3072, 768, 128),
    Gemm(768, 3072, 128),
    Gemm(2048, 2048, 8),
    Gemm(2048, 2048, 1),
    Gemm(4096, 9216, 1),
    Gemm(4096, 4096, 1),
    Gemm(1000, 2048, 1),
    Gemm(16, 16, 1),
]
#: From so many on, columns fill the vectors of every instruction set.
MANY_COLUMNS = 32
GROUP_SHAPES: list[GroupShape] = [(1, 1), (1, 8), (1, 16), (2, 1), (4, 1), (8, 1), (16, 1)]


def aligned(array: Floats) -> Floats:
    """A copy that begins at a cache line, as tensors in ONNX Runtime do."""
    line = 64
    memory = np.empty(array.nbytes + line, np.uint8)
    start = -memory.ctypes.data % line
    copy = memory[start : start + array.nbytes].view(np.float32).reshape(array.shape)
    copy[...] = array
    return copy


def random_weights(rng: np.random.Generator, layer: Layer, group_shape: GroupShape, density: float) -> Floats:
    """``[M, K]`` with ``density`` of its groups, in random places."""
    (M, K), (r, c) = layer.matrix, group_shape
    kept = rng.random((-(-M // r), -(-K // c))) < density
    mask = np.repeat(np.repeat(kept, r, axis=0), c, axis=1)[:M, :K]
    return np.where(mask, rng.standard_normal((M, K)), 0).astype(np.float32)


def dense_timer(layer: Layer, W: Floats, X: Floats, threads: int) -> Timer:
    """Runs the layer as a model of one node in ONNX Runtime."""
    node, weight = layer.dense(W)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("X", TensorProto.FLOAT, list(X.shape))],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        [onnx.numpy_helper.from_array(weight, "W")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_cpu_input("X", X)
    binding.bind_output("Y")

    def timer(seconds: float) -> list[float]:
        times: list[float] = []
        session.run_with_iobinding(binding)
        while not times or sum(times) < seconds:
            start = time.perf_counter()
            session.run_with_iobinding(binding)
            times.append(time.perf_counter() - start)
        return times

    return timer


def sparse_timer(kernel: _kernels.Conv | _kernels.Gemm, X: Floats, bias: Floats, threads: int) -> Timer:
    """Runs the layer on our kernel, with a bias and a Relu."""
    return lambda seconds: kernel.time(X, bias=bias, activation_min=0.0, threads=threads, seconds=seconds)


def measure(layer: Layer, args: argparse.Namespace) -> dict[str, Any]:
    """Medians of one layer: dense, and each group shape."""
    rng = np.random.default_rng(0)
    X, bias = aligned(layer.input(rng)), np.zeros(layer.matrix[0], np.float32)
    timers: list[Timer] = [dense_timer(layer, random_weights(rng, layer, (1, 1), 1.0), X, args.threads)]
    nonzeros: list[int] = []
    matrix_bytes: list[int] = []
    for group_shape in GROUP_SHAPES:
        W = random_weights(rng, layer, group_shape, args.density)
        timers.append(sparse_timer(layer.sparse(W, group_shape, args.isa), X, bias, args.threads))
        nonzeros.append(int(np.count_nonzero(W)))
        matrix_bytes.append(group_csr.encode(W, group_shape).nbytes)
    times: list[list[float]] = [[] for _ in timers]
    for _ in range(args.rounds):
        for timer, collected in zip(timers, times, strict=True):
            collected.extend(timer(args.seconds))
    dense, *sparse = (median(collected) for collected in times)
    shapes = [
        {
            "group_shape": group_shape,
            "us": seconds * 1e6,
            "gflops_on_nonzeros": 2e-9 * count * layer.columns / seconds,
            "matrix_gb_per_s": 1e-9 * size / seconds,
            "speedup_over_dense": dense / seconds,
        }
        for group_shape, seconds, count, size in zip(
            GROUP_SHAPES, sparse, nonzeros, matrix_bytes, strict=True
        )
    ]
    return {"layer": layer.name, "columns": layer.columns, "dense_us": dense * 1e6, "group_shapes": shapes}


def print_table(results: list[dict[str, Any]], peak: float, args: argparse.Namespace) -> None:
    """GFLOP/s on the non-zeros, its share of the peak (GB/s of the matrix for one column) and speed-up."""
    table = Table(
        title=f"{args.isa}, density {args.density}, {args.threads} thread(s), peak of one thread {peak:.0f} "
        "GFLOP/s\nGFLOP/s on non-zeros, % of peak (N = 1: GB/s of the matrix), speed-up over dense"
    )
    table.add_column("layer")
    table.add_column("dense µs", justify="right")
    for r, c in GROUP_SHAPES:
        table.add_column(f"{r}×{c}", justify="right")
    for result in results:
        cells = []
        for shape in result["group_shapes"]:
            if result["columns"] == 1:
                rate = f"{shape['us']:.1f} µs {shape['matrix_gb_per_s']:.0f}GB/s"
            else:
                rate = f"{shape['gflops_on_nonzeros']:.0f} {100 * shape['gflops_on_nonzeros'] / peak:.0f}%"
            cells.append(f"{rate} {shape['speedup_over_dense']:.1f}×")
        table.add_row(result["layer"], f"{result['dense_us']:.0f}", *cells)
    many = [result["group_shapes"] for result in results if result["columns"] >= MANY_COLUMNS]
    if many:
        means = (
            geometric_mean(shape["gflops_on_nonzeros"] for shape in column)
            for column in zip(*many, strict=True)
        )
        cells = [f"{mean:.0f} {100 * mean / peak:.0f}%" for mean in means]
        table.add_row(f"geometric mean, N ≥ {MANY_COLUMNS}", "", *cells, style="bold")
    Console(width=args.width).print(table)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--density", type=float, default=0.1, help="fraction of groups kept (default 0.1)")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--isa", default=_kernels.chosen_isa(), choices=_kernels.isas())
    parser.add_argument("--layers", default="", metavar="TEXT", help="only layers with this in their name")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each measurement (default 5)")
    parser.add_argument(
        "--seconds", type=float, default=0.02, help="at least this long a turn (default 0.02)"
    )
    parser.add_argument("--width", type=int, help="of the table, in characters")
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    peak = (
        max(_kernels.peak_flops(args.isa) for _ in range(args.rounds)) / 1e9 if args.isa != "scalar" else 0.0
    )
    layers = [layer for layer in LAYERS if args.layers in layer.name]
    results = [measure(layer, args) for layer in track(layers, description="measuring")]
    print_table(results, peak or float("inf"), args)
    if args.json:
        facts = {"isa": args.isa, "threads": args.threads, "density": args.density, "peak_gflops": peak}
        args.json.write_text(json.dumps({**facts, "layers": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
