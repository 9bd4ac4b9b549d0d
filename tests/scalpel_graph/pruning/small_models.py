"""Small networks to prune, with seeded weights."""

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scalpel_graph.pruning.layers import WeightLayer, constant_tensors, weight_layers
from scalpel_graph.session import run, session


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def make_model(
    nodes: Sequence[onnx.NodeProto],
    initializers: Mapping[str, np.ndarray],
    inputs: Mapping[str, Sequence[int | str]],
    outputs: Sequence[str],
    ir_version: int = 8,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=ir_version)
    return onnx.shape_inference.infer_shapes(model)


def perceptron(
    sizes: Sequence[int] = (12, 16, 20, 4), seed: int = 0, batch: int | str = "n"
) -> onnx.ModelProto:
    """``x`` → fc1, Relu, fc2, Relu, … → ``y``, Gemm with biases."""
    nodes, weights, name = [], {}, "x"
    for i, (K, M) in enumerate(itertools.pairwise(sizes), 1):
        weights[f"w{i}"] = normal(M, K, seed=seed + i) / np.float32(K**0.5)
        weights[f"b{i}"] = normal(M, seed=seed + 50 + i) * np.float32(0.3)
        last = i == len(sizes) - 1
        output = "y" if last else f"h{i}"
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [output], f"fc{i}", transB=1))
        if not last:
            nodes.append(helper.make_node("Relu", [output], [f"r{i}"], f"relu{i}"))
        name = f"r{i}"
    return make_model(nodes, weights, {"x": [batch, sizes[0]]}, ["y"])


def convolutional(group: int = 1, seed: int = 0, activation: str = "Relu") -> onnx.ModelProto:
    """``x [n, 4, 8, 8]`` → conv1, BatchNormalization, activation, conv2, activation, MaxPool, fc → ``y``."""
    rng = np.random.default_rng(seed)
    weights = {
        "w1": normal(12, 4, 3, 3, seed=seed + 1) / 6,
        "scale": rng.uniform(0.5, 2, 12).astype(np.float32),
        "shift": normal(12, seed=seed + 2),
        "mean": normal(12, seed=seed + 3) / 4,
        "variance": rng.uniform(0.2, 1, 12).astype(np.float32),
        "w2": normal(8, 12 // group, 3, 3, seed=seed + 4) / 8,
        "b2": normal(8, seed=seed + 5),
        "w3": normal(8 * 16, 5, seed=seed + 6) / 8,
        "b3": normal(5, seed=seed + 7),
        "flat": np.array([-1, 128]),
    }
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv1", pads=[1, 1, 1, 1]),
        helper.make_node("BatchNormalization", ["c1", "scale", "shift", "mean", "variance"], ["n1"], "bn1"),
        helper.make_node(activation, ["n1"], ["a1"], "act1"),
        helper.make_node("Conv", ["a1", "w2", "b2"], ["c2"], "conv2", pads=[1, 1, 1, 1], group=group),
        helper.make_node(activation, ["c2"], ["a2"], "act2"),
        helper.make_node("MaxPool", ["a2"], ["p"], "pool", kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Reshape", ["p", "flat"], ["f"], "flatten"),
        helper.make_node("MatMul", ["f", "w3"], ["m"], "fc"),
        helper.make_node("Add", ["m", "b3"], ["y"], "fc_bias"),
    ]
    return make_model(nodes, weights, {"x": ["n", 4, 8, 8]}, ["y"])


def matrices(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """``W[M, K]`` of each layer, by the name of its node."""
    tensors = constant_tensors(model.graph)
    return {
        layer.name: layer.matrix(numpy_helper.to_array(tensors[layer.weight]))
        for layer in weight_layers(model)
        if isinstance(layer, WeightLayer)
    }


def answers(model: onnx.ModelProto, **inputs: np.ndarray) -> np.ndarray:
    """The first output."""
    return next(iter(run(session(model), inputs).values()))


def layers_of(model: onnx.ModelProto) -> list[WeightLayer]:
    return [layer for layer in weight_layers(model) if isinstance(layer, WeightLayer)]
