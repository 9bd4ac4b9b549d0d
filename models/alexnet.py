"""AlexNet (Krizhevsky et al., 2012), with its two groups and its local response normalisation."""

import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder

_FEATURES = 256 * 6 * 6


def alexnet(*, seed: int = 0, opset: int = OPSET) -> onnx.ModelProto:
    """Five Conv and three fully connected layers, 60,954,656 weights.

    Input ``[batch, 3, 227, 227]``, output ``[batch, 1000]``.
    """
    g = GraphBuilder("alexnet", seed=seed, opset=opset)
    x = g.input("input", [BATCH, 3, 227, 227])
    x = _norm(g, g.relu(g.conv(x, "conv1", 3, 96, 11, stride=4), "relu1"), "norm1")
    x = g.pool("MaxPool", x, "pool1", kernel=3, stride=2)
    x = _norm(g, g.relu(g.conv(x, "conv2", 96, 256, 5, pad=2, group=2), "relu2"), "norm2")
    x = g.pool("MaxPool", x, "pool2", kernel=3, stride=2)
    x = g.relu(g.conv(x, "conv3", 256, 384, 3, pad=1), "relu3")
    x = g.relu(g.conv(x, "conv4", 384, 384, 3, pad=1, group=2), "relu4")
    x = g.relu(g.conv(x, "conv5", 384, 256, 3, pad=1, group=2), "relu5")
    x = g.flatten(g.pool("MaxPool", x, "pool5", kernel=3, stride=2))
    x = _classifier(g, x)
    return g.model({x: [BATCH, 1000]})


def alexnet_fc(*, seed: int = 0, opset: int = OPSET) -> onnx.ModelProto:
    """AlexNet's fully connected layers alone. Input ``[batch, 9216]``, output ``[batch, 1000]``."""
    g = GraphBuilder("alexnet-fc", seed=seed, opset=opset)
    x = _classifier(g, g.input("input", [BATCH, _FEATURES]))
    return g.model({x: [BATCH, 1000]})


def _classifier(g: GraphBuilder, x: str) -> str:
    x = g.relu(g.gemm(x, "fc6", _FEATURES, 4096), "relu6")
    x = g.relu(g.gemm(x, "fc7", 4096, 4096), "relu7")
    return g.gemm(x, "fc8", 4096, 1000, gain=LINEAR_GAIN)


def _norm(g: GraphBuilder, x: str, name: str) -> str:
    return g.node("LRN", name, [x], size=5, alpha=1e-4, beta=0.75, bias=1.0)
