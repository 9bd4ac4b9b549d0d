"""The predictions have the shape that the hardware gives them; their size is the profile's business."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalpel_graph import cost, group_csr
from scalpel_graph.calibration import layers as calibration
from scalpel_graph.cost import LayerWork
from scalpel_graph.target import OPERATIONS, load_target
from tests.pass_runner import random, sparse

CPU = load_target("avx2")
SHAPES = [kernel.group_shape for kernel in CPU.kernels]


def gemm(M=512, K=512, N=1, **other):
    return LayerWork("Gemm", M, K, N, **other)


def conv(M=64, C=64, k=3, size=28, group=1):
    return replace(calibration.conv(C, M, k, size, group=group).work)


def test_interpolation_is_exact_at_points_and_flat_outside():
    table = ((1.0, 10.0), (4.0, 20.0), (16.0, 60.0))
    assert [cost.interpolate(table, x) for x in (0.5, 1, 4, 16, 99)] == [10, 10, 20, 60, 60]
    assert cost.interpolate(table, 2) == pytest.approx(15)
    assert cost.interpolate(table, 8) == pytest.approx(40)


def test_dense_is_first_and_every_group_shape_has_the_density_found_in_it():
    weights = sparse(64, 96, group_shape=(4, 1), density=0.2)
    ways = cost.candidates(gemm(64, 96), weights, CPU, 1)
    assert ways[0].decision == "dense" and ways[0].group_shape is None and ways[0].density == 1.0
    for way in ways[1:]:
        assert way.density == group_csr.density(weights, way.group_shape)


def test_forms_larger_than_the_dense_weight_are_no_candidates():
    assert [way.decision for way in cost.candidates(gemm(64, 64), random(64, 64), CPU, 1)] == ["dense"]
    ways = cost.candidates(gemm(64, 64), sparse(64, 64, density=0.4), CPU, 1)
    assert (1, 1) in {way.group_shape for way in ways} and (16, 1) not in {way.group_shape for way in ways}


def test_row_blocks_must_divide_the_rows_of_a_group():
    work = conv(M=12, C=32, k=1, group=2)
    shapes = {way.group_shape for way in cost.candidates(work, sparse(12, 16, density=0.05), CPU, 1)}
    assert (2, 1) in shapes and (4, 1) not in shapes


def test_tiny_convolutions_stay_dense():
    work = conv(M=32, C=3, k=1)
    weights = sparse(work.M, work.K, density=0.1)
    assert [way.decision for way in cost.candidates(work, weights, CPU, 1)] == ["dense"]


def test_a_convolution_may_run_in_our_kernels_without_zeros_but_grows_little():
    shapes = {way.group_shape for way in cost.candidates(conv(), random(64, 576), CPU, 1)}
    assert shapes == {None, (16, 1), (8, 1), (1, 16), (1, 8)}
    work = replace(conv(), quantized=True, value_bytes=1)
    quantized = cost.candidates(work, random(64, 576), load_target("zen5-avx512"), 1)
    assert {way.group_shape for way in quantized} == {None, (16, 1), (8, 1)}


def test_depthwise_convolutions_have_one_group_a_channel():
    work = conv(M=32, C=32, group=32)
    weights = random(32, 9)
    ways = cost.candidates(work, weights, CPU, 1)
    assert [(way.decision, way.group_shape, way.density) for way in ways] == [
        ("dense", None, 1.0),
        ("group_csr", (1, 9), 1.0),
    ]
    weights[:8] = 0
    assert cost.candidates(work, weights, CPU, 1)[1].density == 0.75
    without = replace(CPU, depthwise_kernel={})
    assert [way.decision for way in cost.candidates(work, weights, without, 1)] == ["dense"]


@pytest.mark.parametrize(
    "changes",
    [
        {"M": 64},  # two outputs a channel
        {"kernel": (3, 1), "K": 3},
        {"kernel": (7, 7), "K": 49},
        {"strides": (1, 2)},
        {"strides": (3, 3)},
        {"dilations": (2, 2)},
        {"kernel": (3,), "K": 3, "strides": (1,), "dilations": (1,), "in_size": (28,), "out_size": (28,)},
    ],
)
def test_depthwise_convolutions_without_a_kernel_stay_dense(changes):
    work = replace(conv(M=32, C=32, group=32), **changes)
    assert not cost.has_depthwise_kernel(work)
    assert [way.decision for way in cost.candidates(work, random(work.M, work.K), CPU, 1)] == ["dense"]


def test_quantized_depthwise_convolutions_have_a_kernel_of_any_geometry():
    target = load_target("zen5-avx512")
    for changes in ({}, {"kernel": (7, 7), "K": 49}, {"strides": (1, 2)}, {"dilations": (2, 2)}):
        work = replace(conv(M=32, C=32, group=32), quantized=True, value_bytes=1, **changes)
        ways = cost.candidates(work, random(32, work.K), target, 1)
        assert [way.group_shape for way in ways] == [None, (1, work.K)]
        assert 0 < ways[1].predicted_us < 100
    two = replace(conv(M=64, C=32, group=32), quantized=True, value_bytes=1)
    assert [way.decision for way in cost.candidates(two, random(64, 9), target, 1)] == ["dense"]


@pytest.mark.parametrize("threads", [1, 2])
def test_a_larger_depthwise_convolution_never_takes_less(threads):
    times = [
        cost.sparse_us(conv(M=n, C=n, size=size, group=n), (1, 9), 1.0, CPU, threads)
        for n, size in ((16, 14), (32, 14), (32, 28), (64, 28), (64, 56), (256, 56))
    ]
    assert times == sorted(times)


def test_choice_takes_the_fastest_beyond_the_margin():
    ways = cost.candidates(gemm(2048, 2048), sparse(2048, 2048, group_shape=(8, 1), density=0.1), CPU, 1)
    best = min(ways, key=lambda way: way.predicted_us)
    assert best.decision == "group_csr" and cost.choose(ways, CPU.margin) is best
    just_enough = 1 - best.predicted_us / ways[0].predicted_us
    assert cost.choose(ways, just_enough + 1e-6) is ways[0]
    assert cost.choose(ways[:1], 0.0) is ways[0]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("work", [gemm(), gemm(N=32), gemm(4096, 4096), conv(), conv(k=1, size=7)])
@pytest.mark.parametrize("threads", [1, 2])
def test_fewer_groups_never_take_longer(shape, work, threads):
    times = [cost.sparse_us(work, shape, density, CPU, threads) for density in np.linspace(0.01, 1, 40)]
    # Where a price falls with the size that it depends on, a sum may dip a little.
    assert all(later > 0.97 * earlier for earlier, later in pairwise(times)) and times[-1] > times[0]


@given(st.sampled_from([gemm, conv]), st.integers(1, 6))
def test_more_work_takes_longer(make, times):
    small, large = make(M=64), make(M=64 * (times + 1))
    assert cost.dense_us(small, CPU, 1) < cost.dense_us(large, CPU, 1)


def machine(**prices):
    """A machine on which all that costs anything is what is given (prices or tables), in all operations."""
    found = {"call": ((1.0, 0.0),)} | {
        name: price if isinstance(price, tuple) else ((1.0, price),) for name, price in prices.items()
    }
    of = {
        name: {1: {k: v for k, v in found.items() if k == "call" or k in known}}
        for name, known in OPERATIONS.items()
    }
    return replace(
        CPU,
        block=16,
        dense={name: of[name] for name in CPU.dense},
        kernels=tuple(
            replace(kernel, prices={name: of[name] for name in kernel.prices}) for kernel in CPU.kernels
        ),
    )


def test_stored_groups_are_paid_for_whole():
    target = machine(multiply_add=1.0)
    assert cost.sparse_us(gemm(1, 512, 8), (8, 1), 0.5, target, 1) == pytest.approx(8 * 256 * 8 / 1e3)
    assert cost.sparse_us(gemm(8, 512, 8), (8, 1), 0.5, target, 1) == pytest.approx(8 * 256 * 8 / 1e3)


def test_zeros_in_stored_groups_cost_nothing_where_columns_are_many():
    """1×8 groups of which one weight in eight is not zero run as 1×1."""
    weights = np.zeros((64, 512), np.float32)
    weights[:, ::32] = 1
    for rows, alike in ((1, False), (64, True)):
        ways = {way.group_shape: way for way in cost.candidates(gemm(64, 512, rows), weights, CPU, 1)}
        assert ways[1, 8].density == 0.25 and ways[1, 1].density == pytest.approx(1 / 32)
        assert (ways[1, 8].predicted_us == ways[1, 1].predicted_us) == alike
        if alike:
            assert cost.fastest_sparse([ways[1, 8], ways[1, 1]]) is ways[1, 1]


def test_dense_channels_are_paid_for_in_blocks():
    target = machine(multiply_add=1.0)
    assert cost.dense_us(conv(M=65, C=64, k=1, size=2), target, 1) == pytest.approx(80 * 64 * 4 / 1e3)
    assert cost.dense_us(gemm(65, 64, 4), target, 1) == pytest.approx(65 * 64 * 4 / 1e3)


@pytest.mark.parametrize(
    ("layer", "pixels", "copied"),
    [
        (calibration.conv(4, 8, 1, 6), 40, 0),
        (calibration.conv(4, 8, 3, 6), 40, 4 * 3 * (8 * 6)),
        (calibration.conv(4, 8, 1, 6, stride=2, padding=0), 16, 4 * (3 * 3)),
        (calibration.conv(4, 8, 3, 6, stride=2), 16, 4 * 2 * 3 * (4 * 3)),
        (calibration.conv(4, 8, 3, 30, spatial=1), 32, 4 * 3 * 30),
        (calibration.gemm(32, 8, 20), 24, 0),
    ],
)
def test_vectors_are_whole_and_input_is_copied_for_each_column_of_a_kernel(layer, pixels, copied):
    amounts = cost.sparse_amounts(layer.work, (1, 1), 1.0, 8)
    assert amounts["multiply_add"].count == layer.work.M * layer.work.K * pixels
    assert amounts["padded"].count + amounts["strided"].count == copied
    if layer.work.is_conv:
        assert (amounts["strided"].count > 0) == (layer.work.strides[0] > 1)


def test_only_what_is_not_a_matrix_yet_is_unrolled():
    def unrolled(layer):
        return cost.dense_amounts(layer.work, 16)["unrolled"].count

    assert unrolled(calibration.conv(32, 32, 3, 8, group=4)) == 32 * 9 * 64
    assert unrolled(calibration.conv(24, 48, 1, 8, group=3)) == 0
    assert unrolled(calibration.conv(24, 48, 1, 8, group=3, stride=2, padding=0)) == 24 * 16


def test_columns_at_the_edge_are_counted():
    work = calibration.conv(16, 16, 3, 7).work
    assert cost.dense_amounts(work, 16)["edge"].count == pytest.approx(work.macs * 2 / 7)
    assert cost.dense_amounts(calibration.conv(16, 16, 3, 7, padding=0).work, 16)["edge"].count == 0


def test_weights_of_a_large_network_come_from_memory():
    alone = cost.dense_us(gemm(256, 1024), CPU, 1)
    in_network = cost.dense_us(gemm(256, 1024, network_bytes=1 << 28), CPU, 1)
    assert in_network > 1.5 * alone
    # A sparse network of the same layers is smaller, and may fit where the dense one does not.
    dense, sparse_ = (
        cost.sparse_amounts(gemm(256, 1024, network_bytes=1 << 28), (8, 1), density, 8)["weight"].size
        for density in (1.0, 0.05)
    )
    assert dense > 1 << 18 and sparse_ == pytest.approx(0.05 * dense, rel=0.1)


@pytest.mark.parametrize(
    ("layer", "operation"),
    [
        (calibration.conv(32, 32, 1, 8), "pointwise"),
        (calibration.conv(3, 32, 3, 8), "conv"),
        (calibration.conv(32, 32, 3, 8, group=32), "depthwise"),
        (calibration.conv(32, 32, 3, 8, group=4), "plain_conv"),
        (calibration.conv(32, 32, 3, 8, spatial=1), "plain_conv"),
        (calibration.gemm(8, 8), "gemv"),
        (calibration.gemm(8, 8, 2), "gemm"),
    ],
)
def test_operations_of_onnx_runtime(layer, operation):
    assert cost.dense_operation(layer.work, 16) == operation


def test_threads_between_those_that_were_measured():
    prices = {count: {"call": ((1.0, us),)} for count, us in ((1, 16.0), (4, 4.0))}
    times = [cost.price_us(prices, {}, threads) for threads in (1, 2, 4, 64)]
    assert times == pytest.approx([16, 8, 4, 4])


def test_layers_without_zeros_are_never_chosen_at_any_thread_count():
    rng = np.random.default_rng(0)
    for work in (gemm(), gemm(N=16), conv()):
        weights = rng.standard_normal((work.M, work.K)).astype(np.float32)
        for threads in (1, 2):
            assert cost.choose(cost.candidates(work, weights, CPU, threads), CPU.margin).decision == "dense"


def narrow(work):
    return replace(work, value_bytes=2)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("rows", [1, 3, 64])
def test_values_of_16_bits_take_half_the_bytes_of_the_file_and_never_longer(shape, rows):
    work = gemm(1024, 1024, rows, network_bytes=1 << 28)
    n_groups = round(0.1 * -(-1024 // shape[0]) * -(-1024 // shape[1]))
    wide, halved = (cost.stored_bytes(w, shape, 0.1) for w in (work, narrow(work)))
    assert wide - halved == 2 * n_groups * shape[0] * shape[1]
    times = [cost.sparse_us(w, shape, 0.1, CPU, 1) for w in (work, narrow(work))]
    if rows == 64:  # they are widened before
        assert times[0] == times[1]
    else:
        assert times[1] < times[0]


def test_a_conv_takes_as_long_with_values_of_16_bits():
    for shape in SHAPES:
        assert cost.sparse_us(conv(), shape, 0.1, CPU, 1) == cost.sparse_us(
            narrow(conv()), shape, 0.1, CPU, 1
        )


def test_only_what_bytes_cost_gets_cheaper():
    """A weight costs 1 ns near the core and 4 ns far from it, where it takes half the bytes and a bit."""
    target = machine(weight=((64.0, 1.0), (1024.0, 4.0)))
    far = gemm(512, 512, network_bytes=1 << 40)
    share = (2 * 8 + 2) / (4 * 8 + 2)
    for work, price in ((far, 4.0), (narrow(far), 1 + 3 * share)):
        us = cost.sparse_us(work, (1, 8), 1.0, target, 1)
        assert us == pytest.approx(512 * 512 * price / 1e3, rel=3e-3)
    near = gemm(64, 64)
    assert cost.sparse_us(near, (1, 8), 1.0, target, 1) == cost.sparse_us(
        narrow(near), (1, 8), 1.0, target, 1
    )


def test_a_dense_matrix_of_16_bits_can_be_a_candidate():
    weights = random(1024, 1024)
    work = gemm(1024, 1024, network_bytes=1 << 28)
    assert [way.decision for way in cost.candidates(work, weights, CPU, 1)] == ["dense"]
    ways = cost.candidates(narrow(work), weights, CPU, 1)
    assert [way.decision for way in cost.candidates(narrow(replace(work, N=64)), weights, CPU, 1)] == [
        "dense"
    ]
    assert {way.group_shape for way in ways} >= {(1, 8), (8, 1)} and (1, 1) not in {
        w.group_shape for w in ways
    }


def test_convolutions_of_integers_copy_runs_of_channels_and_go_by_sixteen():
    def amounts(*shape, **options):
        return cost.dense_amounts(calibration.conv(*shape, **options).of_integers().work, 1)

    assert amounts(32, 30, 1, 8)["copy"].count == 0
    assert amounts(32, 30, 1, 8)["left_over"].count == 14 * 64
    assert amounts(6, 32, 3, 8, group=2)["copy"].count == 9 * 64 * 2
    assert amounts(6, 40, 3, 8, group=2)["left_over"].count == 2 * 4 * 64
    assert amounts(20, 20, 3, 8, group=20)["left_over"].count == 4 * 9 * 64
    assert cost.dense_amounts(calibration.gemm(64, 64).of_integers().work, 1)["copy"].count == 0
