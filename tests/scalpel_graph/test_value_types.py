"""What is stored in 16 bits, and what it costs."""

import math

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalpel_graph.value_types import (
    FLOAT_TYPES,
    VALUE_TYPES,
    Storage,
    allowance,
    dtype,
    storage,
    unit_roundoff,
)

NARROW = ["fp16", "bf16"]


def weights(M=8, K=24, scale=1.0, seed=0):
    return (np.random.default_rng(seed).standard_normal((M, K)) * scale).astype(np.float32)


def test_the_types_and_their_roundoff():
    assert [dtype(t) for t in VALUE_TYPES] == [np.float32, np.float16, ml_dtypes.bfloat16, np.int8]
    assert [unit_roundoff(t) for t in FLOAT_TYPES] == [2.0**-24, 2.0**-11, 2.0**-8]


def test_float32_is_as_it_is():
    assert storage(np.array([[1e38, 1e-40]], np.float32), "fp32") == Storage("fp32", 0.0, "")


@pytest.mark.parametrize("wanted", NARROW)
def test_the_error_is_that_of_the_worst_output(wanted):
    W = weights()
    W[3] = 0
    W[5] = 1 + unit_roundoff(wanted)  # halfway between two numbers: it cannot be worse
    expected = unit_roundoff(wanted) / (1 + unit_roundoff(wanted))
    stored = storage(W, wanted)
    assert stored.type == wanted and stored.reason == ""
    assert stored.error == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("wanted", NARROW)
def test_what_the_type_has_costs_nothing(wanted):
    W = weights().astype(dtype(wanted)).astype(np.float32)
    assert storage(W, wanted) == Storage(wanted, 0.0, "")


@given(st.sampled_from(NARROW), st.integers(0, 100), st.floats(-3, 3))
def test_the_error_of_ordinary_weights_is_below_the_roundoff(wanted, seed, magnitude):
    stored = storage(weights(seed=seed, scale=10**magnitude) + np.float32(10**magnitude), wanted)
    assert stored.type == "fp32" or 0 < stored.error <= unit_roundoff(wanted)


def test_integers_are_multiples_of_the_largest_of_each_output():
    W = weights()
    W[3] = 0
    stored = storage(W, "int8")
    values = stored.values(W)
    assert stored.type == "int8" and values.dtype == np.int8
    assert np.abs(values).max(axis=1).tolist() == [127, 127, 127, 0, 127, 127, 127, 127]
    np.testing.assert_allclose(values * stored.scale[:, np.newaxis], W, atol=np.abs(W).max() / 254)
    errors = np.linalg.norm(values * stored.scale[:, np.newaxis] - W, axis=1)
    assert stored.error == pytest.approx(max(errors / np.maximum(np.linalg.norm(W, axis=1), 1e-9)), rel=1e-6)
    assert 0.001 < stored.error < 0.02
    assert allowance([stored, Storage()]) == stored.error


def test_integers_cost_nothing_where_weights_are_multiples_of_one():
    W = np.rint(weights() * 40).clip(-127, 127).astype(np.float32) * 0.5
    W[:, 0] = 63.5
    assert storage(W, "int8") == Storage("int8", 0.0, "")


def test_weights_that_integers_cannot_be_stay():
    W = weights(K=20000)
    W[4, 7] = 300
    assert storage(W, "int8").reason == "the largest weight of output 4 is too far from the others for int8"
    W[4] = np.float32(1e-39)
    assert storage(W, "int8").reason == "the weights of output 4 are too small for int8"
    W[2, 2] = np.inf
    assert storage(W, "int8").reason == "not all of its weights are finite"


def test_weights_beyond_the_largest_number_stay():
    W = weights()
    W[2, 3] = -70000
    assert storage(W, "fp16") == Storage("fp32", 0.0, "a weight of 7e+04 is too large for fp16")
    assert storage(W, "bf16").type == "bf16"
    W[2, 3] = np.finfo(np.float32).max
    assert storage(W, "bf16").reason == "a weight of 3.4e+38 is too large for bf16"
    W[2, 3] = 65504
    assert storage(W, "fp16").type == "fp16"


def test_weights_that_would_vanish_stay():
    W = weights()
    W[6] *= 1e-7
    assert storage(W, "fp16") == Storage("fp32", 0.0, "the weights of output 6 are too small for fp16")
    assert storage(W, "bf16").type == "bf16"
    W[6, 0] = 1.0  # next to which the others do not matter
    assert storage(W, "fp16").type == "fp16"


@pytest.mark.parametrize("number", [math.nan, math.inf])
def test_weights_that_are_not_finite_stay(number):
    W = weights()
    W[1, 1] = number
    assert storage(W, "bf16") == Storage("fp32", 0.0, "not all of its weights are finite")


def test_large_matrices_are_looked_at_in_parts():
    W = weights(3, 1 << 20)
    W[2] *= 1e-7
    assert storage(W, "fp16").reason == "the weights of output 2 are too small for fp16"
    assert storage(W.T, "fp16").type == "fp16"


def test_the_allowance_adds_squares():
    assert allowance([]) == allowance([Storage()]) == 0.0
    assert allowance([Storage("fp16", 1e-4), Storage(), Storage("fp16", 1e-4)]) == pytest.approx(
        2**0.5 * 2**-11
    )
    assert allowance([Storage("bf16", 0.01), Storage("bf16", 0.0)]) == pytest.approx(math.hypot(0.01, 2**-8))
