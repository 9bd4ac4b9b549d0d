"""Formats, rounding and bounds of quantized layers."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalpel_graph.errors import InputError
from scalpel_graph.mcu import int8, int8x16, q15
from scalpel_graph.mcu.network import ACCUMULATOR_32, DTYPES, FloatLayer, Format, Multiply, bound
from tests.mcu_networks import many_operators, network_of, perceptron


def fc(weights, bias=None) -> FloatLayer:
    return FloatLayer("Gemm", "fc", ["x"], "y", np.asarray(weights, np.float64), bias)


@given(st.integers(0, 2**32), st.integers(1, 400), st.floats(-8, 8), st.floats(-3, 3))
@settings(max_examples=60, deadline=None)
def test_q15_weights_are_near_and_never_overflow(seed, columns, log_scale, log_bias):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((4, columns)) * 10**log_scale
    bias = rng.standard_normal(4) * 10 ** (log_scale + log_bias)
    layer = fc(W, bias)
    x = Format(2.0**-12)
    reach = (np.abs(W).sum(axis=1) * 8 + np.abs(bias)).max()
    y = Format(2.0 ** -int(14 - np.ceil(np.log2(reach))))
    stored, stored_bias, multiplier, shift = q15.weights(layer, x, y)
    assert list(multiplier) == [1]
    bits = int(shift[0]) + y.fraction_bits - x.fraction_bits
    unit = 2.0**-bits
    assert np.abs(stored * unit - W).max() <= unit / 2 + 1e-12 * np.abs(W).max()
    assert (
        np.abs(stored_bias * unit * x.scale - bias).max() <= unit * x.scale / 2 + 1e-12 * np.abs(bias).max()
    )
    assert unit <= np.sqrt(np.mean(np.square(W))) / 16
    assert bound(stored, stored_bias, int(shift[0])) < 2**62


def test_wide_accumulators_only_where_narrow_ones_would_be_imprecise():
    x = y = Format(2.0**-12)
    narrow = q15.weights(fc(np.full((1, 50), 0.1)), x, y)
    assert bound(narrow[0], narrow[1], int(narrow[3][0])) < ACCUMULATOR_32
    wide = q15.weights(fc(np.full((1, 5000), 0.1)), x, y)
    assert bound(wide[0], wide[1], int(wide[3][0])) >= ACCUMULATOR_32
    assert np.abs(wide[0]).max() > 2**13


def test_a_bias_that_fits_no_accumulator_is_refused():
    with pytest.raises(InputError, match="node 'fc': its bias is too large against its weights"):
        q15.weights(fc([[1e-8]], np.array([1e12])), Format(2.0**-15), Format(2.0**20))


def test_values_that_are_handed_on_share_a_format_and_nothing_saturates():
    for dtype in DTYPES:
        network = network_of(many_operators(), dtype)
        values = network.values
        for layer in network.layers:
            if type(layer).__name__ in ("Pool", "Concat", "Clip", "Flatten"):
                assert {values[name].format for name in layer.inputs} == {values[layer.output].format}


def test_sums_of_8_bits_fit_32():
    network = network_of(perceptron(), "int8")
    for layer in network.layers:
        if isinstance(layer, Multiply):
            sums = np.abs(layer.weights.astype(np.int64)).sum(axis=1) * 255 + np.abs(layer.bias)
            assert sums.max() < ACCUMULATOR_32
            assert (layer.multiplier >= 2**30).all() and (layer.multiplier < 2**31).all()


@given(st.integers(0, 2**32), st.integers(1, 2000), st.floats(-8, 8), st.floats(-3, 9))
@settings(max_examples=60, deadline=None)
def test_products_of_16_bit_activations_fit_63_whatever_the_bias(seed, columns, log_scale, log_bias):
    rng = np.random.default_rng(seed)
    W = rng.standard_normal((4, columns)) * 10**log_scale
    bias = rng.standard_normal(4) * 10 ** (log_scale + log_bias)
    x = Format(2.0**-12)
    y = Format(float((np.abs(W).sum(axis=1) * 8 + np.abs(bias)).max()) / 32767)
    stored, stored_bias, multiplier, shift = int8x16.weights(fc(W, bias), x, y)
    sums = np.abs(stored.astype(np.int64)).sum(axis=1) * 2**15 + np.abs(stored_bias)
    for row, m, s in zip(sums.tolist(), multiplier.tolist(), shift.tolist(), strict=True):
        assert row * m <= 2**62 and 0 <= s <= 62
        assert m >= 2**15
        assert row >= ACCUMULATOR_32 or m >= 2**30
    units = multiplier / 2.0**shift * y.scale / x.scale
    assert (np.abs(stored * units[:, None] - W) <= units[:, None] * 0.51).all()
    np.testing.assert_allclose(stored_bias * units * x.scale, bias, rtol=1e-4, atol=float(y.scale) / 2)


def test_activations_of_16_bits_are_symmetric():
    network = network_of(many_operators("Softmax"), "int8x16")
    assert {value.format.zero_point for value in network.values.values()} == {0}
    assert network.values[network.output].format.scale == 2.0**-15


def test_a_bias_beyond_all_sums_is_refused_if_scales_are_given():
    layer = fc([[1.0]], np.array([1e9]))
    layer.scales = np.array([1.0])
    with pytest.raises(InputError, match="node 'fc': its bias is too large against its weights"):
        int8x16.weights(layer, Format(2.0**-20), Format(1.0))


@given(st.lists(st.floats(1e-12, 1e6), min_size=1, max_size=8))
def test_multipliers_and_shifts_stand_for_ratios(ratios):
    given_ratios = np.array(ratios)
    multiplier, shift = int8.fixed_point(given_ratios)
    assert (multiplier < 2**31).all() and (shift >= 0).all() and (shift <= 62).all()
    np.testing.assert_allclose(multiplier / 2.0**shift, given_ratios, rtol=1e-9, atol=2.0**-62)
