"""Weights and biases written into a copy of a model; who shares them keeps what it had."""

import numpy as np
import pytest
from onnx import helper

from scalpel_graph.pruning.weights import Weights
from tests.scalpel_graph.pruning.small_models import (
    answers,
    convolutional,
    layers_of,
    make_model,
    normal,
    perceptron,
)


def layer_of(model, name):
    return next(layer for layer in layers_of(model) if layer.name == name)


def test_the_model_that_is_given_does_not_change():
    model = perceptron()
    before = model.SerializeToString()
    weights = Weights(model)
    layer = layer_of(model, "fc1")
    weights.write([layer], weights.matrix(layer) * 0)
    weights.set_bias(layer, np.ones(16))
    assert model.SerializeToString() == before
    assert not weights.matrix(layer).any()
    assert weights.bias(layer).tolist() == [1] * 16


BIASES = {
    "conv": (lambda: [helper.make_node("Conv", ["x", "w4", "b"], ["y"], "layer")], True),
    "conv without": (lambda: [helper.make_node("Conv", ["x", "w4"], ["y"], "layer")], True),
    "gemm": (lambda: [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "layer", beta=0.5, transB=1)], True),
    "gemm row": (lambda: [helper.make_node("Gemm", ["x", "w", "row"], ["y"], "layer", transB=1)], True),
    "gemm scalar": (lambda: [helper.make_node("Gemm", ["x", "w", "one"], ["y"], "layer", transB=1)], True),
    "gemm without": (lambda: [helper.make_node("Gemm", ["x", "w"], ["y"], "layer", transB=1)], True),
    "gemm matrix": (lambda: [helper.make_node("Gemm", ["x", "w", "m"], ["y"], "layer", transB=1)], False),
    "gemm beta 0": (
        lambda: [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "layer", beta=0.0, transB=1)],
        False,
    ),
    "matmul add": (
        lambda: [
            helper.make_node("MatMul", ["x", "wt"], ["h"], "layer"),
            helper.make_node("Add", ["h", "b"], ["y"]),
        ],
        True,
    ),
    "add first": (
        lambda: [
            helper.make_node("MatMul", ["x", "wt"], ["h"], "layer"),
            helper.make_node("Add", ["row", "h"], ["y"]),
        ],
        True,
    ),
    "matmul alone": (lambda: [helper.make_node("MatMul", ["x", "wt"], ["y"], "layer")], False),
    "matmul read twice": (
        lambda: [
            helper.make_node("MatMul", ["x", "wt"], ["h"], "layer"),
            helper.make_node("Add", ["h", "b"], ["a"]),
            helper.make_node("Add", ["h", "a"], ["y"]),
        ],
        False,
    ),
}


#: In opset 8, which goes with IR version 3, Gemm has to have a C.
OLD = [(case, 3) for case in BIASES if case != "gemm without"]


@pytest.mark.parametrize(("case", "ir_version"), [*OLD, *((case, 8) for case in BIASES)])
def test_bias(case, ir_version):
    build, can_change = BIASES[case]
    nodes = build()
    every = {
        "w": normal(6, 4), "wt": normal(4, 6), "w4": normal(6, 4, 1, 1), "b": normal(6, seed=1),
        "row": normal(1, 6, seed=2), "one": normal(1, seed=3), "m": normal(5, 6, seed=4),
    }  # fmt: skip
    used = {name: every[name] for node in nodes for name in node.input if name in every}
    shape = (5, 4, 1, 1) if "w4" in used else (5, 4)
    model = make_model(nodes, used, {"x": shape}, ["y"], ir_version)
    if ir_version == 3:
        model.opset_import[0].version = 8
        model.graph.input.extend(
            helper.make_tensor_value_info(name, 1, value.shape) for name, value in used.items()
        )
    weights = Weights(model)
    layer = layer_of(model, "layer")
    bias = weights.bias(layer)
    assert (bias is not None) == can_change
    if bias is None:
        return
    x = normal(*shape, seed=5)
    added = np.arange(6.0)
    weights.set_bias(layer, bias + added)
    np.testing.assert_allclose(weights.bias(layer), bias + added, rtol=1e-5, atol=1e-6)
    expected = answers(model, x=x) + added.reshape(6, *(1,) * (len(shape) - 2)).astype(np.float32)
    np.testing.assert_allclose(answers(weights.model, x=x), expected, rtol=1e-4, atol=1e-5)


def test_a_bias_that_others_read_is_copied():
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "one"),
        helper.make_node("Gemm", ["h", "w", "b"], ["y"], "two"),
    ]
    model = make_model(nodes, {"w": normal(6, 6), "b": normal(6)}, {"x": ["n", 6]}, ["y"])
    weights = Weights(model)
    one, two = layers_of(model)
    weights.set_bias(one, np.zeros(6))
    assert not weights.bias(one).any()
    np.testing.assert_allclose(weights.bias(two), normal(6))


def test_batchnorm_behind_a_layer():
    model = convolutional()
    weights = Weights(model)
    layer = layer_of(model, "conv1")
    gain = weights.batchnorm_gain(layer)
    x = normal(1, 4, 8, 8)
    scaled = Weights(model)
    scaled.write([layer], scaled.matrix(layer) * (1 / gain)[:, None])
    assert gain.shape == (12,)
    rows = np.arange(12) < 5
    weights.zero_batchnorm(layer, rows)
    np.testing.assert_array_equal(weights.batchnorm_gain(layer) == 0, rows)
    assert answers(weights.model, x=x).shape == (1, 5)
    assert (weights.batchnorm_gain(layer_of(model, "conv2")) == 1).all()
