"""MobileNetV1 (Howard et al., 2017): depthwise and pointwise Conv in turn."""

from collections.abc import Mapping

import numpy as np
import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder
from models.widths import Widths

#: Output channels and stride of each depthwise separable block.
_BLOCKS = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)


def mobilenet_v1(
    *,
    seed: int = 0,
    opset: int = OPSET,
    width: float = 1.0,
    widths: Mapping[str, int] | None = None,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """Conv, BatchNormalization and Relu6 (Clip) are separate nodes.

    Args:
        seed: of the weights.
        opset: of the model.
        width: multiplier of the channels of every layer.
        widths: output channels that differ from what follows from ``width``: ``conv1``, ``block{i}``.
        image: height and width of the input ``[batch, 3, image, image]``.
        classes: columns of the output ``[batch, classes]``.
    """
    g, channels_of = GraphBuilder("mobilenet-v1", seed=seed, opset=opset), Widths(widths)
    bounds = [g.initializer("relu6.min", np.float32(0)), g.initializer("relu6.max", np.float32(6))]

    def conv_bn_relu6(
        x: str, name: str, in_channels: int, out_channels: int, *, kernel: int, stride: int, group: int = 1
    ) -> str:
        x = g.conv(
            x,
            name,
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            pad=kernel // 2,
            group=group,
            bias=False,
        )
        x = g.batch_norm(x, f"{name}.bn", out_channels)
        return g.node("Clip", f"{name}.relu6", [x, *bounds])

    x = g.input("input", [BATCH, 3, image, image])
    channels = channels_of("conv1", int(32 * width))
    x = conv_bn_relu6(x, "conv1", 3, channels, kernel=3, stride=2)
    for i, (full_width, stride) in enumerate(_BLOCKS, start=1):
        out_channels = channels_of(f"block{i}", int(full_width * width))
        x = conv_bn_relu6(
            x, f"block{i}.depthwise", channels, channels, kernel=3, stride=stride, group=channels
        )
        x = conv_bn_relu6(x, f"block{i}.pointwise", channels, out_channels, kernel=1, stride=1)
        channels = out_channels
    x = g.flatten(g.node("GlobalAveragePool", "avgpool", [x]))
    x = g.gemm(x, "fc", channels, classes, gain=LINEAR_GAIN)
    channels_of.finish()
    return g.model({x: [BATCH, classes]})
