"""What the kernels for Cortex-M have to reach, in exact instruction counts."""

from pathlib import Path

import pytest

from benchmarks.cortex_m import CMSIS_NN, break_even, count_layer
from benchmarks.kernel_cases import M4, build_firmware
from tests.runtime_ext.cross_tools import require_cross_tools

FC, CONV = CMSIS_NN


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
