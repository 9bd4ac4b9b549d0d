"""Which form a layer gets on a microcontroller."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import numpy_helper

import scalpel_graph as sg
from models.builder import BATCH, GraphBuilder
from models.paper.onnx_files import arrays_of, weights_of
from scalpel_graph.api import understood
from scalpel_graph.channels_last import column_orders
from scalpel_graph.group_csr import encode
from scalpel_graph.mcu.network import Flatten, Multiply
from scalpel_graph.mcu.program import layer_code
from scalpel_graph.pruning.importance import zero_least_important
from scalpel_graph.pruning.magnitude import prune_magnitude
from scalpel_graph.pruning.structure import Groups
from tests.mcu_networks import network_of, pruned, quantized


def shape_of_first(model, dtype="q15"):
    return next(layer for layer in network_of(model, dtype).layers if isinstance(layer, Multiply)).group_shape


def fc(inputs=784, outputs=300):
    g = GraphBuilder("fc", seed=0, opset=17)
    return g.model({g.gemm(g.input("x", [BATCH, inputs]), "fc", inputs, outputs): [BATCH, outputs]})


def test_a_fully_connected_layer_is_sparse_from_about_half_its_groups_on_blocks_earlier():
    assert shape_of_first(pruned(fc(), 0.55, (1, 2))) == (1, 2)
    assert shape_of_first(pruned(fc(), 0.45, (4, 2))) == (4, 2)
    assert shape_of_first(pruned(fc(), 0.9, (2, 2))) == (2, 2)


def test_a_layer_of_single_zeros_is_dense_until_there_are_many():
    single = prune_magnitude(fc(), 0.3, (1, 1)).model
    assert shape_of_first(single) in (None, (4, 2))  # all groups kept
    network = network_of(single)
    assert np.count_nonzero(network.layers[0].weights) > 0.65 * network.layers[0].weights.size


def image_then_fc(group_last: bool):
    """A Flatten of an image, then weights in groups along ONNX's order or along the device's."""
    g = GraphBuilder("order", seed=0, opset=17)
    x = g.relu(g.conv(g.input("x", [BATCH, 2, 8, 8]), "conv", 2, 16, 3, pad=1), "relu")
    model = g.model({g.gemm(g.flatten(x), "fc", 16 * 64, 100): [BATCH, 100]})
    tensor = next(t for t in model.graph.initializer if t.name == "fc.weight")
    W = numpy_helper.to_array(tensor)
    image = W.reshape(100, 16, 64)
    matrix = image.transpose(0, 2, 1).reshape(100, -1) if group_last else W
    matrix = zero_least_important(np.ascontiguousarray(matrix), (1, 2), 0.9, "rms")
    if group_last:
        matrix = matrix.reshape(100, 64, 16).transpose(0, 2, 1).reshape(100, -1)
    tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(matrix), tensor.name))
    return model


@pytest.mark.parametrize("group_last", [False, True])
def test_an_image_is_flattened_in_the_order_that_keeps_groups_whole(group_last):
    network = network_of(image_then_fc(group_last))
    flatten = next(layer for layer in network.layers if isinstance(layer, Flatten))
    assert flatten.planar is not group_last
    assert network.layers[-1].group_shape == (1, 2)


def stored_groups(program, shape=(1, 2)):
    """By layer, how many groups of a shape the compiler stores in the device's order."""
    found = {}
    for layer in program.network.layers:
        if isinstance(layer, Multiply):
            code = layer_code(program.network, replace(layer, group_shape=shape))
            (columns,) = (c.values for c in code.constants if c.name.endswith("columns"))
            found[layer.name] = len(columns)
    return found


def image_classifier(channels, *, relu_behind_flatten=False, dilation=1):
    """A Conv and a fully connected layer behind a Flatten, with weights that quantization leaves non-zero."""
    g = GraphBuilder("image", seed=0, opset=17)
    weights = g.weights("conv.weight", (6, channels, 3, 3), 1.4)
    x = g.node("Conv", "conv", [g.input("x", [BATCH, channels, 9, 9]), weights], dilations=[dilation] * 2)
    side = 9 - 2 * dilation
    x = g.relu(g.flatten(x), "relu") if relu_behind_flatten else g.flatten(g.relu(x, "relu"))
    model = g.model({g.gemm(x, "fc", 6 * side**2, 20): [BATCH, 20]})
    for tensor in model.graph.initializer:
        if tensor.name.endswith("weight"):
            W = numpy_helper.to_array(tensor)
            tensor.CopyFrom(numpy_helper.from_array(np.sign(W) * (0.5 + np.abs(W)), tensor.name))
    return model


@pytest.mark.parametrize("channels", [1, 2, 3])
@pytest.mark.parametrize("variant", [{}, {"relu_behind_flatten": True}, {"dilation": 2}])
def test_what_is_pruned_is_as_many_groups_on_the_device(channels, variant):
    pruned = sg.prune(image_classifier(channels, **variant), "mcu", sparsity=0.8)
    program, _ = quantized(pruned.model)
    orders = column_orders(understood(pruned.model), {})
    for layer in weights_of(pruned.model):
        matrix = layer.matrix(arrays_of(pruned.model)[layer.weight])
        groups = encode(Groups((1, 2), orders[layer.name]).ordered(matrix), (1, 2)).n_groups
        assert stored_groups(program)[layer.name] == groups
        total = Groups((1, 2), orders[layer.name]).ordered(matrix).size // 2
        assert groups == total - int(0.8 * total + 1e-6)
    flatten = next(layer for layer in program.network.layers if isinstance(layer, Flatten))
    assert not flatten.planar


def test_memory_is_used_again():
    g = GraphBuilder("chain", seed=0, opset=17)
    x = g.input("x", [BATCH, 160])
    for number in range(6):
        x = g.relu(g.gemm(x, f"fc{number}", 160, 160), f"relu{number}")
    program, _ = quantized(g.model({x: [BATCH, 160]}))
    assert program.arena_bytes == 2 * 320  # the input and the output are the caller's
    assert len(set(program.offsets.values())) == 2


@pytest.mark.parametrize("channels", [1, 4])
def test_what_is_pruned_for_a_microcontroller_is_stored_in_whole_groups(channels):
    g = GraphBuilder("conv", seed=0, opset=17)
    x = g.conv(g.input("x", [BATCH, channels, 12, 12]), "conv", channels, 16, 5)
    model = sg.prune(g.model({x: [BATCH, 16, 8, 8]}), "mcu", sparsity=0.8).model
    program, _ = quantized(model)
    layer = program.network.layers[0]
    assert layer.group_shape is not None
    groups = next(c.values for c in program.layers[0].constants if c.name.endswith("columns")).size
    stored = groups * int(np.prod(layer.group_shape))
    assert stored >= np.count_nonzero(layer.weights)
    if layer.group_shape == (1, 2):
        assert groups <= 0.21 * 16 * 5 * -(-5 * channels // 2)
