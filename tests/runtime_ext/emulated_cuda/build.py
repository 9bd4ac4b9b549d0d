"""Builds the CUDA kernels for the host, with a plain C++ compiler and no CUDA headers."""

from pathlib import Path

from tests.runtime_ext.compiler import COMPILER, RUNTIME, run

HERE = Path(__file__).parent
#: Everything of runtime_ext/cuda but the launches, and what it needs of the kernels.
KERNELS = (
    HERE / "launch.cpp",
    *(
        RUNTIME / "cuda" / f"{name}.cpp"
        for name in ("packed_matrix", "gemm_plan", "conv_plan", "c_interface")
    ),
    *(RUNTIME / "kernels" / f"{name}.cpp" for name in ("validate", "conv_geometry")),
)
#: The CUDA operators as those of the CPU.
OPERATORS = (
    HERE / "make_on_cpu.cpp",
    RUNTIME / "cuda" / "operators.cpp",
    *(
        RUNTIME / "ort" / f"{name}.cpp"
        for name in (
            "conv_attributes", "group_csr_conv", "group_csr_gemm", "layer", "matrix_inputs", "node",
            "operator_call", "product_shape", "register", "shape_inference", "workspace",
        )
    ),
)  # fmt: skip
_FLAGS = (
    "-std=c++17", "-O0", "-g1", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Werror", "-fPIC",
    "-fvisibility=hidden", f"-I{HERE}", f"-I{RUNTIME}",
)  # fmt: skip


def build(target: Path, *sources: Path, sanitize: str = "undefined") -> Path:
    """A shared library of these sources at ``target``, in which undefined behaviour ends the program.

    Args:
        target: the file.
        sources: `KERNELS`, which have the C interface, and maybe `OPERATORS`.
        sanitize: the sanitizers; that of addresses needs its library preloaded.
    """
    checks = (f"-fsanitize={sanitize}", "-fno-sanitize-recover=all", "-fno-sanitize=vptr")
    run(COMPILER, *_FLAGS, *checks, "-shared", *sources, "-o", target)
    return target
