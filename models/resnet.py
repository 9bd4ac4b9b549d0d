"""ResNet-50 (He et al., 2016), version 1.5: the stride of a block is in its 3×3 Conv."""

from collections.abc import Mapping, Sequence

import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder
from models.widths import Widths

_EXPANSION = 4

#: Gain of the last normalisation of a block: small, as training makes it, or sums of blocks would grow.
_BRANCH_SCALE = 0.3


def resnet50(
    *,
    seed: int = 0,
    opset: int = OPSET,
    blocks: Sequence[int] = (3, 4, 6, 3),
    width: int = 64,
    widths: Mapping[str, int] | None = None,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """Bottleneck residual network; Conv, BatchNormalization and Relu are separate nodes.

    Args:
        seed: of the weights.
        opset: of the model.
        blocks: bottleneck blocks in each stage.
        width: channels of the first stage; each stage doubles them.
        widths: output channels that differ from what follows from ``width``: ``conv1``,
            ``layer{i}.{j}.conv1``, ``layer{i}.{j}.conv2``, and ``layer{i}.out``, of all blocks of a stage.
        image: height and width of the input ``[batch, 3, image, image]``.
        classes: columns of the output ``[batch, classes]``.
    """
    g, channels_of = GraphBuilder("resnet-50", seed=seed, opset=opset), Widths(widths)
    channels = channels_of("conv1", width)
    x = g.input("input", [BATCH, 3, image, image])
    x = g.conv(x, "conv1", 3, channels, 7, stride=2, pad=3, bias=False)
    x = g.relu(g.batch_norm(x, "bn1", channels), "relu")
    x = g.pool("MaxPool", x, "maxpool", kernel=3, stride=2, pads=(1, 1, 1, 1))
    for stage, count in enumerate(blocks):
        out = channels_of(f"layer{stage + 1}.out", (width << stage) * _EXPANSION)
        for block in range(count):
            name = f"layer{stage + 1}.{block}"
            inner = [channels_of(f"{name}.{part}", width << stage) for part in ("conv1", "conv2")]
            stride = 2 if stage > 0 and block == 0 else 1
            x = _bottleneck(g, x, name, [channels, *inner, out], stride=stride, projects=block == 0)
            channels = out
    x = g.flatten(g.node("GlobalAveragePool", "avgpool", [x]))
    x = g.gemm(x, "fc", channels, classes, gain=LINEAR_GAIN)
    channels_of.finish()
    return g.model({x: [BATCH, classes]})


def _bottleneck(
    g: GraphBuilder, x: str, name: str, widths: Sequence[int], *, stride: int, projects: bool
) -> str:
    """A block; ``widths`` are the channels of ``x`` and of what its three Convs make."""
    channels, first, second, out = widths
    y = g.conv(x, f"{name}.conv1", channels, first, 1, bias=False)
    y = g.relu(g.batch_norm(y, f"{name}.bn1", first), f"{name}.relu1")
    y = g.conv(y, f"{name}.conv2", first, second, 3, stride=stride, pad=1, bias=False)
    y = g.relu(g.batch_norm(y, f"{name}.bn2", second), f"{name}.relu2")
    y = g.conv(y, f"{name}.conv3", second, out, 1, bias=False)
    y = g.batch_norm(y, f"{name}.bn3", out, scale=_BRANCH_SCALE)
    if projects:
        x = g.conv(x, f"{name}.downsample.0", channels, out, 1, stride=stride, bias=False)
        x = g.batch_norm(x, f"{name}.downsample.1", out)
    return g.relu(g.node("Add", f"{name}.add", [y, x]), f"{name}.relu3")
