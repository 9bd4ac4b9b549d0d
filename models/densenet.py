"""DenseNet-121 (Huang et al., 2017): every layer reads what all layers before it in its block made."""

from collections.abc import Mapping, Sequence

import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder
from models.widths import Widths


def densenet121(
    *,
    seed: int = 0,
    opset: int = OPSET,
    blocks: Sequence[int] = (6, 12, 24, 16),
    growth: int = 32,
    widths: Mapping[str, int] | None = None,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """BatchNormalization, Relu and Conv in this order, Concat of all before.

    Args:
        seed: of the weights.
        opset: of the model.
        blocks: layers of each dense block.
        growth: channels that a layer adds; its bottleneck has four times as many.
        widths: output channels of layers, by name, that differ from what follows from ``growth``.
        image: height and width of the input ``[batch, 3, image, image]``.
        classes: columns of the output ``[batch, classes]``.
    """
    g, width = GraphBuilder("densenet-121", seed=seed, opset=opset), Widths(widths)
    channels = width("conv0", 2 * growth)
    x = g.relu(
        g.conv_bn(g.input("input", [BATCH, 3, image, image]), "conv0", 3, channels, 7, stride=2), "relu0"
    )
    x = g.pool("MaxPool", x, "pool0", kernel=3, stride=2, pads=(1, 1, 1, 1))
    usual = 2 * growth
    for number, layers in enumerate(blocks, start=1):
        made = [x]
        for layer in range(1, layers + 1):
            name = f"block{number}.{layer}"
            y = g.node("Concat", f"{name}.concat", made, axis=1) if len(made) > 1 else x
            bottleneck, new = width(f"{name}.conv1", 4 * growth), width(f"{name}.conv2", growth)
            y = g.relu(g.batch_norm(y, f"{name}.norm1", channels), f"{name}.relu1")
            y = g.conv_bn(y, f"{name}.conv1", channels, bottleneck, 1)
            y = g.relu(y, f"{name}.relu2")
            made.append(g.conv(y, f"{name}.conv2", bottleneck, new, 3, pad=1, bias=False))
            channels += new
        x = g.node("Concat", f"block{number}.concat", made, axis=1)
        x = g.relu(g.batch_norm(x, f"norm{number}", channels), f"relu{number}")
        if number < len(blocks):
            name = f"transition{number}"
            usual = (usual + layers * growth) // 2
            out = width(name, usual)
            x = g.conv(x, name, channels, out, 1, bias=False)
            x, channels = g.pool("AveragePool", x, f"{name}.pool", kernel=2, stride=2), out
    x = g.flatten(g.node("GlobalAveragePool", "avgpool", [x]))
    x = g.gemm(x, "fc", channels, classes, gain=LINEAR_GAIN)
    width.finish()
    return g.model({x: [BATCH, classes]})
