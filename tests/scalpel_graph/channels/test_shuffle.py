"""Channels go through channel shuffles however these are written, and what is left says what it is."""

import numpy as np
import pytest

from scalpel_graph.passes.fold_constants import FoldConstants
from scalpel_graph.passes.fold_shapes import FoldShapes
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, op_types, random, run, weights_of
from tests.scalpel_graph.channels.left import left_of

CHANNELS, GROUPS = 12, 3
INNER = CHANNELS // GROUPS


def shuffle_text(perm="0, 2, 1, 3, 4"):
    return f"A = Reshape(Y, apart) B = Transpose<perm = [{perm}]>(A) Z = Reshape(B, together)"


def constants(*shapes):
    names = ("apart", "together")
    return {name: np.array(shape, np.int64) for name, shape in zip(names, shapes, strict=True)}


def convs(dead, channels=CHANNELS, spatial=(3, 3)):
    """Weights of the Convs on both sides of a shuffle; channels ``dead`` of the first are zero."""
    first, bias = random(channels, 2, *spatial), random(channels)
    first[dead], bias[dead] = 0, 0
    return {"V": first, "b": bias, "W": random(5, channels, *spatial, seed=1)}


def network(text, shapes, dead, x="float[N, 2, 6, 6] X"):
    return model(
        f"({x}) => (Out) {{ Y = Conv<pads = [1, 1, 1, 1]>(X, V, b) {text}"
        f" Out = Conv<pads = [1, 1, 1, 1]>(Z, W) }}",
        {**convs(dead), **shapes},
    )


#: Three of the twelve: what stays is no shuffle. One of each group, the same: it is.
SCATTERED, ALIGNED = [0, 5, 6], [1, 5, 9]

WAYS = {
    "each axis stated": (shuffle_text(), constants([0, GROUPS, INNER, 6, 6], [0, CHANNELS, 6, 6])),
    "batch inferred": (shuffle_text(), constants([-1, GROUPS, INNER, 6, 6], [-1, CHANNELS, 6, 6])),
    "channels inferred": (shuffle_text(), constants([0, GROUPS, -1, 6, 6], [0, -1, 6, 6])),
    "height and width joined": (shuffle_text("0, 2, 1, 3"), constants([0, GROUPS, INNER, 36], [0, 12, 6, 6])),
    "through more nodes": (
        "A = Reshape(Y, flat) B = Reshape(A, apart) C = Unsqueeze(B, one) D = Squeeze(C, one)"
        " E = Transpose<perm = [0, 2, 1, 3]>(D) Z = Reshape(E, together)",
        {
            **constants([0, GROUPS, INNER, 36], [0, CHANNELS, 6, 6]),
            "flat": np.array([0, CHANNELS, 36], np.int64),
            "one": np.array([1], np.int64),
        },
    ),
}


@pytest.mark.parametrize("dead", [SCATTERED, ALIGNED], ids=["scattered", "aligned"])
@pytest.mark.parametrize("way", WAYS)
def test_dead_channels_go_through(way, dead):
    text, shapes = WAYS[way]
    proto = network(text, shapes, dead)
    out, records = run(proto, RemoveChannels())
    left = left_of(out)
    assert left["V"].shape[0] == left["W"].shape[1] == CHANNELS - len(dead)
    if dead is ALIGNED:
        assert op_types(out) == op_types(proto)
    else:
        assert op_types(out) == ["Conv", "Gather", "Conv"]
    assert not records["remove-channels"].skipped
    again, records = run(out, RemoveChannels())
    assert not records["remove-channels"].modified
    assert again.SerializeToString(deterministic=True) == out.SerializeToString(deterministic=True)


@pytest.mark.parametrize("way", WAYS)
def test_without_dead_channels_nothing_changes(way):
    text, shapes = WAYS[way]
    proto = network(text, shapes, [])
    out, records = run(proto, RemoveChannels())
    assert not records["remove-channels"].modified
    assert list(out.graph.node) == list(proto.graph.node)
    assert list(out.graph.initializer) == list(proto.graph.initializer)


