"""The library as other programs see it: its symbols, what it needs, and an ONNX Runtime that is too old."""

import ctypes
import subprocess
import sys

import pytest

from scalpel_graph.library import custom_op_library

elf_only = pytest.mark.skipif(sys.platform != "linux", reason="looks into an ELF file")


def output_of(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


@elf_only
def test_it_exports_one_symbol() -> None:
    lines = output_of("nm", "-D", "--defined-only", custom_op_library()).splitlines()
    assert [line.split()[-1] for line in lines] == ["RegisterCustomOps"]


@elf_only
def test_it_needs_the_c_library_alone() -> None:
    dynamic = output_of("readelf", "-d", custom_op_library())
    needed = [line.split("[")[1].rstrip("]") for line in dynamic.splitlines() if "(NEEDED)" in line]
    assert needed
    for name in needed:
        assert name.startswith(("libc.so", "libm.so", "libpthread.so", "ld-linux"))
    undefined = output_of("nm", "-D", "--undefined-only", custom_op_library())
    assert "Py" not in undefined
    assert "Ort" not in undefined


def test_an_older_onnx_runtime_is_told_which_one_is_needed() -> None:
    messages = []

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)
    def create_status(code: int, message: bytes) -> int:
        messages.append((code, message.decode()))
        return 1

    table = (ctypes.c_void_p * 100)(ctypes.cast(create_status, ctypes.c_void_p))

    @ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_uint32)
    def get_api(version: int) -> int | None:
        return ctypes.addressof(table) if version <= 16 else None

    @ctypes.CFUNCTYPE(ctypes.c_void_p)
    def get_version() -> int:
        return ctypes.addressof(version)

    version = ctypes.create_string_buffer(b"1.16.3")
    base = (ctypes.c_void_p * 2)(
        ctypes.cast(get_api, ctypes.c_void_p), ctypes.cast(get_version, ctypes.c_void_p)
    )
    register = ctypes.CDLL(custom_op_library()).RegisterCustomOps
    register.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
    register.restype = ctypes.c_void_p
    assert register(None, base) == 1
    ((code, message),) = messages
    assert code != 0
    assert "need ONNX Runtime 1.17 or newer, this is 1.16.3" in message
