"""Whole networks, random channels of each dependency group dead: nothing of them is left.

What comes out must have the parameters and multiply-accumulates of the same network built narrower, which goes
through the same passes.
"""

import numpy as np
import pytest
from onnx import numpy_helper

import scalpel_graph as sg
from models.alexnet import alexnet
from models.convnet import convnet
from models.lenet import lenet_5, lenet_300_100
from models.nin import nin
from models.resnet import resnet50
from scalpel_graph.target import Target

EXACT = Target(name="exact", kind="gpu", description="widths as they come")

def at_random(width, count):
    return np.random.default_rng([width, count]).permutation(width)[:count]


def at_both_ends(width, count):
    """LRN sees neighbours: only channels at its ends can go without others coming closer to each other."""
    return [place // 2 if place % 2 == 0 else width - 1 - place // 2 for place in range(count)]


def kill(proto, dead, choose=at_random):
    """Zeroes filters, with their biases and those of the BatchNormalization behind them.

    Args:
        proto: the model, changed in place.
        dead: pairs of names, of layers and BatchNormalizations whose channels go together, and of how many
            channels are dead.
        choose: which, given the width and how many.
    """
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for names, count in dead:
        for name in names:
            for part in ("weight", "bias"):
                tensor = weights.get(f"{name}.{part}")
                if tensor is not None:
                    values = numpy_helper.to_array(tensor).copy()
                    values[choose(len(values), count)] = 0
                    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return proto


def sizes(proto):
    report = sg.optimize(proto, target=EXACT).report
    assert report.verified.ok
    return report.parameters.after, report.macs.after


#: The paper's five networks, the share of nodes it removed of each layer in percent (node pruning), and the
#: size it gives for the GPU, in percent.
PAPER = {
    "lenet-300-100": (lenet_300_100, {"fc1": 31, "fc2": 32}, 66.83),
    "lenet-5": (lenet_5, {"conv1": 50, "conv2": 68, "fc1": 65}, 11.67),
    "convnet": (convnet, {"conv1": 28, "conv2": 25, "conv3": 49}, 45.40),
    "nin": (
        nin,
        {"conv1": 28, "cccp1": 20, "cccp2": 5, "conv2": 2, "cccp3": 14, "cccp4": 8, "conv3": 22, "cccp5": 48},
        81.16,
    ),
    "alexnet": (
        alexnet,
        {"conv1": 3, "conv2": 20, "conv3": 24, "conv4": 18, "fc6": 17, "fc7": 23},
        76.52,
    ),
}


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_networks_get_the_papers_sizes(name):
    build, removed, published = PAPER[name]
    proto = build()
    widths = {tensor.name: tensor.dims[0] for tensor in proto.graph.initializer}
    dead = [((layer,), round(widths[f"{layer}.weight"] * share / 100)) for layer, share in removed.items()]
    report = sg.optimize(kill(proto, dead, at_both_ends), target=EXACT, runs=1).report
    assert report.verified.ok
    for figure in (report.parameters, report.size_bytes):
        assert abs(100 * figure.after / figure.before - published) < 0.5
