"""ResNet-50 (He et al., 2016), version 1.5: the stride of a block is in its 3×3 Conv."""

from collections.abc import Sequence

import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder

_EXPANSION = 4

#: Gain of the last normalisation of a block: small, as training makes it, or sums of blocks would grow.
_BRANCH_SCALE = 0.3


def resnet50(
    *,
    seed: int = 0,
    opset: int = OPSET,
    blocks: Sequence[int] = (3, 4, 6, 3),
    width: int = 64,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """Bottleneck residual network; Conv, BatchNormalization and Relu are separate nodes.

    Args:
        seed: of the weights.
        opset: of the model.
        blocks: bottleneck blocks in each stage.
        width: channels of the first stage; each stage doubles them.
        image: height and width of the input ``[batch, 3, image, image]``.
        classes: columns of the output ``[batch, classes]``.
    """
    g = GraphBuilder("resnet-50", seed=seed, opset=opset)
    x = g.input("input", [BATCH, 3, image, image])
    x = g.conv(x, "conv1", 3, width, 7, stride=2, pad=3, bias=False)
    x = g.relu(g.batch_norm(x, "bn1", width), "relu")
    x = g.pool("MaxPool", x, "maxpool", kernel=3, stride=2, pads=(1, 1, 1, 1))
    channels = width
    for stage, count in enumerate(blocks):
        for block in range(count):
            stride = 2 if stage > 0 and block == 0 else 1
            x = _bottleneck(g, x, f"layer{stage + 1}.{block}", channels, width=width << stage, stride=stride)
            channels = (width << stage) * _EXPANSION
    x = g.flatten(g.node("GlobalAveragePool", "avgpool", [x]))
    x = g.gemm(x, "fc", channels, classes, gain=LINEAR_GAIN)
    return g.model({x: [BATCH, classes]})


def _bottleneck(g: GraphBuilder, x: str, name: str, channels: int, *, width: int, stride: int) -> str:
    out = width * _EXPANSION
    y = g.conv(x, f"{name}.conv1", channels, width, 1, bias=False)
    y = g.relu(g.batch_norm(y, f"{name}.bn1", width), f"{name}.relu1")
    y = g.conv(y, f"{name}.conv2", width, width, 3, stride=stride, pad=1, bias=False)
    y = g.relu(g.batch_norm(y, f"{name}.bn2", width), f"{name}.relu2")
    y = g.conv(y, f"{name}.conv3", width, out, 1, bias=False)
    y = g.batch_norm(y, f"{name}.bn3", out, scale=_BRANCH_SCALE)
    if channels != out or stride != 1:
        x = g.conv(x, f"{name}.downsample.0", channels, out, 1, stride=stride, bias=False)
        x = g.batch_norm(x, f"{name}.downsample.1", out)
    return g.relu(g.node("Add", f"{name}.add", [y, x]), f"{name}.relu3")
