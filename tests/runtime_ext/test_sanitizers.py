"""The kernels under AddressSanitizer and UndefinedBehaviorSanitizer, in a build of their own."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.runtime_ext.compiler import COMPILER, LEFT_OUT, RUNTIME, compile_source, run

SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def test_kernels_under_sanitizers(tmp_path):
    sources = [
        *(source for source in RUNTIME.glob("kernels/*.cpp") if source.stem not in LEFT_OUT),
        *RUNTIME.glob("dispatch/*.cpp"),
        Path(__file__).parent / "random_problems.cpp",
    ]
    with ThreadPoolExecutor(2) as pool:
        objects = list(
            pool.map(lambda source: compile_source(source, tmp_path, "-O1", "-g", *SANITIZE), sources)
        )
    run(COMPILER, *SANITIZE, *objects, "-o", tmp_path / "random_problems")
    run(tmp_path / "random_problems")
