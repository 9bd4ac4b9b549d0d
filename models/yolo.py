"""A detector in the manner of YOLOv8 (Jocher et al., 2023): SiLU, Split, Concat, upsampling, two heads."""

from collections.abc import Mapping

import numpy as np
import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, Dims, GraphBuilder
from models.widths import Widths


def yolo(
    *,
    seed: int = 0,
    opset: int = OPSET,
    width: int = 16,
    widths: Mapping[str, int] | None = None,
    image: int = 256,
    outputs: int = 84,
) -> onnx.ModelProto:
    """Four stages down, two up, and two heads of different sizes.

    Args:
        seed: of the weights.
        opset: of the model.
        width: channels of the first layer.
        widths: output channels that differ from what follows from ``width``: of ``stem``, ``stage{i}.down``,
            and of the blocks, each ``NAME.first`` and ``NAME.second`` (the halves), ``NAME.inner``,
            ``NAME.out``, and, but for stages, ``NAME.last`` (joined to the halves).
        image: height and width of the input ``[batch, 3, image, image]``, a multiple of 32.
        outputs: channels of each head's output ``[batch, outputs, image / 16 or 32, ...]``.
    """
    g, channels_of = GraphBuilder("yolo", seed=seed, opset=opset), Widths(widths)

    def conv(x: str, name: str, channels: int, out: int, *, kernel: int, stride: int = 1) -> str:
        return g.silu(g.conv_bn(x, name, channels, out, kernel, stride=stride, gain=1.55), f"{name}.silu")

    def block(x: str, name: str, channels: int, usual: int, *, adds: bool) -> tuple[str, int]:
        """Cross-stage partial block: the second half goes through a bottleneck, and all are joined again."""
        one, two, inner = (channels_of(f"{name}.{part}", usual // 2) for part in ("first", "second", "inner"))
        last = two if adds else channels_of(f"{name}.last", usual // 2)
        out = channels_of(f"{name}.out", usual)
        y = conv(x, f"{name}.conv1", channels, one + two, kernel=1)
        first, second = g.split(y, f"{name}.split", [one, two])
        z = conv(second, f"{name}.inner1", two, inner, kernel=3)
        z = conv(z, f"{name}.inner2", inner, last, kernel=3)
        if adds:
            z = g.node("Add", f"{name}.add", [second, z])
        y = g.node("Concat", f"{name}.concat", [first, second, z], axis=1)
        return conv(y, f"{name}.conv2", one + two + last, out, kernel=1), out

    channels = channels_of("stem", width)
    x = conv(g.input("input", [BATCH, 3, image, image]), "stem", 3, channels, kernel=3, stride=2)
    passed = []
    for stage in range(1, 5):
        usual = width << stage
        out = channels_of(f"stage{stage}.down", usual)
        x = conv(x, f"stage{stage}.down", channels, out, kernel=3, stride=2)
        x, channels = block(x, f"stage{stage}", out, usual, adds=True)
        passed.append((x, channels))
    deep, deep_channels = passed[3]
    scales = g.initializer("up.scales", np.array([1, 1, 2, 2], np.float32))
    up = g.node(
        "Resize", "up", [deep, "", scales], mode="nearest", coordinate_transformation_mode="asymmetric"
    )
    skip, skip_channels = passed[2]
    y = g.node("Concat", "neck.join", [up, skip], axis=1)
    y, near = block(y, "neck", deep_channels + skip_channels, width << 3, adds=False)
    down = channels_of("neck.down", width << 3)
    z = conv(y, "neck.down", near, down, kernel=3, stride=2)
    z = g.node("Concat", "deep.join", [z, deep], axis=1)
    z, far = block(z, "deep", down + deep_channels, width << 4, adds=False)
    heads: dict[str, Dims] = {}
    for name, value, channels, size in (("near", y, near, image // 16), ("far", z, far, image // 32)):
        head = g.conv(value, f"head.{name}", channels, outputs, 1, gain=LINEAR_GAIN)
        heads[head] = [BATCH, outputs, size, size]
    channels_of.finish()
    return g.model(heads)
