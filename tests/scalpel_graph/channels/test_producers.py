"""Channels, parameters and multiply-accumulates of each layer with weights."""

import numpy as np

from scalpel_graph.channels.producers import Producer, producers
from scalpel_graph.graph import ModelGraph
from scalpel_graph.stats import measure
from tests.pass_runner import model, random


def test_every_kind_of_layer():
    proto = model(
        """(float[N, 3, 6, 6] X, float[T, N, 8] S) => (Y, Z)
           { [conv] a = Conv<group = 3>(X, W0, B0)  [up] b = ConvTranspose<group = 2>(a, W1)  p = Mul(b, s)
             f = Reshape(p, rows)  [left] g = MatMul(L, f)  [right] h = MatMul(g, R)
             i = Flatten(h)  [fc] j = Gemm<transB = 1>(i, W2, B2)  Y = Relu(j)
             [rnn] Z = LSTM<hidden_size = 5>(S, W, V) }""",
        {
            "W0": random(6, 1, 3, 3), "B0": random(6), "W1": random(6, 4, 1, 1), "s": random(8, 1, 1),
            "rows": np.array([0, 8, 16]), "L": random(7, 8), "R": random(16, 2), "W2": random(9, 14),
            "B2": random(9), "W": random(1, 20, 8), "V": random(1, 20, 5),
        },
    )  # fmt: skip
    graph = ModelGraph(proto)
    graph.infer()
    found = producers(graph, {"N": 2, "T": 4})
    assert found == {
        "conv": Producer(6, 6 * 9 + 6, 2 * 16 * 6 * 9),
        "up": Producer(8, 6 * 4, 2 * 16 * 6 * 4),
        "left": Producer(7, 7 * 8, 2 * 7 * 8 * 16),
        "right": Producer(2, 16 * 2, 2 * 7 * 16 * 2),
        "fc": Producer(9, 9 * 14 + 9, 2 * 9 * 14),
        "rnn": Producer(5, 20 * 13, 4 * 2 * 20 * 13),
    }
    assert sum(producer.macs for producer in found.values()) == measure(proto, {"N": 2, "T": 4}).macs
