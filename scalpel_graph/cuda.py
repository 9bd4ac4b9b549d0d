"""The CUDA kernels without ONNX Runtime: on device pointers, from PyTorch, CuPy or `DeviceArray`.

`Library` is of the file that is installed where nvcc was found (`scalpel_graph.library.cuda_op_library`).
"""

import ctypes
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from scalpel_graph.errors import ScalpelError
from scalpel_graph.group_csr import Array, GroupCsr

_VALUE_TYPES = {"float32": 0, "float16": 1, "bfloat16": 2}
_INT64 = ctypes.c_int64
_POINTER = ctypes.c_void_p


class CudaError(ScalpelError):
    """What the library or the CUDA driver says is wrong."""


class _Matrix(ctypes.Structure):
    """``ScalpelCudaMatrix`` of `runtime_ext/cuda/c_interface.cpp`."""

    _fields_ = (
        *((name, _INT64) for name in ("M", "K", "r", "c", "n_groups", "n_row_offsets")),
        *((name, _POINTER) for name in ("values", "row_offsets", "columns_u16", "columns_i32", "bias")),
        ("value_type", ctypes.c_int32),
        ("min", ctypes.c_float),
        ("max", ctypes.c_float),
        ("gate", ctypes.c_int32),
    )


class Library:
    """A loaded library of the CUDA kernels.

    Args:
        path: of the file.

    Raises:
        CudaError: it cannot be loaded.
    """

    def __init__(self, path: str | Path) -> None:
        try:
            self._functions = ctypes.CDLL(str(path))
        except OSError as error:
            raise CudaError(f"{path}: cannot be loaded ({error})") from error
        signatures: dict[str, tuple[Any, list[Any]]] = {
            "error": (ctypes.c_char_p, []),
            "devices": (ctypes.c_int, []),
            "gemm": (_POINTER, [ctypes.POINTER(_Matrix)]),
            "conv": (_POINTER, [ctypes.POINTER(_Matrix), ctypes.POINTER(_INT64)]),
            "destroy": (None, [_POINTER]),
            "run_gemm": (ctypes.c_int, [_POINTER, _POINTER, _INT64, _POINTER, _POINTER, _POINTER]),
            "run_conv": (
                ctypes.c_int,
                [_POINTER, _POINTER, _INT64, _INT64, _INT64, _POINTER, _POINTER, _POINTER],
            ),
            "allocate": (_POINTER, [ctypes.c_size_t]),
            "free": (None, [_POINTER]),
            "copy": (ctypes.c_int, [_POINTER, _POINTER, ctypes.c_size_t]),
        }
        for name, (result, arguments) in signatures.items():
            function = getattr(self._functions, f"scalpel_cuda_{name}")
            function.restype, function.argtypes = result, arguments

    def call(self, name: str, *arguments: Any) -> Any:
        """Calls ``scalpel_cuda_<name>``.

        Raises:
            CudaError: it failed.
        """
        result = getattr(self._functions, f"scalpel_cuda_{name}")(*arguments)
        if result is None or (isinstance(result, int) and result == -1):
            raise CudaError(self._functions.scalpel_cuda_error().decode())
        return result

    def release(self, name: str, pointer: int) -> None:
        """Calls ``scalpel_cuda_<name>``, which gives nothing back."""
        getattr(self._functions, f"scalpel_cuda_{name}")(pointer)

    def devices(self) -> int:
        """Number of CUDA devices.

        Raises:
            CudaError: there is no driver, or none that works.
        """
        return int(self.call("devices"))


