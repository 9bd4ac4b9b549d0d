"""Widths rounded up to a multiple: which dead channels stay, and that it does not matter what they hold."""

from dataclasses import replace

import numpy as np
import pytest

from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.fold_batchnorm import FoldBatchNorm
from scalpel_graph.passes.remove_channels import RemoveChannels
from scalpel_graph.target import load_target
from tests.pass_runner import model, op_types, random, reasons, run, weights_of
from tests.scalpel_graph.channels.random_network.check import check

GPU = load_target("gpu")
ALONE = (RemoveChannels(),)


def mask(channels, live, *shape):
    values = np.zeros(channels, np.float32)
    values[live] = 1
    return values.reshape(-1, *shape)


def weight(out, name):
    """The constant that a node reads second."""
    node = next(node for node in out.graph.node if node.name == name)
    return weights_of(out)[node.input[1]]


def optimized(proto, multiple=8, passes=ALONE):
    """Model, records and removed nodes by name; a second run must find nothing left to do."""
    target = replace(GPU, round_channels_to=multiple)
    context = PassContext(target)
    out, records = run(proto, *passes, context=context)
    again, second = run(out, *passes, context=PassContext(target))
    assert not second["remove-channels"].modified
    assert again.SerializeToString() == out.SerializeToString()
    removed = {node.name: (node.before, node.after, node.possible) for node in context.removed_nodes}
    return out, records["remove-channels"], removed


CHAIN = """(float[N, 3, 6, 6] X) => (Y)
           { [conv1] a = Conv<pads = [1, 1, 1, 1]>(X, W1, B1)  b = Relu(a)  c = Mul(b, m)
             [conv2] Y = Conv<pads = [1, 1, 1, 1]>(c, W2, B2) }"""


def chain(live, channels=32):
    return model(
        CHAIN,
        {
            "W1": random(channels, 3, 3, 3), "B1": random(channels), "m": mask(channels, live, 1, 1),
            "W2": random(5, channels, 3, 3), "B2": random(5),
        },
    )  # fmt: skip


@pytest.mark.parametrize(
    ("needed", "multiple", "after"),
    [(16, 8, 16), (17, 8, 24), (1, 8, 8), (25, 8, 32), (31, 8, 32), (17, 1, 17), (17, 5, 20), (31, 20, 32)],
)
def test_width_of_a_masked_layer(needed, multiple, after):
    live = np.random.default_rng(needed).permutation(32)[:needed]
    out, record, removed = optimized(chain(live), multiple)
    assert removed == {"conv1": (32, after, needed)}
    assert weight(out, "conv1").shape == (after, 3, 3, 3) and weight(out, "conv2").shape == (5, after, 3, 3)
    assert op_types(out) == ["Conv", "Relu", "Conv"]
    if after > needed and after < 32:
        assert f"multiples of {multiple}" in reasons(record)["conv1"]
        assert f"{after - needed} channels" in reasons(record)["conv1"] or after - needed == 1


def test_layers_whose_channels_go_together_keep_the_same():
    live = [0, 3, 4, 9, 11]
    weights = {f"W{i}": random(16, 16, 1, 1, seed=i) for i in range(3)}
    proto = model(
        """(float[N, 16, 4, 4] X) => (Y)
           { [c0] a = Conv(X, W0)  [c1] b = Conv(X, W1)  c = Mul(a, m)  d = Mul(b, m)  e = Add(c, d)
             f = Relu(e)  [c2] Y = Conv(f, W2) }""",
        {**weights, "m": mask(16, live, 1, 1)},
    )
    out, _, removed = optimized(proto)
    assert removed == {"c0": (16, 8, 5), "c1": (16, 8, 5)}
    assert sorted(op_types(out)) == ["Add", "Conv", "Conv", "Conv", "Relu"]


def test_constants_of_dead_channels_end_in_the_bias_of_their_readers():
    """Behind a BatchNormalization a masked channel holds sigmoid(beta)."""
    proto = model(
        """(float[N, 4, 4, 4] X) => (Y, Z)
           { [c0] a = Conv(X, W0)  b = Mul(a, m)  c = BatchNormalization(b, s, t, u, v)  d = Sigmoid(c)
             [c1] Y = Conv<group = 2>(d, W1)
             e = GlobalAveragePool(d)  f = Flatten(e)  [fc] g = Gemm<transB = 1>(f, W2)
             [mm] Z = MatMul(f, W3) }""".replace("g = Gemm", "Q = Gemm").replace("(Y, Z)", "(Y, Z, Q)"),
        {
            "W0": random(24, 4, 1, 1), "m": mask(24, [0, 1, 2, 5, 12, 13, 14, 15, 22], 1, 1),
            "s": random(24), "t": random(24, seed=1), "u": random(24, seed=2), "v": np.abs(random(24)) + 1,
            "W1": random(6, 12, 1, 1), "W2": random(7, 24), "W3": random(24, 7),
        },
    )  # fmt: skip
    out, _, removed = optimized(proto)
    assert removed["c0"][1:] == (16, 10)  # two groups of five
    assert "Mul" not in op_types(out)


