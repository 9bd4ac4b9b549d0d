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


def narrowed(context):
    """Channels before, after and possible of the layers that lost some, or could have."""
    return {
        node.name: (node.before, node.after, node.possible)
        for node in context.removed_nodes
        if node.possible < node.before
    }


def optimized(proto, multiple=8, passes=ALONE):
    """Model, records and removed nodes by name; a second run must find nothing left to do."""
    target = replace(GPU, round_channels_to=multiple, round_features_to=multiple)
    context = PassContext(target)
    out, records = run(proto, *passes, context=context)
    again, second = run(out, *passes, context=PassContext(target))
    assert not second["remove-channels"].modified
    assert again.SerializeToString() == out.SerializeToString()
    return out, records["remove-channels"], narrowed(context)


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


def test_what_may_fail_keeps_its_masks():
    """Without the mask the dead channels hold the logarithm of a negative number."""
    live = [2, 5, 7]
    bias = np.full(16, -100, np.float32)
    bias[live] = 100
    proto = model(
        """(float[N, 4, 4, 4] X) => (Y)
           { [c0] a = Conv(X, W0, B0)  [mask] b = Mul(a, m)  c = Add(b, one)  d = Log(c)
             [c1] Y = Conv(d, W1) }""",
        {
            "W0": random(16, 4, 1, 1), "B0": bias, "m": mask(16, live, 1, 1), "one": np.float32(1),
            "W1": random(3, 16, 1, 1),
        },
    )  # fmt: skip
    out, _, removed = optimized(proto)
    assert removed == {"c0": (16, 8, 3)}
    assert weight(out, "mask").sum() == 3


def test_inputs_of_what_may_fail_stay():
    """The reciprocal of what holds 1 to 2 is masked; what the layer in front of it reads is not zero."""
    proto = model(
        """(float[N, 4, 4, 4] X) => (Y)
           { s = Sigmoid(X)  [c0] a = Conv(s, W0)  t = Abs(a)
             [c1] b = Conv(t, W1)  r = Reciprocal(b)  [mask] c = Mul(r, m)  [c2] Y = Conv(c, W2) }""",
        {
            "W0": random(8, 4, 1, 1), "W1": np.diag(np.arange(1, 9, dtype=np.float32))[:, :, None, None],
            "m": mask(8, [0, 1, 3], 1, 1), "W2": random(3, 8, 1, 1),
        },
    )  # fmt: skip
    out, _, removed = optimized(proto, 4)
    assert removed["c1"] == (8, 4, 3)
    assert removed["c0"][1] == 4
    assert weight(out, "mask").sum() == 3


