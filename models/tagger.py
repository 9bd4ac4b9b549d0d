"""A tagger of words: embeddings, an LSTM in each direction, one layer on top (Huang et al., 2015)."""

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto

from models.builder import BATCH, LINEAR_GAIN, OPSET, GraphBuilder
from models.widths import Widths


def lstm_tagger(
    *,
    seed: int = 0,
    opset: int = OPSET,
    embedding: int = 100,
    hidden: int = 200,
    features: int = 128,
    widths: Mapping[str, int] | None = None,
    tokens: int = 32,
    vocabulary: int = 1000,
    tags: int = 17,
) -> onnx.ModelProto:
    """Two LSTM nodes, the second one backwards, joined by Concat.

    ``widths`` are those that differ from the usual ones: ``embedding``, ``lstm.forward``, ``lstm.reverse``,
    ``hidden``.

    Input ``input_ids [batch, tokens]`` int64, output ``[batch, tokens, tags]``.
    """
    g, width = GraphBuilder("lstm-tagger", seed=seed, opset=opset), Widths(widths)
    embedding, features = width("embedding", embedding), width("hidden", features)
    ids = g.input("input_ids", [BATCH, tokens], TensorProto.INT64)
    x = g.node(
        "Gather", "embedding", [g.normal("embedding.weight", (vocabulary, embedding), 1.0), ids], axis=0
    )
    x = g.node("Transpose", "time_first", [x], perm=[1, 0, 2])
    axis = g.initializer("directions", np.array([1]))
    made, joined = [], 0
    for direction in ("forward", "reverse"):
        name = f"lstm.{direction}"
        units = width(name, hidden)
        weight = g.weights(f"{name}.weight", (1, 4 * units, embedding), LINEAR_GAIN, outputs_axis=1)
        recurrence = g.weights(f"{name}.recurrence", (1, 4 * units, units), LINEAR_GAIN, outputs_axis=1)
        bias = g.normal(f"{name}.bias", (1, 8 * units), 0.1)
        y = g.node("LSTM", name, [x, weight, recurrence, bias], hidden_size=units, direction=direction)
        joined += units
        made.append(g.node("Squeeze", f"{name}.squeeze", [y, axis]))
    x = g.node("Concat", "concat", made, axis=2)
    x = g.node("Transpose", "batch_first", [x], perm=[1, 0, 2])
    x = g.node("Relu", "relu", [g.matmul_add(x, "hidden", joined, features)])
    x = g.matmul_add(x, "tags", features, tags)
    width.finish()
    return g.model({x: [BATCH, tokens, tags]})
