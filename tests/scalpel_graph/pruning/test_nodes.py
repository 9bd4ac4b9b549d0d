"""Nodes: found where they are one, written out so that `scalpel_graph.channels` removes them exactly."""

import numpy as np
import pytest
from onnx import helper

import scalpel_graph as sg
from models import NETWORKS
from models.bert import bert
from scalpel_graph.api import understood
from scalpel_graph.pruning.node_scores import column_losses
from scalpel_graph.pruning.nodes import choose_nodes, find_nodes, magnitudes
from scalpel_graph.pruning.quadratic import Quadratic
from scalpel_graph.pruning.weights import Weights
from scalpel_graph.session import run, session
from tests.scalpel_graph.pruning.quadratics import correlated, least_cost, of_data
from tests.scalpel_graph.pruning.small_models import (
    answers,
    convolutional,
    layers_of,
    make_model,
    matrices,
    normal,
    perceptron,
)


def nodes_of(model):
    return find_nodes(model, layers_of(model), understood)


class TestFound:
    def test_neurons_between_layers(self):
        nodes = nodes_of(perceptron((12, 16, 20, 4)))
        assert nodes.count == 36
        assert sorted(np.bincount(nodes.kind)) == [16, 20]
        np.testing.assert_array_equal(nodes.made["fc1"], nodes.read["fc2"][0])
        assert nodes.why == {"fc3": "y: it is an output of the model"}

    def test_channels_through_normalization_pool_and_reshape(self):
        nodes = nodes_of(convolutional())
        assert nodes.count == 20
        # Each channel of conv2 is 16 features of the fully connected layer.
        np.testing.assert_array_equal(nodes.read["fc"][0], nodes.made["conv2"].repeat(16))

    def test_groups_of_a_conv_are_kinds(self):
        nodes = nodes_of(convolutional(group=2))
        assert len(set(nodes.kind)) == 4
        kinds = nodes.kind[nodes.made["conv1"]]
        assert len(set(kinds[:6])) == len(set(kinds[6:])) == 1

    def test_channels_that_are_added_are_one(self):
        nodes_before = [
            helper.make_node("Gemm", ["x", "w1"], ["a"], "one"),
            helper.make_node("Gemm", ["x", "w2"], ["b"], "two"),
            helper.make_node("Add", ["a", "b"], ["s"]),
            helper.make_node("Gemm", ["s", "w3"], ["y"], "last"),
        ]
        weights = {"w1": normal(3, 6), "w2": normal(3, 6, seed=1), "w3": normal(6, 2, seed=2)}
        nodes = nodes_of(make_model(nodes_before, weights, {"x": ["n", 3]}, ["y"]))
        assert nodes.count == 6
        np.testing.assert_array_equal(nodes.made["one"], nodes.made["two"])

    def test_attention_heads_are_nodes(self):
        nodes = nodes_of(bert(layers=1, hidden=32, intermediate=48, heads=4))
        query = nodes.made["encoder.0.attention.query"]
        assert len(set(query)) == 4
        assert (query >= 0).all()
        np.testing.assert_array_equal(query, nodes.made["encoder.0.attention.value"])

    def test_channels_that_lrn_reads(self):
        nodes = nodes_of(NETWORKS["convnet"].build())
        assert (nodes.made["conv1"] >= 0).all()

    def test_what_something_else_needs_stays(self):
        graph = [
            helper.make_node("Gemm", ["x", "w1"], ["a"], "one"),
            helper.make_node("Softmax", ["a"], ["p"], "softmax"),
            helper.make_node("Gemm", ["p", "w2"], ["y"], "two"),
        ]
        weights = {"w1": normal(3, 6), "w2": normal(6, 2)}
        nodes = nodes_of(make_model(graph, weights, {"x": ["n", 3]}, ["y"]))
        assert nodes.count == 0
        assert "softmax" in nodes.why["one"]

    def test_opsets_without_rules(self):
        model = perceptron()
        model.opset_import[0].version = 6
        assert "the model is of opset 6" in nodes_of(model).why["fc1"]


class TestChosen:
    nodes = nodes_of(perceptron((12, 16, 20, 4)))

    def test_least_of_each_kind(self):
        scores = np.arange(36.0)
        gone = choose_nodes(self.nodes, scores, {"fc1": 0.25, "fc2": 0.5})
        assert gone[self.nodes.made["fc1"]].sum() == 4
        assert gone[self.nodes.made["fc2"]].sum() == 10
        for name in ("fc1", "fc2"):
            own = self.nodes.made[name]
            assert scores[own][gone[own]].max() < scores[own][~gone[own]].min()

    def test_one_stays(self):
        assert (~choose_nodes(self.nodes, np.ones(36), {"fc1": 0.999, "fc2": 0.999})).sum() >= 2

    def test_nothing_of_a_layer_that_is_not_named(self):
        gone = choose_nodes(self.nodes, np.ones(36), {"fc1": 0.5})
        assert not gone[self.nodes.made["fc2"]].any()

    @pytest.mark.parametrize("importance", ["rms", "mean", "max"])
    def test_magnitudes_do_not_see_a_scale_that_cancels(self, importance):
        model = perceptron((12, 16, 20, 4))
        scaled = Weights(model)
        first, second = layers_of(model)[:2]
        factors = np.random.default_rng(0).uniform(0.1, 10, 16).astype(np.float32)
        scaled.write([first], scaled.matrix(first) * factors[:, None])
        scaled.write([second], scaled.matrix(second) / factors)
        own = self.nodes.made["fc1"]
        before = magnitudes(self.nodes, layers_of(model), Weights(model), importance)[own]
        after = magnitudes(self.nodes, layers_of(model), scaled, importance)[own]
        np.testing.assert_allclose(before, after, rtol=1e-5)