class DeviceArray:
    """An array on the device.

    Args:
        library: what allocates it.
        values: what it holds at first.
    """

    def __init__(self, library: Library, values: Array) -> None:
        values = np.ascontiguousarray(values)
        self._library, self._shape, self._dtype = library, values.shape, values.dtype
        self.pointer: int = library.call("allocate", max(values.nbytes, 1))
        library.call("copy", self.pointer, values.ctypes.data, values.nbytes)

    def __del__(self) -> None:
        if hasattr(self, "pointer"):
            self._library.release("free", self.pointer)

    def numpy(self) -> Array:
        """A copy on the host, once everything on the default stream is done."""
        values = np.empty(self._shape, self._dtype)
        self._library.call("copy", values.ctypes.data, self.pointer, values.nbytes)
        return values


def installed_card() -> tuple[str, str]:
    """Name and driver of the first card, as nvidia-smi says.

    Raises:
        CudaError: there is no nvidia-smi, or it finds no card.
    """
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        card, driver = done.stdout.splitlines()[0].rsplit(",", 1)
    except (OSError, subprocess.CalledProcessError, IndexError, ValueError) as error:
        raise CudaError("no CUDA device is here: nvidia-smi finds none") from error
    return card.strip(), driver.strip()


class Plan(Protocol):
    """A layer whose weights are on the device."""

    def output_shape(self, x_shape: Sequence[int]) -> tuple[int, ...]:
        """Shape of the output for an input."""

    def run(self, x: int, x_shape: Sequence[int], y: int, residual: int = 0, stream: int = 0) -> None:
        """Enqueues the layer on a stream.

        Args:
            x: device pointer of a float32 array.
            x_shape: its shape.
            y: device pointer of the output.
            residual: device pointer of an array like the output; 0 for none.
            stream: ``cudaStream_t``; 0 for the default stream.

        Raises:
            CudaError: it cannot be launched.
        """


class _Plan:
    def __init__(self, library: Library, plan: int) -> None:
        self._library, self._plan = library, plan

    def __del__(self) -> None:
        if hasattr(self, "_plan"):
            self._library.release("destroy", self._plan)


class Gemm(_Plan):
    """``Y[N, M] = clamp(X[N, K] · Wᵀ + bias + residual)``.

    Args:
        library: that computes it.
        matrix: ``W``.
        bias: ``[M]`` float32; None for none.
        activation_min, activation_max, activation_gate: see `scalpel_graph.ops`.

    Raises:
        CudaError: the matrix is inconsistent, or the device has no memory for it.
    """

    def __init__(
        self,
        library: Library,
        matrix: GroupCsr,
        bias: npt.NDArray[np.float32] | None = None,
        *,
        activation_min: float = -np.inf,
        activation_max: float = np.inf,
        activation_gate: int = 0,
    ) -> None:
        self._M, self._K = matrix.shape
        described, _held = _described(matrix, bias, (activation_min, activation_max, activation_gate))
        super().__init__(library, library.call("gemm", ctypes.byref(described)))

    def output_shape(self, x_shape: Sequence[int]) -> tuple[int, ...]:
        """``[N, M]`` for ``[N, K]``."""
        return (x_shape[0], self._M)

    def run(self, x: int, x_shape: Sequence[int], y: int, residual: int = 0, stream: int = 0) -> None:
        """See `Plan`."""
        if len(x_shape) != 2 or x_shape[1] != self._K:
            raise CudaError(f"X {list(x_shape)} must have the shape [N, {self._K}]")
        self._library.call("run_gemm", self._plan, x, x_shape[0], residual, y, stream)