def test_channels_that_nothing_reads_behind_a_shuffle():
    text, shapes = WAYS["each axis stated"]
    proto = network(text, shapes, [])
    weight = next(tensor for tensor in proto.graph.initializer if tensor.name == "W")
    values = weights_of(proto)["W"].copy()
    values[:, [3, 4, 5, 6]] = 0
    weight.raw_data = values.tobytes()
    out, _ = run(proto, RemoveChannels())
    assert left_of(out)["V"].shape[0] == CHANNELS - 4


def test_where_one_group_is_left_there_is_no_shuffle():
    out, _ = run(network(*WAYS["each axis stated"], list(range(INNER, CHANNELS))), RemoveChannels())
    assert op_types(out) == ["Conv", "Conv"]


def test_shared_shapes_are_changed_for_one_shuffle_only():
    shapes = constants([0, GROUPS, INNER, 6, 6], [0, CHANNELS, 6, 6])
    other = "C = Reshape(Z, apart) D = Transpose<perm = [0, 2, 1, 3, 4]>(C) E = Reshape(D, together)"
    proto = model(
        f"(float[N, 2, 6, 6] X, float[N, {CHANNELS}, 6, 6] Q) => (Out, E) {{"
        " Y = Conv<pads = [1, 1, 1, 1]>(X, V, b) A = Reshape(Y, apart)"
        " B = Transpose<perm = [0, 2, 1, 3, 4]>(A)"
        f" F = Reshape(B, together) Out = Conv(F, W) Z = Relu(Q) {other} }}",
        {**convs(ALIGNED), **shapes},
    )
    out, _ = run(proto, RemoveChannels())
    assert op_types(out) == op_types(proto)
    assert left_of(out)["V"].shape[0] == CHANNELS - len(ALIGNED)


def test_a_shuffle_whose_inside_is_read_stays():
    proto = model(
        "(float[N, 2, 6, 6] X) => (Out, T) { Y = Conv<pads = [1, 1, 1, 1]>(X, V, b)"
        f" {shuffle_text()} T = Tanh(A) Out = Conv(Z, W) }}",
        {**convs(SCATTERED), **constants([0, GROUPS, INNER, 6, 6], [0, CHANNELS, 6, 6])},
    )
    out, records = run(proto, RemoveChannels())
    assert not records["remove-channels"].modified
    assert op_types(out) == op_types(proto)


