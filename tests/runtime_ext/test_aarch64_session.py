"""A session of ONNX Runtime for AArch64 with the operator library, on emulated processors.

``make test-aarch64`` runs it, for it downloads ONNX Runtime's wheel for AArch64.
"""

import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest

from models import NETWORKS
from scalpel_graph import qlinear_ops
from scalpel_graph.api import optimize
from scalpel_graph.pruning import prune_magnitude
from tests.ort_sessions import run as run_here
from tests.runtime_ext.compiler import run
from tests.runtime_ext.emulated_kernels import BUILD, COMPILER, EMULATOR, cross_build
from tests.runtime_ext.instruction_sets import EMULATED_CPUS

pytestmark = pytest.mark.skipif(
    os.environ.get("SCALPEL_EVERY_CPU") != "true", reason="make test-aarch64 runs it: it needs a download"
)
NETWORKS_AND_GROUPS = {"lenet-300-100": (4, 1), "convnet": (4, 1), "mobilenet-v1": (8, 1)}
#: What Linux says of a Cortex-A72, for ONNX Runtime reads it and QEMU hands on the host's.
CPU_INFO = """\
processor	: 0
BogoMIPS	: 108.00
Features	: fp asimd evtstrm crc32 cpuid
CPU implementer	: 0x41
CPU architecture: 8
CPU variant	: 0x0
CPU part	: 0xd08
CPU revision	: 3

"""


@cache
def onnx_runtime() -> Path:
    """ONNX Runtime's library for AArch64, of the version that is installed here."""
    folder = cross_build() / f"onnxruntime-{onnxruntime.__version__}"
    if not folder.exists():
        platforms = [f"--platform=manylinux_2_{minor}_aarch64" for minor in (17, 27, 28)]
        wheel = f"onnxruntime=={onnxruntime.__version__}"
        run(
            sys.executable,
            "-m",
            "pip",
            "download",
            "--no-deps",
            "--only-binary=:all:",
            *platforms,
            "-d",
            folder,
            wheel,
        )
    (path,) = folder.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        (name,) = [name for name in archive.namelist() if "/libonnxruntime.so." in name]
        return Path(archive.extract(name, folder))


@cache
def driver() -> Path:
    """The program that runs a session."""
    target = cross_build() / "ort_session"
    run(COMPILER, "-std=c++17", "-O2", Path(__file__).parent / "ort_session.cpp", "-o", target, "-ldl")
    return target


@cache
def system() -> Path:
    """A root of the file system with the libraries of AArch64 and what describes the processor."""
    root = BUILD / "root"
    (root / "proc").mkdir(parents=True, exist_ok=True)
    (root / "proc" / "cpuinfo").write_text(CPU_INFO + CPU_INFO.replace(": 0\n", ": 1\n", 1))
    if not (root / "lib").is_symlink():
        (root / "lib").symlink_to("/usr/aarch64-linux-gnu/lib")
    return root


def emulated(cpu: str, model: Path, x: Any, *, library: bool, optimized: Path) -> Any:
    """The output of a model on an emulated processor."""
    proto = onnx.load(model)
    names = (proto.graph.input[0].name, proto.graph.output[0].name)
    operators = cross_build() / "runtime_ext" / "ort" / "libscalpel_ort.so" if library else "-"
    command = [
        EMULATOR,
        "-cpu",
        cpu,
        "-L",
        system(),
        driver(),
        onnx_runtime(),
        model,
        *names,
        operators,
        optimized,
    ]
    shape = np.array([x.ndim, *x.shape], np.int64)
    done = subprocess.run(command, input=shape.tobytes() + x.tobytes(), capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    return np.frombuffer(done.stdout, np.float32)


@pytest.mark.parametrize("cpu", EMULATED_CPUS)
@pytest.mark.parametrize("name", NETWORKS_AND_GROUPS)
def test_an_optimized_network_computes_what_it_did(name: str, cpu: str, tmp_path: Path) -> None:
    pruned = prune_magnitude(NETWORKS[name].build(), 0.9, NETWORKS_AND_GROUPS[name]).model
    onnx.save(optimize(pruned, target="aarch64").model, tmp_path / "fast.onnx")
    session = onnxruntime.InferenceSession(pruned.SerializeToString())
    feed = session.get_inputs()[0]
    shape = [2 if not isinstance(size, int) else size for size in feed.shape]
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = session.run(None, {feed.name: x})[0]
    for library in (True, False):
        y = emulated(
            cpu, tmp_path / "fast.onnx", x, library=library, optimized=tmp_path / f"{library}.onnx"
        ).reshape(expected.shape)
        np.testing.assert_allclose(y, expected, rtol=1e-4, atol=1e-5)
        ran = {node.op_type for node in onnx.load(tmp_path / f"{library}.onnx").graph.node}
        assert bool(ran & {"GroupCsrGemm", "GroupCsrConv"}) == library


@pytest.mark.parametrize("cpu", EMULATED_CPUS)
def test_a_quantized_network_computes_what_it_does_here(cpu: str, tmp_path: Path) -> None:
    pruned = prune_magnitude(NETWORKS["convnet"].build(), 0.9, (4, 1)).model
    feed = pruned.graph.input[0]
    shape = [dim.dim_value for dim in feed.type.tensor_type.shape.dim][1:]
    x = np.random.default_rng(0).standard_normal((4, *shape)).astype(np.float32)
    np.savez(tmp_path / "inputs.npz", **{feed.name: x})
    result = optimize(pruned, target="aarch64", quantize="int8", calibration=tmp_path / "inputs.npz")
    onnx.save(result.model, tmp_path / "fast.onnx")
    expected = run_here(result.model, {feed.name: x})
    step = np.ptp(expected) / 255
    for library in (True, False):
        y = emulated(
            cpu, tmp_path / "fast.onnx", x, library=library, optimized=tmp_path / f"{library}.onnx"
        ).reshape(expected.shape)
        assert np.abs(y - expected).max() < (0.5 if library else 1.5) * step
        ran = {node.op_type for node in onnx.load(tmp_path / f"{library}.onnx").graph.node}
        assert bool(ran & set(qlinear_ops.OPERATORS)) == library
