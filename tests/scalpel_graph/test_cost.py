"""The predictions have the shape that the hardware gives them; their size is the profile's business."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scalpel_graph import cost, group_csr
from scalpel_graph.cost import LayerWork
from scalpel_graph.target import load_target
from tests.pass_runner import random, sparse

CPU = load_target("cpu")
KERNELS = {kernel.group_shape: kernel for kernel in CPU.kernels}


def gemm(M=512, K=512, N=1):
    return LayerWork("Gemm", M, K, N, input_bytes=4 * K * N, output_bytes=4 * M * N)


def conv(M=64, C=64, k=3, size=28, group=1, **other):
    return LayerWork(
        "Conv",
        M,
        C // group * k * k,
        size * size,
        group,
        (k, k),
        k > 1,
        4 * C * size**2,
        4 * M * size**2,
        **other,
    )


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


def test_depthwise_and_tiny_convolutions_stay_dense():
    for work in (conv(M=32, C=32, group=32), conv(M=32, C=3, k=1)):
        weights = sparse(work.M, work.K, density=0.1)
        assert [way.decision for way in cost.candidates(work, weights, CPU, 1)] == ["dense"]


def test_choice_takes_the_fastest_beyond_the_margin():
    ways = cost.candidates(gemm(2048, 2048), sparse(2048, 2048, group_shape=(8, 1), density=0.1), CPU, 1)
    best = min(ways, key=lambda way: way.predicted_us)
    assert best.decision == "group_csr" and cost.choose(ways, CPU.margin) is best
    just_enough = 1 - best.predicted_us / ways[0].predicted_us
    assert cost.choose(ways, just_enough + 1e-6) is ways[0]
    assert cost.choose(ways[:1], 0.0) is ways[0]


@pytest.mark.parametrize("work", [gemm(), gemm(N=64), conv(), conv(k=1), conv(M=32, C=32, group=32)])
def test_more_threads_are_never_slower_and_never_count_beyond_the_cores(work):
    one, two, many = (cost.dense_us(work, CPU, threads) for threads in (1, 2, 64))
    assert two < one and many == cost.dense_us(work, CPU, CPU.cores)
    for kernel in CPU.kernels:
        assert cost.sparse_us(work, kernel, 0.1, CPU, 2) < cost.sparse_us(work, kernel, 0.1, CPU, 1)


@given(
    st.sampled_from(sorted(KERNELS)),
    st.sampled_from([gemm(), gemm(N=32), gemm(4096, 4096), conv(), conv(k=1, size=7)]),
    st.floats(0.01, 0.9),
)
def test_fewer_groups_never_take_longer(shape, work, density):
    kernel = KERNELS[shape]
    assert cost.sparse_us(work, kernel, density, CPU, 1) <= cost.sparse_us(
        work, kernel, density * 1.1, CPU, 1
    )


@given(st.sampled_from([gemm, conv]), st.integers(1, 6))
def test_more_work_takes_longer(make, times):
    small, large = make(M=64), make(M=64 * (times + 1))
    assert cost.dense_us(small, CPU, 1) < cost.dense_us(large, CPU, 1)


def test_padding_groups_are_paid_for():
    kernel = replace(KERNELS[8, 1], gemm_gflops=((1.0, 1.0),))
    whole = cost.sparse_us(gemm(8, 512), kernel, 0.5, CPU, 1)
    padded = cost.sparse_us(gemm(1, 512), kernel, 0.5, CPU, 1)
    assert padded == pytest.approx(whole, rel=0.05)


def test_memory_gets_slower_as_it_gets_larger():
    memory = CPU.memory
    sizes = [memory.l2_bytes, memory.l3_bytes, 4 * memory.l3_bytes]
    rates = [size / cost.stream_us(size, CPU, 1) for size in sizes]
    assert rates == sorted(rates, reverse=True)


def test_dense_fc_at_batch_1_is_bound_by_memory():
    work = gemm(4096, 9216)
    assert cost.dense_us(work, CPU, 1) > 0.9 * 4 * work.M * work.K / (CPU.memory.dram_gbps * 1e3)


def test_layers_without_zeros_are_never_chosen_at_any_thread_count():
    rng = np.random.default_rng(0)
    for work in (gemm(), gemm(N=16), conv()):
        weights = rng.standard_normal((work.M, work.K)).astype(np.float32)
        for threads in (1, 2):
            assert cost.choose(cost.candidates(work, weights, CPU, threads), CPU.margin).decision == "dense"
