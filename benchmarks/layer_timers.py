"""Timers of one layer: dense in ONNX Runtime, sparse in our kernels."""

import time
from collections.abc import Callable, Sequence
from statistics import median

import numpy as np
import onnx

from scalpel_graph import _kernels, group_csr
from scalpel_graph.calibration.layers import LayerShape
from scalpel_graph.group_csr import Array, GroupCsr, GroupShape
from scalpel_graph.one_layer import INPUT, one_layer
from scalpel_graph.session import session

#: Runs a layer for so many seconds; gives the seconds of each run.
Timer = Callable[[float], list[float]]

#: What ONNX Runtime aligns tensors to, in bytes.
_ALIGNMENT = 64


def random_input(layer: LayerShape, rng: np.random.Generator) -> Array:
    """Standard normal, where ONNX Runtime could have put it."""
    size = int(np.prod(layer.x_shape))
    memory = np.empty(size + _ALIGNMENT // 4, np.float32)
    begin = -memory.ctypes.data % _ALIGNMENT // 4
    aligned = memory[begin : begin + size]
    aligned[:] = rng.standard_normal(size, dtype=np.float32)
    return aligned.reshape(layer.x_shape)


def encoded(layer: LayerShape, rng: np.random.Generator, group_shape: GroupShape, density: float) -> GroupCsr:
    """Weights with about this share of their groups, in random places."""
    return group_csr.encode(layer.weights(rng, group_shape, density), group_shape)


def dense_timer(layer: LayerShape, W: Array, X: Array, threads: int) -> Timer:
    """Runs the layer as a model of one node in ONNX Runtime."""
    return session_timer(one_layer(W, layer.attributes, layer.x_shape, None), INPUT, X, threads)


def session_timer(model: onnx.ModelProto, name: str, X: Array, threads: int) -> Timer:
    """Runs a model of an input of this name and an output ``Y`` in ONNX Runtime."""
    one = session(model, threads=threads)
    binding = one.io_binding()
    binding.bind_cpu_input(name, X)
    binding.bind_output("Y")

    def timer(seconds: float) -> list[float]:
        times: list[float] = []
        one.run_with_iobinding(binding)
        while not times or sum(times) < seconds:
            start = time.perf_counter()
            one.run_with_iobinding(binding)
            times.append(time.perf_counter() - start)
        return times

    return timer


def sparse_timer(layer: LayerShape, matrix: GroupCsr, X: Array, threads: int, isa: str) -> Timer:
    """Runs the layer in our kernel, with a bias and a Relu."""
    arrays = matrix.values, matrix.row_offsets, matrix.column_indices
    kernel = (
        _kernels.Conv(*arrays, **layer.attributes, isa=isa)
        if layer.work.is_conv
        else _kernels.Gemm(*arrays, matrix.shape, isa=isa)
    )
    bias = np.zeros(layer.work.M, np.float32)
    return lambda seconds: kernel.time(X, bias=bias, activation_min=0.0, threads=threads, seconds=seconds)


def medians(timers: Sequence[Timer], rounds: int, seconds: float) -> list[float]:
    """Median seconds of a run of each, of so many rounds of turns."""
    times: list[list[float]] = [[] for _ in timers]
    for _ in range(rounds):
        for timer, collected in zip(timers, times, strict=True):
            collected.extend(timer(seconds))
    return [median(collected) for collected in times]
