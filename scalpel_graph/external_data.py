"""Tensors whose bytes lie in files beside the model: finding and reading them without trusting the model.

A model names its data files itself, so every path in it is checked before anything is opened: it must be
relative and must stay, after symbolic links, in the folder of the model.
"""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath

from google.protobuf.message import Message
from onnx import ModelProto, TensorProto

from scalpel_graph.errors import InputError

#: Bits that one element takes in `raw_data`; elements below a byte are packed. Strings have no raw form.
_BITS = {
    TensorProto.FLOAT: 32,
    TensorProto.UINT8: 8,
    TensorProto.INT8: 8,
    TensorProto.UINT16: 16,
    TensorProto.INT16: 16,
    TensorProto.INT32: 32,
    TensorProto.INT64: 64,
    TensorProto.BOOL: 8,
    TensorProto.FLOAT16: 16,
    TensorProto.DOUBLE: 64,
    TensorProto.UINT32: 32,
    TensorProto.UINT64: 64,
    TensorProto.COMPLEX64: 64,
    TensorProto.COMPLEX128: 128,
    TensorProto.BFLOAT16: 16,
    TensorProto.FLOAT8E4M3FN: 8,
    TensorProto.FLOAT8E4M3FNUZ: 8,
    TensorProto.FLOAT8E5M2: 8,
    TensorProto.FLOAT8E5M2FNUZ: 8,
    TensorProto.UINT4: 4,
    TensorProto.INT4: 4,
    TensorProto.FLOAT4E2M1: 4,
    24: 8,  # FLOAT8E8M0, UINT2, INT2: by number, because older releases of onnx do not name them
    25: 2,
    26: 2,
}

#: The messages that can hold a tensor somewhere inside.
_HOLDERS = {
    "ModelProto",
    "GraphProto",
    "NodeProto",
    "AttributeProto",
    "FunctionProto",
    "SparseTensorProto",
    "TrainingInfoProto",
}


def tensors(message: Message) -> Iterator[TensorProto]:
    """Every tensor in a model or a part of one: also in attributes, subgraphs, functions, sparse tensors."""
    for field, value in message.ListFields():
        if field.message_type is None:
            continue
        kind = field.message_type.name
        if kind == "TensorProto":
            yield from (value,) if isinstance(value, Message) else value
        elif kind in _HOLDERS:
            for part in (value,) if isinstance(value, Message) else value:
                yield from tensors(part)


def is_external(tensor: TensorProto) -> bool:
    """Whether the tensor's bytes are in another file."""
    return tensor.HasField("data_location") and tensor.data_location == TensorProto.EXTERNAL


def payload_bytes(tensor: TensorProto) -> int | None:
    """Bytes of the tensor by shape and type; None if the type has no raw form or a dimension is negative."""
    bits = _BITS.get(tensor.data_type)
    count = 1
    for dim in tensor.dims:
        if dim < 0:
            return None
        count *= dim
    return None if bits is None else (count * bits + 7) // 8


@dataclass(frozen=True)
class _Place:
    """Where the bytes of one tensor lie."""

    file: Path
    offset: int
    length: int
    file_size: int


def data_files(model: ModelProto, path: Path) -> set[Path]:
    """The data files that a model refers to, as real paths; those that it must not refer to are left out."""
    found = set()
    for tensor in tensors(model):
        if is_external(tensor):
            try:
                found.add(_data_file(tensor, path))
            except InputError:
                continue
    return found


def read_into(model: ModelProto, path: Path) -> dict[Path, int]:
    """Reads every external tensor into the model, in place.

    All paths, offsets and lengths are checked before the first byte is read.

    Args:
        model: the model as parsed.
        path: the file it came from.

    Returns:
        The data files read, as real paths, and the size of each.

    Raises:
        InputError: a data file is missing, too short, outside the model's folder or cannot be read, or its
            extent contradicts the tensor's shape.
    """
    places = [(tensor, _place(tensor, path)) for tensor in tensors(model) if is_external(tensor)]
    places.sort(key=lambda entry: (entry[1].file, entry[1].offset))
    for tensor, place in places:
        try:
            with place.file.open("rb", buffering=0) as file:
                file.seek(place.offset)
                data = file.read(place.length) if place.length else b""
        except OSError as error:
            raise _error(path, tensor, f"{place.file} cannot be read ({error.strerror})") from error
        if len(data) != place.length:
            raise _error(path, tensor, f"{place.file} changed while it was read; try again")
        tensor.raw_data = data
        tensor.ClearField("data_location")
        tensor.ClearField("external_data")
    return {place.file: place.file_size for _, place in places}


def _place(tensor: TensorProto, path: Path) -> _Place:
    file = _data_file(tensor, path)
    try:
        status = file.stat()
    except OSError as error:
        raise _error(
            path, tensor, f"{file} is missing or cannot be read ({error.strerror}); put it beside the model"
        ) from error
    if not stat.S_ISREG(status.st_mode):
        raise _error(path, tensor, f"{file} is not a regular file")
    needed = payload_bytes(tensor)
    if needed is None:
        raise _error(path, tensor, "its shape or type cannot be stored externally; export the model again")
    offset = _number(tensor, path, "offset", 0)
    length = _number(tensor, path, "length", needed)
    if length != needed:
        raise _error(
            path, tensor, f"its shape and type need {needed} bytes, the model says {length}; export it again"
        )
    if offset + length > status.st_size:
        raise _error(
            path,
            tensor,
            f"it lies at bytes {offset} to {offset + length}, but {file} has only {status.st_size};"
            " copy or download that file again",
        )
    return _Place(file, offset, length, status.st_size)


def _data_file(tensor: TensorProto, path: Path) -> Path:
    location = _entries(tensor).get("location", "")
    if not location or "\0" in location:
        raise _error(path, tensor, "the model does not say in which file; export it again")
    windows = PureWindowsPath(location)
    if location.startswith("/") or windows.drive or windows.root:
        raise _error(path, tensor, f"{location!r} is an absolute path; put the file in the model's folder")
    if ".." in windows.parts:
        raise _error(path, tensor, f"{location!r} leaves the model's folder; put the file into it")
    file = Path(os.path.realpath(path.parent / location))
    # A model that is itself a link may have its data beside the link or, in blob caches, beside the file.
    folders = {Path(os.path.realpath(path.parent)), Path(os.path.realpath(path)).parent}
    if not any(file.is_relative_to(folder) for folder in folders):
        raise _error(path, tensor, f"{location!r} leads out of the model's folder; put the file into it")
    return file


def _number(tensor: TensorProto, path: Path, key: str, default: int) -> int:
    text = _entries(tensor).get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 20):
        raise _error(path, tensor, f"its {key} {text[:40]!r} is no number of bytes; export it again")
    return int(text)


def _entries(tensor: TensorProto) -> dict[str, str]:
    # A string that is not UTF-8 comes back as bytes.
    return {_text(entry.key): _text(entry.value) for entry in tensor.external_data}


def _text(value: str | bytes) -> str:
    return os.fsdecode(value)


def _error(path: Path, tensor: TensorProto, what: str) -> InputError:
    return InputError(f"{path}: external data of tensor {_text(tensor.name)!r}: {what}")
