"""Sums and needs in blocks, against numpy's on the whole, for every order of axes and every remainder."""

import numpy as np
import pytest

from scalpel_graph.channels import blockwise
from scalpel_graph.channels.live import Live
from scalpel_graph.channels.needs import Needs

SHAPES = [(1, 1, 1), (1, 37, 21), (3, 5, 17, 1), (1, 19, 23, 9), (2, 9, 8, 3, 4), (40, 1, 2, 5)]


@pytest.fixture(params=[1, 64, 1 << 17])
def block(request, monkeypatch):
    monkeypatch.setattr(blockwise, "_BLOCK", request.param)


def views(shape, dtype):
    """The same numbers laid out in memory with each of the first three axes outermost."""
    rng = np.random.default_rng(1)
    values = (rng.standard_normal(shape) * (rng.random(shape) < 0.3)).astype(dtype)
    for axis in range(3):
        yield np.moveaxis(np.ascontiguousarray(np.moveaxis(values, axis, 0)), 0, axis)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("shape", SHAPES)
def test_blocks_give_what_the_whole_gives(block, shape, dtype):
    inputs = np.random.default_rng(2).standard_normal((shape[0], shape[2]))
    for weights in views(shape, dtype):
        whole = weights.reshape(*shape[:3], -1).astype(np.float64)
        np.testing.assert_allclose(blockwise.magnitudes(weights), np.abs(whole).sum(axis=(2, 3)), rtol=1e-12)
        expected = np.einsum("gmck,gc->gm", whole, inputs)
        np.testing.assert_allclose(blockwise.products(weights, inputs), expected, rtol=1e-9, atol=1e-9)
        np.testing.assert_array_equal(blockwise.needs(weights).bits, Needs.of((whole != 0).any(axis=3)).bits)
        assert blockwise.all_finite(weights)


@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_one_number_that_is_not_finite_is_found_wherever_it_is(block, bad):
    for place in range(0, 21 * 11, 10):
        values = np.zeros((21, 11), dtype=np.float32)
        values.reshape(-1)[place] = bad
        assert not blockwise.all_finite(values)
    assert blockwise.all_finite(np.zeros((), dtype=np.float32))
    assert blockwise.all_finite(np.zeros((0, 3), dtype=np.float32))


def test_needs_answer_as_the_matrix_does():
    rng = np.random.default_rng(3)
    for outputs, inputs in [(1, 1), (5, 8), (7, 19)]:
        matrix = rng.random((2, outputs, inputs)) < 0.2
        needs = Needs.of(matrix)
        for _ in range(5):
            some_outputs, some_inputs = rng.random(outputs) < 0.5, rng.random((2, inputs)) < 0.3
            np.testing.assert_array_equal(
                needs[1].inputs_of(some_outputs), matrix[1][some_outputs].any(axis=0)
            )
            expected = (matrix & some_inputs[:, None]).any(axis=2)
            np.testing.assert_array_equal(needs.outputs_of(some_inputs), expected)


def test_slots_of_a_class_are_live_together():
    live = Live(np.array([0, 1, 0, 1, 4]), np.array([False, False, True, False, False]))
    assert live[np.array([0, 1])].tolist() == [True, False]
    live.revive(np.array([3]))
    assert live.of_all().tolist() == [True, True, True, True, False]
