import numpy as np
import pytest

from scalpel_graph.passes.expand_lrn import ExpandLrn
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, op_types, random, reasons, run, weights_of

SQUARE = ["Mul", "Conv"]
END = ["Reciprocal", "Mul"]


@pytest.mark.parametrize("attributes", ["", ", alpha = 0.3, bias = 0.5", ", alpha = 3.0, bias = 20.0"])
@pytest.mark.parametrize("size", [1, 3, 5, 9, 31])
@pytest.mark.parametrize("channels", [1, 2, 7, 16])
def test_windows(size, channels, attributes):
    proto = model(f"(float[N, {channels}, 5, 3] X) => (Y) {{ Y = LRN<size = {size}{attributes}>(X) }}")
    out, _ = run(proto, ExpandLrn(), rtol=1e-6, atol=1e-6)
    assert op_types(out) == [*SQUARE, "Sqrt", "Sqrt", "Mul", *END]


@pytest.mark.parametrize("beta, between", [(0.5, ["Sqrt"]), (1.0, []), (0.75, ["Sqrt", "Sqrt", "Mul"])])
def test_powers(beta, between):
    proto = model(f"(float[2, 6, 5, 3] X) => (Y) {{ Y = LRN<size = 3, alpha = 2.0, beta = {beta}>(X) }}")
    out, _ = run(proto, ExpandLrn(), rtol=1e-6, atol=1e-6)
    assert op_types(out) == [*SQUARE, *between, *END]


def test_two_in_a_row_between_other_nodes():
    proto = model(
        """(float[2, 6, 5, 3] X) => (Y, a)
           { a = Relu(X)  b = LRN<size = 3, alpha = 2.0>(a)  c = LRN<size = 5, alpha = 1.0>(b)
             Y = Add(a, c) }"""
    )
    out, records = run(proto, ExpandLrn(), rtol=1e-6, atol=1e-6)
    assert "LRN" not in op_types(out)
    assert len(records["expand-lrn"].rewritten) == 2


def test_dead_channels_between_others_go():
    filters = random(12, 4, 1, 1)
    filters[[1, 2, 5, 8]] = 0
    proto = model(
        """(float[1, 4, 6, 6] X) => (Y)
           { a = Conv(X, W)  b = LRN<size = 5, alpha = 2.0>(a)  Y = Conv(b, V) }""",
        {"W": filters, "V": random(3, 12, 1, 1, seed=1)},
    )
    out, _ = run(proto, ExpandLrn(), RemoveChannels())
    band = next(values for values in weights_of(out).values() if values.shape[:2] == (8, 8))
    kept = np.array([0, 3, 4, 6, 7, 9, 10, 11])
    np.testing.assert_array_equal(band[:, :, 0, 0] != 0, abs(kept - kept[:, None]) <= 2)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("(float16[1, 4, 2, 2] X) => (Y) { Y = LRN<size = 3>(X) }", "it is not float32"),
        ("(float[1, C, 2, 2] X) => (Y) { Y = LRN<size = 3>(X) }", "the number of its channels is not known"),
        (
            "(float[1, 4, 2, 2] X) => (Y) { Y = LRN<size = 3, beta = 0.6>(X) }",
            "its power of 0.6 is none that square roots make (0.5, 0.75, 1)",
        ),
        (
            "(float[1, 4, 2, 2] X) => (Y) { Y = LRN<size = 3, bias = 0.0>(X) }",
            "what it divides by may be zero or negative",
        ),
    ],
)
def test_what_stays(text, reason):
    proto = model(text)
    out, records = run(proto, ExpandLrn(), feeds={})
    assert op_types(out) == ["LRN"]
    assert list(reasons(records["expand-lrn"]).values()) == [reason]


def test_old_opset_stays():
    proto = model("(float[1, 4, 2, 2] X) => (Y) { Y = LRN<size = 3>(X) }", opset=6)
    _, records = run(proto, ExpandLrn())
    assert "opset 6" in next(iter(reasons(records["expand-lrn"]).values()))
