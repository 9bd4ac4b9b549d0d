"""The parts of transformers, as PyTorch's exporter writes them."""

import math

import numpy as np

from models.builder import GraphBuilder


def attention(g: GraphBuilder, x: str, name: str, hidden: int, *, heads: int, head_size: int) -> str:
    """Self-attention on ``[batch, tokens, hidden]``, with its four projections."""
    # 0 copies a dimension of the input: batch and tokens.
    split = g.initializer(f"{name}.split_shape", np.array([0, 0, heads, head_size]))
    merge = g.initializer(f"{name}.merge_shape", np.array([0, 0, heads * head_size]))

    def heads_of(projection: str, perm: list[int]) -> str:
        y = g.matmul_add(x, f"{name}.{projection}", hidden, heads * head_size)
        y = g.node("Reshape", f"{name}.{projection}.split", [y, split])
        return g.node("Transpose", f"{name}.{projection}.transpose", [y], perm=perm)

    query = heads_of("query", [0, 2, 1, 3])
    key = heads_of("key", [0, 2, 3, 1])
    value = heads_of("value", [0, 2, 1, 3])
    scale = g.initializer(f"{name}.sqrt_head_size", math.sqrt(head_size))
    scores = g.node("Div", f"{name}.scale", [g.node("MatMul", f"{name}.scores", [query, key]), scale])
    weights = g.node("Softmax", f"{name}.softmax", [scores], axis=-1)
    y = g.node("MatMul", f"{name}.context", [weights, value])
    y = g.node("Transpose", f"{name}.transpose", [y], perm=[0, 2, 1, 3])
    y = g.node("Reshape", f"{name}.merge", [y, merge])
    return g.matmul_add(y, f"{name}.output", heads * head_size, hidden)


def gelu(g: GraphBuilder, x: str, name: str) -> str:
    """``x · (1 + erf(x / √2)) · 0.5``, the exact form."""
    sqrt2 = g.initializer(f"{name}.sqrt2", math.sqrt(2))
    one = g.initializer(f"{name}.one", 1.0)
    half = g.initializer(f"{name}.half", 0.5)
    erf = g.node("Erf", f"{name}.erf", [g.node("Div", f"{name}.div", [x, sqrt2])])
    product = g.node("Mul", f"{name}.mul", [x, g.node("Add", f"{name}.add", [erf, one])])
    return g.node("Mul", f"{name}.mul_half", [product, half])


def layer_norm(g: GraphBuilder, x: str, name: str, hidden: int) -> str:
    """LayerNormalization over the last axis."""
    scale = g.initializer(f"{name}.weight", np.ones(hidden))
    bias = g.normal(f"{name}.bias", (hidden,), 0.1)
    return g.node("LayerNormalization", name, [x, scale, bias], axis=-1, epsilon=1e-12)
