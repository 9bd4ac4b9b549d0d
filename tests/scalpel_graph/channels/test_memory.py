"""Removing channels makes no copy of all the weights: not in numpy, not in float64, not as booleans."""

import tracemalloc

import numpy as np
import onnx
import pytest

from models.builder import BATCH, OPSET, GraphBuilder
from scalpel_graph.channels.analysis import analyse
from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from scalpel_graph.target import Target

LAYERS, WIDTH = 4, 2048
LAYER_BYTES = 4 * WIDTH * WIDTH


def network(operator: str) -> onnx.ModelProto:
    """Layers of equal size, a third of whose outputs have no weights."""
    g = GraphBuilder("large", seed=0, opset=OPSET)
    convolves = operator == "Conv"
    shape = [BATCH, WIDTH, 2] if convolves else [BATCH, WIDTH]
    x = g.input("input", shape)
    rng = np.random.default_rng(0)
    for number in range(LAYERS):
        weight = rng.standard_normal((WIDTH, WIDTH), dtype=np.float32)
        weight[::3] = 0
        if operator == "MatMul":
            weight = weight.T
        name = f"{number}.weight"
        initializer = g.initializer(name, np.ascontiguousarray(weight[..., None] if convolves else weight))
        attributes = {"transB": 1} if operator == "Gemm" else {}
        x = g.relu(g.node(operator, f"{number}.layer", [x, initializer], **attributes), f"{number}.relu")
    return g.model({x: shape})


@pytest.mark.parametrize("operator", ["Gemm", "MatMul", "Conv"])
def test_the_analysis_holds_one_layer_at_a_time(operator):
    graph = ModelGraph(network(operator))
    graph.infer()
    tracemalloc.start()
    analysis = analyse(graph)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(analysis.rules) == 2 * LAYERS
    assert held < LAYERS * LAYER_BYTES / 16
    assert peak < 1.5 * LAYER_BYTES


@pytest.mark.parametrize("multiple", [1, 1024])
def test_removing_channels_takes_less_than_the_weights_again(multiple):
    graph = ModelGraph(network("Gemm"))
    graph.infer()
    target = Target(name="t", kind="gpu", description="any", round_features_to=multiple)
    context = PassContext(target)
    tracemalloc.start()
    RemoveChannels().run(graph, context)
    held, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    left = WIDTH - -(-WIDTH // 3) if multiple == 1 else WIDTH
    assert [entry.after for entry in context.removed_nodes[: LAYERS - 1]] == [left] * (LAYERS - 1)
    weights = LAYERS * LAYER_BYTES
    if multiple == 1:
        assert held < 0.6 * weights and peak < weights
    else:
        # Every width stays: inputs that are kept for that get weights of zero, which are weights again.
        assert held < 1.1 * weights and peak < 1.5 * weights