WHERE = {
    "Where": (
        "Where(keep, b, zero)", lambda live: {"keep": mask(16, live, 1, 1) != 0, "zero": np.float32(0)}
    ),
    "Where not": (
        "Where(drop, zero, b)",
        lambda live: {"drop": mask(16, live, 1, 1) == 0, "zero": np.zeros(1, np.float32)},
    ),
    "Where, per channel": (
        "Where(keep, b, zero)",
        lambda live: {"keep": mask(16, live, 1, 1)[None] != 0, "zero": random(1, 16, 1, 1)},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("text", "weights"), WHERE.values(), ids=WHERE)
@pytest.mark.parametrize(("needed", "after"), [(3, 8), (8, 8), (11, 16)])
def test_conditions_let_dead_channels_pass(text, weights, needed, after):
    live = np.sort(np.random.default_rng(needed).permutation(16)[:needed])
    proto = model(
        f"""(float[N, 4, 4, 4] X) => (Y)
           {{ [c0] a = Conv(X, W0)  b = Relu(a)  c = {text}  [c1] Y = Conv(c, W1, B1) }}""",
        {"W0": random(16, 4, 1, 1), "W1": random(3, 16, 1, 1), "B1": random(3), **weights(live)},
    )
    out, _, removed = optimized(proto)
    assert removed == {"c0": (16, after, needed)}
    assert op_types(out) == ["Conv", "Relu", "Conv"]


def test_a_condition_that_picks_from_two_branches_stays():
    live = [0, 1, 2, 3, 9]
    proto = model(
        """(float[N, 4, 4, 4] X) => (Y)
           { [c0] a = Conv(X, W0)  [c1] b = Conv(X, W1)  c = Where(k, a, b)
             d = Mul(c, m)  [c2] Y = Conv(d, W2) }""",
        {
            "W0": random(16, 4, 1, 1), "W1": random(16, 4, 1, 1, seed=1), "W2": random(3, 16, 1, 1),
            "k": mask(16, [*range(8)], 1, 1) != 0, "m": mask(16, live, 1, 1),
        },
    )  # fmt: skip
    out, _, removed = optimized(proto)
    assert removed == {"c0": (16, 8, 5), "c1": (16, 8, 5)}
    assert op_types(out) == ["Conv", "Conv", "Where", "Conv"]


@pytest.mark.parametrize(
    ("text", "weights"),
    [
        ("Gather<axis = 1>(b, i)", {"i": np.array([1, 4, 5, 9, 15])}),
        ("Gather<axis = -3>(b, i)", {"i": np.array([1, 4, -11, 9, -1])}),
        ("Slice(b, i, j, k)", {"i": np.array([-9]), "j": np.array([12]), "k": np.array([-3])}),
    ],
)
def test_what_is_picked_is_not_rounded(text, weights):
    """A Gather or Slice that leaves out what is held could not go."""
    proto = model(
        f"""(float[N, 4, 4, 4] X) => (Y)
           {{ [c0] a = Conv(X, W0)  b = Relu(a)  c = {text}  [c1] Y = Conv(c, W1) }}""",
        {"W0": random(16, 4, 1, 1), "W1": random(3, 5, 1, 1), **weights},
    )
    out, _, removed = optimized(proto)
    assert removed == {"c0": (16, 5, 5)}
    assert op_types(out) == ["Conv", "Relu", "Conv"]


@pytest.mark.parametrize(("op", "gates", "states"), [("LSTM", 4, 2), ("GRU", 3, 1), ("RNN", 1, 1)])
@pytest.mark.parametrize(("needed", "after"), [(5, 8), (9, 16), (17, 24)])
def test_hidden_units(op, gates, states, needed, after):
    """Masks in front of and behind a recurrent layer; what comes in is sigmoid(0) where it is masked."""
    dead = [unit for unit in range(32) if unit not in range(3, 3 + needed)]
    recurrent = random(1, gates * 32, 32) / 8
    recurrent.reshape(gates, 32, 32)[:, :, dead] = 0
    proto = model(
        f"""(float[T, N, 6] X) => (Y)
           {{ [fc] a = MatMul(X, W0)  b = Mul(a, m0)  c = Sigmoid(b)
              [rnn] d = {op}<hidden_size = 32>(c, W, R)
              e = Squeeze(d, one)  f = Mul(e, m1)  [out] Y = MatMul(f, W1) }}""",
        {
            "W0": random(6, 16), "m0": mask(16, [0, 3, 8, 9, 12, 14, 15]), "W": random(1, gates * 32, 16) / 4,
            "R": recurrent, "one": np.array([1]), "m1": mask(32, range(3, 3 + needed)), "W1": random(32, 4),
        },
    )  # fmt: skip
    out, record, removed = optimized(proto)
    assert removed == {"fc": (16, 8, 7), "rnn": (32, after, needed)}
    assert op_types(out) == ["MatMul", "Sigmoid", op, "Squeeze", "MatMul"]
    assert "multiples of 8" in reasons(record)["rnn"]


def test_convolutions_and_other_layers_have_multiples_of_their_own():
    proto = model(
        """(float[N, 4, 1, 1] X) => (Y)
           { [conv] a = Conv(X, W0)  b = Mul(a, m0)  c = Flatten(b)  [fc] d = Gemm(c, W1)  e = Mul(d, m1)
             [out] Y = MatMul(e, W2) }""",
        {
            "W0": random(32, 4, 1, 1), "m0": mask(32, range(11), 1, 1), "W1": random(32, 24),
            "m1": mask(24, range(9)), "W2": random(24, 3),
        },
    )  # fmt: skip
    for channels, features, widths in ((8, 1, (16, 9)), (1, 4, (11, 12)), (12, 5, (12, 10))):
        context = PassContext(replace(GPU, round_channels_to=channels, round_features_to=features))
        run(proto, RemoveChannels(), context=context)
        removed = narrowed(context)
        assert (removed["conv"][1], removed["fc"][1]) == widths


@pytest.mark.parametrize(("needed", "after"), [(1, 1), (11, 11), (12, 16), (22, 22), (23, 32), (31, 32)])
def test_few_channels_are_not_rounded(needed, after):
    """With 11 of 16 a Conv of 16 has twice as much to do."""
    target = replace(GPU, round_channels_to=16, round_from=0.7)
    context = PassContext(target)
    out, _ = run(chain(range(needed)), RemoveChannels(), context=context)
    assert narrowed(context) == {"conv1": (32, after, needed)}
    assert op_types(out) == ["Conv", "Relu", "Conv"]


@pytest.mark.parametrize(("needed", "after"), [([0], 5), ([0, 1, 3], 15), ([0, 1, 3, 4, 5, 6], 30)])
def test_widths_that_whole_classes_do_not_add_up_to(needed, after):
    """Reshape has five features go together: 15 would become 40."""
    head = np.repeat(mask(8, needed), 5)
    proto = model(
        """(float[N, 6] X) => (Y)
           { [fc] a = Gemm(X, W0)  r = Reshape(a, heads)  b = Mul(r, m)  c = Softmax<axis = 2>(b)
             d = Mul(c, m)  e = Reshape(d, flat)  [out] Y = MatMul(e, W1) }""",
        {
            "W0": random(6, 40), "heads": np.array([0, 8, 5]), "m": mask(8, needed, 1),
            "flat": np.array([0, 40]), "W1": random(40, 3) * head[:, None],
        },
    )  # fmt: skip
    _, _, removed = optimized(proto)
    assert removed == {"fc": (40, after, after)}


@pytest.mark.parametrize("multiple", [2, 3, 8])
def test_random_networks_stay_what_they_compute(multiple):
    target = replace(GPU, round_channels_to=multiple, round_features_to=multiple)
    for seed in range(1000 * multiple, 1000 * multiple + 40):
        check(seed, target)
