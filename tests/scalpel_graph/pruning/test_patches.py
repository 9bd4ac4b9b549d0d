"""The rows of a layer's input times its weights are its output, as ONNX Runtime computes it."""

import numpy as np
import pytest
from onnx import helper

from scalpel_graph.pruning.patches import input_rows, output_rows
from tests.scalpel_graph.pruning.small_models import answers, layers_of, make_model, normal

CONVS = {
    "plain": ((6, 4, 3, 3), (4, 9, 8), {}),
    "pads": ((6, 4, 3, 2), (4, 9, 8), {"pads": [1, 0, 2, 1]}),
    "strides": ((6, 4, 3, 3), (4, 9, 8), {"strides": [2, 3], "pads": [1, 1, 1, 1]}),
    "dilations": ((6, 4, 2, 3), (4, 9, 8), {"dilations": [3, 2]}),
    "strided and dilated": ((6, 4, 3, 2), (4, 12, 9), {"dilations": [2, 3], "strides": [3, 2]}),
    "groups": ((6, 2, 3, 3), (4, 9, 8), {"group": 2}),
    "depthwise": ((8, 1, 3, 3), (4, 9, 8), {"group": 4}),
    "one axis": ((6, 4, 5), (4, 17), {"pads": [2, 2], "strides": [2]}),
    "three axes": ((5, 2, 2, 3, 1), (2, 5, 6, 4), {"pads": [0, 1, 0, 0, 1, 0]}),
    "same upper": ((6, 4, 3, 2), (4, 9, 8), {"auto_pad": "SAME_UPPER", "strides": [2, 3]}),
    "same lower": ((6, 4, 4, 2), (4, 9, 8), {"auto_pad": "SAME_LOWER", "strides": [2, 1]}),
    "valid": ((6, 4, 4, 2), (4, 9, 8), {"auto_pad": "VALID"}),
    "pointwise": ((6, 4, 1, 1), (4, 5, 7), {}),
}


def check(model, x):
    (layer,) = layers_of(model)
    node = model.graph.node[layer.node]
    y = answers(model, x=x)
    weights = normal(*layer.weight_shape)
    matrix = layer.matrix(weights).reshape(layer.group, -1, layer.shape[1])
    made = list(output_rows(layer, y))
    rows = list(input_rows(layer, node, x))
    assert len(rows) == len(made)
    for inputs, outputs in zip(rows, made, strict=True):
        np.testing.assert_allclose(inputs @ matrix.transpose(0, 2, 1), outputs, rtol=1e-4, atol=1e-5)
    assert sum(part.shape[1] for part in made) * layer.shape[0] == y.size


@pytest.mark.parametrize("chunk", [2**24, 1], ids=["at once", "in chunks"])
@pytest.mark.parametrize("case", CONVS)
def test_conv(case, chunk, monkeypatch):
    monkeypatch.setattr("scalpel_graph.pruning.patches._CHUNK", chunk)
    shape, size, attributes = CONVS[case]
    node = helper.make_node("Conv", ["x", "w"], ["y"], "layer", **attributes)
    check(make_model([node], {"w": normal(*shape)}, {"x": ["n", *size]}, ["y"]), normal(3, *size, seed=1))


@pytest.mark.parametrize(
    "attributes", [{}, {"transB": 1}, {"transA": 1}, {"transA": 1, "transB": 1}], ids=str
)
def test_gemm(attributes):
    shape = (5, 7) if "transB" in attributes else (7, 5)
    node = helper.make_node("Gemm", ["x", "w"], ["y"], "layer", **attributes)
    x = normal(7, 9) if "transA" in attributes else normal(9, 7)
    check(make_model([node], {"w": normal(*shape)}, {"x": [None, None]}, ["y"]), x)


@pytest.mark.parametrize("shape", [(7,), (9, 7), (2, 3, 7), (2, 3, 4, 7)])
def test_matmul(shape, monkeypatch):
    monkeypatch.setattr("scalpel_graph.pruning.patches._CHUNK", 14)
    node = helper.make_node("MatMul", ["x", "w"], ["y"], "layer")
    check(make_model([node], {"w": normal(7, 5)}, {"x": [None] * len(shape)}, ["y"]), normal(*shape, seed=1))
