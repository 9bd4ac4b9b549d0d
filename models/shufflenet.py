"""ShuffleNetV2 (Ma et al., 2018): half of the channels pass by a block, and the halves are mixed."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder
from models.widths import Widths


def shufflenet_v2(
    *,
    seed: int = 0,
    opset: int = OPSET,
    blocks: Sequence[int] = (4, 8, 4),
    stages: Sequence[int] = (116, 232, 464),
    widths: Mapping[str, int] | None = None,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """The ×1 size. Halves by Split, mixed by Reshape, Transpose, Reshape.

    Args:
        seed: of the weights.
        opset: of the model.
        blocks: of each stage.
        stages: channels of each stage.
        widths: output channels that differ from the usual ones: ``conv1``, ``stage{i}.{j}.hidden`` (in
            the middle of a block), ``conv5``.
        image: height and width of the input ``[batch, 3, image, image]``.
        classes: columns of the output ``[batch, classes]``.
    """
    g, width = GraphBuilder("shufflenet-v2", seed=seed, opset=opset), Widths(widths)
    channels = width("conv1", 24)
    x = g.relu(
        g.conv_bn(g.input("input", [BATCH, 3, image, image]), "conv1", 3, channels, 3, stride=2), "relu1"
    )
    x = g.pool("MaxPool", x, "maxpool", kernel=3, stride=2, pads=(1, 1, 1, 1))
    size = -(-image // 4)
    for stage, (count, out) in enumerate(zip(blocks, stages, strict=True), start=2):
        size, half = -(-size // 2), out // 2
        for block in range(count):
            name = f"stage{stage}.{block}"
            hidden = width(f"{name}.hidden", half)
            if block == 0:
                left = g.conv_bn(
                    x,
                    f"{name}.left.depthwise",
                    channels,
                    channels,
                    3,
                    stride=2,
                    group=channels,
                    gain=LINEAR_GAIN,
                )
                left = g.relu(g.conv_bn(left, f"{name}.left.conv", channels, half, 1), f"{name}.left.relu")
                right, inside, stride = x, channels, 2
            else:
                left, right = g.split(x, f"{name}.split", [half, half])
                inside, stride = half, 1
            y = g.relu(g.conv_bn(right, f"{name}.conv1", inside, hidden, 1), f"{name}.relu1")
            y = g.conv_bn(
                y, f"{name}.depthwise", hidden, hidden, 3, stride=stride, group=hidden, gain=LINEAR_GAIN
            )
            y = g.relu(g.conv_bn(y, f"{name}.conv2", hidden, half, 1), f"{name}.relu2")
            x = g.node("Concat", f"{name}.concat", [left, y], axis=1)
            apart = g.initializer(f"{name}.apart", np.array([-1, 2, half, size, size]))
            together = g.initializer(f"{name}.together", np.array([-1, out, size, size]))
            x = g.node(
                "Transpose",
                f"{name}.mix",
                [g.node("Reshape", f"{name}.split_groups", [x, apart])],
                perm=[0, 2, 1, 3, 4],
            )
            x = g.node("Reshape", f"{name}.merge_groups", [x, together])
            channels = out
    last = width("conv5", 1024)
    x = g.relu(g.conv_bn(x, "conv5", channels, last, 1), "relu5")
    x = g.flatten(g.node("GlobalAveragePool", "avgpool", [x]))
    x = g.gemm(x, "fc", last, classes, gain=LINEAR_GAIN)
    width.finish()
    return g.model({x: [BATCH, classes]})
