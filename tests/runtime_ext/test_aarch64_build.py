"""What the toolchain file for AArch64 builds: kernels like the scalar ones, and the operator library."""

from pathlib import Path

import pytest

from tests.runtime_ext.compiler import ARM_FLAGS, RUNTIME, run
from tests.runtime_ext.emulated_kernels import COMPILER, EMULATOR, cross_build, program, require_tools
from tests.runtime_ext.instruction_sets import EMULATED_CPUS

pytestmark = pytest.mark.skipif(
    not EMULATED_CPUS, reason="this machine is one of those that are emulated elsewhere"
)
TOOLS = "aarch64-linux-gnu-"


@pytest.mark.parametrize("cpu", EMULATED_CPUS)
def test_random_problems(cpu: str) -> None:
    run(EMULATOR, "-cpu", cpu, program(Path(__file__).parent / "random_problems.cpp"))


@pytest.mark.parametrize("isa", ARM_FLAGS)
def test_only_the_table_of_kernels_leaves_the_source_of_an_instruction_set(isa: str, tmp_path: Path) -> None:
    """As in test_isa_isolation.py."""
    source, target = RUNTIME / "kernels" / f"{isa}.cpp", tmp_path / f"{isa}.o"
    require_tools()
    run(COMPILER, "-std=c++17", "-O0", *ARM_FLAGS[isa], f"-I{RUNTIME}", "-c", source, "-o", target)
    symbols = run(f"{TOOLS}nm", "-C", "--defined-only", "--extern-only", target).splitlines()
    assert [line.split(maxsplit=2)[2] for line in symbols] == [f"scalpel::{isa}_kernels()"]


def library() -> Path:
    return cross_build() / "runtime_ext" / "ort" / "libscalpel_ort.so"


def test_the_library_exports_one_symbol() -> None:
    exported = run(f"{TOOLS}nm", "-D", "--defined-only", library()).splitlines()
    assert [line.split()[-1] for line in exported] == ["RegisterCustomOps"]


def test_the_library_needs_the_c_library_alone() -> None:
    assert "AArch64" in run(f"{TOOLS}readelf", "-h", library())
    dynamic = run(f"{TOOLS}readelf", "-d", library()).splitlines()
    needed = [line.split("[")[1].rstrip("]") for line in dynamic if "(NEEDED)" in line]
    assert needed and set(needed) <= {"libc.so.6", "libm.so.6", "libpthread.so.0", "ld-linux-aarch64.so.1"}
