import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalpel_graph import group_csr
from scalpel_graph.errors import InputError
from scalpel_graph.pruning.group_shape import parse_group_shape
from scalpel_graph.pruning.importance import IMPORTANCES, group_importance, zero_least_important

MEASURES = {
    "rms": lambda group: np.sqrt(np.mean(group**2)),
    "mean": lambda group: np.mean(np.abs(group)),
    "max": lambda group: np.max(np.abs(group)),
}


def groups_of(weights, group_shape):
    """The aligned groups, one by one, row block by row block, padded with zeros."""
    r, c = group_shape
    for i in range(0, weights.shape[0], r):
        for j in range(0, weights.shape[1], c):
            group = np.zeros(group_shape, weights.dtype)
            part = weights[i : i + r, j : j + c]
            group[: part.shape[0], : part.shape[1]] = part
            yield (slice(i, i + r), slice(j, j + c)), group


@pytest.mark.parametrize("importance", IMPORTANCES)
@pytest.mark.parametrize("group_shape", [(1, 8), (8, 1), (4, 1), (1, 1), (3, 2), (16, 16)])
@pytest.mark.parametrize("shape", [(16, 24), (10, 13), (1, 5), (5, 1)])
def test_importance_of_each_group(shape, group_shape, importance):
    weights = np.random.default_rng(0).standard_normal(shape)
    expected = [MEASURES[importance](group) for _, group in groups_of(weights, group_shape)]
    got = group_importance(weights, group_shape, importance)
    assert got.shape == (-(-shape[0] // group_shape[0]), -(-shape[1] // group_shape[1]))
    np.testing.assert_allclose(got.ravel(), expected)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ml_dtypes.bfloat16])
@pytest.mark.parametrize("importance", IMPORTANCES)
def test_importance_in_every_type(dtype, importance):
    weights = np.array([[300.0, -400.0], [0.0, 0.0], [1e-4, 1e-4]]).astype(dtype)
    got = group_importance(weights, (1, 2), importance)
    exact = weights.astype(np.float64)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got[:, 0], [MEASURES[importance](row) for row in exact], rtol=1e-6)


@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20)),
    group_shape=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    percent=st.integers(0, 100),
    importance=st.sampled_from(IMPORTANCES),
    random=st.tuples(st.integers(1, 50), st.integers(0, 2**16)),
)
def test_the_least_important_groups_go(shape, group_shape, percent, importance, random):
    levels, seed = random
    # Few levels make many ties, and some groups that are zero to begin with.
    weights = np.random.default_rng(seed).integers(-levels, levels + 1, size=shape).astype(np.float32)
    before = weights.copy()
    pruned = zero_least_important(weights, group_shape, percent / 100, importance)
    np.testing.assert_array_equal(weights, before)

    groups = list(groups_of(weights, group_shape))
    n_pruned = percent * len(groups) // 100
    scores = [MEASURES[importance](group.astype(np.float64)) for _, group in groups]
    order = np.argsort(np.round(scores, 9), kind="stable")
    expected = weights.copy()
    for number in order[:n_pruned]:
        expected[groups[number][0]] = 0
    np.testing.assert_array_equal(pruned, expected)


@pytest.mark.parametrize("group_shape", [(1, 8), (8, 1), (4, 1), (1, 1), (2, 4)])
@pytest.mark.parametrize("sparsity", [0.0, 0.29, 0.5, 0.7, 0.8, 0.9, 0.95, 1.0])
def test_density_is_exact(group_shape, sparsity):
    weights = np.random.default_rng(1).standard_normal((80, 800))
    n_groups = 80 * 800 // (group_shape[0] * group_shape[1])
    pruned = zero_least_important(weights, group_shape, sparsity)
    assert group_csr.encode(pruned, group_shape).n_groups == n_groups - round(sparsity * n_groups)


def test_rounds_down():
    weights = np.ones((1, 10), np.float32)
    assert np.count_nonzero(zero_least_important(weights, (1, 1), 0.99)) == 1
    assert np.count_nonzero(zero_least_important(weights, (1, 1), 0.09)) == 10


def test_equals_go_in_order():
    np.testing.assert_array_equal(zero_least_important(np.ones((2, 2)), (1, 1), 0.5), [[0, 0], [1, 1]])


def test_not_a_number_stays():
    weights = np.array([[np.nan, 1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(zero_least_important(weights, (1, 1), 0.5), [[np.nan, 0, 0, 3]])


def test_extremes_of_float32_keep_their_order():
    weights = np.array([[1e-30, 1e-25, 1e25, 1e30]], np.float32)
    np.testing.assert_array_equal(zero_least_important(weights, (1, 1), 0.75)[0, :3], [0, 0, 0])
    np.testing.assert_array_equal(zero_least_important(weights, (1, 1), 0.25)[0, 1:], weights[0, 1:])


@pytest.mark.parametrize(("text", "shape"), [("4x1", (4, 1)), ("1×8", (1, 8)), ("16x16", (16, 16))])
def test_group_shape_as_text(text, shape):
    assert parse_group_shape(text) == shape


@pytest.mark.parametrize(
    "text", ["", "4", "4x", "x1", "0x1", "1x0", "-1x4", "4x1x1", "4 x 1", "4.0x1", "4x1\n", "4X1"]
)
def test_not_a_group_shape(text):
    with pytest.raises(InputError, match="such as 4x1"):
        parse_group_shape(text)
