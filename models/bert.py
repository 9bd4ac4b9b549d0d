"""A BERT-like encoder (Devlin et al., 2019), as PyTorch's exporter writes it."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder
from models.transformer import attention, gelu, layer_norm
from models.widths import Widths


def bert(
    *,
    seed: int = 0,
    opset: int = OPSET,
    layers: int = 12,
    hidden: int = 768,
    intermediate: int = 3072,
    heads: int = 12,
    head_size: int | None = None,
    widths: Mapping[str, int] | None = None,
    tokens: int = 128,
    vocabulary: int = 1000,
) -> onnx.ModelProto:
    """Embeddings, post-norm encoder layers and pooler; the sizes of BERT-base but for the vocabulary.

    ``head_size`` is ``hidden / heads`` unless it is given. ``widths`` gives layers another number of heads,
    ``encoder.{i}.heads``, or of units between their two last projections, ``encoder.{i}.intermediate``.

    Input ``input_ids [batch, tokens]`` int64; outputs ``[batch, tokens, hidden]`` and, pooled from the first
    token, ``[batch, hidden]``.

    Raises:
        ValueError: ``heads`` does not divide ``hidden``, or ``opset`` has no LayerNormalization (before 17).
    """
    if head_size is None:
        if hidden % heads:
            raise ValueError(f"{heads} heads do not divide {hidden} hidden units")
        head_size = hidden // heads
    if opset < 17:
        raise ValueError(f"LayerNormalization needs opset 17, not {opset}")
    g, width = GraphBuilder("bert", seed=seed, opset=opset), Widths(widths)
    ids = g.input("input_ids", [BATCH, tokens], TensorProto.INT64)
    words = g.normal("embeddings.word.weight", (vocabulary, hidden), 1.0)
    positions = g.normal("embeddings.position.weight", (1, tokens, hidden), 1.0)
    x = g.node("Gather", "embeddings.word", [words, ids], axis=0)
    x = g.node("Add", "embeddings.add", [x, positions])
    x = layer_norm(g, x, "embeddings.norm", hidden)
    for i in range(layers):
        name = f"encoder.{i}"
        y = attention(
            g, x, f"{name}.attention", hidden, heads=width(f"{name}.heads", heads), head_size=head_size
        )
        x = layer_norm(g, g.node("Add", f"{name}.attention.residual", [y, x]), f"{name}.norm1", hidden)
        units = width(f"{name}.intermediate", intermediate)
        y = gelu(g, g.matmul_add(x, f"{name}.intermediate", hidden, units), f"{name}.gelu")
        y = g.matmul_add(y, f"{name}.output", units, hidden)
        x = layer_norm(g, g.node("Add", f"{name}.residual", [y, x]), f"{name}.norm2", hidden)
    first = g.initializer("pooler.first_token", np.int64(0))
    pooled = g.node("Gather", "pooler.gather", [x, first], axis=1)
    pooled = g.node("Tanh", "pooler.tanh", [g.gemm(pooled, "pooler.dense", hidden, hidden, gain=LINEAR_GAIN)])
    width.finish()
    return g.model({x: [BATCH, tokens, hidden], pooled: [BATCH, hidden]})
