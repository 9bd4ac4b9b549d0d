"""Whole networks with masks: what is left is as large as the same network built narrower."""

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from models.bert import bert
from models.lenet import lenet_300_100
from models.mobilenet import mobilenet_v1
from models.resnet import resnet50
from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.fold_batchnorm import FoldBatchNorm
from scalpel_graph.passes.remove_channels import RemoveChannels
from scalpel_graph.stats import measure
from tests.pass_runner import EXACT, op_types, run
from tests.scalpel_graph.channels.left import left_of


def add_masks(proto, groups):
    """Puts a Mul by zeros and ones behind each named node; masks of one group are equal.

    Args:
        proto: the model, changed in place.
        groups: for each group of nodes whose channels depend on each other, their names, the number of
            channels and how many of them stay, drawn at random.
    """
    rng = np.random.default_rng(5)
    producers = {node.name: node for node in proto.graph.node}
    for number, (names, channels, kept) in enumerate(groups):
        mask = np.zeros(channels, np.float32)
        mask[rng.permutation(channels)[:kept]] = 1
        for name in names:
            node = producers[name]
            output = node.output[0]
            node.output[0] = f"{output}_unmasked"
            rank = 2 if node.name.startswith("relu_fc") else 4
            shape = (1, channels) + (1,) * (rank - 2)
            weight = numpy_helper.from_array(mask.reshape(shape), f"mask{number}.{name}")
            proto.graph.initializer.append(weight)
            mul = helper.make_node("Mul", [node.output[0], weight.name], [output], name=f"{name}.mask")
            proto.graph.node.insert(list(proto.graph.node).index(node) + 1, mul)
    onnx.checker.check_model(proto)
    return proto


def resnet_groups(width, blocks):
    half = width // 2
    groups = [(["relu"], width, half)]
    for stage, count in enumerate(blocks, start=1):
        channels, kept = width << (stage - 1), half << (stage - 1)
        names = [f"layer{stage}.{block}" for block in range(count)]
        groups += [([f"{name}.{relu}"], channels, kept) for name in names for relu in ("relu1", "relu2")]
        groups.append(([f"{name}.relu3" for name in names], 4 * channels, 4 * kept))
    return groups


@pytest.mark.parametrize("passes", [(RemoveChannels(),), (FoldBatchNorm(), RemoveChannels())], ids=len)
def test_resnet_50(passes):
    blocks = (2, 2, 1, 1)
    proto = add_masks(resnet50(width=16, blocks=blocks, image=64), resnet_groups(16, blocks))
    smaller = resnet50(width=8, blocks=blocks, image=64)
    out, _ = run(proto, *passes)
    expected, _ = run(smaller, *passes)
    assert measure(out, {}) == measure(expected, {})
    assert op_types(out) == op_types(expected)


def test_resnet_50_at_full_size():
    proto = add_masks(resnet50(), resnet_groups(64, (3, 4, 6, 3)))
    graph = ModelGraph(proto)
    graph.infer()
    context = PassContext(EXACT)
    result = RemoveChannels().run(graph, context)
    graph.infer()
    expected = resnet50(width=32)
    assert measure(graph.to_proto(), {}) == measure(expected, {})
    assert op_types(graph.to_proto()) == op_types(expected)
    assert not result.skipped
    *narrowed, last = context.removed_nodes
    assert all(node.after * 2 == node.before for node in narrowed)
    assert len(narrowed) == 53
    assert (last.name, last.before, last.after) == ("fc", 1000, 1000)
    assert sum(node.macs.after for node in context.removed_nodes) == measure(expected, {}).macs


@pytest.mark.parametrize("fold", [False, True])
def test_mobilenet_v1(fold):
    proto = mobilenet_v1(image=32)
    widths = (64, 128, 128, 256, 256, *(512,) * 6, 1024, 1024)
    groups = [(["conv1.relu6"], 32, 16)]
    groups += [([f"block{i}.pointwise.relu6"], width, width // 2) for i, width in enumerate(widths, start=1)]
    passes = (FoldBatchNorm(), RemoveChannels()) if fold else (RemoveChannels(),)
    out, _ = run(add_masks(proto, groups), *passes)
    expected, _ = run(mobilenet_v1(width=0.5, image=32), *passes)
    # What comes through a BatchNormalization of masked channels ends in biases that were not there.
    biases = 0 if fold else sum(widths) // 2
    assert measure(out, {}).parameters == measure(expected, {}).parameters + biases
    assert measure(out, {}).macs == measure(expected, {}).macs
    assert op_types(out) == op_types(expected)


def test_lenet_300_100_with_the_papers_counts():
    """31 % of fc1 and 32 % of fc2 go; what is left is 66.8 % of the weights."""
    proto = lenet_300_100()
    weights = {tensor.name: tensor for tensor in proto.graph.initializer}
    rng = np.random.default_rng(2)
    for name, width, removed in (("fc1", 300, 93), ("fc2", 100, 32)):
        dead = rng.permutation(width)[:removed]
        for part in ("weight", "bias"):
            tensor = weights[f"{name}.{part}"]
            values = numpy_helper.to_array(tensor).copy()
            values[dead] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    out, _ = run(proto, RemoveChannels())
    left = sum(values.size for name, values in left_of(out).items() if name.endswith("weight"))
    assert left == 784 * 207 + 207 * 68 + 68 * 10
    assert abs(100 * left / 266_200 - 66.83) < 0.5


def test_neurons_that_the_next_layer_does_not_read():
    proto = lenet_300_100()
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "fc3.weight")
    values = numpy_helper.to_array(weight).copy()
    values[:, ::2] = 0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    context = PassContext(EXACT)
    run(proto, RemoveChannels(), context=context)
    assert [(node.name, node.before, node.after) for node in context.removed_nodes] == [
        ("fc2", 100, 50),
        ("fc3", 10, 10),
    ]


def test_feed_forward_units_and_heads_of_bert():
    sizes = {"layers": 2, "hidden": 32, "heads": 4, "intermediate": 64, "tokens": 8, "vocabulary": 50}
    proto = bert(**sizes)
    for tensor in proto.graph.initializer:
        values = numpy_helper.to_array(tensor).copy()
        if tensor.name.endswith("intermediate.weight"):
            values[:, 10:30] = 0  # 20 of 64 units are gelu of their bias
        elif ".attention.value." in tensor.name:
            values[..., 8:16] = 0  # one head of 4 gives zeros
        tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    feeds = {"input_ids": np.arange(16, dtype=np.int64).reshape(2, 8)}
    out, _ = run(proto, RemoveChannels(), feeds=feeds)
    shapes = {name: values.shape for name, values in left_of(out).items()}
    for layer in range(2):
        name = f"encoder.{layer}"
        assert shapes[f"{name}.intermediate.weight"] == (32, 44)
        assert shapes[f"{name}.output.weight"] == (44, 32)
        assert shapes[f"{name}.attention.output.weight"] == (24, 32)
        for projection in ("query", "key", "value"):
            assert shapes[f"{name}.attention.{projection}.weight"] == (32, 24)
