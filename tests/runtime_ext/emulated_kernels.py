"""The kernels of another machine behind the interface of `scalpel_graph._kernels`.

They are built with the toolchain file for AArch64 and run by QEMU as one of its models of processors. A
program of theirs (``kernel_server.cpp``) takes the calls through a pipe.
"""

import fcntl
import os
import shutil
import subprocess
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pytest

from tests.runtime_ext.compiler import RUNTIME, run

ROOT = RUNTIME.parent
BUILD = ROOT / "build" / "aarch64"
TOOLCHAIN = RUNTIME / "toolchains" / "aarch64-linux-gnu.cmake"
COMPILER = "aarch64-linux-gnu-g++"
EMULATOR = "qemu-aarch64"
#: By command: the Debian package that has it.
PACKAGES = {COMPILER: "g++-aarch64-linux-gnu", EMULATOR: "qemu-user", "cmake": "cmake", "make": "make"}


def require_tools() -> None:
    """Skips the test where something to build or run the kernels with is missing; in CI it fails."""
    missing = [package for command, package in PACKAGES.items() if shutil.which(command) is None]
    if missing:
        words = f"the kernels of AArch64 need {', '.join(missing)}: apt-get install {' '.join(missing)}"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(words)


@cache
def cross_build() -> Path:
    """Builds kernels and operator library with the toolchain file, and gives back the folder."""
    require_tools()
    BUILD.mkdir(parents=True, exist_ok=True)
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(
            "cmake",
            "-G",
            "Unix Makefiles",
            "--toolchain",
            TOOLCHAIN,
            "-S",
            ROOT,
            "-B",
            BUILD,
            "-DSCALPEL_WERROR=ON",
        )
        run("cmake", "--build", BUILD)
    return BUILD


