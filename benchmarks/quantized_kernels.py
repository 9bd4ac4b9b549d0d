"""Times the int8 kernels on the layers of ResNet-50 and of a few multilayer perceptrons, next to dense int8.

Each layer is one row: dense ONNX Runtime (a model of one QLinearConv or QGemm, channels last, as a whole
quantized network runs it), then every group shape at one density of random weights. Everything of a row is
measured in turns, several times, and the medians are compared: ratios within a row mean something, absolute
times of a shared machine little. The last row adds the layers of ResNet-50 up, each as often as the network
has it.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from statistics import geometric_mean
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from benchmarks import options as option_types
from benchmarks.kernels import MANY_COLUMNS
from benchmarks.layer_timers import Timer, encoded, medians, session_timer
from benchmarks.layers import layer_name
from benchmarks.tables import Results, percent
from scalpel_graph import _kernels
from scalpel_graph.calibration.layers import LayerShape, conv, gemm
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array, GroupShape

_PROG = "python -m benchmarks.quantized_kernels"
GROUP_SHAPES: tuple[GroupShape, ...] = ((4, 1), (8, 1), (16, 1))

#: Layers of ResNet-50 that are pruned, and how often it has each.
RESNET50: tuple[tuple[LayerShape, int], ...] = (
    (conv(64, 64, 1, 56), 1), (conv(256, 64, 1, 56), 2), (conv(64, 64, 3, 56), 3), (conv(64, 256, 1, 56), 4),
    (conv(256, 128, 1, 56), 1), (conv(128, 128, 3, 56, stride=2), 1), (conv(128, 512, 1, 28), 4),
    (conv(256, 512, 1, 56, stride=2), 1), (conv(512, 128, 1, 28), 3), (conv(128, 128, 3, 28), 3),
    (conv(512, 256, 1, 28), 1), (conv(256, 256, 3, 28, stride=2), 1), (conv(256, 1024, 1, 14), 6),
    (conv(512, 1024, 1, 28, stride=2), 1), (conv(1024, 256, 1, 14), 5), (conv(256, 256, 3, 14), 5),
    (conv(1024, 512, 1, 14), 1), (conv(512, 512, 3, 14, stride=2), 1), (conv(512, 2048, 1, 7), 3),
    (conv(1024, 2048, 1, 14, stride=2), 1), (conv(2048, 512, 1, 7), 2), (conv(512, 512, 3, 7), 2),
)  # fmt: skip
GEMMS: tuple[LayerShape, ...] = (
    gemm(2048, 2048), gemm(4096, 4096), gemm(2048, 2048, 8), gemm(2048, 2048, 64), gemm(768, 768, 128),
    gemm(768, 3072, 128), gemm(3072, 768, 128),
)  # fmt: skip

_X_SCALE, _X_ZERO_POINT, _Y_SCALE, _Y_ZERO_POINT = np.float32(0.02), 128, np.float32(0.1), 128


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns its exit code."""
    return console.run(_main, _PROG, arguments)


