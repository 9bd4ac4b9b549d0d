"""A tagger of words: embeddings, an LSTM in each direction, one layer on top (Huang et al., 2015)."""

import numpy as np
import onnx
from onnx import TensorProto

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder


def lstm_tagger(
    *,
    seed: int = 0,
    opset: int = OPSET,
    embedding: int = 100,
    hidden: int = 200,
    features: int = 128,
    tokens: int = 32,
    vocabulary: int = 1000,
    tags: int = 17,
) -> onnx.ModelProto:
    """Two LSTM nodes, the second one backwards, joined by Concat.

    Input ``input_ids [batch, tokens]`` int64, output ``[batch, tokens, tags]``.
    """
    g = GraphBuilder("lstm-tagger", seed=seed, opset=opset)
    ids = g.input("input_ids", [BATCH, tokens], TensorProto.INT64)
    x = g.node(
        "Gather", "embedding", [g.normal("embedding.weight", (vocabulary, embedding), 1.0), ids], axis=0
    )
    x = g.node("Transpose", "time_first", [x], perm=[1, 0, 2])
    axis = g.initializer("directions", np.array([1]))
    made = []
    for direction in ("forward", "reverse"):
        name = f"lstm.{direction}"
        weight = g.weights(f"{name}.weight", (1, 4 * hidden, embedding), LINEAR_GAIN, outputs_axis=1)
        recurrence = g.weights(f"{name}.recurrence", (1, 4 * hidden, hidden), LINEAR_GAIN, outputs_axis=1)
        bias = g.normal(f"{name}.bias", (1, 8 * hidden), 0.1)
        y = g.node("LSTM", name, [x, weight, recurrence, bias], hidden_size=hidden, direction=direction)
        made.append(g.node("Squeeze", f"{name}.squeeze", [y, axis]))
    x = g.node("Concat", "concat", made, axis=2)
    x = g.node("Transpose", "batch_first", [x], perm=[1, 0, 2])
    x = g.node("Relu", "relu", [g.matmul_add(x, "hidden", 2 * hidden, features)])
    x = g.matmul_add(x, "tags", features, tags)
    return g.model({x: [BATCH, tokens, tags]})
