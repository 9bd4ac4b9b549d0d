"""ViT (Dosovitskiy et al., 2021), as PyTorch's exporter writes it."""

from collections.abc import Mapping

import numpy as np
import onnx

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder
from models.transformer import attention, gelu, layer_norm
from models.widths import Widths


def vit(
    *,
    seed: int = 0,
    opset: int = OPSET,
    layers: int = 12,
    hidden: int = 192,
    intermediate: int = 768,
    heads: int = 3,
    head_size: int = 64,
    widths: Mapping[str, int] | None = None,
    patch: int = 16,
    image: int = 224,
    classes: int = 1000,
) -> onnx.ModelProto:
    """Patches by a Conv, class token, pre-norm encoder layers; the sizes of ViT-Ti/16.

    ``widths`` gives layers another number of heads, ``encoder.{i}.heads``, or of units between their two last
    projections, ``encoder.{i}.intermediate``.

    Input ``[batch, 3, image, image]``, output ``[batch, classes]``.
    """
    g, width = GraphBuilder("vit", seed=seed, opset=opset), Widths(widths)
    patches = (image // patch) ** 2
    x = g.input("input", [BATCH, 3, image, image])
    x = g.conv(x, "patches", 3, hidden, patch, stride=patch, gain=LINEAR_GAIN)
    x = g.node("Reshape", "reshape", [x, g.initializer("tokens", np.array([0, hidden, patches]))])
    x = g.node("Transpose", "transpose", [x], perm=[0, 2, 1])
    # The class token is repeated for each picture: sums of a row of zeros tell how many there are.
    token = g.normal("class_token", (1, 1, hidden), 1.0)
    first = g.node(
        "Slice",
        "first",
        [
            x,
            *(g.initializer(f"first.{k}", np.array([v])) for k, v in (("start", 0), ("end", 1), ("axis", 1))),
        ],
    )
    zero = g.node("Mul", "zero", [first, g.initializer("zero.factor", 0.0)])
    x = g.node("Concat", "with_token", [g.node("Add", "token", [zero, token]), x], axis=1)
    x = g.node("Add", "embeddings", [x, g.normal("position.weight", (1, patches + 1, hidden), 1.0)])
    for i in range(layers):
        name = f"encoder.{i}"
        y = attention(
            g,
            layer_norm(g, x, f"{name}.norm1", hidden),
            f"{name}.attention",
            hidden,
            heads=width(f"{name}.heads", heads),
            head_size=head_size,
        )
        x = g.node("Add", f"{name}.attention.residual", [x, y])
        y = layer_norm(g, x, f"{name}.norm2", hidden)
        units = width(f"{name}.intermediate", intermediate)
        y = gelu(g, g.matmul_add(y, f"{name}.intermediate", hidden, units), f"{name}.gelu")
        x = g.node("Add", f"{name}.residual", [x, g.matmul_add(y, f"{name}.output", units, hidden)])
    x = layer_norm(g, x, "norm", hidden)
    x = g.node("Gather", "class", [x, g.initializer("class.index", np.int64(0))], axis=1)
    x = g.gemm(x, "fc", hidden, classes, gain=LINEAR_GAIN)
    width.finish()
    return g.model({x: [BATCH, classes]})
