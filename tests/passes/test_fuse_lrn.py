from dataclasses import replace

import numpy as np
import pytest

from scalpel_graph import ops
from scalpel_graph.passes.expand_lrn import ExpandLrn
from scalpel_graph.passes.fuse_lrn import FuseLrn, windows
from scalpel_graph.passes.pipelines import pipeline_for
from scalpel_graph.passes.remove_channels import RemoveChannels
from scalpel_graph.target import load_target
from tests import ort_sessions
from tests.lrn_layer import windows as windows_of_size
from tests.pass_runner import (
    CPU,
    EXACT,
    model,
    op_types,
    outputs,
    random,
    random_feeds,
    reasons,
    run,
    weights_of,
)

#: Every dead channel goes, and there are kernels.
TARGET = replace(EXACT, kernels=CPU.kernels)


def fused(proto, *between, target=TARGET, **options):
    """What becomes of a model, also compared with the library."""
    out, records = run(proto, ExpandLrn(), *between, FuseLrn(), target=target, **options)
    feeds = random_feeds(proto)
    for before, after in zip(outputs(proto, feeds), ort_sessions.session(out).run(None, feeds), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-5)
    return out, records["fuse-lrn"]


@pytest.mark.parametrize("beta", [0.5, 0.75, 1.0])
@pytest.mark.parametrize("size", [1, 3, 5, 31])
@pytest.mark.parametrize("shape", ["N, 7, 4, 3", "1, 6, H, W", "2, 1, 5, 5"])
def test_an_expanded_lrn_becomes_one_operator(shape, size, beta):
    text = f"Y = LRN<size = {size}, alpha = 0.7, beta = {beta}, bias = 1.5>(X)"
    out, record = fused(model(f"(float[{shape}] X) => (Y) {{ {text} }}"))
    assert op_types(out) == [ops.LRN]
    assert record.rewritten == ["Y"]
    assert set(weights_of(out)) == {"Y_window_begin", "Y_window_end", "Y_bias"}


@pytest.mark.parametrize("opset", [13, 17, 18, 22])
def test_at_any_opset_that_operators_have(opset):
    proto = model("(float[2, 6, 5, 3] X) => (Y) { Y = LRN<size = 3, alpha = 2.0>(X) }", opset=opset)
    assert op_types(fused(proto)[0]) == [ops.LRN]


def test_an_older_opset_stays_expanded():
    proto = model("(float[2, 6, 5, 3] X) => (Y) { Y = LRN<size = 3, alpha = 2.0>(X) }", opset=12)
    out, record = fused(proto)
    assert ops.LRN not in op_types(out) and "Conv" in op_types(out)
    assert reasons(record) == {"Y": "the model is of opset 12; WindowedLrn needs 13"}


def test_channels_between_others_are_gone():
    filters = random(12, 4, 1, 1)
    filters[[1, 2, 5, 8]] = 0
    proto = model(
        """(float[1, 4, 6, 6] X) => (Y)
           { a = Conv(X, W)  b = LRN<size = 5, alpha = 2.0>(a)  Y = Conv(b, V) }""",
        {"W": filters, "V": random(3, 12, 1, 1, seed=1)},
    )
    out, _ = fused(proto, RemoveChannels())
    assert op_types(out) == ["Conv", ops.LRN, "Conv"]
    kept = np.array([0, 3, 4, 6, 7, 9, 10, 11])
    seen = abs(kept - kept[:, None]) <= 2
    weights = weights_of(out)
    np.testing.assert_array_equal(weights["b_window_begin"], seen.argmax(axis=1))
    np.testing.assert_array_equal(weights["b_window_end"] - weights["b_window_begin"], seen.sum(axis=1))


