"""Whole networks, random channels of each dependency group dead: nothing of them is left.

What comes out must have the parameters and multiply-accumulates of the same network built narrower, which
goes through the same passes.
"""

from functools import partial

import numpy as np
import pytest
from onnx import numpy_helper

import scalpel_graph as sg
from models.alexnet import alexnet
from models.bert import bert
from models.convnet import convnet
from models.densenet import densenet121
from models.inverted_residual import efficientnet_b0, mobilenet_v2, mobilenet_v3
from models.lenet import lenet_5, lenet_300_100
from models.nin import nin
from models.shufflenet import shufflenet_v2
from models.tagger import lstm_tagger
from models.unet import unet
from models.vit import vit
from models.yolo import yolo
from scalpel_graph.target import Target

EXACT = Target(name="exact", kind="gpu", description="widths as they come")


def at_random(width, count):
    return np.random.default_rng([width, count]).permutation(width)[:count]


def at_both_ends(width, count):
    """LRN sees neighbours: only channels at its ends can go without others coming closer to each other."""
    return [place // 2 if place % 2 == 0 else width - 1 - place // 2 for place in range(count)]


def outputs_axis(proto, layer, part):
    """The axis of a constant that numbers the channels which a layer makes."""
    op = next(node.op_type for node in proto.graph.node if node.name == layer)
    return 1 if part == "weight" and op in ("MatMul", "ConvTranspose") else 0


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
                    channels = np.moveaxis(values, outputs_axis(proto, name, part), 0)
                    channels[choose(len(channels), count)] = 0
                    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return proto


def sizes(proto):
    report = sg.optimize(proto, target=EXACT).report
    assert report.verified.ok
    return report.parameters.after, report.macs.after


def with_norms(*layers):
    """Layers, and the BatchNormalization behind each."""
    return [name for layer in layers for name in (layer, f"{layer}.bn")]


def check(build, groups, biased=()):
    """Kills a random number of random channels in each group; compares with the network built without them.

    Args:
        build: makes the network, given ``widths``.
        groups: by the name of a width, the layers and BatchNormalizations whose channels go together.
        biased: widths of layers that get a bias, which they have not in the narrower network.
    """
    proto = build()
    full = {tensor.name: tensor for tensor in proto.graph.initializer}
    rng = np.random.default_rng(len(groups))
    dead, widths = [], {}
    for width, names in groups.items():
        axis = outputs_axis(proto, names[0], "weight")
        channels = full[f"{names[0]}.weight"].dims[axis]
        count = int(rng.integers(1, channels - 1))
        dead.append((names, count))
        widths[width] = channels - count
    result = sg.optimize(kill(proto, dead), target=EXACT)
    assert result.report.verified.ok and result.report.verified.runs
    smaller = sg.optimize(build(widths=widths), target=EXACT)
    skipped = [skip for run in result.report.passes for skip in run.skipped if "cannot matter" in skip.reason]
    assert skipped == []
    assert result.report.parameters.after == smaller.report.parameters.after + sum(widths[k] for k in biased)
    assert result.report.macs.after == smaller.report.macs.after


def test_densenet_121():
    blocks = (3, 2, 2)
    groups = {"conv0": with_norms("conv0")}
    for number, layers in enumerate(blocks, start=1):
        for layer in range(1, layers + 1):
            groups[f"block{number}.{layer}.conv1"] = with_norms(f"block{number}.{layer}.conv1")
            groups[f"block{number}.{layer}.conv2"] = [f"block{number}.{layer}.conv2"]
        if number < len(blocks):
            groups[f"transition{number}"] = [f"transition{number}"]
    # What the BatchNormalizations behind Concats make of dead channels ends in biases that were not there.
    biased = [f"transition{number}" for number in range(1, len(blocks))]
    check(partial(densenet121, blocks=blocks, growth=8, image=64, classes=10), groups, biased)


def inverted_residual_groups(proto, blocks):
    names = {node.name for node in proto.graph.node}
    groups, out = {"conv1": with_norms("conv1")}, "conv1"
    for i in range(1, blocks + 1):
        hidden = with_norms(f"block{i}.depthwise")
        if f"block{i}.expand" in names:
            groups[f"block{i}.hidden"] = with_norms(f"block{i}.expand") + hidden
        else:
            groups[out] += hidden
        if f"block{i}.squeeze" in names:
            groups[f"block{i}.squeeze"] = [f"block{i}.squeeze"]
        if f"block{i}.add" not in names:
            out = f"block{i}.out"
            groups[out] = []
        groups[out] += with_norms(f"block{i}.project")
    groups["conv2"] = with_norms("conv2")
    if "fc1" in names:
        groups["fc1"] = ["fc1"]
    return groups


@pytest.mark.parametrize(("build", "blocks"), [(mobilenet_v2, 7), (mobilenet_v3, 8), (efficientnet_b0, 6)])
def test_inverted_residuals(build, blocks):
    small = partial(build, blocks=blocks, image=32, classes=10)
    check(small, inverted_residual_groups(small(), blocks))


def test_shufflenet_v2():
    small = partial(shufflenet_v2, blocks=(3, 2), stages=(24, 48), image=32, classes=10)
    hidden = [node.name[: -len(".conv1")] for node in small().graph.node if node.name.endswith(".conv1")]
    groups = {f"{name}.hidden": with_norms(f"{name}.conv1", f"{name}.depthwise") for name in hidden}
    groups["conv1"] = with_norms("conv1", "stage2.0.left.depthwise")
    check(small, {**groups, "conv5": with_norms("conv5")})


def test_unet():
    small = partial(unet, levels=(8, 16, 24), image=32)
    layers = [node.name for node in small().graph.node if node.op_type in ("Conv", "ConvTranspose")]
    check(small, {name: with_norms(name) for name in layers if name != "head"})


def test_yolo():
    small = partial(yolo, width=8, image=64, outputs=10)
    groups = {"stem": with_norms("stem"), "neck.down": with_norms("neck.down")}
    for i in range(1, 5):
        groups[f"stage{i}.down"] = with_norms(f"stage{i}.down")
    for name in ("stage1", "stage2", "stage3", "stage4", "neck", "deep"):
        groups[f"{name}.inner"] = with_norms(f"{name}.inner1")
        groups[f"{name}.out"] = with_norms(f"{name}.conv2")
    check(small, groups)


@pytest.mark.parametrize("build", [bert, vit])
def test_transformers(build):
    """Heads whose values are zero go, with what asks for them; units of the feed-forward layers go."""
    layers, heads, size, hidden, units = 3, 5, 4, 20, 32
    common = {"layers": layers, "hidden": hidden, "head_size": size}
    common |= {"tokens": 6, "vocabulary": 30} if build is bert else {"image": 32, "classes": 10}

    def in_heads(width, count):
        return (at_random(heads, count)[:, None] * size + np.arange(size)).reshape(-1)

    proto = build(heads=heads, intermediate=units, **common)
    for layer in range(layers):
        kill(proto, [((f"encoder.{layer}.attention.value",), 2)], in_heads)
        kill(proto, [((f"encoder.{layer}.intermediate",), 9)])
    assert sizes(proto) == sizes(build(heads=heads - 2, intermediate=units - 9, **common))


def test_lstm_tagger():
    """Hidden units whose gates have no weights hold zero; so do features of the layer above."""
    hidden, dead = 24, 7
    proto = lstm_tagger(hidden=hidden, features=16)
    for direction, seed in (("forward", 1), ("reverse", 2)):
        units = np.random.default_rng(seed).permutation(hidden)[:dead]
        for tensor in proto.graph.initializer:
            if tensor.name.startswith(f"lstm.{direction}."):
                values = numpy_helper.to_array(tensor).copy()
                values.reshape(-1, hidden, *values.shape[2:])[:, units] = 0
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    kill(proto, [(("hidden",), 5)])
    assert sizes(proto) == sizes(lstm_tagger(hidden=hidden - dead, features=16 - 5))


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
