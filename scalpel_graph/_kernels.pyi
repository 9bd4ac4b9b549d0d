from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]
_Floats = npt.NDArray[np.float32]
_Int32s = npt.NDArray[np.int32]

class _Kernel(TypedDict):
    name: str
    isa: str
    operation: str

class _Runner:
    def run(
        self,
        X: _Floats,
        *,
        bias: _Floats | None = None,
        residual: _Floats | None = None,
        activation_min: float = ...,
        activation_max: float = ...,
        activation_gate: int = 0,
        threads: int = 1,
    ) -> _Floats: ...
    def time(
        self,
        X: _Floats,
        *,
        bias: _Floats | None = None,
        residual: _Floats | None = None,
        activation_min: float = ...,
        activation_max: float = ...,
        activation_gate: int = 0,
        threads: int = 1,
        runs: int = 1,
        seconds: float = 0.0,
    ) -> list[float]: ...

class Gemm(_Runner):
    def __init__(
        self,
        values: _Array,
        row_offsets: _Array,
        column_indices: _Array,
        shape: tuple[int, int],
        row_scale: _Array | None = None,
        isa: str = "",
    ) -> None: ...

class Conv(_Runner):
    def __init__(
        self,
        values: _Array,
        row_offsets: _Array,
        column_indices: _Array,
        weight_shape: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        pads: Sequence[int],
        group: int = 1,
        isa: str = "",
    ) -> None: ...

class Lrn:
    def __init__(
        self,
        window_begin: _Int32s,
        window_end: _Int32s,
        bias: _Floats,
        alpha: float,
        beta: float,
        isa: str = "",
    ) -> None: ...
    def run(self, X: _Floats, *, threads: int = 1) -> _Floats: ...
    def time(self, X: _Floats, *, threads: int = 1, runs: int = 1, seconds: float = 0.0) -> list[float]: ...

def isas() -> list[str]: ...
def chosen_isa() -> str: ...
def kernels() -> list[_Kernel]: ...
def selected_kernels(isa: str, r: int, c: int) -> dict[str, str]: ...
def lanes(isa: str) -> int: ...
def quantized_kernels() -> list[dict[str, str]]: ...
def peak_int8_ops(isa: str, *, threads: int = 1, seconds: float = 0.1) -> float: ...
def peak_flops(isa: str, *, threads: int = 1, seconds: float = 0.1) -> float: ...
def bandwidth(
    isa: str, bytes: int, *, copy: bool = False, threads: int = 1, seconds: float = 0.1
) -> float: ...
def exchange_bandwidth(
    writer_core: int, reader_core: int, *, bytes: int = 1 << 19, rounds: int = 20
) -> float: ...
def validate(values: _Array, row_offsets: _Array, column_indices: _Array, shape: tuple[int, int]) -> None: ...

class QuantizedOutput:
    def __init__(
        self,
        dtype: npt.DTypeLike,
        *,
        bias: _Int32s | None = None,
        scale: _Floats | None = None,
        float_bias: _Floats | None = None,
        zero_point: int = 0,
        activation_min: float = ...,
        activation_max: float = ...,
        residual: _Array | None = None,
        residual_scale: float = 1.0,
        residual_offset: float = 0.0,
        residual_is_first: bool = False,
        sum_scale: float = 1.0,
        sum_quantization: tuple[float, float, int] | None = None,
    ) -> None: ...

class _QuantizedRunner:
    def run(
        self, X: _Array, output: QuantizedOutput, *, x_zero_point: int = 0, threads: int = 1
    ) -> _Array: ...
    def time(
        self,
        X: _Array,
        output: QuantizedOutput,
        *,
        x_zero_point: int = 0,
        threads: int = 1,
        runs: int = 1,
        seconds: float = 0.0,
    ) -> list[float]: ...

class QuantizedGemm(_QuantizedRunner):
    def __init__(
        self,
        values: _Array,
        row_offsets: _Array,
        column_indices: _Array,
        shape: tuple[int, int],
        isa: str = "",
    ) -> None: ...

class QuantizedConv(_QuantizedRunner):
    def __init__(
        self,
        values: _Array,
        row_offsets: _Array,
        column_indices: _Array,
        weight_shape: Sequence[int],
        strides: Sequence[int],
        dilations: Sequence[int],
        pads: Sequence[int],
        group: int = 1,
        isa: str = "",
    ) -> None: ...