def test_a_constant_channel_lives_on_in_the_biases_of_its_neighbours():
    filters, bias = random(8, 4, 1, 1), random(8)
    filters[[2, 5]] = 0
    readers = random(3, 8, 1, 1, seed=1)
    readers[:, [2, 5]] = 0
    proto = model(
        """(float[1, 4, 6, 6] X) => (Y)
           { a = Conv(X, W, B)  b = LRN<size = 3, alpha = 2.0>(a)  Y = Conv(b, V) }""",
        {"W": filters, "B": np.where(bias < 0, bias - 1, bias + 1), "V": readers},
    )
    out, _ = fused(proto, RemoveChannels())
    assert op_types(out) == ["Conv", ops.LRN, "Conv"]
    node = out.graph.node[1]
    given = weights_of(out)[node.input[3]]
    assert given.shape == (6,) and len(set(given.tolist())) > 1


@pytest.mark.parametrize("seed", range(12))
def test_whatever_channels_are_dead_or_constant(seed):
    rng = np.random.default_rng(seed)
    channels = int(rng.integers(4, 20))
    filters, bias = random(channels, 3, 3, 3, seed=seed), random(channels, seed=seed)
    filters[rng.random(channels) < 0.4] = 0
    bias[rng.random(channels) < 0.5] = 0
    readers = random(5, channels, 1, 1, seed=seed)
    readers[:, rng.random(channels) < 0.3] = 0
    size, beta = int(rng.choice([1, 3, 5, 9])), float(rng.choice([0.5, 0.75, 1.0]))
    proto = model(
        f"""(float[2, 3, 7, 6] X) => (Y)
            {{ a = Conv(X, W, B)  r = Relu(a)  n = LRN<size = {size}, alpha = 1.5, beta = {beta}>(r)
               Y = Conv(n, V) }}""",
        {"W": filters, "B": bias, "V": readers},
    )
    out, _ = fused(proto, *pipeline_for(load_target("gpu")))
    assert ops.LRN in op_types(out)


def test_the_pipeline_fuses_it_before_it_chooses_layers():
    proto = model(
        """(float[1, 8, 6, 6] X) => (Y)
           { a = Relu(X)  b = LRN<size = 3, alpha = 2.0>(a)  c = LRN<size = 5>(b)  Y = Add(a, c) }"""
    )
    out, records = run(proto, *pipeline_for(CPU), target=CPU)
    assert op_types(out) == ["Relu", ops.LRN, ops.LRN, "Add"]
    again, records = run(out, *pipeline_for(CPU), target=CPU)
    assert op_types(again) == op_types(out) and not any(record.modified for record in records.values())


@pytest.mark.parametrize("target", [EXACT, load_target("gpu")])
def test_without_kernels_it_stays_expanded(target):
    proto = model("(float[2, 6, 5, 3] X) => (Y) { Y = LRN<size = 3>(X) }")
    out, record = fused(proto, target=target)
    assert "Conv" in op_types(out) and not record.modified and not record.skipped


EXPANDED = """{ q = Mul(X, X)  s = Conv(q, W, B)  r = Sqrt(s)  f = Sqrt(r)  p = Mul(r, f)
                i = Reciprocal(p)  Y = Mul(X, i) """


def expanded(text=EXPANDED + "}", results="Y", band=None, shape="2, 6, 5, 3"):
    """A model of the pattern, or of what is nearly the pattern."""
    if band is None:
        band = changed(0, 0, 0.3)
    if band.ndim == 2:
        band = band.reshape(*band.shape, *[1] * (shape.count(",") - 1))
    return model(f"(float[{shape}] X) => ({results}) {text}", {"W": band, "B": np.ones(6, np.float32)})


@pytest.mark.parametrize("shape", ["2, 6, 7", "2, 6, W", "1, 6, 2, 3, 4"])
def test_pictures_of_any_rank(shape):
    assert op_types(fused(expanded(shape=shape))[0]) == [ops.LRN]


@pytest.mark.parametrize(
    "change",
    [
        ("Mul(X, i)", "Mul(i, X)"),
        ("Mul(r, f)", "Mul(f, r)"),
        ("Conv(q", "Conv<pads = [0, 0, 0, 0], strides = [1, 1], group = 1, kernel_shape = [1, 1]>(q"),
    ],
)
def test_operands_in_any_order_and_attributes_that_say_nothing(change):
    assert op_types(fused(expanded((EXPANDED + "}").replace(*change)))[0]) == [ops.LRN]


