"""The kernels of local response normalisation: the scalar one against numpy, the vector ones against it."""

from typing import Any

import numpy as np
import pytest

from scalpel_graph import _kernels
from tests.lrn_layer import BETAS, LrnLayer, lrn, uneven, windows
from tests.runtime_ext import instruction_sets

ISAS = instruction_sets.isas()
ON_EVERY_CPU = instruction_sets.isas(every_cpu=True)


def kernel(layer: LrnLayer, isa: str) -> Any:
    return instruction_sets.Lrn(layer.begin, layer.end, layer.bias, layer.alpha, layer.beta, isa=isa)


@pytest.mark.parametrize("isa", instruction_sets.isas(vector=True))
def test_there_is_a_kernel_for_each_power(isa):
    names = {one["name"] for one in instruction_sets.kernels(isa) if one["operation"] == "lrn"}
    assert names == {f"lrn_{beta:g}" for beta in BETAS}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("pixels", [*range(1, 40), 63, 64, 65, 100, 511, 512, 513, 1100])
def test_any_number_of_pixels(isa, beta, pixels):
    for layer in (
        lrn((2, 5, pixels), size=3, beta=beta),
        uneven((1, 11, pixels), alpha=1.7, beta=beta, seed=pixels),
    ):
        x = layer.feeds()["x"]
        y = kernel(layer, isa).run(x)
        assert y.dtype == np.float32
        np.testing.assert_allclose(y, layer.expected(x), rtol=2e-6)


@pytest.mark.parametrize("isa", ON_EVERY_CPU)
@pytest.mark.parametrize("size", [1, 2, 5, 31])
@pytest.mark.parametrize("channels", [1, 2, 7, 33])
def test_any_number_of_channels(isa, channels, size):
    layer = lrn((1, channels, 4, 5), size)
    x = layer.feeds()["x"]
    np.testing.assert_allclose(kernel(layer, isa).run(x), layer.expected(x), rtol=3e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(1, 64, 55, 55), (3, 200, 7, 7), (5, 3000, 1, 1)])
def test_threads_do_not_change_the_result(isa, shape):
    layer = uneven(shape) if shape[1] < 1000 else lrn(shape)
    x = layer.feeds()["x"]
    one = kernel(layer, isa).run(x)
    for _ in range(3):
        np.testing.assert_array_equal(kernel(layer, isa).run(x, threads=3), one)
    np.testing.assert_allclose(one, kernel(layer, "scalar").run(x), rtol=5e-6)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("beta", BETAS)
def test_what_is_not_finite_reaches_the_windows_that_see_it(isa, beta):
    layer = lrn((1, 9, 40), size=3, beta=beta)
    clean = layer.feeds()["x"]
    x = clean.copy()
    x[0, 4, 3], x[0, 4, 20], x[0, 4, 39] = np.nan, np.inf, 1e30
    y = kernel(layer, isa).run(x)
    seen = np.zeros(x.shape, bool)
    seen[0, 3:6, [3, 20, 39]] = True
    expected = kernel(layer, isa).run(clean)
    np.testing.assert_array_equal(y[~seen], expected[~seen])
    assert np.isnan(y[0, 3:6, 3]).all()
    # A sum that is infinite leaves nothing of a number, and no number of an infinity.
    np.testing.assert_array_equal(np.abs(y[0, 3:6, 20]), [0, np.nan, 0])
    np.testing.assert_array_equal(np.abs(y[0, 3:6, 39]), [0, 0, 0])


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 4, 0), (2, 0, 3)])
def test_nothing_of_nothing(isa, shape):
    layer = lrn(shape)
    assert kernel(layer, isa).run(np.zeros(shape, np.float32)).shape == shape


BEGIN, END = windows(6, 3)
INT_MIN, INT_MAX = np.iinfo(np.int32).min, np.iinfo(np.int32).max


@pytest.mark.parametrize(
    ("begin", "end", "beta", "words"),
    [
        ({2: -1}, {}, 0.75, r"window_begin\[2\] = -1 is outside the 6 channels"),
        ({5: 7}, {5: 7}, 0.75, r"window_begin\[5\] = 7 is outside the 6 channels"),
        ({0: INT_MIN}, {}, 0.75, r"window_begin\[0\] = -2147483648 is outside"),
        ({}, {5: 7}, 0.75, r"window_end\[5\] = 7 is outside the 6 channels"),
        ({}, {1: INT_MAX}, 0.75, r"window_end\[1\] = 2147483647 is outside"),
        ({3: 4}, {3: 3}, 0.75, r"window_end\[3\] = 3 is before window_begin\[3\] = 4"),
        ({}, {0: -1}, 0.75, r"window_end\[0\] = -1 is before window_begin\[0\] = 0"),
        ({}, {}, 0.6, r"beta must be 0\.5, 0\.75 or 1, got 0\.6"),
        ({}, {}, float("nan"), r"beta must be 0\.5, 0\.75 or 1, got nan"),
    ],
)
@pytest.mark.parametrize("isa", ISAS)
def test_what_contradicts_itself_is_refused(isa, begin, end, beta, words):
    arrays = BEGIN.copy(), END.copy()
    for array, changes in zip(arrays, (begin, end), strict=True):
        for index, value in changes.items():
            array[index] = value
    with pytest.raises(ValueError, match=words):
        instruction_sets.Lrn(*arrays, np.ones(6, np.float32), 0.1, beta, isa=isa)


def test_arrays_of_unlike_length_are_refused():
    with pytest.raises(ValueError, match="window_end has the wrong shape"):
        _kernels.Lrn(BEGIN, END[:5], np.ones(6, np.float32), 0.1, 0.75)
    with pytest.raises(ValueError, match="X must be"):
        _kernels.Lrn(BEGIN, END, np.ones(6, np.float32), 0.1, 0.75).run(np.ones((1, 5, 2), np.float32))
