"""Whole networks, random channels of each dependency group dead: nothing of them is left.

What comes out must have the parameters and multiply-accumulates of the same network built narrower, which
goes through the same passes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
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
from models.mobilenet import mobilenet_v1
from models.nin import nin
from models.resnet import resnet50
from models.shufflenet import shufflenet_v1, shufflenet_v2
from models.tagger import lstm_tagger
from models.unet import unet
from models.vit import vit
from models.yolo import yolo
from scalpel_graph.target import Target
from tests.pass_runner import op_types

EXACT = Target(name="exact", kind="gpu", description="widths as they come")


@dataclass(frozen=True)
class Group:
    """Channels that depend on each other.

    Attributes:
        parts: names of layers and BatchNormalizations, or such a name and which of its channels.
        unit: how many channels can only go together, such as a head's.
        each: of how many equal parts of the channels as many have to go; by default of one.
    """

    parts: Sequence[str | tuple[str, range]]
    unit: int = 1
    each: int = 1


def with_norms(*layers):
    """Layers, and the BatchNormalization behind each."""
    return Group([name for layer in layers for name in (layer, f"{layer}.bn")])


def outputs_axis(proto, layer, part):
    """The axis of a constant that numbers the channels which a layer makes."""
    op = next(node.op_type for node in proto.graph.node if node.name == layer)
    return 1 if part == "weight" and op in ("MatMul", "ConvTranspose", "Gather") else 0


def kill(proto, names, channels):
    """Zeroes filters of layers, with their biases and those of BatchNormalizations; changes the model."""
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    for name in names:
        for part in ("weight", "bias"):
            tensor = weights.get(f"{name}.{part}")
            if tensor is not None:
                values = numpy_helper.to_array(tensor).copy()
                np.moveaxis(values, outputs_axis(proto, name, part), 0)[channels] = 0
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))


def range_of(proto, part):
    """The name of a part and its channels."""
    if isinstance(part, tuple):
        return part
    axis = outputs_axis(proto, part, "weight")
    return part, range(next(t.dims[axis] for t in proto.graph.initializer if t.name == f"{part}.weight"))


def kill_at_random(proto, groups, seed=0):
    """Kills random channels of each group, a random number of them; changes the model.

    Returns:
        by the name of each group, the indices of the units that stay, in order.
    """
    rng = np.random.default_rng([len(groups), seed])
    stay = {}
    for name, group in groups.items():
        parts = [range_of(proto, part) for part in group.parts]
        units = len(parts[0][1]) // group.unit
        each = units // group.each
        count = int(rng.integers(1, each - 1))
        dead = np.concatenate([i * each + rng.permutation(each)[:count] for i in range(group.each)])
        channels = (dead[:, None] * group.unit + np.arange(group.unit)).reshape(-1)
        for part, numbers in parts:
            kill(proto, [part], numbers.start + channels)
        stay[name] = np.setdiff1d(np.arange(units), dead)
    return stay


def keeping(report):
    """The nodes that keep channels that cannot matter, and why."""
    return [skip for run in report.passes for skip in run.skipped if "cannot matter" in skip.reason]


def assert_as_small(proto, smaller, more=0):
    """A pruned network becomes as small as another, but for so many parameters, and computes what it did."""
    result, expected = sg.optimize(proto, target=EXACT), sg.optimize(smaller, target=EXACT)
    assert result.report.verified.ok and result.report.verified.runs
    assert keeping(result.report) == keeping(expected.report)
    assert result.report.parameters.after == expected.report.parameters.after + more
    assert result.report.macs.after == expected.report.macs.after
    assert result.report.parameters.after < result.report.parameters.before
    again = sg.optimize(result.model, target=EXACT)
    assert not again.report.removed_nodes
    return result


def check(build, groups, biased=()):
    """Kills channels in each group; compares with the network built without them.

    Args:
        build: makes the network, given ``widths``.
        groups: `Group` by the name of a width.
        biased: widths of layers that get a bias, which they have not in the narrower network.
    """
    proto = build()
    widths = {name: len(stay) for name, stay in kill_at_random(proto, groups).items()}
    return assert_as_small(proto, build(widths=widths), more=sum(widths[name] for name in biased))


def test_resnet_50():
    blocks = (3, 4, 6, 3)
    groups = {"conv1": Group(["conv1", "bn1"])}
    for stage, count in enumerate(blocks, start=1):
        out = [f"layer{stage}.0.downsample.0", f"layer{stage}.0.downsample.1"]
        for name in (f"layer{stage}.{block}" for block in range(count)):
            groups[f"{name}.conv1"] = Group([f"{name}.conv1", f"{name}.bn1"])
            groups[f"{name}.conv2"] = Group([f"{name}.conv2", f"{name}.bn2"])
            out += [f"{name}.conv3", f"{name}.bn3"]
        groups[f"layer{stage}.out"] = Group(out)
    check(partial(resnet50, width=16, image=32, classes=10), groups)


def test_mobilenet_v1():
    groups = {"conv1": with_norms("conv1", "block1.depthwise")}
    for i in range(1, 14):
        after = [f"block{i + 1}.depthwise"] if i < 13 else []
        groups[f"block{i}"] = with_norms(f"block{i}.pointwise", *after)
    check(partial(mobilenet_v1, width=0.25, image=32, classes=10), groups)


def test_densenet_121():
    blocks = (3, 2, 2)
    groups = {"conv0": with_norms("conv0")}
    for number, layers in enumerate(blocks, start=1):
        for layer in range(1, layers + 1):
            groups[f"block{number}.{layer}.conv1"] = with_norms(f"block{number}.{layer}.conv1")
            groups[f"block{number}.{layer}.conv2"] = Group([f"block{number}.{layer}.conv2"])
        if number < len(blocks):
            groups[f"transition{number}"] = Group([f"transition{number}"])
    # What the BatchNormalizations behind Concats make of dead channels ends in biases that were not there.
    biased = [f"transition{number}" for number in range(1, len(blocks))]
    check(partial(densenet121, blocks=blocks, growth=8, image=64, classes=10), groups, biased)


def inverted_residual_groups(proto, blocks):
    names = {node.name for node in proto.graph.node}
    groups, out = {"conv1": ["conv1"]}, "conv1"
    for i in range(1, blocks + 1):
        hidden = f"block{i}.depthwise"
        if f"block{i}.expand" in names:
            groups[f"block{i}.hidden"] = [f"block{i}.expand", hidden]
        else:
            groups[out].append(hidden)
        if f"block{i}.squeeze" in names:
            groups[f"block{i}.squeeze"] = [f"block{i}.squeeze"]
        if f"block{i}.add" not in names:
            out = f"block{i}.out"
            groups[out] = []
        groups[out].append(f"block{i}.project")
    groups["conv2"] = ["conv2"]
    if "fc1" in names:
        groups["fc1"] = ["fc1"]
    return {
        width: Group([name for layer in layers for name in (layer, f"{layer}.bn") if name in names])
        for width, layers in groups.items()
    }


@pytest.mark.parametrize(("build", "blocks"), [(mobilenet_v2, 7), (mobilenet_v3, 8), (efficientnet_b0, 6)])
def test_inverted_residuals(build, blocks):
    small = partial(build, blocks=blocks, image=32, classes=10)
    check(small, inverted_residual_groups(small(), blocks))


def test_shufflenet_v1():
    """Groups stay equally wide: each loses as many channels to each of those behind the mix."""
    stages, groups = (108, 216), 3
    small = partial(shufflenet_v1, blocks=(2, 3), stages=stages, groups=groups, image=32, classes=10)
    hidden = [node.name[: -len(".conv1")] for node in small().graph.node if node.name.endswith(".conv1")]
    dead = {
        f"{name}.hidden": Group(with_norms(f"{name}.conv1").parts, each=groups * groups) for name in hidden
    }
    result = check(small, dead)
    assert "Gather" in op_types(result.model)


def test_shufflenet_v2():
    blocks = (3, 2)
    small = partial(shufflenet_v2, blocks=blocks, stages=(24, 48), image=32, classes=10)
    groups = {"conv1": with_norms("conv1"), "conv5": with_norms("conv5")}
    for stage, count in enumerate(blocks, start=2):
        groups[f"stage{stage}.0.left"] = with_norms(f"stage{stage}.0.left.conv")
        for name in (f"stage{stage}.{block}" for block in range(count)):
            groups[f"{name}.hidden"] = with_norms(f"{name}.conv1", f"{name}.depthwise")
            groups[f"{name}.out"] = with_norms(f"{name}.conv2")
    proto = small()
    stay = kill_at_random(proto, groups)
    widths = {name: len(channels) for name, channels in stay.items()}
    for stage, (count, half) in enumerate(zip(blocks, (12, 24), strict=True), start=2):
        # Where the channels that stay are: half of them, in turn, take the right branch of the next block.
        left = np.isin(np.arange(half), stay[f"stage{stage}.0.left"])
        for block in range(count):
            right = np.isin(np.arange(half), stay[f"stage{stage}.{block}.out"])
            left, right = np.stack([left, right], axis=1).reshape(2, half)
            widths[f"stage{stage}.{block + 1}.right"] = int(right.sum())
        del widths[f"stage{stage}.{count}.right"]
    assert_as_small(proto, small(widths=widths))


def test_unet():
    small = partial(unet, levels=(8, 16, 24), image=32)
    layers = [node.name for node in small().graph.node if node.op_type in ("Conv", "ConvTranspose")]
    names = {node.name for node in small().graph.node}
    parts = {name: [part for part in (name, f"{name}.bn") if part in names] for name in layers}
    check(small, {name: Group(parts[name]) for name in layers if name != "head"})


def test_yolo():
    width, stages = 8, ("stage1", "stage2", "stage3", "stage4")
    small = partial(yolo, width=width, image=64, outputs=10)
    groups = {"stem": with_norms("stem"), "neck.down": with_norms("neck.down")}
    for i, name in enumerate((*stages, "neck", "deep"), start=1):
        if name in stages:
            groups[f"{name}.down"] = with_norms(f"{name}.down")
        half = width << (i - 1 if name in stages else i - 3)
        first, second = range(half), range(half, 2 * half)
        joined, last = f"{name}.conv1", (f"{name}.inner2", f"{name}.inner2.bn")
        groups[f"{name}.first"] = Group([(joined, first), (f"{joined}.bn", first)])
        halves = [(joined, second), (f"{joined}.bn", second)]
        groups[f"{name}.second"] = Group([*halves, *last] if name in stages else halves)
        if name not in stages:
            groups[f"{name}.last"] = Group(last)
        groups[f"{name}.inner"] = with_norms(f"{name}.inner1")
        groups[f"{name}.out"] = with_norms(f"{name}.conv2")
    check(small, groups)


@pytest.mark.parametrize("build", [bert, vit])
def test_transformers(build):
    """Heads whose values are zero go, with what asks for them; units of the feed-forward layers go."""
    layers, heads, size = 3, 5, 4
    small = partial(build, layers=layers, heads=heads, head_size=size, hidden=20, intermediate=32)
    sizes = {"tokens": 6, "vocabulary": 30} if build is bert else {"image": 32, "classes": 10}
    groups = {}
    for name in (f"encoder.{layer}" for layer in range(layers)):
        value = f"{name}.attention.value"
        groups[f"{name}.heads"] = Group([value], unit=size)
        groups[f"{name}.intermediate"] = Group([f"{name}.intermediate"])
    check(partial(small, **sizes), groups)


def test_lstm_tagger():
    """Hidden units whose gates have no weights hold zero; so do features of the layer above."""
    hidden = 24
    small = partial(lstm_tagger, embedding=12, hidden=hidden, features=16)
    proto = small()
    stay = kill_at_random(proto, {"embedding": Group(["embedding"]), "hidden": Group(["hidden"])})
    widths = {name: len(channels) for name, channels in stay.items()}
    rng = np.random.default_rng(1)
    for name in ("lstm.forward", "lstm.reverse"):
        units = rng.permutation(hidden)[: rng.integers(1, hidden - 1)]
        for tensor in proto.graph.initializer:
            if tensor.name.startswith(f"{name}."):
                values = numpy_helper.to_array(tensor).copy()
                values.reshape(-1, hidden, *values.shape[2:])[:, units] = 0
                tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
        widths[name] = hidden - len(units)
    assert_as_small(proto, small(widths=widths))


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


def at_both_ends(width, count):
    """LRN sees neighbours: only channels at its ends can go without others coming closer to each other."""
    return [place // 2 if place % 2 == 0 else width - 1 - place // 2 for place in range(count)]


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_networks_get_the_papers_sizes(name):
    build, removed, published = PAPER[name]
    proto = build()
    widths = {tensor.name: tensor.dims[0] for tensor in proto.graph.initializer}
    for layer, share in removed.items():
        width = widths[f"{layer}.weight"]
        kill(proto, [layer], at_both_ends(width, round(width * share / 100)))
    report = sg.optimize(proto, target=EXACT, runs=1).report
    assert report.verified.ok
    for figure in (report.parameters, report.size_bytes):
        assert abs(100 * figure.after / figure.before - published) < 0.5
