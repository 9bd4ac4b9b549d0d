"""Compiles single sources of the kernels for tests that need another build than the installed one."""

import os
import platform
import subprocess
from pathlib import Path

RUNTIME = Path(__file__).parents[2] / "runtime_ext"
COMPILER = os.environ.get("CXX", "c++")

#: By translation unit: what runtime_ext/kernels/CMakeLists.txt sets for each instruction set.
_X86_FLAGS = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": ["-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx2", "-mfma", "-mf16c"],
    "avx2_quads": ["-mavx2", "-mfma", "-ffp-contract=off", "-fno-exceptions"],
    "avx_vnni": ["-mavx2", "-mfma", "-mavxvnni", "-ffp-contract=off", "-fno-exceptions"],
    "avx512_vnni": [
        *("-mavx512f", "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512vnni", "-mavx2", "-mfma", "-mbmi2"),
        "-ffp-contract=off",
        "-fno-exceptions",
    ],
}
ARM_FLAGS = {
    "neon": [],
    "neon_quads": ["-ffp-contract=off", "-fno-exceptions"],
    "neon_dotprod": ["-march=armv8.2-a+dotprod", "-ffp-contract=off", "-fno-exceptions"],
}
_FLAGS = {"x86_64": _X86_FLAGS, "AMD64": _X86_FLAGS, "aarch64": ARM_FLAGS, "arm64": ARM_FLAGS}
#: Those of this machine.
ISA_FLAGS = _FLAGS.get(platform.machine(), {})
#: What it does not build on this machine.
LEFT_OUT = (_X86_FLAGS | ARM_FLAGS).keys() - ISA_FLAGS.keys()


def run(*command: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"
    return done.stdout


def compile_source(source: Path, folder: Path, *flags: str) -> Path:
    """Gives back the object file, in ``folder``."""
    target = folder / f"{source.stem}.o"
    have = [f"-DSCALPEL_{isa.upper()}" for isa in ISA_FLAGS]
    own = ISA_FLAGS.get(source.stem, ["-ffp-contract=off"] if source.stem == "scalar_quantized" else [])
    run(COMPILER, "-std=c++17", f"-I{RUNTIME}", *have, *own, *flags, "-c", source, "-o", target)
    return target
