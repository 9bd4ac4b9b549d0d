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

#: What of a layer is zero where a channel of it is dead.
_PARTS = ("weight", "bias")


def kill(proto, dead, seed=0):
    """Zeroes random filters, with their biases and those of the BatchNormalization behind them.

    Args:
        proto: the model, changed in place.
        dead: pairs of names and how many channels are dead: of layers whose channels go together, and of the
            BatchNormalizations behind them.
    """
    rng = np.random.default_rng(seed)
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for names, count in dead:
        channels = None
        for name in names:
            for part in _PARTS:
                tensor = weights.get(f"{name}.{part}")
                if tensor is None:
                    continue
                values = numpy_helper.to_array(tensor).copy()
                if channels is None:
                    channels = rng.permutation(len(values))[:count]
                values[channels] = 0
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
