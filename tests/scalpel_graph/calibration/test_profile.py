"""A calibration of a made-up machine finds its times again; what is written is read back the same."""

from dataclasses import replace

import numpy as np
import pytest

from scalpel_graph import cost
from scalpel_graph.calibration import measure, profile
from scalpel_graph.calibration.layers import DEPTHWISE_LAYERS, LAYERS, conv, gemm
from scalpel_graph.calibration.measure import Job, Sample
from scalpel_graph.target import SPARSE_OPERATIONS, load_target, parse_target
from scalpel_graph.target_toml import to_toml
from tests.scalpel_graph.calibration.machine import PROFILE, Machine

SHAPES = [(1, 1), (1, 8), (4, 1)]
HOST = {"cpu": 'a "machine"', "processor": "Some 1 2"}


@pytest.fixture(scope="module")
def samples():
    return list(measure.run(measure.jobs(SHAPES, [1, 2]), Machine(PROFILE)))


@pytest.fixture(scope="module")
def built(samples):
    return profile.build(
        samples,
        name="mine",
        description="a machine",
        isa="avx2",
        lanes=PROFILE.lanes,
        block=PROFILE.block,
        host=HOST,
    )


def test_the_machine_is_found_again(built):
    target, quality = built
    assert quality.typical < 0.01 and quality.bad < 0.04 and quality.steadiness == 0
    assert (target.lanes, target.block, target.isa) == (PROFILE.lanes, PROFILE.block, "avx2")
    assert [kernel.group_shape for kernel in target.kernels] == [(4, 1), (1, 8), (1, 1)]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    "layer",
    [conv(64, 256, 1, 56), conv(128, 128, 3, 28), conv(512, 512, 3, 7),
     conv(256, 512, 1, 28, stride=2, padding=0), gemm(2048, 1000), gemm(4096, 4096), gemm(768, 3072, 128)],
)  # fmt: skip
def test_layers_it_was_not_fitted_on_are_predicted(built, layer, threads):
    target, _ = built
    true = cost.dense_us(layer.work, PROFILE, threads)
    assert cost.dense_us(layer.work, target, threads) == pytest.approx(true, rel=0.1)
    for shape in SHAPES:
        true = cost.sparse_us(layer.work, shape, 0.1, PROFILE, threads)
        assert cost.sparse_us(layer.work, shape, 0.1, target, threads) == pytest.approx(true, rel=0.1)


def test_what_is_written_is_read_back_the_same(built):
    target, _ = built
    assert parse_target(to_toml(target), "mine", None) == target
    assert parse_target(to_toml(PROFILE), PROFILE.name, None) == PROFILE


def test_an_unsteady_machine_is_told(samples):
    rng = np.random.default_rng(0)
    shaken = [
        Sample(s.job, s.density, {op: us * float(rng.uniform(1, 2)) for op, us in s.times.items()})
        for s in samples
    ]
    target, quality = profile.build(shaken, name="m", description="d", isa="avx2", lanes=8, block=16, host={})
    assert quality.steadiness > 0.1
    assert target.margin == 0.15 or target.margin == pytest.approx(1.5 * quality.typical, abs=1e-3)


def test_everything_is_measured_that_has_a_price():
    jobs = measure.jobs(SHAPES, [1, 4])
    for threads in (1, 4):
        here = [job for job in jobs if job.threads == threads]
        dense = {cost.dense_operation(job.layer.work, 16) for job in here if job.group_shape is None}
        assert dense == {"pointwise", "conv", "plain_conv", "depthwise", "gemm", "gemv"}
        for shape in SHAPES:
            kinds = {cost.sparse_operation(job.layer.work) for job in here if job.group_shape == shape}
            own = {"sparse_few_rows", "sparse_gemv"}  # all else runs as if c were 1
            assert kinds == (set(SPARSE_OPERATIONS) if shape[1] == 1 else own)
        assert any(job.group_shape is not None and cost.has_depthwise_kernel(job.layer.work) for job in here)
    assert any(job.cold for job in jobs)


def test_no_layer_is_listed_twice():
    layers = [*LAYERS, *DEPTHWISE_LAYERS]
    assert len({(layer.work, layer.x_shape) for layer in layers}) == len(layers)


@pytest.mark.parametrize("block", [8, 16])
def test_the_blocked_layout_is_found_out(block):
    def measured(job: Job, weights):
        grouped = job.layer.work.channels // job.layer.work.group % block == 0
        return {"Conv": 1.0, **({"ReorderInput": 1.0} if grouped else {})}

    assert measure.blocked_channels(measured) == block


def test_a_processor_without_the_blocked_layout_is_found_out_and_again():
    assert measure.blocked_channels(lambda job, weights: {"Conv": 1.0}) == 1
    machine = replace(load_target("aarch64"), depthwise_kernel=PROFILE.depthwise_kernel)
    jobs = measure.jobs([(1, 1), (4, 1)], [1])
    target, quality = profile.build(
        list(measure.run(jobs, Machine(machine))),
        name="mine",
        description="a machine",
        isa="neon",
        lanes=4,
        block=1,
        host={},
    )
    assert quality.typical < 0.05
    assert set(target.dense) == {"plain_conv", "gemm", "gemv"}
    assert parse_target(to_toml(target), "mine", None) == target


def test_random_weights_are_as_dense_as_asked():
    layer = gemm(1000, 1000)
    for shape in ((1, 8), (16, 1)):
        weights = layer.weights(np.random.default_rng(0), shape, 0.1)
        assert weights.shape == (1000, 1000) and 0.09 < np.count_nonzero(weights) / 1e6 < 0.11
    assert layer.weights(np.random.default_rng(0), (1, 1), 0.0).any()


def test_prices_of_quantized_layers_are_found_again():
    shapes = [(8, 1), (4, 1)]
    samples = list(measure.run(measure.jobs(shapes, [1], quantized=True), Machine(PROFILE)))
    found = profile.quantized_prices(samples, PROFILE.lanes)
    assert [kernel.group_shape for kernel in found.kernels] == shapes
    target = replace(PROFILE, quantized=found)
    for sample in samples[::7]:
        work, shape = sample.job.layer.work, sample.job.group_shape
        if sample.job.cold:
            continue
        assert work.quantized
        us = [
            cost.dense_us(work, profile_, 1)
            if shape is None
            else cost.sparse_us(work, shape, sample.density, profile_, 1)
            for profile_ in (target, PROFILE)
        ]
        assert us[0] == pytest.approx(us[1], rel=0.15)
    assert parse_target(to_toml(target), "mine", None).quantized == found


def test_without_quantized_layers_there_are_no_prices_for_them(samples, built):
    assert profile.quantized_prices(samples, PROFILE.lanes) is None
    assert built[0].quantized is None