def test_shuffle_and_halves_in_one():
    """As in the authors' ShuffleNet V2: even channels to one side, odd ones to the other."""
    proto = model(
        """(float[N, 2, 6, 6] X) => (P, Q) {
            Y = Conv<pads = [1, 1, 1, 1]>(X, V, b)
            A = Reshape(Y, apart) B = Transpose<perm = [1, 0, 2]>(A) C = Reshape(B, together)
            even = Gather<axis = 0>(C, zero) odd = Gather<axis = 0>(C, one)
            P = Conv(even, E) Q = Conv(odd, O) }""",
        {
            **convs([0, 1, 2, 4]),
            **constants([-1, 2, 36], [2, -1, CHANNELS // 2, 6, 6]),
            "zero": np.int64(0),
            "one": np.int64(1),
            "E": random(5, 6, 3, 3, seed=2),
            "O": random(5, 6, 3, 3, seed=3),
        },
    )
    out, _ = run(proto, RemoveChannels())
    left = left_of(out)
    assert (left["V"].shape[0], left["E"].shape[1], left["O"].shape[1]) == (8, 3, 5)
    assert op_types(out) == ["Conv", "Gather", "Gather", "Conv", "Conv"]
    untouched = model(
        """(float[N, 12, 6, 6] X) => (even, odd) {
            A = Reshape(X, apart) B = Transpose<perm = [1, 0, 2]>(A) C = Reshape(B, together)
            even = Gather<axis = 0>(C, zero) odd = Gather<axis = 0>(C, one) }""",
        {
            **constants([-1, 2, 36], [2, -1, CHANNELS // 2, 6, 6]),
            "zero": np.int64(0),
            "one": np.int64(1),
        },
    )
    out, records = run(untouched, RemoveChannels())
    assert not records["remove-channels"].modified and list(out.graph.node) == list(untouched.graph.node)


@pytest.mark.parametrize("dead", [SCATTERED, ALIGNED], ids=["scattered", "aligned"])
@pytest.mark.parametrize("last", ["Flatten<axis = 1>(B)", "Flatten<axis = -2>(B)", "Reshape(B, flat)"])
def test_shuffle_and_flatten_in_one(last, dead):
    proto = model(
        f"""(float[N, 2, 6, 6] X) => (Out) {{
            Y = Conv<pads = [1, 1, 1, 1]>(X, V, b) P = GlobalAveragePool(Y)
            A = Reshape(P, apart) B = Transpose<perm = [0, 2, 1]>(A) Z = {last} Out = Gemm(Z, W) }}""",
        {
            **convs(dead),
            "apart": np.array([-1, GROUPS, INNER], np.int64),
            "flat": np.array([0, -1], np.int64),
            "W": random(CHANNELS, 4, seed=2),
        },
    )
    out, _ = run(proto, RemoveChannels())
    left = left_of(out)
    assert left["V"].shape[0] == left["W"].shape[0] == CHANNELS - len(dead)
    again, records = run(out, RemoveChannels())
    assert not records["remove-channels"].modified and op_types(again) == op_types(out)


def test_shuffle_half_and_flatten_in_one():
    proto = model(
        """(float[N, 2, 6, 6] X) => (Out) {
            Y = Conv<pads = [1, 1, 1, 1]>(X, V, b)
            A = Reshape(Y, apart) B = Transpose<perm = [1, 0, 2]>(A) C = Reshape(B, together)
            odd = Gather<axis = 0>(C, one) Z = Reshape(odd, flat) Out = Gemm(Z, W) }""",
        {
            **convs([0, 3, 4, 7, 9]),
            **constants([-1, 2, 36], [2, -1, CHANNELS // 2, 6, 6]),
            "one": np.int64(1),
            "flat": np.array([-1, 216]),
            "W": random(216, 4, seed=2),
        },
    )
    out, _ = run(proto, RemoveChannels())
    left = left_of(out)
    assert left["V"].shape[0] == 3 and left["W"].shape[0] == 3 * 36
    assert op_types(out) == ["Conv", "Reshape", "Gemm"]  # what is left is in order
    _, records = run(out, RemoveChannels())
    assert not records["remove-channels"].modified


def test_shuffle_of_features_that_come_last():
    proto = model(
        """(float[N, T, 8] X) => (Out) {
            Y = MatMul(X, V)
            A = Reshape(Y, apart) B = Transpose<perm = [0, 1, 3, 2]>(A) Z = Reshape(B, together)
            R = Relu(Z) Out = MatMul(R, W) }""",
        {
            "V": random(8, CHANNELS) * np.float32(np.arange(CHANNELS) % 4 != 1),
            "W": random(CHANNELS, 3, seed=1),
            **constants([0, 0, GROUPS, INNER], [0, 0, CHANNELS]),
        },
    )
    out, _ = run(proto, RemoveChannels())
    left = left_of(out)
    assert left["V"].shape == (8, 9) and left["W"].shape == (9, 3)
    assert op_types(out) == op_types(proto)


COMPUTED = """
    S = Shape(Y) n = Gather(S, i0) c = Gather(S, i1) h = Gather(S, i2) w = Gather(S, i3)
    m = Div(c, groups)
    N1 = Unsqueeze(n, first) M1 = Unsqueeze(m, first) H1 = Unsqueeze(h, first) W1 = Unsqueeze(w, first)
    C1 = Unsqueeze(c, first)
    G1 = Unsqueeze(groups, first)
    a = Concat<axis = 0>(N1, G1, M1, H1, W1) A = Reshape(Y, a) B = Transpose<perm = [0, 2, 1, 3, 4]>(A)
    t = Concat<axis = 0>(N1, C1, H1, W1) Z = Reshape(B, t)
"""


@pytest.mark.parametrize("dead", [[], SCATTERED, ALIGNED], ids=["none", "scattered", "aligned"])
def test_computed_shapes(dead):
    """As exporters write a shuffle where batch, height and width are symbolic."""
    indices = {f"i{index}": np.int64(index) for index in range(4)}
    proto = network(
        COMPUTED,
        {**indices, "first": np.array([0], np.int64), "groups": np.int64(GROUPS)},
        dead,
        x="float[N, 2, H, W] X",
    )
    out, _ = run(proto, FoldConstants(), FoldShapes(), RemoveChannels(), feeds={"X": random(2, 2, 7, 5)})
    left = left_of(out)
    assert left["V"].shape[0] == left["W"].shape[1] == CHANNELS - len(dead)
    assert ("Gather" in op_types(out)[1:] and "Transpose" not in op_types(out)) == (dead is SCATTERED)
    again, records = run(out, RemoveChannels(), feeds={"X": random(2, 2, 7, 5)})
    assert not records["remove-channels"].modified and op_types(again) == op_types(out)


def random_shuffles(seed):
    """Layers, grouped and not, with shuffles in between, some of whose outputs are halved or added."""
    rng = np.random.default_rng(seed)
    weights, text, x, channels = {}, [], "X", 2

    def put(op, *inputs):
        name = f"t{len(text)}"
        text.append(f"{name} = {op}({', '.join(inputs)})")
        return name

    def constant(values):
        name = f"w{len(weights)}"
        weights[name] = values
        return name

    def layer(x, channels, out):
        weight = rng.standard_normal((out, channels, 1, 1)).astype(np.float32)
        weight[rng.random(out) < 0.3] = 0
        weight[:, rng.random(channels) < 0.1] = 0
        return put("Conv", x, constant(weight))

    def shuffle(x, channels):
        groups = int(rng.choice([g for g in range(2, channels) if channels % g == 0]))
        inner, way = channels // groups, rng.integers(4)
        if way == 0:
            x = put("Reshape", x, constant(np.array([0, groups, inner, 16])))
            x = put("Transpose<perm = [0, 2, 1, 3]>", x)
            return put("Reshape", x, constant(np.array([-1, channels, 4, 4])))
        if way == 1:  # channels last on the way
            x = put("Transpose<perm = [0, 2, 3, 1]>", x)
            x = put("Reshape", x, constant(np.array([0, 4, 4, groups, inner])))
            x = put("Transpose<perm = [0, 1, 2, 4, 3]>", x)
            x = put("Reshape", x, constant(np.array([-1, 16, channels])))
            x = put("Reshape", x, constant(np.array([0, 4, 4, channels])))
            return put("Transpose<perm = [0, 3, 1, 2]>", x)
        if way == 2 and inner % 2 == 0:  # three digits
            x = put("Reshape", x, constant(np.array([0, groups, 2, inner // 2, 4, 4])))
            x = put("Transpose<perm = [0, 3, 1, 2, 4, 5]>", x)
            return put("Reshape", x, constant(np.array([0, -1, 4, 4])))
        x = put("Reshape", x, constant(np.array([0, groups, -1, 4, 4])))
        x = put("Transpose<perm = [0, 2, 1, 3, 4]>", x)
        return put("Reshape", x, constant(np.array([0, channels, 4, 4])))

    for _ in range(rng.integers(1, 5)):
        out = int(rng.choice([6, 8, 12]))
        x, channels = layer(x, channels, out), out
        if rng.random() < 0.5:
            x = put("Relu", x)
        y = shuffle(x, channels)
        kind = rng.integers(4)
        if kind == 0:
            y = put("Add", x, y)
        elif kind == 1:
            text.append(f"l{len(text)}, r{len(text)} = Split<axis = 1>({y})")
            left, right = f"l{len(text) - 1}", f"r{len(text) - 1}"
            y = put("Concat<axis = 1>", left, layer(right, channels // 2, channels // 2))
        elif kind == 2:
            y = shuffle(y, channels)
        x = y
    weights["last"] = rng.standard_normal((3, channels, 1, 1)).astype(np.float32)
    return model(f"(float[N, 2, 4, 4] X) => (Out) {{ {' '.join(text)} Out = Conv({x}, last) }}", weights)


@pytest.mark.parametrize("seed", range(60))
def test_random_shuffles(seed):
    proto = random_shuffles(seed)
    out, _ = run(proto, RemoveChannels())
    again, records = run(out, RemoveChannels())
    assert not records["remove-channels"].modified
    assert list(again.graph.node) == list(out.graph.node)
