"""Builds the CUDA kernels for the host, with a plain C++ compiler and no CUDA headers."""

from pathlib import Path

from tests.runtime_ext.compiler import COMPILER, RUNTIME, run

HERE = Path(__file__).parent
#: Everything of runtime_ext/cuda but the launches, and what it needs of the kernels.
SOURCES = (
    HERE / "launch.cpp",
    *(RUNTIME / "cuda" / f"{name}.cpp" for name in ("packed_matrix", "gemm_plan", "conv_plan")),
    *(RUNTIME / "kernels" / f"{name}.cpp" for name in ("validate", "conv_geometry", "scalar_matrix", "widen")),
)
FLAGS = (
    "-std=c++17", "-O1", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-fPIC", f"-I{HERE}",
    f"-I{RUNTIME}",
)  # fmt: skip


def build(target: Path, *flags: str | Path) -> Path:
    """A shared library with the C interface, at ``target``."""
    run(COMPILER, *FLAGS, *flags, "-shared", *SOURCES, RUNTIME / "cuda" / "c_interface.cpp", "-o", target)
    return target
