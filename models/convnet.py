"""ConvNet: Caffe's cifar10-full network."""

import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder

#: Caffe rounds the size of a pooled map up: one more row and column, of which only the inside counts.
_ROUND_UP = (0, 0, 1, 1)


def convnet(*, seed: int = 0, opset: int = OPSET) -> onnx.ModelProto:
    """Three 5×5 Conv (32, 32, 64) with local response normalisation, 1024-10, 89,440 weights.

    Caffe normalises within channels; ONNX has only the kind across channels, which is used here.
    Input ``[batch, 3, 32, 32]``, output ``[batch, 10]``.
    """
    g = GraphBuilder("convnet", seed=seed, opset=opset)
    x = g.input("input", [BATCH, 3, 32, 32])
    x = g.pool("MaxPool", g.conv(x, "conv1", 3, 32, 5, pad=2), "pool1", kernel=3, stride=2, pads=_ROUND_UP)
    x = _norm(g, g.relu(x, "relu1"), "norm1")
    x = g.relu(g.conv(x, "conv2", 32, 32, 5, pad=2), "relu2")
    x = _norm(g, g.pool("AveragePool", x, "pool2", kernel=3, stride=2, pads=_ROUND_UP), "norm2")
    x = g.relu(g.conv(x, "conv3", 32, 64, 5, pad=2), "relu3")
    x = g.flatten(g.pool("AveragePool", x, "pool3", kernel=3, stride=2, pads=_ROUND_UP))
    x = g.gemm(x, "fc1", 1024, 10, gain=LINEAR_GAIN)
    return g.model({x: [BATCH, 10]})


def _norm(g: GraphBuilder, x: str, name: str) -> str:
    return g.node("LRN", name, [x], size=3, alpha=5e-5, beta=0.75, bias=1.0)