@pytest.mark.parametrize(
    "change",
    [
        ("Mul(X, X)", "Mul(X, T)  T2 = Neg(T)"),
        ("Sqrt(r)", "Sqrt(s)"),
        ("Reciprocal(p)", "Neg(p)"),
        ("Mul(r, f)", "Mul(r, r)"),
        ("Mul(X, i)", "Div(X, i)"),
    ],
)
def test_what_is_something_else_is_not_considered(change):
    text = (EXPANDED + "}").replace(*change).replace("{", "{ T = Abs(X)")
    proto = expanded(text)
    out, record = fused(proto)
    assert ops.LRN not in op_types(out) and not record.skipped


@pytest.mark.parametrize("name", ["q", "s", "r", "f", "p", "i"])
def test_what_others_read_stays(name):
    for proto in (expanded(results=f"Y, {name}"), expanded(f"{EXPANDED} Z = Neg({name}) }}", results="Y, Z")):
        out, record = fused(proto)
        assert ops.LRN not in op_types(out)
        assert reasons(record) == {"Y": f"'{name}' is read elsewhere as well"}


def test_an_input_that_others_read_is_no_matter():
    out, _ = fused(expanded(f"{EXPANDED} Z = Neg(X) }}", results="Y, Z"))
    assert sorted(op_types(out)) == ["Neg", ops.LRN]


def changed(row, column, value):
    """The band with another number in one place."""
    band = np.where(abs(np.arange(6) - np.arange(6)[:, None]) <= 1, np.float32(0.3), np.float32(0))
    band[row, column] = value
    return band


NO_BAND = "the weight of s is no band of equal numbers"
NO_SUM = "s is no sum over channels alone"


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"band": changed(0, 5, 0.3)}, NO_BAND),
        ({"band": changed(3, 3, 0.0)}, NO_BAND),
        ({"band": changed(3, 3, 0.31)}, NO_BAND),
        ({"band": random(6, 6)}, NO_BAND),
        (
            {
                "band": np.abs(random(6, 6, 3, 3)),
                "text": EXPANDED.replace("(q", "<pads = [1, 1, 1, 1]>(q") + "}",
            },
            NO_SUM,
        ),
        (
            {"band": np.ones((6, 3), np.float32), "text": EXPANDED.replace("(q", "<group = 2>(q") + "}"},
            NO_SUM,
        ),
        ({"text": EXPANDED.replace(", B)", ")") + "}"}, "s has no constant float32 bias"),
        (
            {
                "text": EXPANDED.replace(", B)", ", C)").replace(
                    "{", "{ C = ReduceMax<axes = [0, 2, 3], keepdims = 0>(X)"
                )
                + "}"
            },
            "s has no constant float32 bias",
        ),
        (
            {"text": EXPANDED.replace("W", "V").replace("{", "{ V = Abs(W)") + "}"},
            "weight 'V' is computed by Abs, not constant",
        ),
    ],
)
def test_why_the_pattern_stays(options, reason):
    out, record = fused(expanded(**options))
    assert ops.LRN not in op_types(out)
    assert reasons(record) == {"Y": reason}


@pytest.mark.parametrize("size", [1, 2, 5, 40])
def test_windows_of_a_band(size):
    begin, end = windows_of_size(9, size)
    j = np.arange(9)
    band = np.where((j >= begin[:, None]) & (j < end[:, None]), np.float32(0.1), np.float32(0))
    alpha, *found = windows(band)
    assert alpha == np.float32(0.1)
    for actual, expected in zip(found, (begin, end), strict=True):
        assert actual.dtype == np.int32
        np.testing.assert_array_equal(actual, expected)


def test_windows_of_rows_without_any():
    band = np.zeros((4, 4), np.float32)
    band[2, 1:3] = 5
    alpha, begin, end = windows(band)
    assert (alpha, begin.tolist(), end.tolist()) == (5.0, [0, 0, 1, 0], [0, 0, 3, 0])
    assert windows(np.zeros((2, 2), np.float32))[0] == 0
    assert windows(np.full((2, 2), np.inf, np.float32)) is None
