"""ShuffleNet, version 1 (Zhang et al., 2018) and 2 (Ma et al., 2018): channels are mixed between groups."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder
from models.widths import Widths

#: Gain of the last normalisation of a block, or sums of blocks would grow.
_BRANCH_SCALE = 0.5


def shufflenet_v1(
    *,
    seed: int = 0,
    opset: int = OPSET,
    blocks: Sequence[int] = (4, 8, 4),
    stages: Sequence[int] = (240, 480, 960),
    groups: int = 3,
    widths: Mapping[str, int] | None = None,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """The ×1 size with 3 groups. Residual blocks of two grouped 1×1 Convs, mixed between them.

    Args:
        seed: of the weights.
        opset: of the model.
        blocks: of each stage.
        stages: channels of each stage.
        groups: of the 1×1 Convs, but for the first, which has one.
        widths: channels that differ from the usual ones: ``stage{i}.{j}.hidden`` (in the middle of a block),
            multiples of ``groups``.
        image: height and width of the input ``[batch, 3, image, image]``.
        classes: columns of the output ``[batch, classes]``.
    """
    g, width = GraphBuilder("shufflenet-v1", seed=seed, opset=opset), Widths(widths)
    channels = 24
    x = g.conv_bn(g.input("input", [BATCH, 3, image, image]), "conv1", 3, channels, 3, stride=2)
    x = g.pool("MaxPool", g.relu(x, "relu1"), "maxpool", kernel=3, stride=2, pads=(1, 1, 1, 1))
    size = -(-image // 4)
    for stage, (count, out) in enumerate(zip(blocks, stages, strict=True), start=2):
        for block in range(count):
            name = f"stage{stage}.{block}"
            hidden = width(f"{name}.hidden", out // 4)
            stride, group = (1 if block else 2), (1 if name == "stage2.0" else groups)
            y = g.relu(g.conv_bn(x, f"{name}.conv1", channels, hidden, 1, group=group), f"{name}.relu1")
            y = _mixed(g, y, name, (hidden // groups,) * groups, size)
            y = g.conv_bn(
                y, f"{name}.depthwise", hidden, hidden, 3, stride=stride, group=hidden, gain=LINEAR_GAIN
            )
            scale = _BRANCH_SCALE if block else 1.0
            new = out if block else out - channels
            y = g.conv_bn(y, f"{name}.conv2", hidden, new, 1, group=groups, gain=LINEAR_GAIN, scale=scale)
            if block:
                x = g.node("Add", f"{name}.add", [x, y])
            else:
                x = g.pool("AveragePool", x, f"{name}.pool", kernel=3, stride=2, pads=(1, 1, 1, 1))
                x = g.node("Concat", f"{name}.concat", [x, y], axis=1)
                channels, size = out, -(-size // 2)
            x = g.relu(x, f"{name}.relu2")
    x = g.flatten(g.node("GlobalAveragePool", "avgpool", [x]))
    x = g.gemm(x, "fc", channels, classes, gain=LINEAR_GAIN)
    width.finish()
    return g.model({x: [BATCH, classes]})


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
    """The ×1 size. Half of the channels pass by a block, and the halves are mixed behind it.

    Args:
        seed: of the weights.
        opset: of the model.
        blocks: of each stage.
        stages: channels of each stage.
        widths: output channels that differ from the usual ones: ``conv1``, ``stage{i}.0.left`` (of the left
            branch of the first block), ``stage{i}.{j}.hidden`` (in the middle of a block),
            ``stage{i}.{j}.out`` (of the right branch), ``conv5``; and of the later blocks
            ``stage{i}.{j}.right``, how many of the channels that come in take the right branch.
        image: height and width of the input ``[batch, 3, image, image]``.
        classes: columns of the output ``[batch, classes]``.
    """
    g, width = GraphBuilder("shufflenet-v2", seed=seed, opset=opset), Widths(widths)
    channels = width("conv1", 24)
    x = g.conv_bn(g.input("input", [BATCH, 3, image, image]), "conv1", 3, channels, 3, stride=2)
    x = g.pool("MaxPool", g.relu(x, "relu1"), "maxpool", kernel=3, stride=2, pads=(1, 1, 1, 1))
    size = -(-image // 4)
    for stage, (count, out) in enumerate(zip(blocks, stages, strict=True), start=2):
        size, half = -(-size // 2), out // 2
        for block in range(count):
            name = f"stage{stage}.{block}"
            hidden, new = width(f"{name}.hidden", half), width(f"{name}.out", half)
            if block == 0:
                by = width(f"{name}.left", half)
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
                left = g.relu(g.conv_bn(left, f"{name}.left.conv", channels, by, 1), f"{name}.left.relu")
                right, inside, stride = x, channels, 2
            else:
                inside, stride = width(f"{name}.right", half), 1
                by = channels - inside
                left, right = g.split(x, f"{name}.split", [by, inside])
            y = g.relu(g.conv_bn(right, f"{name}.conv1", inside, hidden, 1), f"{name}.relu1")
            y = g.conv_bn(
                y, f"{name}.depthwise", hidden, hidden, 3, stride=stride, group=hidden, gain=LINEAR_GAIN
            )
            y = g.relu(g.conv_bn(y, f"{name}.conv2", hidden, new, 1), f"{name}.relu2")
            x = g.node("Concat", f"{name}.concat", [left, y], axis=1)
            x = _mixed(g, x, name, (by, new), size)
            channels = by + new
    last = width("conv5", 1024)
    x = g.relu(g.conv_bn(x, "conv5", channels, last, 1), "relu5")
    x = g.flatten(g.node("GlobalAveragePool", "avgpool", [x]))
    x = g.gemm(x, "fc", last, classes, gain=LINEAR_GAIN)
    width.finish()
    return g.model({x: [BATCH, classes]})


def _mixed(g: GraphBuilder, x: str, name: str, parts: Sequence[int], size: int) -> str:
    """The first channel of each part of ``x [batch, channels, size, size]``, then the second ones, and so on.

    By Reshape, Transpose, Reshape; by Gather where the parts are not equally wide.
    """
    channels = sum(parts)
    if len(set(parts)) > 1:
        place = np.concatenate([np.arange(part) for part in parts])
        order = g.initializer(f"{name}.order", np.argsort(place, kind="stable"))
        return g.node("Gather", f"{name}.mix", [x, order], axis=1)
    apart = g.initializer(f"{name}.apart", np.array([-1, len(parts), parts[0], size, size]))
    together = g.initializer(f"{name}.together", np.array([-1, channels, size, size]))
    x = g.node("Reshape", f"{name}.split_groups", [x, apart])
    x = g.node("Transpose", f"{name}.mix", [x], perm=[0, 2, 1, 3, 4])
    return g.node("Reshape", f"{name}.merge_groups", [x, together])
