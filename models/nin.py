"""NIN: Network in Network (Lin et al., 2013) for 32×32 images."""

import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, RELU_GAIN, GraphBuilder

_ROUND_UP = (0, 0, 1, 1)


def nin(*, seed: int = 0, opset: int = OPSET) -> onnx.ModelProto:
    """Three k×k Conv, each followed by two 1×1 Conv ("cccp"), and no fully connected layer; 965,568 weights.

    Input ``[batch, 3, 32, 32]``, output ``[batch, 10]``.
    """
    g = GraphBuilder("nin", seed=seed, opset=opset)
    x = g.input("input", [BATCH, 3, 32, 32])
    x = _conv_relu(g, x, "conv1", 3, 192, kernel=5)
    x = _conv_relu(g, x, "cccp1", 192, 160, kernel=1)
    x = _conv_relu(g, x, "cccp2", 160, 96, kernel=1)
    x = g.pool("MaxPool", x, "pool1", kernel=3, stride=2, pads=_ROUND_UP)
    x = _conv_relu(g, x, "conv2", 96, 192, kernel=5)
    x = _conv_relu(g, x, "cccp3", 192, 192, kernel=1)
    x = _conv_relu(g, x, "cccp4", 192, 192, kernel=1)
    x = g.pool("AveragePool", x, "pool2", kernel=3, stride=2, pads=_ROUND_UP)
    x = _conv_relu(g, x, "conv3", 192, 192, kernel=3)
    x = _conv_relu(g, x, "cccp5", 192, 192, kernel=1)
    x = _conv_relu(g, x, "cccp6", 192, 10, kernel=1, gain=LINEAR_GAIN)
    x = g.flatten(g.pool("AveragePool", x, "pool3", kernel=8, stride=1))
    return g.model({x: [BATCH, 10]})


def _conv_relu(
    g: GraphBuilder,
    x: str,
    name: str,
    in_channels: int,
    out_channels: int,
    *,
    kernel: int,
    gain: float = RELU_GAIN,
) -> str:
    x = g.conv(x, name, in_channels, out_channels, kernel, pad=kernel // 2, gain=gain)
    return g.relu(x, f"{name}_relu")
