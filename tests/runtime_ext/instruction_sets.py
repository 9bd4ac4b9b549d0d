"""The kernels of every instruction set that is tested: this machine's, and AArch64's in QEMU.

Names and calls are those of `scalpel_graph._kernels`. An instruction set of an emulated processor is named
``neon@cortex-a72``.
"""

import os
import platform
from typing import Any

from scalpel_graph import _kernels
from tests.runtime_ext import emulated_kernels

#: QEMU's models of processors; none where a processor of their kind runs the tests itself.
EMULATED_CPUS = (
    () if platform.machine() in ("aarch64", "arm64") else ("cortex-a53", "cortex-a72", "cortex-a76", "max")
)
#: Those that every test runs on; the others run those tests that together reach every kernel.
FULLY_TESTED = EMULATED_CPUS if os.environ.get("SCALPEL_EVERY_CPU") == "true" else EMULATED_CPUS[1:2]


def isas(vector: bool = False, every_cpu: bool = False) -> list[str]:
    """Names of the instruction sets to test.

    Args:
        vector: without the scalar reference.
        every_cpu: on every processor, in tests that are cheap enough.
    """
    here = [isa for isa in _kernels.isas() if isa != "scalar" or not vector]
    # random_problems.cpp compares the scalar kernels there with those.
    return [*here, *(f"neon@{cpu}" for cpu in (EMULATED_CPUS if every_cpu else FULLY_TESTED))]


def kernels(isa: str) -> list[Any]:
    """The rows of the kernel table for an instruction set."""
    name, _, cpu = isa.partition("@")
    table = emulated_kernels.kernels(cpu) if cpu else _kernels.kernels()
    return [kernel for kernel in table if kernel["isa"] == name]


def selected_kernels(isa: str, r: int, c: int) -> dict[str, str]:
    """`scalpel_graph._kernels.selected_kernels`."""
    name, _, cpu = isa.partition("@")
    return (
        emulated_kernels.selected_kernels(cpu, name, r, c) if cpu else _kernels.selected_kernels(name, r, c)
    )


def Gemm(*arguments: Any, isa: str = "") -> Any:  # noqa: N802
    """`scalpel_graph._kernels.Gemm`."""
    name, _, cpu = isa.partition("@")
    return emulated_kernels.Gemm(cpu, *arguments, isa=name) if cpu else _kernels.Gemm(*arguments, isa=name)


def Conv(*arguments: Any, isa: str = "") -> Any:  # noqa: N802
    """`scalpel_graph._kernels.Conv`."""
    name, _, cpu = isa.partition("@")
    return emulated_kernels.Conv(cpu, *arguments, isa=name) if cpu else _kernels.Conv(*arguments, isa=name)


def Lrn(*arguments: Any, isa: str = "") -> Any:  # noqa: N802
    """`scalpel_graph._kernels.Lrn`."""
    name, _, cpu = isa.partition("@")
    return emulated_kernels.Lrn(cpu, *arguments, isa=name) if cpu else _kernels.Lrn(*arguments, isa=name)
