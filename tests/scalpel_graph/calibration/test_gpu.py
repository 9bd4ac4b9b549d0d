"""Calibration of a made-up card finds its prices and its widths again; tests time nothing real."""

import numpy as np
import pytest

from scalpel_graph import cuda, gpu_cost
from scalpel_graph.calibration import gpu
from scalpel_graph.calibration.layers import gemm
from scalpel_graph.cli import calibrate
from scalpel_graph.errors import InputError
from scalpel_graph.library import custom_op_library
from scalpel_graph.target import GpuKernel, GpuTarget, load_target, parse_target
from scalpel_graph.target_toml import to_toml

DENSE = {
    "call": ((1.0, 3.0),),
    "byte": ((4096.0, 2e-4), (65536.0, 5e-4)),
    "multiply_add": ((1.0, 1e-5),),
    "activation": ((1.0, 1e-3),),
}
CARD = GpuTarget(
    name="card",
    kind="gpu",
    description="made up",
    dense=DENSE,
    kernels=tuple(
        GpuKernel(shape, {**DENSE, "call": ((1.0, 4.0),), "multiply_add": ((1.0, slow * 1e-5),)})
        for shape, slow in (((8, 1), 3), ((1, 8), 20))
    ),
)
SHAPES = [kernel.group_shape for kernel in CARD.kernels]


def made_up(job, weights):
    """Products as `CARD` has them; others are fast in multiples of 8 channels, or 16 features."""
    work = job.layer.work
    if job.layer in gpu.LAYERS:
        if job.group_shape is None:
            return gpu_cost.dense_us(work, CARD)
        density = gpu.group_csr.density(weights, job.group_shape)
        return gpu_cost.sparse_us(work, job.group_shape, density, CARD)
    tile = 8 if work.is_conv else 16
    return work.M * (1.0 if work.M % tile == 0 else 1.7)


@pytest.fixture(scope="module", autouse=True)
def small_layers():
    """Weights of layers as large as a card needs take long to make."""
    sizes = ((256, 256), (512, 1024), (1500, 700), (2048, 1000), (1024, 2500))
    layers = tuple(gemm(*size, rows) for size in sizes for rows in (1, 4, 16, 32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu, "LAYERS", layers)
        yield


@pytest.fixture(scope="module")
def samples(small_layers):
    return list(gpu.run(gpu.jobs(SHAPES), made_up))


def test_the_card_is_found_again(samples):
    target, quality = gpu.build(samples, name="mine", description="a card", host={"card": "made up"})
    assert quality.typical < 0.02 and quality.bad < 0.06 and quality.steadiness == 0
    assert (target.round_channels_to, target.round_features_to) == (8, 16)
    assert {kernel.group_shape for kernel in target.kernels} == set(SHAPES)
    assert target.margin == pytest.approx(max(0.02, round(1.5 * quality.typical, 3)), abs=0.002)
    assert parse_target(to_toml(target), "mine", None) == target
    held_out = gemm(1200, 1500, 1).work
    for shape in SHAPES:
        assert gpu_cost.sparse_us(held_out, shape, 0.1, target) == pytest.approx(
            gpu_cost.sparse_us(held_out, shape, 0.1, CARD), rel=0.1
        )


def test_of_multiples_that_are_as_fast_the_smallest_is_taken():
    assert gpu.best_multiple({width: 1.0 + 0.01 * width for width in gpu.WIDTHS}) == 1
    assert gpu.best_multiple({width: float(-(-width // 4)) for width in gpu.WIDTHS}) == 1
    # Slow kernels for widths that do not divide.
    assert gpu.best_multiple({w: 1.0 if w % 4 == 0 else 2.0 for w in gpu.WIDTHS}) == 4


def test_a_session_is_timed_where_its_provider_is():
    """On the CPU, since there is no card: the same calls, with its own library."""
    measured = gpu.SessionMeasure(custom_op_library(), "CPUExecutionProvider")
    layer = gemm(64, 32, 2)
    weights = layer.weights(np.random.default_rng(0), (1, 8), 0.5)
    for shape in (None, (1, 8)):
        assert measured(gpu.GpuJob(layer, shape, 0.5), weights) > 0


def test_without_a_provider_the_package_to_install_is_named(monkeypatch):
    monkeypatch.setattr(gpu.ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(InputError, match="onnxruntime-gpu"):
        gpu.SessionMeasure("nowhere")


class Card:
    def __init__(self, path):
        self.path = path

    def devices(self):
        return 1


def test_the_command_writes_a_profile_that_loads(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(calibrate, "cuda_op_library", lambda: "library")
    monkeypatch.setattr(calibrate, "Library", Card)
    monkeypatch.setattr(calibrate, "installed_card", lambda: ("Some card", "1.2"))
    monkeypatch.setattr(gpu, "SessionMeasure", lambda library: made_up)
    monkeypatch.setattr(gpu_cost, "group_shapes", lambda: SHAPES)
    path = tmp_path / "card.toml"
    assert calibrate.main([str(path), "--target", "gpu"]) == 0
    target = load_target(str(path))
    assert target.kernels and target.host["card"] == "Some card" and target.host["driver"] == "1.2"
    assert "Some card" in capsys.readouterr().out


def test_without_a_card_the_command_says_so_in_one_line(monkeypatch, tmp_path, capsys):
    def no_card(path):
        raise cuda.CudaError("no CUDA device can be used")

    monkeypatch.setattr(calibrate, "cuda_op_library", lambda: "library")
    monkeypatch.setattr(calibrate, "Library", no_card)
    assert calibrate.main([str(tmp_path / "card.toml"), "--target", "gpu"]) == 2
    assert calibrate.main([str(tmp_path / "card.toml"), "--target", "gpu", "--threads", "1"]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "no CUDA device" in errors[0] and "--threads" in errors[1]
    assert not list(tmp_path.iterdir())


def test_a_machine_without_nvidia_smi_has_no_card(monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(cuda.CudaError, match="no CUDA device is here"):
        cuda.installed_card()
