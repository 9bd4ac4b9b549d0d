import math

import pytest
from torch import nn

from scalpel_graph import InputError
from scalpel_graph.torch import DropoutScaler


def model():
    return nn.Sequential(nn.Linear(4, 4), nn.Dropout(0.5), nn.Linear(4, 4), nn.Dropout2d(0.2))


def rates(network):
    return [network[1].p, network[3].p]


def test_nodes_scale_it_by_what_is_kept_and_weights_by_its_root():
    network = model()
    scaler = DropoutScaler(network)
    scaler.scale(0.36, "nodes")
    assert rates(network) == pytest.approx([0.18, 0.072])
    scaler.scale(0.36, "weights")
    assert rates(network) == pytest.approx([0.3, 0.12])


def test_it_always_starts_from_the_original():
    network = model()
    scaler = DropoutScaler(network)
    for _ in range(3):
        scaler.scale(0.5, "weights")
    assert rates(network) == pytest.approx([0.5 * math.sqrt(0.5), 0.2 * math.sqrt(0.5)])
    scaler.restore()
    assert rates(network) == [0.5, 0.2]


def test_layer_by_layer():
    network = model()
    DropoutScaler(network).scale({"3": 0.5}, "nodes")
    assert rates(network) == [0.5, 0.1]
    network = model()
    DropoutScaler(network, ["1"]).scale(0.0, "nodes")
    assert rates(network) == [0.0, 0.2]


def test_a_model_without_dropout_is_fine():
    DropoutScaler(nn.Linear(2, 2)).scale(0.5, "nodes")


@pytest.mark.parametrize(
    ("act", "says"),
    [
        (lambda m: DropoutScaler(m, ["drop"]), "^no Dropout is called 'drop': there are 2, such as 1, 3$"),
        (lambda m: DropoutScaler(m).scale({"4": 0.5}, "nodes"), "^no Dropout is called '4'"),
        (
            lambda m: DropoutScaler(m).scale(1.5, "nodes"),
            "^the part that is kept must be between 0 and 1, got",
        ),
        (lambda m: DropoutScaler(m).scale(0.5, "neurons"), "'nodes' or 'weights', got 'neurons'$"),
    ],
)
def test_bad_input(act, says):
    network = model()
    with pytest.raises(InputError, match=says):
        act(network)
    assert rates(network) == [0.5, 0.2]
