"""What Reshape, Transpose and their like do to the places of elements, against numpy."""

import numpy as np
import pytest

from scalpel_graph.channels.regroup import View, places, reordered_axis, whole


def elements(view: View, source: tuple[int, ...]):
    """For each element of a view, in order, its number in the source."""
    numbers = np.full(1, sum(s * int(np.prod(source[i + 1 :])) for i, s in enumerate(view.starts)))
    for digit in view.digits:
        step = digit.stride * int(np.prod(source[digit.axis + 1 :]))
        numbers = (numbers[:, None] + step * np.arange(digit.size)).reshape(-1)
    return numbers


def factors(rng, size):
    """A random way to write a number as a product, ones among the factors."""
    found = []
    while size > 1:
        divisors = [d for d in range(1, size + 1) if size % d == 0]
        found.append(int(rng.choice(divisors)))
        size //= found[-1]
    return found or [1]


@pytest.mark.parametrize("seed", range(200))
def test_chains_of_all_kinds(seed):
    rng = np.random.default_rng(seed)
    source = tuple(int(size) for size in rng.choice([1, 2, 3, 4, 6, 12], size=rng.integers(1, 4)))
    array, view = np.arange(np.prod(source)).reshape(source), whole(source)
    for _ in range(rng.integers(1, 6)):
        step = rng.integers(4)
        if step == 0:
            order = rng.permutation(array.ndim)
            array, view = array.transpose(order), view.transposed(order)
        elif step == 1 and array.ndim > 1:
            axis = int(rng.integers(array.ndim))
            place = int(rng.integers(array.shape[axis]))
            array, picked = np.take(array, place, axis=axis), view.picked(axis, place)
            assert picked is not None
            view = picked
        else:
            sizes = factors(rng, array.size)
            reshaped = view.reshaped(sizes)
            if reshaped is None:  # digits overlap, such as 2·3 seen as 3·2
                continue
            array, view = array.reshape(sizes), reshaped
        assert len(view.axes) == array.ndim
        assert elements(view, source).tolist() == array.reshape(-1).tolist()


def test_unknown_sizes_take_what_is_left():
    view = whole(("N", 12, None, 5))
    apart = view.reshaped((None, 3, 4, None, 5))
    assert apart is None  # it could be either
    apart = view.reshaped(("N", 3, 4, None, 5))
    assert [len(axis) for axis in apart.axes] == [1, 1, 1, 1, 1]
    back = apart.transposed([0, 2, 1, 3, 4]).reshaped(("N", None, None, 5))
    assert back is None
    back = apart.transposed([0, 2, 1, 3, 4]).reshaped(("N", 12, None, 5))
    assert reordered_axis(back, view) == 1
    assert places(back, 1).tolist() == np.arange(12).reshape(3, 4).T.reshape(-1).tolist()


def test_only_one_axis_in_another_order_counts():
    view = whole((2, 6, 4))
    assert reordered_axis(view, view) is None
    assert reordered_axis(view.reshaped((12, 4)), view) is None
    assert reordered_axis(view.transposed([0, 2, 1]), view) is None
    both = view.reshaped((2, 2, 3, 2, 2)).transposed([0, 2, 1, 4, 3])
    assert reordered_axis(both, view) is None
    assert reordered_axis(view.reshaped((2, 2, 3, 4)).transposed([0, 2, 1, 3]), view) == 1


def test_digits_of_unknown_size_cannot_be_picked_from():
    assert whole(("N", 3)).picked(0, 0) is None
    assert whole((1, 3)).picked(0, 0).axes == whole((1, 3)).axes[1:]
    assert whole((2, 3)).without({0}) is None