def _main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    layers = [(layer, times) for layer, times in _all_layers() if options.layers in layer_name(layer)]
    if not layers:
        raise InputError(f"--layers {options.layers}: no layer has this in its name")
    if options.json:
        console.check_folder(options.json)
    kernels = options.kernels or _kernels.quantized_kernels()[-1]["set"]
    group_shapes = options.group_shape or GROUP_SHAPES
    peak = max(_kernels.peak_int8_ops(kernels, threads=options.threads) for _ in range(options.rounds)) / 1e9
    results = []
    with console.counted("timing layers", len(layers), False) as advance:
        for layer, times in layers:
            results.append({**_measure(layer, kernels, group_shapes, options), "times": times})
            advance()
    out = console.output_console()
    if not options.markdown:
        out.print(
            f"density {options.density}, {options.threads} thread(s), {kernels}, peak of {peak:.0f} GOP/s\n"
            "share of the peak that non-zeros reach · times faster than dense int8\n",
            style="dim",
        )
    _table(results, peak, group_shapes).print(out, markdown=options.markdown)
    if options.json:
        facts = {
            "threads": options.threads,
            "density": options.density,
            "kernels": kernels,
            "peak_gops": peak,
        }
        console.write_file(options.json, json.dumps({**facts, "layers": results}, indent=1) + "\n")
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(
        prog=_PROG, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--density", type=option_types.density, default=0.1, help="groups kept (default 0.1)")
    parser.add_argument("--threads", type=console.positive, default=1)
    parser.add_argument(
        "--kernels",
        choices=list(dict.fromkeys(kernel["set"] for kernel in _kernels.quantized_kernels())),
        help="default: the best this machine can run",
    )
    option_types.add_layer_timing_options(parser, GROUP_SHAPES)
    return parser


def _all_layers() -> list[tuple[LayerShape, int]]:
    return [*RESNET50, *((layer, 0) for layer in GEMMS)]


def _measure(
    layer: LayerShape, kernels: str, group_shapes: Sequence[GroupShape], options: argparse.Namespace
) -> dict[str, Any]:
    """Medians of one layer: dense, and each group shape."""
    rng = np.random.default_rng(0)
    X = _aligned(rng.integers(0, 256, layer.x_shape).astype(np.uint8))
    timers: list[Timer] = [_dense_timer(layer, X, rng, options.threads)]
    nonzeros = []
    for group_shape in group_shapes:
        matrix = encoded(layer, rng, group_shape, options.density)
        values = np.where(matrix.values != 0, rng.integers(1, 128, matrix.values.shape), 0).astype(np.int8)
        nonzeros.append(np.count_nonzero(values))
        timers.append(
            _sparse_timer(
                layer, (values, matrix.row_offsets, matrix.column_indices), X, kernels, options.threads
            )
        )
    dense, *sparse = medians(timers, options.rounds, options.seconds)
    shapes = [
        {
            "group_shape": group_shape,
            "us": seconds * 1e6,
            "gops_on_nonzeros": 2e-9 * count * layer.work.N / seconds,
            "speedup_over_dense": dense / seconds,
        }
        for group_shape, count, seconds in zip(group_shapes, nonzeros, sparse, strict=True)
    ]
    return {
        "layer": layer_name(layer),
        "columns": layer.work.N,
        "dense_us": dense * 1e6,
        "group_shapes": shapes,
    }


def _aligned(array: Array) -> Array:
    """The same where ONNX Runtime could have put it."""
    memory = np.empty(array.nbytes + 64, np.uint8)
    begin = -memory.ctypes.data % 64
    result = memory[begin : begin + array.nbytes].reshape(array.shape)
    result[...] = array
    return result


def _dense_timer(layer: LayerShape, X: Array, rng: np.random.Generator, threads: int) -> Timer:
    """The layer as one node of ONNX Runtime, its activations channels last."""
    work = layer.work
    W = rng.integers(-127, 128, layer.attributes["weight_shape"]).astype(np.int8)
    constants = {
        "x_scale": _X_SCALE,
        "x_zp": np.uint8(_X_ZERO_POINT),
        "W": W,
        "w_scale": np.full(work.M, 0.01, np.float32),
        "w_zp": np.zeros(work.M, np.int8),
        "y_scale": _Y_SCALE,
        "y_zp": np.uint8(_Y_ZERO_POINT),
        "bias": np.zeros(work.M, np.int32),
    }
    operands = ["X", "x_scale", "x_zp", "W", "w_scale", "w_zp"]
    if work.is_conv:
        X = _aligned(np.moveaxis(X, 1, -1))
        attributes = {k: v for k, v in layer.attributes.items() if k != "weight_shape"}
        node = helper.make_node(
            "QLinearConv",
            [*operands, "y_scale", "y_zp", "bias"],
            ["Y"],
            domain="com.microsoft",
            channels_last=1,
            **attributes,
        )
    else:
        node = helper.make_node(
            "QGemm", [*operands, "bias", "y_scale", "y_zp"], ["Y"], domain="com.microsoft", transB=1
        )
    graph = helper.make_graph(
        [node],
        "dense",
        [helper.make_tensor_value_info("X", onnx.TensorProto.UINT8, X.shape)],
        [helper.make_tensor_value_info("Y", onnx.TensorProto.UINT8, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    return session_timer(helper.make_model(graph, opset_imports=opsets, ir_version=9), "X", X, threads)


def _sparse_timer(
    layer: LayerShape, arrays: tuple[Array, Array, Array], X: Array, kernels: str, threads: int
) -> Timer:
    """The layer in our kernel."""
    work = layer.work
    kernel = (
        _kernels.QuantizedConv(*arrays, **layer.attributes, isa=kernels)
        if work.is_conv
        else _kernels.QuantizedGemm(*arrays, (work.M, work.K), isa=kernels)
    )
    output = _kernels.QuantizedOutput(
        np.uint8,
        bias=np.zeros(work.M, np.int32),
        scale=np.full(work.M, _X_SCALE * np.float32(0.01) / _Y_SCALE, np.float32),
        zero_point=_Y_ZERO_POINT,
    )
    return lambda seconds: kernel.time(
        X, output, x_zero_point=_X_ZERO_POINT, threads=threads, seconds=seconds
    )


def _table(results: Sequence[dict[str, Any]], peak: float, group_shapes: Sequence[GroupShape]) -> Results:
    table = Results(["layer", "dense µs", *(f"{r}×{c}" for r, c in group_shapes)])
    for result in results:
        cells = [
            f"{percent(shape['gops_on_nonzeros'] / peak)} · {shape['speedup_over_dense']:.1f}"
            for shape in result["group_shapes"]
        ]
        table.rows.append([result["layer"], f"{result['dense_us']:.0f}", *cells])
    many = [
        result["group_shapes"] for result in results if result["times"] and result["columns"] >= MANY_COLUMNS
    ]
    if many:
        cells = []
        for column in zip(*many, strict=True):
            share = geometric_mean(shape["gops_on_nonzeros"] for shape in column) / peak
            faster = geometric_mean(shape["speedup_over_dense"] for shape in column)
            cells.append(f"{percent(share)} · {faster:.1f}")
        table.rows.append(["geometric mean, ResNet-50", "", *cells])
        dense = sum(result["times"] * result["dense_us"] for result in results)
        sums = [
            sum(result["times"] * result["group_shapes"][i]["us"] for result in results)
            for i in range(len(group_shapes))
        ]
        cells = [f"{total:.0f} µs · {dense / total:.1f}" for total in sums]
        table.rows.append(["sum over ResNet-50", f"{dense:.0f}", *cells])
    return table


if __name__ == "__main__":
    sys.exit(main())
