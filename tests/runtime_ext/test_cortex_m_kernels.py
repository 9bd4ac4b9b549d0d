"""The Cortex-M kernels against numpy: under sanitizers on the host, and in QEMU."""

import os
import re
from collections import Counter
from pathlib import Path

import pytest

from benchmarks.kernel_cases import (
    FOLDER,
    M3,
    M4,
    M7,
    Board,
    Outcome,
    build_firmware,
    build_host,
    run_in_qemu,
    run_on_host,
)
from tests.runtime_ext.cortex_m_reference import Expectation, expectations
from tests.runtime_ext.cross_tools import require_cross_tools

_SANITIZED = ["-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@pytest.fixture(scope="module")
def expected() -> list[Expectation]:
    return list(expectations())


def compare(outcomes: list[Outcome], expected: list[Expectation]) -> None:
    wrong = Counter(
        expectation.case.kernel
        for outcome, expectation in zip(outcomes, expected, strict=True)
        if outcome.output != expectation.output.tobytes()
    )
    assert not wrong


def test_cases_cover_every_kernel(expected: list[Expectation]) -> None:
    table = (FOLDER / "cases" / "kernel_cases.c").read_text()
    kernels = set(re.findall(r"X\((\w+), \w+, \d+, \d+\)", table))
    assert kernels == {expectation.case.kernel for expectation in expected}


def test_host_under_sanitizers(expected: list[Expectation], tmp_path: Path) -> None:
    program = build_host(os.environ.get("CC", "cc"), tmp_path / "cases", _SANITIZED)
    compare(run_on_host(program, [each.case for each in expected], tmp_path), expected)


@pytest.mark.parametrize("board", [M3, M4, M7], ids=lambda board: board.name)
def test_qemu(board: Board, expected: list[Expectation], tmp_path: Path) -> None:
    require_cross_tools()
    firmware = build_firmware(board, tmp_path / "cases.elf")
    compare(run_in_qemu(board, firmware, [each.case for each in expected], tmp_path), expected)


@pytest.mark.parametrize("flag", ["-DSCALPEL_ASSEMBLER=0", "-Os"])
def test_other_builds_for_the_dsp_extension(flag: str, expected: list[Expectation], tmp_path: Path) -> None:
    require_cross_tools()
    firmware = build_firmware(M4, tmp_path / "cases.elf", [flag])
    compare(run_in_qemu(M4, firmware, [each.case for each in expected], tmp_path), expected)