def test_column_losses_against_brute_force():
    """The cost of each single channel (3 columns) by solving least squares without it."""
    weights = np.random.default_rng(1).standard_normal((5, 12))
    cost: Quadratic = of_data(correlated(12, 60), weights)
    losses = []
    for channel in range(4):
        keep = np.ones(12, dtype=bool)
        keep[3 * channel : 3 * channel + 3] = False
        losses.append(sum(least_cost(cost, keep, row)[0] for row in range(5)))
    found = column_losses(cost.original[0], cost.A[0], 4)
    assert found.min() == pytest.approx(min(losses), rel=1e-6)
    assert found.argmin() == int(np.argmin(losses))


def test_column_losses_of_large_layers_are_those_of_each_alone(monkeypatch):
    monkeypatch.setattr("scalpel_graph.pruning.node_scores._GREEDY_WORK", 0)
    weights = np.random.default_rng(1).standard_normal((5, 12))
    cost = of_data(correlated(12, 60), weights)
    found = column_losses(cost.original[0], cost.A[0], 12)
    expected = [
        sum(least_cost(cost, np.arange(12) != channel, row)[0] for row in range(5)) for channel in range(12)
    ]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


MODELS = {
    "perceptron": (perceptron, (12,)),
    "relu": (convolutional, (4, 8, 8)),
    "groups": (lambda: convolutional(group=2), (4, 8, 8)),
    "sigmoid": (lambda: convolutional(activation="Sigmoid"), (4, 8, 8)),
}


@pytest.mark.parametrize("calibrated", [False, True], ids=["by magnitude", "calibrated"])
@pytest.mark.parametrize("name", MODELS)
def test_every_node_that_went_is_removed_exactly(name, calibrated):
    build, size = MODELS[name]
    model = build()
    calibration = {"x": normal(40, *size)} if calibrated else None
    result = sg.prune(model, "gpu", nodes=0.5, calibration=calibration)
    narrower = {
        layer.name: layer.nodes for layer in result.report.layers if layer.nodes.after < layer.nodes.before
    }
    assert narrower
    optimized = sg.optimize(result.model, "gpu")
    removed = {node.name: node.possible for node in optimized.report.removed_nodes}
    for layer, nodes in narrower.items():
        assert nodes.after == nodes.before // 2
        assert removed[layer] == nodes.after
    x = normal(3, *size, seed=9)
    np.testing.assert_allclose(
        answers(result.model, x=x), answers(optimized.model, x=x), rtol=1e-3, atol=1e-5
    )


def cut_out(result, target):
    """By layer: outputs that pruning left, and those that an optimized network needs."""
    removed = {
        node.name: node.possible
        for node in sg.optimize(result.model, target, check=False).report.removed_nodes
    }
    return {
        layer.name: (layer.nodes.after, removed.get(layer.name, layer.nodes.before))
        for layer in result.report.layers
        if layer.nodes.after < layer.nodes.before
    }


@pytest.mark.parametrize("target", ["gpu", "avx2"])
def test_only_nodes_that_can_be_cut_out_go(target):
    """On a GPU an LRN stays one, and some dead channels keep others out of each other's windows."""
    result = sg.prune(NETWORKS["convnet"].build(), target, method="node", nodes=0.3)
    left = cut_out(result, target)
    assert all(after == needed for after, needed in left.values())
    if target == "avx2":
        assert left == {"conv1": (23, 23), "conv2": (23, 23), "conv3": (45, 45)}


def test_groups_that_channel_shuffles_mix_lose_equally_many():
    result = sg.prune(NETWORKS["shufflenet-v1"].build(), "gpu", nodes=0.3)
    left = cut_out(result, "gpu")
    assert all(after == needed for after, needed in left.values())
    assert 0.7 * 480 <= left["stage3.1.conv2"][0] < 0.75 * 480


def test_a_removed_node_is_zero_where_it_is_made_and_where_it_is_read():
    result = sg.prune(convolutional(), "gpu", nodes=0.5)
    found = matrices(result.model)
    dead = ~found["conv1"].any(axis=1)
    assert dead.sum() == 6
    assert not found["conv2"].reshape(8, 12, 9)[:, dead].any()
    hidden = result.model.graph.node[1].output[0]
    result.model.graph.output.append(helper.make_tensor_value_info(hidden, 1, None))

    normalized = run(session(result.model), {"x": normal(2, 4, 8, 8)})[hidden]
    assert not normalized[:, dead].any()
