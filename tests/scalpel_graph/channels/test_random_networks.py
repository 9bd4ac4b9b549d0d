"""Random networks come out equal to what went in, and a second run changes nothing."""

import os
from collections import Counter

import numpy as np
import pytest

from scalpel_graph.channels import (
    across_channels,
    along_axis,
    batched_matmul,
    concat_split,
    einsum,
    elementwise,
    embedding,
    normalization,
    pooling,
    recurrent,
    reduce,
    shape,
)
from tests.pass_runner import EXACT
from tests.scalpel_graph.channels.random_network.check import check
from tests.scalpel_graph.channels.random_network.network import OPERATIONS, RandomNetwork

#: How many: ``SCALPEL_RANDOM_NETWORKS=50000`` in the environment is a longer run, ``123:124`` one network.
FIRST, _, LAST = os.environ.get("SCALPEL_RANDOM_NETWORKS", "2000").rpartition(":")
SEEDS = range(int(FIRST or 0), int(LAST))
CHUNK = 50


@pytest.mark.parametrize("chunk", range(-(-len(SEEDS) // CHUNK)))
def test_answers_stay_and_nothing_is_left(chunk):
    seeds = SEEDS[chunk * CHUNK : (chunk + 1) * CHUNK]
    smaller = sum(check(seed, EXACT) for seed in seeds)
    assert smaller >= len(seeds) // 3


@pytest.fixture(scope="module")
def networks():
    return [RandomNetwork(seed) for seed in range(800)]


def test_every_operation_occurs(networks):
    made = {name for network in networks for name in network.made}
    assert made == {name for names in OPERATIONS.values() for name in names}


FAMILIES = (
    across_channels, along_axis, batched_matmul, concat_split, einsum, elementwise, embedding, normalization,
    pooling, recurrent, reduce, shape,
)  # fmt: skip
LAYERS = {"Conv", "ConvTranspose", "Gemm", "DequantizeLinear"}
#: What part on a tie, or makes NaN of zeros. They have tests of their own.
LEFT_OUT = {"ArgMax", "ArgMin", "Equal", "Hardmax", "IsInf", "IsNaN", "MeanVarianceNormalization"}


def test_every_operator_occurs(networks):
    used = {node.op_type for network in networks for node in network.nodes}
    assert used >= LAYERS.union(*(family.RULES for family in FAMILIES)) - LEFT_OUT
    assert not used & LEFT_OUT


@pytest.mark.parametrize(
    ("what", "holds"),
    [
        ("depth 30", lambda network: len(network.made) == 30),
        ("sizes that change", lambda network: network.dynamic),
        ("sizes that are fixed", lambda network: not network.dynamic),
        ("float16", lambda network: network.dtype == np.float16),
        ("float64", lambda network: network.dtype == np.float64),
        ("weights that nodes share", lambda network: max(readers(network).values()) > 1),
        ("a weight that is an output", lambda network: network.weights.keys() & network.outputs.keys()),
        ("an output in the middle", lambda network: readers(network).keys() & network.outputs.keys()),
        ("one axis of positions", lambda network: any(len(k) == 1 for k in kernels(network))),
        ("two axes of positions", lambda network: any(len(k) == 2 for k in kernels(network))),
        ("three axes of positions", lambda network: any(len(k) == 3 for k in kernels(network))),
        ("groups", lambda network: any(g > 1 and i > 1 for g, i, _ in groups(network))),
        ("depthwise", lambda network: any(g > 1 and i == 1 and m == 1 for g, i, m in groups(network))),
        ("a multiplier", lambda network: any(g > 1 and i == 1 and m > 1 for g, i, m in groups(network))),
        ("constant on the left", lambda network: constants(network, "MatMul", 0)),
        ("constant on the right", lambda network: constants(network, "MatMul", 1)),
        ("two variables", lambda network: len(products(network)) > len(constants(network, "MatMul"))),
        ("a constant of rank 3", lambda network: 3 in ranks(network, "MatMul")),
        ("a constant of rank 4", lambda network: 4 in ranks(network, "MatMul")),
        ("a mask of full rank", lambda network: 4 in ranks(network, "Mul")),
        ("a mask without the batch", lambda network: 3 in ranks(network, "Mul")),
        ("a mask of positions, too", lambda network: 2 in map(long_axes, constants(network, "Mul"))),
        ("a Where of channels", lambda network: constants(network, "Where", 0)),
        ("a Gather of channels", lambda network: constants(network, "Gather", 1)),
    ],
)  # fmt: skip
def test_every_construct_occurs(networks, what, holds):
    assert any(holds(network) for network in networks), what


def readers(network):
    return Counter(name for node in network.nodes for name in node.input)


def constants(network, op, *places):
    """The constant inputs of all nodes of a kind, at some places or any."""
    return [
        network.weights[name]
        for node in network.nodes
        if node.op_type == op
        for place, name in enumerate(node.input)
        if name in network.weights and (not places or place in places)
    ]


def products(network):
    return [node for node in network.nodes if node.op_type == "MatMul"]


def ranks(network, op):
    return {values.ndim for values in constants(network, op)}


def long_axes(mask):
    return sum(size > 1 for size in mask.shape)


def kernels(network):
    return [values.shape[2:] for values in constants(network, "Conv", 1)]


def groups(network):
    """Of every Conv: groups, inputs and outputs of each."""
    found = []
    for node in network.nodes:
        if node.op_type == "Conv" and node.input[1] in network.weights:
            group = next((a.i for a in node.attribute if a.name == "group"), 1)
            made, inputs = network.weights[node.input[1]].shape[:2]
            found.append((group, inputs, made // group))
    return found
