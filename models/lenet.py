"""LeNet-300-100 and LeNet-5 (LeCun et al., 1998) in the form that Caffe made common, for 28×28 digits."""

import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder


def lenet_300_100(*, seed: int = 0, opset: int = OPSET) -> onnx.ModelProto:
    """784-300-100-10, 266,200 weights. Input ``[batch, 1, 28, 28]``, output ``[batch, 10]``."""
    g = GraphBuilder("lenet-300-100", seed=seed, opset=opset)
    x = g.flatten(g.input("input", [BATCH, 1, 28, 28]))
    x = g.relu(g.gemm(x, "fc1", 784, 300), "relu1")
    x = g.relu(g.gemm(x, "fc2", 300, 100), "relu2")
    x = g.gemm(x, "fc3", 100, 10, gain=LINEAR_GAIN)
    return g.model({x: [BATCH, 10]})


def lenet_5(*, seed: int = 0, opset: int = OPSET) -> onnx.ModelProto:
    """Two 5×5 Conv (20 and 50), 800-500-10, 430,500 weights.

    Input ``[batch, 1, 28, 28]``, output ``[batch, 10]``.
    """
    g = GraphBuilder("lenet-5", seed=seed, opset=opset)
    x = g.input("input", [BATCH, 1, 28, 28])
    x = g.relu(g.conv(x, "conv1", 1, 20, 5), "relu1")
    x = g.pool("MaxPool", x, "pool1", kernel=2, stride=2)
    x = g.relu(g.conv(x, "conv2", 20, 50, 5), "relu2")
    x = g.flatten(g.pool("MaxPool", x, "pool2", kernel=2, stride=2))
    x = g.relu(g.gemm(x, "fc1", 800, 500), "relu3")
    x = g.gemm(x, "fc2", 500, 10, gain=LINEAR_GAIN)
    return g.model({x: [BATCH, 10]})
