"""A BERT-like encoder (Devlin et al., 2019), as PyTorch's exporter writes it."""

import math

import numpy as np
import onnx
from onnx import TensorProto

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder


def bert(
    *,
    seed: int = 0,
    opset: int = OPSET,
    layers: int = 12,
    hidden: int = 768,
    intermediate: int = 3072,
    heads: int = 12,
    tokens: int = 128,
    vocabulary: int = 1000,
) -> onnx.ModelProto:
    """Embeddings, post-norm encoder layers and pooler; the sizes of BERT-base but for the vocabulary.

    Input ``input_ids [batch, tokens]`` int64; outputs ``[batch, tokens, hidden]`` and, pooled from the first
    token, ``[batch, hidden]``.

    Raises:
        ValueError: ``heads`` does not divide ``hidden``, or ``opset`` has no LayerNormalization (before 17).
    """
    if hidden % heads:
        raise ValueError(f"{heads} heads do not divide {hidden} hidden units")
    if opset < 17:
        raise ValueError(f"LayerNormalization needs opset 17, not {opset}")
    g = GraphBuilder("bert", seed=seed, opset=opset)
    ids = g.input("input_ids", [BATCH, tokens], TensorProto.INT64)
    words = g.normal("embeddings.word.weight", (vocabulary, hidden), 1.0)
    positions = g.normal("embeddings.position.weight", (1, tokens, hidden), 1.0)
    x = g.node("Gather", "embeddings.word", [words, ids], axis=0)
    x = g.node("Add", "embeddings.add", [x, positions])
    x = _layer_norm(g, x, "embeddings.norm", hidden)
    for i in range(layers):
        name = f"encoder.{i}"
        y = _attention(g, x, f"{name}.attention", hidden, heads)
        x = _layer_norm(g, g.node("Add", f"{name}.attention.residual", [y, x]), f"{name}.norm1", hidden)
        y = _gelu(g, g.matmul_add(x, f"{name}.intermediate", hidden, intermediate), f"{name}.gelu")
        y = g.matmul_add(y, f"{name}.output", intermediate, hidden)
        x = _layer_norm(g, g.node("Add", f"{name}.residual", [y, x]), f"{name}.norm2", hidden)
    first = g.initializer("pooler.first_token", np.int64(0))
    pooled = g.node("Gather", "pooler.gather", [x, first], axis=1)
    pooled = g.node("Tanh", "pooler.tanh", [g.gemm(pooled, "pooler.dense", hidden, hidden, gain=LINEAR_GAIN)])
    return g.model({x: [BATCH, tokens, hidden], pooled: [BATCH, hidden]})


def _attention(g: GraphBuilder, x: str, name: str, hidden: int, heads: int) -> str:
    # 0 copies a dimension of the input: batch and tokens.
    split = g.initializer(f"{name}.split_shape", np.array([0, 0, heads, hidden // heads]))
    merge = g.initializer(f"{name}.merge_shape", np.array([0, 0, hidden]))

    def heads_of(projection: str, perm: list[int]) -> str:
        y = g.matmul_add(x, f"{name}.{projection}", hidden, hidden)
        y = g.node("Reshape", f"{name}.{projection}.split", [y, split])
        return g.node("Transpose", f"{name}.{projection}.transpose", [y], perm=perm)

    query = heads_of("query", [0, 2, 1, 3])
    key = heads_of("key", [0, 2, 3, 1])
    value = heads_of("value", [0, 2, 1, 3])
    scale = g.initializer(f"{name}.sqrt_head_size", math.sqrt(hidden // heads))
    scores = g.node("Div", f"{name}.scale", [g.node("MatMul", f"{name}.scores", [query, key]), scale])
    weights = g.node("Softmax", f"{name}.softmax", [scores], axis=-1)
    y = g.node("MatMul", f"{name}.context", [weights, value])
    y = g.node("Transpose", f"{name}.transpose", [y], perm=[0, 2, 1, 3])
    y = g.node("Reshape", f"{name}.merge", [y, merge])
    return g.matmul_add(y, f"{name}.output", hidden, hidden)


def _gelu(g: GraphBuilder, x: str, name: str) -> str:
    """``x · (1 + erf(x / √2)) · 0.5``, the exact form."""
    sqrt2 = g.initializer(f"{name}.sqrt2", math.sqrt(2))
    one = g.initializer(f"{name}.one", 1.0)
    half = g.initializer(f"{name}.half", 0.5)
    erf = g.node("Erf", f"{name}.erf", [g.node("Div", f"{name}.div", [x, sqrt2])])
    product = g.node("Mul", f"{name}.mul", [x, g.node("Add", f"{name}.add", [erf, one])])
    return g.node("Mul", f"{name}.mul_half", [product, half])


def _layer_norm(g: GraphBuilder, x: str, name: str, hidden: int) -> str:
    scale = g.initializer(f"{name}.weight", np.ones(hidden))
    bias = g.normal(f"{name}.bias", (hidden,), 0.1)
    return g.node("LayerNormalization", name, [x, scale, bias], axis=-1, epsilon=1e-12)
