"""Small networks for microcontrollers, and their way from float32 to integers."""

import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from models.builder import BATCH, GraphBuilder
from scalpel_graph.graph import ModelGraph
from scalpel_graph.mcu.network import Dtype, Network
from scalpel_graph.mcu.program import Program
from scalpel_graph.passes.base import PassContext, Quantization
from scalpel_graph.passes.manager import PassManager
from scalpel_graph.passes.pipelines import pipeline_for
from scalpel_graph.pruning.magnitude import prune_magnitude
from scalpel_graph.pruning.samples import Samples, check_samples
from scalpel_graph.target import load_target


def perceptron(inputs: int = 21, *, seed: int = 0) -> onnx.ModelProto:
    """Two layers, of which the first reads an odd number of inputs."""
    g = GraphBuilder("perceptron", seed=seed, opset=17)
    x = g.relu(g.gemm(g.input("x", [BATCH, inputs]), "fc1", inputs, 18), "relu")
    return g.model({g.gemm(x, "fc2", 18, 7): [BATCH, 7]})


def many_operators(end: str = "") -> onnx.ModelProto:
    """One of every operator, on images of odd sizes; ends in ``Softmax``, ``ArgMax`` or neither."""
    g = GraphBuilder("9 odd: things*/", seed=1, opset=17)
    x = g.input("in put", [BATCH, 3, 11, 13])
    a = g.relu(g.conv(x, "conv", 3, 8, 3, pad=1), "relu")
    b = g.conv(a, "depthwise", 8, 8, 3, pad=1, group=8)
    bounds = [g.initializer(name, np.float32(value)) for name, value in (("low", -0.5), ("high", 1.5))]
    total = g.relu(g.node("Add", "add", [a, g.node("Clip", "clip", [b, *bounds])]), "relu2")
    normal = g.node("LRN", "lrn", [total], size=3, alpha=5e-2, beta=0.75, bias=1.0)
    halves = g.conv(normal, "grouped", 8, 6, 3, stride=2, group=2)
    means = g.pool("AveragePool", normal, "means", kernel=3, stride=2)
    joined = g.node("Concat", "concat", [halves, means], axis=1)
    largest = g.relu(g.pool("MaxPool", joined, "max", kernel=3, stride=2, pads=(0, 0, 1, 1)), "relu3")
    y = g.matmul_add(g.flatten(largest), "fc", 14 * 2 * 3, 9)
    if end == "Softmax":
        y = g.node("Softmax", "end", [y], axis=-1)
    model = g.model({y: [BATCH, 9]})
    if end == "ArgMax":
        model.graph.node.append(helper.make_node("ArgMax", [y], ["index"], "end", axis=1, keepdims=0))
        model.graph.output[0].CopyFrom(helper.make_tensor_value_info("index", TensorProto.INT64, [BATCH]))
    onnx.checker.check_model(model, full_check=True)
    return model


def one_dimensional() -> onnx.ModelProto:
    """Convolutions and pools of sequences, with dilation, strides and uneven padding."""
    g = GraphBuilder("sequence", seed=2, opset=17)
    x = g.input("x", [BATCH, 4, 30])
    w = g.weights("w1", (8, 4, 3), 1.4)
    y = g.node("Conv", "c1", [x, w], kernel_shape=[3], dilations=[2], pads=[1, 3], strides=[1], group=1)
    y = g.node("MaxPool", "p1", [g.relu(y, "r1")], kernel_shape=[2], strides=[2])
    w = g.weights("w2", (6, 4, 3), 1.4)
    y = g.node("Conv", "c2", [y, w], kernel_shape=[3], strides=[2], pads=[1, 0], group=2)
    y = g.node("GlobalAveragePool", "mean", [y])
    return g.model({g.gemm(g.flatten(y), "fc", 6, 5): [BATCH, 5]})


def long_sums() -> onnx.ModelProto:
    """More products of 8-bit weights and 16-bit activations than 32 bits hold; the second layer is pruned."""
    g = GraphBuilder("long sums", seed=3, opset=17)
    x = g.relu(g.conv(g.input("x", [BATCH, 70, 3, 4]), "conv", 70, 129, 3, pad=1), "relu")
    model = g.model({g.gemm(g.flatten(x), "fc", 129 * 12, 6): [BATCH, 6]})
    for tensor in model.graph.initializer:
        if tensor.name.endswith(".weight"):
            W = numpy_helper.to_array(tensor)
            W = np.sign(W) * np.float32(np.abs(W).max()) * (1 - np.abs(W) / np.abs(W).max() / 8)
            tensor.CopyFrom(numpy_helper.from_array(W.astype(np.float32), tensor.name))
    return prune_magnitude(model, 0.5, (1, 4), layers=["fc"]).model


#: By name, a network that is pruned in groups, and the shape of its input.
NETWORKS: Mapping[str, tuple[Callable[[], onnx.ModelProto], tuple[int, ...]]] = {
    "perceptron": (lambda: pruned(perceptron(), 0.7, (1, 2)), (21,)),
    "blocks": (lambda: pruned(perceptron(24), 0.8, (4, 2)), (24,)),
    "many-operators": (lambda: pruned(many_operators(), 0.6, (1, 2)), (3, 11, 13)),
    "softmax": (lambda: many_operators("Softmax"), (3, 11, 13)),
    "argmax": (lambda: many_operators("ArgMax"), (3, 11, 13)),
    "long-sums": (long_sums, (70, 3, 4)),
    "one-dimensional": (lambda: pruned(one_dimensional(), 0.5, (2, 2)), (4, 30)),
}


def pruned(model: onnx.ModelProto, sparsity: float, group_shape: tuple[int, int]) -> onnx.ModelProto:
    return prune_magnitude(model, sparsity, group_shape).model


def inputs(model: onnx.ModelProto, count: int = 40, seed: int = 0) -> dict[str, Any]:
    """Normal numbers for the one input of a model."""
    value = model.graph.input[0]
    shape = [dim.dim_value for dim in value.type.tensor_type.shape.dim[1:]]
    return {value.name: np.random.default_rng(seed).standard_normal((count, *shape), dtype=np.float32)}


def samples(model: onnx.ModelProto, count: int = 40) -> Samples:
    return check_samples(inputs(model, count), model, Path("calibration"))


def quantized(model: onnx.ModelProto, dtype: Dtype | None = None) -> tuple[Program, onnx.ModelProto]:
    """The program for the device and the ONNX model."""
    target = load_target("mcu")
    context = PassContext(target=target, quantization=Quantization(dtype, samples(model)))
    graph = ModelGraph(model)
    PassManager(pipeline_for(target)).run(graph, context)
    assert context.program is not None
    return context.program, graph.to_proto()


def network_of(model: onnx.ModelProto, dtype: Dtype | None = None) -> Network:
    return quantized(model, dtype)[0].network


def require_cross_tools() -> None:
    """Skips a test where the cross compiler or QEMU is missing; in CI it fails."""
    missing = [name for name in ("arm-none-eabi-gcc", "qemu-system-arm") if shutil.which(name) is None]
    if missing:
        packages = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
        text = f"{' and '.join(missing)} not found; on Debian: apt-get install {packages}"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
