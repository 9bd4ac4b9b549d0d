"""The order in which a microcontroller stores the columns of a layer."""

import numpy as np
import pytest

from models import NETWORKS
from models.builder import BATCH, GraphBuilder
from scalpel_graph.api import understood
from scalpel_graph.channels_last import ChannelsLast, column_orders


@pytest.mark.parametrize(
    ("order", "c", "expected"),
    [
        (ChannelsLast(), 2, [0, 1, 2, 3, 4, 5]),
        (ChannelsLast(), 4, [0, 1, 2, 3, 4, 5, -1, -1]),
        (ChannelsLast(3), 2, [0, 3, 1, 4, 2, 5]),  # two channels of three places
        (ChannelsLast.of_conv((3,)), 2, [0, 3, 1, 4, 2, 5]),
        (ChannelsLast.of_conv((3, 1)), 4, [0, 3, -1, -1, 1, 4, -1, -1, 2, 5, -1, -1]),
        (ChannelsLast.of_conv((1, 3)), 4, [0, 3, 1, 4, 2, 5, -1, -1]),  # on along the width
        (ChannelsLast.of_conv((1, 3), 2), 4, [0, 3, -1, -1, 1, 4, -1, -1, 2, 5, -1, -1]),
    ],
)  # fmt: skip
def test_columns(order, c, expected):
    assert order.columns(6, c).tolist() == expected


def test_columns_that_are_gone_are_missing_from_their_line():
    kept = np.array([True, False, True, True, True, True])
    assert ChannelsLast(3).columns(6, 2, kept).tolist() == [0, 3, 4, 2, 5, -1]
    assert ChannelsLast(3, 3).columns(6, 2, kept).tolist() == [0, 3, 4, -1, 2, 5]


def test_the_papers_networks():
    conv, one = ChannelsLast(25, 5), ChannelsLast()
    orders = column_orders(understood(NETWORKS["lenet-5"].build()), {})
    assert orders == {"conv1": conv, "conv2": conv, "fc1": ChannelsLast(16), "fc2": one}
    orders = column_orders(understood(NETWORKS["lenet-300-100"].build()), {})
    assert set(orders.values()) == {one}


@pytest.mark.parametrize("flattening", ["Flatten", "Reshape", "MatMul"])
def test_what_stands_between_an_image_and_a_layer(flattening):
    g = GraphBuilder("between", seed=0, opset=17)
    weights = g.weights("conv.weight", (6, 2, 3, 3), 1.4)
    x = g.node("Conv", "conv", [g.input("x", [BATCH, 2, 9, 9]), weights], dilations=[2, 2])
    if flattening == "Reshape":
        x = g.node("Reshape", "flatten", [x, g.initializer("shape", np.array([-1, 150], np.int64))])
    else:
        x = g.flatten(x)
    x = g.node("Dropout", "dropout", [g.relu(x, "relu")])
    y = g.matmul_add(x, "fc", 150, 4) if flattening == "MatMul" else g.gemm(x, "fc", 150, 4)
    orders = column_orders(understood(g.model({y: [BATCH, 4]})), {})
    (name,) = set(orders) - {"conv"}
    assert orders["conv"] == ChannelsLast(9, 9)
    assert orders[name] == ChannelsLast(25)
    assert name.startswith("fc")


def test_a_vector_has_one_order():
    g = GraphBuilder("mean", seed=0, opset=17)
    x = g.conv(g.input("x", [BATCH, 2, 8, 8]), "conv", 2, 6, 3)
    x = g.flatten(g.node("GlobalAveragePool", "mean", [x]))
    orders = column_orders(understood(g.model({g.gemm(x, "fc", 6, 4): [BATCH, 4]})), {})
    assert orders["fc"] == ChannelsLast()
