"""The CUDA sources compile with nvcc, where there is one, and the library loads without a card."""

import shutil
import subprocess

import numpy as np
import pytest

from scalpel_graph import cuda
from scalpel_graph.library import cuda_op_library
from scalpel_graph.session import run, session
from tests.runtime_ext.compiler import RUNTIME
from tests.sparse_layer import conv, gemm

needs_nvcc = pytest.mark.skipif(shutil.which("nvcc") is None, reason="there is no nvcc on this machine")


@pytest.fixture(scope="module")
def library():
    return cuda_op_library()


@needs_nvcc
def test_it_exports_the_operators_and_the_c_interface(library):
    done = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True)
    names = {line.split()[-1] for line in done.stdout.splitlines()}
    assert {"RegisterCustomOps", "scalpel_cuda_gemm", "scalpel_cuda_conv"} <= names
    assert all(name == "RegisterCustomOps" or name.startswith("scalpel_cuda_") for name in names)


@needs_nvcc
def test_it_needs_no_cuda_library_to_load(library):
    done = subprocess.run(["readelf", "-d", library], check=True, capture_output=True, text=True)
    needed = [line.split("[")[1].rstrip("]") for line in done.stdout.splitlines() if "(NEEDED)" in line]
    assert needed and not any("cuda" in name or "stdc++" in name for name in needed)


@needs_nvcc
@pytest.mark.parametrize("layer", [gemm(32, 64, (1, 8), (3, 64)), conv((16, 8, 3, 3), (4, 1), (1, 8, 9, 9))])
def test_a_session_on_the_cpu_can_have_it_in_place_of_the_other(library, layer):
    feeds = layer.feeds()
    (y,) = run(session(layer.model(), library=library), feeds).values()
    np.testing.assert_allclose(y, layer.expected(feeds), rtol=1e-5, atol=1e-5)


@needs_nvcc
def test_what_is_wrong_with_cuda_is_said_and_nothing_ends(library):
    loaded = cuda.Library(library)
    try:
        assert loaded.devices() > 0
    except cuda.CudaError as error:
        assert "no CUDA device can be used" in str(error)


def test_the_device_code_has_no_cuda_in_its_index_logic():
    """What the emulation runs is what nvcc compiles: only the launches are CUDA's own."""
    kernels = sorted(path.name for path in (RUNTIME / "cuda").glob("*.cu"))
    assert kernels == ["conv.cu", "gemm.cu"]
    for name in ("gemm_kernel.h", "conv_kernel.h"):
        text = (RUNTIME / "cuda" / name).read_text(encoding="utf-8")
        assert not any(word in text for word in ("threadIdx", "blockIdx", "__shfl", "__CUDA_ARCH__")), name
