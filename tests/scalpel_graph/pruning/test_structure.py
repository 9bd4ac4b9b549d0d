import itertools

import numpy as np
import pytest

from scalpel_graph.channels_last import ChannelsLast
from scalpel_graph.errors import InputError
from scalpel_graph.pruning.layers import WeightLayer
from scalpel_graph.pruning.structure import Groups, NofM, parse_n_of_m


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def best_kept(values: np.ndarray, n: int) -> float:
    """The largest sum of magnitudes that ``n`` of some values have: every choice tried."""
    n = min(n, len(values))
    return max(sum(abs(v) for v in chosen) for chosen in itertools.combinations(values, n))


@pytest.mark.parametrize(("n", "m", "K"), [(2, 4, 16), (1, 4, 8), (3, 4, 14), (2, 8, 21), (1, 2, 5)])
def test_n_of_m_keeps_the_largest_of_each_m(n, m, K):
    weights = normal(3, K)
    drop = NofM(n, m).drop(weights)
    for row, gone in zip(weights, drop, strict=True):
        for start in range(0, K, m):
            part, kept = row[start : start + m], ~gone[start : start + m]
            assert kept.sum() == min(n, len(part))
            assert np.abs(part[kept]).sum() == pytest.approx(best_kept(part, n))


def test_n_of_m_of_a_conv_counts_channels_at_one_place_of_the_kernel():
    layer = WeightLayer("conv", "Conv", 0, "w", (3, 8, 2, 2))
    structure = NofM(2, 4).of(layer)
    tensor = normal(3, 8, 2, 2)
    kept = ~structure.drop(layer.matrix(tensor)).reshape(tensor.shape)
    assert (kept.reshape(3, 2, 4, 2, 2).sum(axis=2) == 2).all()


def test_n_of_m_does_not_touch_what_has_it_already():
    weights = normal(4, 16)
    once = np.where(NofM(2, 4).drop(weights), 0, weights)
    np.testing.assert_array_equal(np.where(NofM(2, 4).drop(once), 0, once), once)


@pytest.mark.parametrize("text", ["4:2", "2:2", "0:4", "2", "2:4:8", "a:b", ":", "-1:4"])
def test_unusable_n_of_m(text):
    with pytest.raises(InputError, match="n:m must be two whole numbers, the first smaller, such as 2:4"):
        parse_n_of_m(text)


def test_parse_n_of_m():
    assert parse_n_of_m("2:4") == NofM(2, 4)
    assert NofM(2, 8).sparsity == 0.75


@pytest.mark.parametrize("shape", [(1, 1), (1, 8), (4, 1), (2, 4), (12, 3)])
@pytest.mark.parametrize("sparsity", [0.0, 0.29, 0.5, 0.95])
def test_groups_go_whole_and_in_number(shape, sparsity):
    weights = normal(12, 24)
    r, c = shape
    drop = Groups(shape).drop(weights, sparsity)
    blocks = drop.reshape(12 // r, r, 24 // c, c)
    assert (blocks.all(axis=(1, 3)) == blocks.any(axis=(1, 3))).all()
    assert blocks.any(axis=(1, 3)).sum() == int(sparsity * (12 // r) * (24 // c) + 1e-6)


def test_groups_that_go_are_the_least():
    weights = normal(8, 16)
    drop = Groups((1, 4)).drop(weights, 0.5)
    norms = (weights.reshape(8, 4, 4) ** 2).sum(axis=2)
    gone = drop.reshape(8, 4, 4).all(axis=2)
    assert norms[gone].max() < norms[~gone].min()


@pytest.mark.parametrize(("channels", "kernel"), [(4, (3, 3)), (6, (5,)), (3, (2, 3)), (1, (5, 5))])
def test_groups_along_channels_are_those_of_the_weights_in_that_order(channels, kernel):
    M, shape = 5, (2, 2)
    weights = normal(M, channels * int(np.prod(kernel)))
    structure = Groups(shape, ChannelsLast.of_conv(kernel))
    drop = structure.drop(weights, 0.6)
    lines = np.moveaxis(weights.reshape(M, channels, *kernel), 1, -1).reshape(
        M, int(np.prod(kernel[:-1])), -1
    )
    run = lines.shape[2]
    padded = np.pad(lines, ((0, 0), (0, 0), (0, -run % 2)))
    expected = Groups(shape).drop(padded.reshape(M, -1), 0.6).reshape(padded.shape)[:, :, :run]
    expected = np.moveaxis(expected.reshape(M, *kernel, channels), -1, 1).reshape(M, -1)
    np.testing.assert_array_equal(drop, expected)
    total = -(-M // 2) * lines.shape[1] * -(-run // 2)
    assert structure.density(np.where(drop, 0, weights)) == pytest.approx(1 - int(0.6 * total) / total)
