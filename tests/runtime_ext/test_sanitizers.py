"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, in a build of their own."""

import os
import platform
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).parent
RUNTIME = HERE.parents[1] / "runtime_ext"
FLAGS = [
    "-std=c++17",
    "-O1",
    "-g",
    "-fsanitize=address,undefined",
    "-fno-sanitize-recover=all",
    f"-I{RUNTIME}",
]
X86 = platform.machine() in ("x86_64", "AMD64")


def run(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout}{done.stderr}"


def test_kernels_under_sanitizers(tmp_path):
    compiler = os.environ.get("CXX", "c++")
    sources = [
        *RUNTIME.glob("kernels/*.cpp"),
        *RUNTIME.glob("dispatch/*.cpp"),
        HERE / "sanitized_kernels.cpp",
    ]

    def compile_source(source):
        isa_flags = {"avx2": ["-mavx2", "-mfma"]}.get(source.stem, [])
        if isa_flags and not X86:
            return None
        target = tmp_path / f"{source.stem}.o"
        run([compiler, *FLAGS, *isa_flags, *(["-DSCALPEL_AVX2"] if X86 else []), "-c", source, "-o", target])
        return target

    with ThreadPoolExecutor(2) as pool:
        objects = [target for target in pool.map(compile_source, sources) if target]
    run([compiler, *FLAGS, *objects, "-o", tmp_path / "sanitized_kernels"])
    run([tmp_path / "sanitized_kernels"])
