"""What counts as equal, value by value."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from scalpel_graph.compare import Difference, compare, worst

RTOL, ATOL = 1e-3, 1e-5


def reason(expected, actual, rtol=RTOL, atol=ATOL) -> str:
    return compare(expected, actual, rtol=rtol, atol=atol).reason


def test_the_tolerance_is_that_of_the_element_and_a_tenth_of_the_largest():
    a = np.array([1000.0, 1.0, 0.0, -10.0])
    for i, allowed in enumerate([1 + 0.1, 0.001 + 0.1, 0.1, 0.01 + 0.1]):
        for sign in (1, -1):
            b = a.copy()
            b[i] += sign * (allowed + ATOL) * 0.999
            assert not reason(a, b)
            b[i] += sign * allowed * 0.01
            assert f"at [{i}]" in reason(a, b) and "is allowed" in reason(a, b)
    assert not reason(np.zeros(3), np.full(3, 0.9e-5))
    assert reason(np.zeros(3), np.full(3, 1.1e-5))
    assert reason(np.ones(3), np.ones(3) + 1e-9, rtol=0, atol=0)
    assert not reason(np.ones(3), np.ones(3), rtol=0, atol=0)


def test_the_figures_are_those_of_all_elements():
    difference = compare(np.array([2.0, -4.0]), np.array([2.5, -4.0]), rtol=1, atol=0)
    assert difference == Difference(0.5, 0.125, "")
    difference = compare(np.zeros(2, np.float32), np.array([0, 3], np.float32), rtol=RTOL, atol=ATOL)
    assert (difference.max_abs, difference.max_rel) == (3.0, 1.0)
    assert worst([Difference(1, 0.5, ""), Difference(0.5, 2, "b"), Difference(0, 0, "c")]) == Difference(
        1, 2, "b"
    )
    assert worst([]) == Difference()


@given(hnp.arrays(np.float32, hnp.array_shapes(max_dims=3, min_side=0), elements=st.floats(width=32)))
def test_everything_equals_itself(a):
    assert compare(a, a.copy(), rtol=0, atol=0) == Difference()


@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
def test_nan_and_infinities_stand_in_the_same_places(special):
    a = np.array([[1, special], [3, 4]], np.float32)
    assert not reason(a, a.copy())
    for other in {math.nan, math.inf, -math.inf, 2.0} - {special}:
        b = a.copy()
        b[0, 1] = other
        if not (math.isnan(special) and math.isnan(other)):
            assert "at [0, 1]" in reason(a, b)
            assert "at [0, 1]" in reason(b, a)
    moved = np.array([[special, 1], [3, 4]], np.float32)
    assert reason(a, moved)
    b = a.copy()
    b[1, 1] = 5
    assert "at [1, 1]" in reason(a, b), "an infinity must not widen the tolerance of the other elements"


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn], ids=str)
def test_coarse_types_may_differ_by_their_rounding(dtype):
    a = np.linspace(-4, 4, 100).astype(dtype)
    epsilon = float(ml_dtypes.finfo(dtype).eps)
    assert not reason(a, (a.astype(np.float32) * (1 + epsilon)).astype(dtype))
    assert reason(a, (a.astype(np.float32) * (1 + 8 * epsilon)).astype(dtype))


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, bool, ml_dtypes.int4, object], ids=str)
def test_what_is_no_float_is_exact(dtype):
    a = np.array(["a", "b"], object) if dtype is object else np.array([0, 1]).astype(dtype)
    assert not reason(a, a.copy())
    message = reason(a, a[::-1].copy())
    assert "differs in 2 of 2 elements, first at [0]" in message


def test_large_integers_are_not_rounded():
    a = np.array([2**62])
    assert reason(a, a + 1)


def test_shapes_and_types_are_exact():
    a = np.ones((2, 3), np.float32)
    assert reason(a, a.T) == "has shape [3, 2] instead of [2, 3]"
    assert reason(a, a.astype(np.float64)) == "has type float64 instead of float32"
    assert reason(np.float32(1), np.ones(1, np.float32)) == "has shape [1] instead of []"
    assert not reason(np.ones((0, 3)), np.ones((0, 3)))


def test_complex_numbers_are_compared_by_parts():
    a = np.array([1 + 1j])
    assert not reason(a, a + 1e-6j)
    assert "imaginary part" in reason(a, a + 0.1j)


def test_sequences_maps_and_optionals():
    one = np.ones(2, np.float32)
    assert not reason([one, one], [one, one])
    assert "(at [1])" in reason([one, one], [one, one + 1])
    assert "1 values instead of 2" in reason([one, one], [one])
    assert not reason({"a": 0.5, 3: "x"}, {3: "x", "a": 0.5 + 1e-7})
    assert "(at ['a'])" in reason({"a": 0.5}, {"a": 0.6})
    assert "other keys" in reason({"a": 0.5}, {"b": 0.5})
    assert "(at ['a']) (at [0])" in reason([{"a": 1}], [{"a": 2}])
    assert not reason(None, None)
    assert reason(None, one) == "is a tensor instead of absent"
    assert reason([one], one) == "is a tensor instead of a sequence"
    assert reason(one, {}) == "is a map instead of a tensor"
    with pytest.raises(TypeError, match="type object"):
        compare(object(), one, rtol=RTOL, atol=ATOL)


@pytest.mark.parametrize(("elements", "times"), [(1, 16), (4, 4), (15, 16 / 15), (16, 1), (100, 1)])
def test_a_share_of_the_largest_may_be_allowed_beside(elements, times):
    a = np.full(elements, 100.0)
    a[1:2] = 1.0
    for i in range(min(2, elements)):
        allowed = RTOL * (a[i] + 10) + ATOL + times * 0.001 * 100
        b = a.copy()
        b[i] += allowed * 0.999
        assert reason(a, b)
        assert not compare(a, b, rtol=RTOL, atol=ATOL, of_largest=0.001).reason
        b[i] += allowed * 0.01
        assert "is allowed" in compare(a, b, rtol=RTOL, atol=ATOL, of_largest=0.001).reason