def test_groups_share_what_is_kept():
    proto = model(
        """(float[N, 4, 4, 4] X) => (Y)
           { [c0] a = Conv(X, W0)  [c1] b = Conv<group = 2>(a, W1)  c = Mul(b, m)  [c2] Y = Conv(c, W2) }""",
        {
            "W0": random(8, 4, 1, 1), "W1": random(64, 4, 1, 1),
            "m": mask(64, [*range(11), *range(40, 50)], 1, 1), "W2": random(3, 64, 1, 1),
        },
    )  # fmt: skip
    _, _, removed = optimized(proto)
    assert removed == {"c1": (64, 24, 22)}


def test_what_is_gone_as_a_whole_stays_gone():
    proto = model(
        """(float[N, 4, 4, 4] X) => (Y)
           { [c0] a = Conv(X, W0)  [c1] b = Conv(X, W1)  c = Concat<axis = 1>(a, b)  d = Mul(c, m)
             [c2] e = Conv<group = 24>(d, W2)  [c3] Y = Conv(e, W3) }""",
        {
            "W0": random(8, 4, 1, 1), "W1": random(16, 4, 1, 1), "m": mask(24, [9, 10, 13], 1, 1),
            "W2": random(24, 1, 3, 3), "W3": random(3, 24, 1, 1),
        },
    )  # fmt: skip
    out, _, removed = optimized(proto)
    assert removed["c1"] == (16, 8, 3) and removed["c2"][1] == 8
    assert weight(out, "c3").shape == (3, 8, 1, 1)


def test_a_sum_over_channels_keeps_its_zeros():
    proto = model(
        """(float[N, 4, 4, 4] X) => (Y)
           { [c0] a = Conv(X, W0)  [mask] b = Mul(a, m)  Y = ReduceSum(b, axes) }""",
        {"W0": random(16, 4, 1, 1), "m": mask(16, [2, 5, 7], 1, 1), "axes": np.array([1])},
    )
    out, _, removed = optimized(proto)
    assert removed == {"c0": (16, 8, 3)}
    assert weight(out, "mask").sum() == 3


@pytest.mark.parametrize("multiple", [2, 3, 8])
def test_dead_channels_that_stay_with_batch_norm(multiple):
    weights = {"W1": random(32, 3, 3, 3), "W2": random(8, 32, 3, 3), "m": mask(32, [3, 4, 30], 1, 1)}
    norm = {f"{key}": np.abs(random(32, seed=i)) + 0.5 for i, key in enumerate("stuv")}
    proto = model(
        """(float[N, 3, 6, 6] X) => (Y)
           { [c1] a = Conv(X, W1)  b = BatchNormalization(a, s, t, u, v)  c = Relu(b)  d = Mul(c, m)
             e = MaxPool<kernel_shape = [2, 2]>(d)  [c2] Y = Conv<pads = [1, 1, 1, 1]>(e, W2) }""",
        {**weights, **norm},
    )
    width = -(-3 // multiple) * multiple
    for passes in (ALONE, (FoldBatchNorm(), RemoveChannels())):
        out, _, removed = optimized(proto, multiple, passes)
        assert removed == {"c1": (32, width, 3)}
        assert "Mul" not in op_types(out)


def test_zeros_that_a_normalisation_counts_on_stay_zeros():
    for norm in ("LpNormalization<axis = 1>(b)", "LRN<size = 3>(b)"):
        proto = model(
            f"""(float[N, 4, 4, 4] X) => (Y)
               {{ [c0] a = Conv(X, W0)  [mask] b = Mul(a, m)  c = {norm}  [c1] Y = Conv(c, W1) }}""",
            {"W0": random(16, 4, 1, 1), "m": mask(16, [2, 3, 5], 1, 1), "W1": random(3, 16, 1, 1)},
        )
        out, _, removed = optimized(proto)
        assert removed["c0"][:2] == (16, 8)
        assert weight(out, "mask").sum() == 3


@pytest.mark.parametrize("multiple", [2, 3, 8])
def test_random_networks_stay_what_they_compute(multiple):
    target = replace(GPU, round_channels_to=multiple)
    for seed in range(1000 * multiple, 1000 * multiple + 40):
        check(seed, target)