@cache
def program(source: Path) -> Path:
    """The executable of a source that uses the kernels; it needs no library of the other machine."""
    kernels = cross_build() / "runtime_ext" / "kernels" / "libscalpel_kernels.a"
    target = BUILD / source.stem
    with (BUILD / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not target.exists() or target.stat().st_mtime < max(p.stat().st_mtime for p in (kernels, source)):
            new = target.with_suffix(".new")
            run(COMPILER, "-std=c++17", "-O2", "-static", f"-I{RUNTIME}", source, kernels, "-o", new)
            new.rename(target)
    return target


class Server:
    """The kernels of one model of a processor.

    Args:
        cpu: what QEMU calls it.
        environment: variables it sees beside those that we do.
    """

    def __init__(self, cpu: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [EMULATOR, "-cpu", cpu, program(Path(__file__).parent / "kernel_server.cpp")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
        )

    def ask(self, *fields: bytes | str | npt.NDArray[Any]) -> list[bytes]:
        """Sends a request; gives back what is in the answer.

        Raises:
            ValueError: the kernels refuse it.
            RuntimeError: a kernel ended the program.
        """
        as_bytes = [
            field.encode()
            if isinstance(field, str)
            else field
            if isinstance(field, bytes)
            else field.tobytes()
            for field in fields
        ]
        to, back = self._process.stdin, self._process.stdout
        assert to is not None and back is not None
        try:
            to.write(len(as_bytes).to_bytes(8, "little"))
            for field in as_bytes:
                to.write(len(field).to_bytes(8, "little"))
                to.write(field)
            to.flush()
            outcome, *values = [_read(back, _size(back)) for _ in range(_size(back))]
        except (BrokenPipeError, EOFError) as error:
            server.cache_clear()
            raise RuntimeError(f"exit code {self._process.wait()} (negative: killed by a signal)") from error
        if outcome != b"done":
            raise ValueError(values[0].decode())
        return values

    def close(self) -> None:
        """Ends the program, which must have run without an error."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.stdout.close()
        assert self._process.wait() == 0


@cache
def server(cpu: str) -> Server:
    """The one that tests share."""
    return Server(cpu)


class _Plan:
    """A plan of the server."""

    def __init__(self, cpu: str, *request: bytes | str | npt.NDArray[Any]) -> None:
        self._server = server(cpu)
        (self._id,) = self._server.ask(*request)
        weakref.finalize(self, _drop, self._server, self._id)


class _Runner(_Plan):
    """A plan of float32 kernels."""

    def run(
        self,
        X: npt.NDArray[np.float32],
        *,
        bias: npt.NDArray[np.float32] | None = None,
        residual: npt.NDArray[np.float32] | None = None,
        activation_min: float = -np.inf,
        activation_max: float = np.inf,
        activation_gate: int = 0,
        threads: int = 1,
    ) -> npt.NDArray[np.float32]:
        assert X.dtype == np.float32
        out, Y = self._server.ask(
            "run",
            self._id,
            _ints(self._sizes(X)),
            X,
            _ints([threads]),
            _ints([bias is not None, residual is not None, activation_gate]),
            b"" if bias is None else bias,
            b"" if residual is None else residual,
            np.array([activation_min, activation_max], np.float32),
        )
        shape = self._shape(X, np.frombuffer(out, np.int64).tolist())
        return np.frombuffer(Y, np.float32).reshape(shape)

    def _sizes(self, X: npt.NDArray[np.float32]) -> Sequence[int]:
        return X.shape

    def _shape(self, X: npt.NDArray[np.float32], sizes: list[int]) -> Sequence[int]:
        return sizes


class Gemm(_Runner):
    """`scalpel_graph._kernels.Gemm`."""

    def __init__(
        self,
        cpu: str,
        values: npt.NDArray[Any],
        row_offsets: npt.NDArray[Any],
        column_indices: npt.NDArray[Any],
        shape: tuple[int, int],
        row_scale: npt.NDArray[np.float32] | None = None,
        *,
        isa: str,
    ) -> None:
        scale = np.zeros(0, np.float32) if row_scale is None else row_scale
        super().__init__(cpu, "gemm", isa, *_matrix(values, row_offsets, column_indices, *shape), scale)


class Conv(_Runner):
    """`scalpel_graph._kernels.Conv`."""

    def __init__(
        self,
        cpu: str,
        values: npt.NDArray[Any],
        row_offsets: npt.NDArray[Any],
        column_indices: npt.NDArray[Any],
        weight_shape: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        pads: Sequence[int],
        group: int,
        isa: str,
    ) -> None:
        matrix = _matrix(values, row_offsets, column_indices, weight_shape[0], int(np.prod(weight_shape[1:])))
        geometry = _geometry(weight_shape, strides, dilations, pads, group)
        super().__init__(cpu, "conv", isa, *matrix, geometry)

    def _sizes(self, X: npt.NDArray[np.float32]) -> Sequence[int]:
        return _image_sizes(X)

    def _shape(self, X: npt.NDArray[np.float32], sizes: list[int]) -> Sequence[int]:
        return _image_shape(X, sizes)


@dataclass(frozen=True)
class QuantizedOutput:
    """What `scalpel_graph._kernels.QuantizedOutput` is made of."""

    dtype: npt.DTypeLike
    bias: npt.NDArray[np.int32] | None = None
    scale: npt.NDArray[np.float32] | None = None
    float_bias: npt.NDArray[np.float32] | None = None
    zero_point: int = 0
    activation_min: float = -np.inf
    activation_max: float = np.inf
    residual: npt.NDArray[Any] | None = None
    residual_scale: float = 1.0
    residual_offset: float = 0.0
    residual_is_first: bool = False
    sum_scale: float = 1.0
    sum_quantization: tuple[float, float, int] | None = None


class _QuantizedRunner(_Plan):
    """A plan of kernels of quantized layers."""

    def run(
        self, X: npt.NDArray[Any], output: QuantizedOutput, *, x_zero_point: int = 0, threads: int = 1
    ) -> npt.NDArray[Any]:
        given = [output.bias, output.scale, output.float_bias, output.residual]
        sum_min, sum_max, sum_zero_point = output.sum_quantization or (0.0, 0.0, 0)
        settings = [threads, x_zero_point, output.zero_point, *(array is not None for array in given)]
        settings += [output.residual_is_first, output.sum_quantization is not None, sum_zero_point]
        limits = [output.activation_min, output.activation_max, output.residual_scale, output.residual_offset]
        limits += [output.sum_scale, sum_min, sum_max]
        dtype = np.dtype(output.dtype)
        *by_row, residual = (b"" if array is None else array for array in given)
        out, Y = self._server.ask(
            "run_quantized",
            self._id,
            _ints(X.shape if X.ndim == 2 else _image_sizes(X)),
            X,
            X.dtype.name,
            _ints(settings),
            dtype.name,
            np.array(limits, np.float32),
            *by_row,
            X.dtype.name if isinstance(residual, bytes) else residual.dtype.name,
            residual,
        )
        sizes = np.frombuffer(out, np.int64).tolist()
        return np.frombuffer(Y, dtype).reshape(sizes if X.ndim == 2 else _image_shape(X, sizes))


class QuantizedGemm(_QuantizedRunner):
    """`scalpel_graph._kernels.QuantizedGemm`."""

    def __init__(
        self,
        cpu: str,
        values: npt.NDArray[np.int8],
        row_offsets: npt.NDArray[Any],
        column_indices: npt.NDArray[Any],
        shape: tuple[int, int],
        isa: str,
    ) -> None:
        super().__init__(cpu, "quantized_gemm", isa, *_matrix(values, row_offsets, column_indices, *shape))


class QuantizedConv(_QuantizedRunner):
    """`scalpel_graph._kernels.QuantizedConv`."""

    def __init__(
        self,
        cpu: str,
        values: npt.NDArray[np.int8],
        row_offsets: npt.NDArray[Any],
        column_indices: npt.NDArray[Any],
        weight_shape: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        pads: Sequence[int],
        group: int,
        isa: str,
    ) -> None:
        matrix = _matrix(values, row_offsets, column_indices, weight_shape[0], int(np.prod(weight_shape[1:])))
        geometry = _geometry(weight_shape, strides, dilations, pads, group)
        super().__init__(cpu, "quantized_conv", isa, *matrix, geometry)


class Lrn(_Runner):
    """`scalpel_graph._kernels.Lrn`."""

    def __init__(
        self,
        cpu: str,
        window_begin: npt.NDArray[np.int32],
        window_end: npt.NDArray[np.int32],
        bias: npt.NDArray[np.float32],
        alpha: float,
        beta: float,
        isa: str,
    ) -> None:
        super().__init__(cpu, "lrn", isa, window_begin, window_end, bias, np.array([alpha, beta], np.float32))

    def _sizes(self, X: npt.NDArray[np.float32]) -> Sequence[int]:
        return (*X.shape[:2], int(np.prod(X.shape[2:])))

    def _shape(self, X: npt.NDArray[np.float32], sizes: list[int]) -> Sequence[int]:
        return X.shape


def kernels(cpu: str) -> list[dict[str, str]]:
    """`scalpel_graph._kernels.kernels`."""
    words = [word.decode() for word in server(cpu).ask("kernels")]
    keys = ("name", "isa", "operation")
    return [dict(zip(keys, words[i : i + 3], strict=True)) for i in range(0, len(words), 3)]


def quantized_kernels(cpu: str) -> list[dict[str, str]]:
    """`scalpel_graph._kernels.quantized_kernels`."""
    words = [word.decode() for word in server(cpu).ask("quantized_kernels")]
    keys = ("name", "set", "isa")
    return [dict(zip(keys, words[i : i + 3], strict=True)) for i in range(0, len(words), 3)]


def selected_kernels(cpu: str, isa: str, r: int, c: int) -> dict[str, str]:
    """`scalpel_graph._kernels.selected_kernels`."""
    spmm, gemv = server(cpu).ask("selected_kernels", isa, _ints([r, c]))
    return {"spmm": spmm.decode(), "gemv": gemv.decode()}


def _matrix(
    values: npt.NDArray[Any], row_offsets: npt.NDArray[Any], column_indices: npt.NDArray[Any], M: int, K: int
) -> list[str | npt.NDArray[Any]]:
    columns = {str(column_indices.dtype): column_indices}
    none = np.zeros(0, np.uint16)
    return [
        values,
        values.dtype.name,
        row_offsets,
        columns.get("uint16", none),
        columns.get("int32", none),
        _ints([M, K, *values.shape]),
    ]


def _geometry(
    weight_shape: Sequence[int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
    group: int,
) -> npt.NDArray[np.int64]:
    _, channels, *kernel = weight_shape
    before = [0] * (2 - len(kernel))
    begins, ends = pads[: len(kernel)], pads[len(kernel) :]
    ones = [1] * len(before)
    geometry = [channels * group, group, *ones, *kernel, *ones, *strides, *ones, *dilations]
    return _ints([*geometry, *before, *begins, *before, *ends])


def _image_sizes(X: npt.NDArray[Any]) -> Sequence[int]:
    return (*X.shape[:2], *[1] * (4 - X.ndim), *X.shape[2:])


def _image_shape(X: npt.NDArray[Any], sizes: list[int]) -> Sequence[int]:
    return [*sizes[:2], *sizes[6 - X.ndim :]]


def _ints(values: Sequence[int]) -> npt.NDArray[np.int64]:
    return np.array(values, np.int64)


def _drop(of: Server, plan: bytes) -> None:
    # At the end of the program, or after a kernel ended the server's, there is nobody left to tell.
    if of._process.poll() is None:
        of.ask("drop", plan)


def _size(back: IO[bytes]) -> int:
    return int.from_bytes(_read(back, 8), "little")


def _read(back: IO[bytes], size: int) -> bytes:
    found = back.read(size)
    if len(found) < size:
        raise EOFError
    return found
