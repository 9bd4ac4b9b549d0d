"""Networks of inverted residual blocks: MobileNetV2, MobileNetV3 (large) and EfficientNet-B0.

Sandler et al., 2018; Howard et al., 2019; Tan and Le, 2019. A block widens its input by a 1×1 Conv, filters
each channel by itself, weighs the channels by what they hold on average (squeeze and excitation, but for
MobileNetV2), and narrows them again; where the shapes agree, its input is added.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, RELU_GAIN, GraphBuilder
from models.widths import Widths

_Activation = Callable[[str, str], str]

#: Gain of the last normalisation of a block, or sums of blocks would grow.
_BRANCH_SCALE = 0.5


#: Keep the scale of activations through a layer that follows an activation.
_GAINS = {"relu": RELU_GAIN, "relu6": RELU_GAIN, "hardswish": RELU_GAIN, "silu": 1.42}


@dataclass(frozen=True)
class Block:
    """One block.

    Attributes:
        kernel, stride: of the depthwise Conv.
        hidden: channels in the middle, with the usual widths.
        out: channels behind.
        squeezed: channels of the squeeze; 0 for none.
        activation: name of the activation.
    """

    kernel: int
    hidden: int
    out: int
    squeezed: int
    activation: str
    stride: int


def mobilenet_v2(
    *,
    seed: int = 0,
    opset: int = OPSET,
    blocks: int = 17,
    widths: Mapping[str, int] | None = None,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """MobileNetV2: Relu6 (Clip), no squeeze.

    Args:
        seed: of the weights.
        opset: of the model.
        blocks: how many of its 17 blocks.
        widths: output channels that differ from the usual ones: ``conv1``, ``block{i}.hidden``,
            ``block{i}.out`` (of a stage: the first block that has them), ``conv2``.
        image: height and width of the input ``[batch, 3, image, image]``.
        classes: columns of the output ``[batch, classes]``.
    """
    table, channels = [], 32
    for expand, out, count, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for i in range(count):
            table.append(Block(3, channels * expand, out, 0, "relu6", stride if i == 0 else 1))
            channels = out
    g = GraphBuilder("mobilenet-v2", seed=seed, opset=opset)
    return _network(
        g, Widths(widths), table[:blocks], 32, "relu6", last=1280, features=0, image=image, classes=classes
    )


def mobilenet_v3(
    *,
    seed: int = 0,
    opset: int = OPSET,
    blocks: int = 15,
    widths: Mapping[str, int] | None = None,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """MobileNetV3 (large): HardSwish, HardSigmoid, squeeze and excitation.

    Args:
        seed: of the weights.
        opset: of the model; HardSwish needs 14.
        blocks: how many of its 15 blocks.
        widths: as of `mobilenet_v2`, and ``block{i}.squeeze`` and ``fc1``.
        image: height and width of the input ``[batch, 3, image, image]``.
        classes: columns of the output ``[batch, classes]``.
    """
    relu, swish = "relu", "hardswish"
    table = [
        Block(3, 16, 16, 0, relu, 1),
        Block(3, 64, 24, 0, relu, 2),
        Block(3, 72, 24, 0, relu, 1),
        Block(5, 72, 40, 24, relu, 2),
        Block(5, 120, 40, 32, relu, 1),
        Block(5, 120, 40, 32, relu, 1),
        Block(3, 240, 80, 0, swish, 2),
        Block(3, 200, 80, 0, swish, 1),
        Block(3, 184, 80, 0, swish, 1),
        Block(3, 184, 80, 0, swish, 1),
        Block(3, 480, 112, 120, swish, 1),
        Block(3, 672, 112, 168, swish, 1),
        Block(5, 672, 160, 168, swish, 2),
        Block(5, 960, 160, 240, swish, 1),
        Block(5, 960, 160, 240, swish, 1),
    ]
    g = GraphBuilder("mobilenet-v3", seed=seed, opset=opset)
    return _network(
        g, Widths(widths), table[:blocks], 16, swish, last=960, features=1280, image=image, classes=classes
    )


def efficientnet_b0(
    *,
    seed: int = 0,
    opset: int = OPSET,
    blocks: int = 16,
    widths: Mapping[str, int] | None = None,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """EfficientNet-B0: SiLU (Sigmoid and Mul), squeeze and excitation in every block.

    Args:
        seed: of the weights.
        opset: of the model.
        blocks: how many of its 16 blocks.
        widths: as of `mobilenet_v2`, and ``block{i}.squeeze``.
        image: height and width of the input ``[batch, 3, image, image]``.
        classes: columns of the output ``[batch, classes]``.
    """
    table, channels = [], 32
    for expand, kernel, out, count, stride in (
        (1, 3, 16, 1, 1),
        (6, 3, 24, 2, 2),
        (6, 5, 40, 2, 2),
        (6, 3, 80, 3, 2),
        (6, 5, 112, 3, 1),
        (6, 5, 192, 4, 2),
        (6, 3, 320, 1, 1),
    ):
        for i in range(count):
            table.append(
                Block(kernel, channels * expand, out, channels // 4, "silu", stride if i == 0 else 1)
            )
            channels = out
    g = GraphBuilder("efficientnet-b0", seed=seed, opset=opset)
    return _network(
        g, Widths(widths), table[:blocks], 32, "silu", last=1280, features=0, image=image, classes=classes
    )


def _network(
    g: GraphBuilder,
    width: Widths,
    blocks: Sequence[Block],
    stem: int,
    activation: str,
    *,
    last: int,
    features: int,
    image: int,
    classes: int,
) -> onnx.ModelProto:
    activate = _activations(g)
    channels = width("conv1", stem)
    x = g.conv_bn(g.input("input", [BATCH, 3, image, image]), "conv1", 3, channels, 3, stride=2)
    x = activate[activation](x, "act1")
    usual = stem
    for number, block in enumerate(blocks, start=1):
        adds = block.stride == 1 and block.out == usual
        out = channels if adds else width(f"block{number}.out", block.out)
        x = _block(
            g,
            width,
            x,
            f"block{number}",
            block,
            activate=activate,
            channels=channels,
            out=out,
            adds=adds,
            widens=block.hidden != usual,
        )
        channels, usual = out, block.out
    out = width("conv2", last)
    x = activate[activation](g.conv_bn(x, "conv2", channels, out, 1), "act2")
    x = g.flatten(g.node("GlobalAveragePool", "avgpool", [x]))
    if features:
        hidden = width("fc1", features)
        x = activate[activation](g.gemm(x, "fc1", out, hidden), "act3")
        out = hidden
    x = g.gemm(x, "fc", out, classes, gain=LINEAR_GAIN)
    width.finish()
    return g.model({x: [BATCH, classes]})


def _block(
    g: GraphBuilder,
    width: Widths,
    x: str,
    name: str,
    block: Block,
    *,
    activate: Mapping[str, _Activation],
    channels: int,
    out: int,
    adds: bool,
    widens: bool,
) -> str:
    y, hidden, act = x, channels, activate[block.activation]
    if widens:
        hidden = width(f"{name}.hidden", block.hidden)
        y = act(g.conv_bn(y, f"{name}.expand", channels, hidden, 1, gain=LINEAR_GAIN), f"{name}.act1")
    y = g.conv_bn(
        y,
        f"{name}.depthwise",
        hidden,
        hidden,
        block.kernel,
        stride=block.stride,
        group=hidden,
        gain=_GAINS[block.activation],
    )
    y = act(y, f"{name}.act2")
    if block.squeezed:
        squeezed = width(f"{name}.squeeze", block.squeezed)
        z = g.node("GlobalAveragePool", f"{name}.pool", [y])
        inner = activate["silu" if block.activation == "silu" else "relu"]
        z = inner(g.conv(z, f"{name}.squeeze", hidden, squeezed, 1), f"{name}.squeeze.act")
        z = g.conv(z, f"{name}.excite", squeezed, hidden, 1)
        gate = {"op_type": "Sigmoid"} if block.activation == "silu" else {"op_type": "HardSigmoid"}
        attributes = {} if block.activation == "silu" else {"alpha": 1 / 6, "beta": 0.5}
        y = g.node("Mul", f"{name}.scale", [y, g.node(gate["op_type"], f"{name}.gate", [z], **attributes)])
    # A gate is about a half.
    scale = (_BRANCH_SCALE if adds else 1.0) * (2.0 if block.squeezed else 1.0)
    y = g.conv_bn(y, f"{name}.project", hidden, out, 1, gain=_GAINS[block.activation], scale=scale)
    return g.node("Add", f"{name}.add", [x, y]) if adds else y


def _activations(g: GraphBuilder) -> dict[str, _Activation]:
    bounds: list[str] = []

    def relu6(x: str, name: str) -> str:
        if not bounds:
            bounds.extend(
                [g.initializer("relu6.min", np.float32(0)), g.initializer("relu6.max", np.float32(6))]
            )
        return g.node("Clip", name, [x, *bounds])

    def hardswish(x: str, name: str) -> str:
        return g.node("HardSwish", name, [x])

    return {"relu": g.relu, "relu6": relu6, "hardswish": hardswish, "silu": g.silu}
