"""A multilayer perceptron: six square fully connected layers, each as large as one of AlexNet's."""

import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, RELU_GAIN, GraphBuilder


def mlp(*, seed: int = 0, opset: int = OPSET, layers: int = 6, width: int = 2048) -> onnx.ModelProto:
    """``layers`` Gemms of ``width × width``, a Relu between them. Input and output: ``[batch, width]``."""
    g = GraphBuilder("mlp", seed=seed, opset=opset)
    x = g.input("input", [BATCH, width])
    for i in range(1, layers + 1):
        last = i == layers
        x = g.gemm(x, f"fc{i}", width, width, gain=LINEAR_GAIN if last else RELU_GAIN)
        if not last:
            x = g.relu(x, f"relu{i}")
    return g.model({x: [BATCH, width]})
