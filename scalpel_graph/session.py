"""ONNX Runtime sessions: quiet, from models of any size, run with every element type it knows."""

import contextlib
import ctypes
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, TensorProto, numpy_helper

from scalpel_graph import io
from scalpel_graph.errors import InputError, ScalpelError

#: Element types that numpy has only through ml_dtypes, which ONNX Runtime's Python API does not take.
_FOREIGN_TYPES = {
    f"tensor({name})": number
    for name, number in {
        "bfloat16": TensorProto.BFLOAT16,
        "float8e4m3fn": TensorProto.FLOAT8E4M3FN,
        "float8e4m3fnuz": TensorProto.FLOAT8E4M3FNUZ,
        "float8e5m2": TensorProto.FLOAT8E5M2,
        "float8e5m2fnuz": TensorProto.FLOAT8E5M2FNUZ,
        "uint4": TensorProto.UINT4,
        "int4": TensorProto.INT4,
        "float4e2m1": TensorProto.FLOAT4E2M1,
        "uint2": 25,  # by number, because older releases of onnx do not name them
        "int2": 26,
    }.items()
}
#: Models with weights of more bytes go through files, whose pages ONNX Runtime maps where it would make
#: copies of a model in memory: three of them while it loads.
IN_MEMORY_BYTES = 2**28
_FATAL = 4
#: A C++ function, as ONNX Runtime's messages name the place they come from.
_SIGNATURE = (
    r"(?:[\w:&*<>,~ ]+ )?(?:\w+::)+~?\w+\((?:[^()]|\([^()]*\))*\)(?: const)?(?:::<lambda\(.*?\)>)?(?:::)? "
)
_MESSAGE_LENGTH = 300


class SessionError(ScalpelError):
    """ONNX Runtime refused a model or an input. The message is its own, brought to one sentence."""


def session(
    model: ModelProto | str | Path,
    *,
    library: str | Path | None = None,
    threads: int = 1,
    prepack: bool = True,
    fold: bool = True,
    optimize: bool = True,
    profile: str | Path | None = None,
    cores: Sequence[int] = (),
) -> ort.InferenceSession:
    """A session on the CPU that writes nothing to stderr.

    Args:
        model: a model, or the path of a model file. A large model goes through temporary files (`loadable`).
        library: custom-op library to register.
        threads: intra-op threads; 0 lets ONNX Runtime choose.
        prepack: lay out weights anew as kernels like them. Without, those of a file stay where they are
            mapped, which saves their size in memory and the time to do it, and each run takes longer.
        fold: compute what is constant once, while loading. Without, each run does, and frees it at once:
            folding keeps every step in which weights are decoded, of all layers, until it is done.
        optimize: let ONNX Runtime fuse operators.
        profile: where ``end_profiling`` writes how long each node took (a prefix of the file's name); None
            for no profile.
        cores: to pin the worker threads to, one for each thread but the first, which is the caller's own;
            empty leaves that to the system.

    Raises:
        SessionError: ONNX Runtime cannot load the model.
        InputError: the library cannot be loaded, or the temporary files cannot be written.
    """
    options = ort.SessionOptions()
    options.log_severity_level = _FATAL
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    if not fold:
        options.enable_cpu_mem_arena = False
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    disabled = () if fold else ("ConstantFolding",)
    if cores:
        affinities = ";".join(str(core + 1) for core in cores)  # ONNX Runtime counts them from 1
        options.add_session_config_entry("session.intra_op_thread_affinities", affinities)
    if profile is not None:
        options.enable_profiling = True
        options.profile_file_prefix = str(profile)
    if library is not None:
        try:
            options.register_custom_ops_library(str(library))
        except Exception as error:
            raise InputError(
                f"{library}: the operator library cannot be loaded ({_sentence(error)}); install it again"
            ) from error
    if isinstance(model, str | Path):
        return _create(str(model), options, disabled)
    with loadable(model) as given:
        # The session keeps its own copy or mapping of the files, so they can go once it is there.
        source = str(given) if isinstance(given, Path) else given.SerializeToString()
        return _create(source, options, disabled)


@contextlib.contextmanager
def loadable(model: ModelProto) -> Iterator[ModelProto | Path]:
    """The form in which sessions take a model with the least memory: itself, or a temporary file.

    Args:
        model: the model.

    Raises:
        InputError: the temporary files cannot be written.
    """
    if io.weight_bytes(model) <= IN_MEMORY_BYTES:
        yield model
        return
    with tempfile.TemporaryDirectory(prefix="scalpel-graph-") as folder:
        path = Path(folder) / "model.onnx"
        io.save(model, path, external_data=True)
        yield path


def run(session: ort.InferenceSession, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Runs a session once.

    Args:
        session: from `session`.
        inputs: value of each input: an array (of an ml_dtypes type where numpy has none), a list for a
            sequence, a dict for a map, None for an absent optional.

    Returns:
        The value of each output, in the same forms.

    Raises:
        SessionError: ONNX Runtime cannot run the model on these inputs.
    """
    names = [output.name for output in session.get_outputs()]
    options = ort.RunOptions()
    options.log_severity_level = _FATAL
    types = {value.name: value.type for value in (*session.get_inputs(), *session.get_outputs())}
    try:
        if not any(kind in _FOREIGN_TYPES for kind in types.values()):
            return dict(zip(names, session.run(names, dict(inputs), options), strict=True))
        values = {name: _to_ort(value, types.get(name, "")) for name, value in inputs.items()}
        outputs = session.run_with_ort_values(names, values, options)
        return {name: _from_ort(value) for name, value in zip(names, outputs, strict=True)}
    except Exception as error:
        raise SessionError(_sentence(error)) from error


def _create(model: str | bytes, options: ort.SessionOptions, disabled: Sequence[str]) -> ort.InferenceSession:
    try:
        # Falling back, to the same provider, would print to stdout and fail again.
        return ort.InferenceSession(
            model,
            options,
            providers=["CPUExecutionProvider"],
            enable_fallback=0,
            disabled_optimizers=list(disabled),
        )
    except Exception as error:
        raise SessionError(_sentence(error)) from error


def _to_ort(value: Any, kind: str) -> ort.OrtValue:
    if kind not in _FOREIGN_TYPES:
        return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value).reshape(np.shape(value)))
    packed = numpy_helper.from_array(value).raw_data
    ort_value = ort.OrtValue.ortvalue_from_shape_and_type(list(value.shape), _FOREIGN_TYPES[kind])
    ctypes.memmove(ort_value.data_ptr(), packed, len(packed))
    return ort_value


def _from_ort(value: ort.OrtValue) -> Any:
    if value.data_type() not in _FOREIGN_TYPES:
        return value.numpy()
    packed = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return numpy_helper.to_array(
        TensorProto(data_type=_FOREIGN_TYPES[value.data_type()], dims=value.shape(), raw_data=packed)
    )


def _sentence(error: Exception) -> str:
    """What ONNX Runtime says, without its codes, its source locations and its line breaks."""
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = re.sub(r"\S*\w+\.(?:cc|h|cpp):\d+ ", "", text)
    text = re.sub(_SIGNATURE, "", text)
    text = " ".join(text.split()).rstrip(". ")
    return text if len(text) <= _MESSAGE_LENGTH else text[: _MESSAGE_LENGTH - 1] + "…"