class Conv(_Plan):
    """A 2-D convolution.

    Args:
        library: that computes it.
        matrix: ``W[M, C / group * kH * kW]``.
        weight_shape: ``[M, C / group, kH, kW]``.
        strides, dilations: along each axis.
        pads: top, left, bottom, right.
        group: groups.
        bias: ``[M]`` float32; None for none.
        activation_min, activation_max, activation_gate: see `scalpel_graph.ops`.

    Raises:
        CudaError: matrix or geometry are inconsistent, or the device has no memory for them.
    """

    def __init__(
        self,
        library: Library,
        matrix: GroupCsr,
        weight_shape: Sequence[int],
        *,
        strides: Sequence[int] = (1, 1),
        dilations: Sequence[int] = (1, 1),
        pads: Sequence[int] = (0, 0, 0, 0),
        group: int = 1,
        bias: npt.NDArray[np.float32] | None = None,
        activation_min: float = -np.inf,
        activation_max: float = np.inf,
        activation_gate: int = 0,
    ) -> None:
        self._weight_shape, self._strides, self._dilations = weight_shape, strides, dilations
        self._pads, self._channels = pads, weight_shape[1] * group
        described, _held = _described(matrix, bias, (activation_min, activation_max, activation_gate))
        numbers = (self._channels, group, *weight_shape[2:], *strides, *dilations, *pads)
        geometry = (_INT64 * len(numbers))(*numbers)
        super().__init__(library, library.call("conv", ctypes.byref(described), geometry))

    def output_shape(self, x_shape: Sequence[int]) -> tuple[int, ...]:
        """``[batch, M, out_h, out_w]`` for ``[batch, C, in_h, in_w]``."""
        sizes = []
        for axis in (0, 1):
            padded = x_shape[2 + axis] + self._pads[axis] + self._pads[2 + axis]
            reach = (self._weight_shape[2 + axis] - 1) * self._dilations[axis] + 1
            sizes.append((padded - reach) // self._strides[axis] + 1)
        return (x_shape[0], self._weight_shape[0], *sizes)

    def run(self, x: int, x_shape: Sequence[int], y: int, residual: int = 0, stream: int = 0) -> None:
        """See `Plan`."""
        if len(x_shape) != 4 or x_shape[1] != self._channels:
            raise CudaError(f"X {list(x_shape)} must have the shape [batch, {self._channels}, height, width]")
        batch, _, height, width = x_shape
        self._library.call("run_conv", self._plan, x, batch, height, width, residual, y, stream)


def run_on_host_arrays(
    library: Library, plan: Plan, x: Array, residual: Array | None = None
) -> npt.NDArray[np.float32]:
    """Uploads the input, runs the layer, and brings the output back.

    Args:
        library: that the plan is of.
        plan: the layer.
        x: float32.
        residual: like the output, float32; None for none.

    Raises:
        CudaError: it failed.
    """
    shape = plan.output_shape(x.shape)
    on_device = DeviceArray(library, x)
    # What the kernel leaves out is no number.
    y = DeviceArray(library, np.full(shape, np.nan, np.float32))
    added = None if residual is None else DeviceArray(library, residual)
    plan.run(on_device.pointer, x.shape, y.pointer, 0 if added is None else added.pointer)
    return y.numpy()


def _described(
    matrix: GroupCsr, bias: npt.NDArray[np.float32] | None, activation: tuple[float, float, int]
) -> tuple[_Matrix, list[Array]]:
    """The matrix for C, and the arrays it points at, which have to outlive it."""
    values, offsets, columns = map(
        np.ascontiguousarray, (matrix.values, matrix.row_offsets, matrix.column_indices)
    )
    if values.dtype.name not in _VALUE_TYPES:
        raise CudaError(f"values must be {', '.join(_VALUE_TYPES)}, got {values.dtype}")
    if bias is not None and (bias.dtype != np.float32 or bias.shape != (matrix.shape[0],)):
        raise CudaError(f"bias must be float32 [{matrix.shape[0]}], got {bias.dtype} {list(bias.shape)}")
    held = [values, offsets, columns] + ([] if bias is None else [np.ascontiguousarray(bias)])
    narrow = columns.dtype == np.uint16
    described = _Matrix(
        *matrix.shape,
        *matrix.group_shape,
        matrix.n_groups,
        len(offsets),
        values.ctypes.data,
        offsets.ctypes.data,
        columns.ctypes.data if narrow else None,
        None if narrow else columns.ctypes.data,
        held[3].ctypes.data if bias is not None else None,
        _VALUE_TYPES[values.dtype.name],
        *activation,
    )
    return described, held
