"""What the kernels for Cortex-M have to reach, in exact instruction counts."""

import tomllib
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from benchmarks.cortex_m import CMSIS_NN, break_even, count_layer
from benchmarks.cortex_m_costs import predicted
from benchmarks.cortex_m_layers import (
    GROUP_SHAPES,
    ConvShape,
    Layer,
    Weights,
    convolution,
    depthwise,
    elementwise,
    fully_connected,
    pool,
)
from benchmarks.kernel_cases import M4, build_firmware, run_in_qemu
from tests.runtime_ext.cross_tools import require_cross_tools

FC, CONV = CMSIS_NN
CONV_SHAPE = ConvShape(12, 20, (3, 3), (8, 8))
PROFILE = Path(__file__).parents[2] / "scalpel_graph" / "targets" / "mcu.toml"


@pytest.fixture(scope="module")
def firmware(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_cross_tools()
    return build_firmware(M4, tmp_path_factory.mktemp("firmware") / "cases.elf")


def counts_at_90_percent(layer: str, firmware: Path, folder: Path) -> dict[str, int]:
    counts = count_layer(layer, firmware, folder)
    return {
        count.group: count.instructions
        for count in counts
        if "q15" in count.kernel and (count.group == "dense" or round(count.zeros, 2) == 0.9)
    }


def test_fully_connected(firmware: Path, tmp_path: Path) -> None:
    counts = counts_at_90_percent(FC, firmware, tmp_path)
    assert counts["dense"] < 297_260, "the dense kernel is what sparse is compared with: it has to be good"
    assert CMSIS_NN[FC] / counts["1×2"] >= 7.5
    assert CMSIS_NN[FC] / min(counts["2×2"], counts["4×2"]) >= 9
    assert counts["dense"] / counts["1×2"] >= 5
    assert counts["dense"] / min(counts["2×2"], counts["4×2"]) >= 6


def test_convolution(firmware: Path, tmp_path: Path) -> None:
    counts = counts_at_90_percent(CONV, firmware, tmp_path)
    sparse = min(count for group, count in counts.items() if group != "dense")
    assert CMSIS_NN[CONV] > counts["dense"]
    assert CMSIS_NN[CONV] / sparse >= 8.5
    assert counts["dense"] / sparse >= 6.5


def test_break_even(firmware: Path, tmp_path: Path) -> None:
    assert min(break_even(FC, "q15", firmware, tmp_path).values()) <= 0.45


def other_layers() -> list[Layer]:
    """Not those that prices were fitted to."""
    rng = np.random.default_rng(1)
    layers = []
    for family, acc64 in product(GROUP_SHAPES, (False, True)):
        dense = Weights(family, None, acc64=acc64)
        layers += [fully_connected(100, 300, dense, rng), convolution(CONV_SHAPE, dense, rng)]
        layers += [depthwise(ConvShape(20, 20, (3, 3), (6, 6)), dense, rng)]
        for group_shape in GROUP_SHAPES[family]:
            sparse = Weights(family, group_shape, 0.15, acc64)
            layers += [fully_connected(100, 300, sparse, rng), convolution(CONV_SHAPE, sparse, rng)]
    layers += [pool(name, (20, 2, 6), rng) for name in ("max_pool_16", "max_pool_8", "average_pool_16")]
    layers += [elementwise(name, 1600, 100, rng) for name in ("rescale_16", "add_8", "lrn_16", "softmax_16")]
    return layers


def test_prices_predict_other_layers(firmware: Path, tmp_path: Path) -> None:
    prices = tomllib.loads(PROFILE.read_text())["instructions"]
    layers = other_layers()
    outcomes = run_in_qemu(M4, firmware, [layer.case for layer in layers], tmp_path)
    found = {
        layer.case.kernel: predicted(layer, prices) / outcome.instructions
        for layer, outcome in zip(layers, outcomes, strict=True)
    }
    assert {kernel: ratio for kernel, ratio in found.items() if not 0.95 < ratio < 1.05} == {}
