"""U-Net (Ronneberger et al., 2015), as it is used today: padded Conv with BatchNormalization."""

from collections.abc import Mapping, Sequence

import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder
from models.widths import Widths


def unet(
    *,
    seed: int = 0,
    opset: int = OPSET,
    levels: Sequence[int] = (64, 128, 256, 512, 1024),
    widths: Mapping[str, int] | None = None,
    image: int = 128,
    classes: int = 2,
) -> onnx.ModelProto:
    """Down by MaxPool, up by ConvTranspose, with a Concat of what came down to the same size.

    Args:
        seed: of the weights.
        opset: of the model.
        levels: channels at each size.
        widths: output channels of layers, by name, that differ from the usual ones: ``down{i}.conv1``,
            ``down{i}.conv2``, ``up{i}.transpose``, ``up{i}.conv1``, ``up{i}.conv2``.
        image: height and width of the input ``[batch, 3, image, image]``.
        classes: channels of the output ``[batch, classes, image, image]``.
    """
    g, width = GraphBuilder("unet", seed=seed, opset=opset), Widths(widths)

    def two_convs(x: str, name: str, channels: int, usual: int) -> tuple[str, int]:
        for part in ("conv1", "conv2"):
            out = width(f"{name}.{part}", usual)
            x = g.relu(g.conv_bn(x, f"{name}.{part}", channels, out, 3), f"{name}.{part}.relu")
            channels = out
        return x, channels

    x, channels = g.input("input", [BATCH, 3, image, image]), 3
    passed: list[tuple[str, int]] = []
    for level, usual in enumerate(levels):
        if level:
            passed.append((x, channels))
            x = g.pool("MaxPool", x, f"pool{level}", kernel=2, stride=2)
        x, channels = two_convs(x, f"down{level}", channels, usual)
    for level in reversed(range(len(levels) - 1)):
        out = width(f"up{level}.transpose", levels[level])
        x = g.conv_transpose(x, f"up{level}.transpose", channels, out)
        skip, more = passed.pop()
        x = g.node("Concat", f"up{level}.concat", [skip, x], axis=1)
        x, channels = two_convs(x, f"up{level}", out + more, levels[level])
    x = g.conv(x, "head", channels, classes, 1, gain=LINEAR_GAIN)
    width.finish()
    return g.model({x: [BATCH, classes, image, image]})
