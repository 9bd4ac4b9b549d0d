"""Model files in and out: nothing in a file is trusted, and a file is written whole or not at all."""

import contextlib
import fcntl
import hashlib
import mmap
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import onnx
from google.protobuf.message import DecodeError, EncodeError, Message
from onnx import GraphProto, ModelProto, TensorProto, numpy_helper

from scalpel_graph.errors import InputError
from scalpel_graph.external_data import data_files, is_external, payload_bytes, read_into, tensors

#: What a protobuf message can hold. Weights beyond it have to go into a file of their own.
PROTOBUF_LIMIT = 2**31 - 1

#: In a data file, tensors from this size on begin at a memory page, so that they can be mapped.
_PAGE = 4096
_PAGED_BYTES = 64 * 1024
_ALIGNMENT = 64
#: Smaller tensors stay in the model file: runtimes read shapes and axes from them while loading.
_EXTERNAL_BYTES = 1024

_TEMPORARY = ".scalpel-tmp"
_VARINT, _LENGTH_DELIMITED = 0, 2
_GRAPH_IN_MODEL = ModelProto.DESCRIPTOR.fields_by_name["graph"].number
_INITIALIZER_IN_GRAPH = GraphProto.DESCRIPTOR.fields_by_name["initializer"].number


@dataclass(frozen=True)
class LoadedModel:
    """A model in memory, and what is known of where it came from.

    Attributes:
        proto: the model, all external data loaded.
        path: the file it came from; None if it was given in memory.
        uses_external_data: whether any tensor of the file lay in another file.
        size_bytes: size of the model file and its data files; of the model's encoding if there is no file.
    """

    proto: ModelProto
    path: Path | None
    uses_external_data: bool
    size_bytes: int


def load(path: str | Path) -> LoadedModel:
    """Reads a model file and its external data.

    Raises:
        InputError: the file is missing, unreadable, truncated or not an ONNX model, or its external data is
            missing, too short or outside the model's folder, or a tensor does not hold what its shape says.
    """
    path = Path(path)
    data = _read(path)
    size = len(data)
    model = _parse(data, path)
    del data
    if not model.HasField("graph"):
        raise InputError(f"{path}: no graph inside; the file is truncated or not ONNX, export it again")
    if not model.ir_version or not model.opset_import:
        raise InputError(
            f"{path}: no IR version or operator set inside; the file is truncated or damaged, export it again"
        )
    files = read_into(model, path)
    _check_payloads(model, f"{path}: ")
    return LoadedModel(
        proto=model, path=path, uses_external_data=bool(files), size_bytes=size + sum(files.values())
    )


def from_proto(proto: ModelProto) -> LoadedModel:
    """A model that is already in memory. It is not copied.

    Raises:
        InputError: it has no graph, refers to external data that was not loaded, or a tensor does not hold as
            much as its shape says.
    """
    if not proto.HasField("graph") or not proto.ir_version or not proto.opset_import:
        raise InputError("the model has no graph, IR version or operator set; use onnx.helper.make_model")
    _reject_external(proto)
    _check_payloads(proto, "")
    return LoadedModel(proto=proto, path=None, uses_external_data=False, size_bytes=encoded_bytes(proto))


def encoded_bytes(proto: ModelProto) -> int:
    """Bytes of the model as one file, found without encoding it as a whole.

    Above `PROTOBUF_LIMIT`, where there is no such file, it is the bytes of the weights alone.
    """
    weights = weight_bytes(proto)
    return weights if weights > PROTOBUF_LIMIT else _Encoding(proto).size


def weight_bytes(proto: ModelProto) -> int:
    """Bytes of all tensors that a model holds, by their shapes and types."""
    return sum(payload_bytes(tensor) or 0 for tensor in tensors(proto))


def check_writable(path: str | Path, source: Path | None = None) -> None:
    """Finds out, before any long work, whether `save` could write to ``path``.

    Args:
        path: the model file to be written.
        source: the model file that was read, which must stay as it is.

    Raises:
        InputError: the folder is missing or not writable, ``path`` is a folder, a device or write-protected,
            or it is ``source`` or one of its data files (also through links).
    """
    path = Path(path)
    try:
        _check_target(path, _source_files(source))
        descriptor, temporary = _create_temporary(path)
    except OSError as error:
        raise _write_error(path, error) from error
    os.close(descriptor)
    temporary.unlink()


def save(
    proto: ModelProto, path: str | Path, *, external_data: bool = False, source: Path | None = None
) -> int:
    """Writes a model: all of it or nothing, whenever the process is stopped.

    The model is written to a temporary file in the same folder, brought to disk and renamed. Weights that go
    into a data file are written first, to ``NAME.HASH.data`` with the hash of their content: while ``path``
    still holds the old model, that one's data file is still there under its own name. Data files of former
    models at ``path`` and what a killed save left behind are removed at the end. A link at ``path`` is
    replaced, not followed.

    Args:
        proto: the model; it is read only.
        path: where to.
        external_data: store the weights in a data file even if one file could hold everything. A model above
            the limit of protobuf (2 GiB) gets a data file anyway.
        source: the model file that ``proto`` was read from; it and its data files are left alone.

    Returns:
        Bytes written, the data file included.

    Raises:
        InputError: ``path`` cannot be written (as `check_writable`), the disk is full, or the model cannot be
            encoded.
    """
    path = Path(path)
    protected = _source_files(source)
    _reject_external(proto)
    try:
        _check_target(path, protected)
        with contextlib.ExitStack() as cleanup:
            encoding = None if external_data else _encode(proto)
            if encoding is None:
                return _save_external(proto, path, protected, cleanup)
            return _save_inline(encoding, path, protected, cleanup)
    except OSError as error:
        raise _write_error(path, error) from error
    except (EncodeError, ValueError) as error:
        raise InputError(
            f"{path}: the model cannot be encoded ({error}); its graph is too large for ONNX"
        ) from error


# -- reading ------------------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    try:
        # A named pipe that nobody writes to would block here for ever without O_NONBLOCK.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise InputError(f"{path}: not a regular file; give an ONNX model file")
            if status.st_size > PROTOBUF_LIMIT:
                raise InputError(
                    f"{path}: larger than the 2 GiB one ONNX file can hold; save the model with external data"
                )
            data: bytes = file.read()
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path}: is a folder; give the model file inside it") from error
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check path and permissions") from error
    if not data:
        raise InputError(f"{path}: the file is empty; export the model again")
    return data


def _check_payloads(model: ModelProto, place: str) -> None:
    """Raises `InputError` for a tensor that holds more or less than its shape and type need."""
    for tensor in tensors(model):
        needed = payload_bytes(tensor)
        if tensor.HasField("raw_data"):
            held = len(tensor.raw_data)
        elif tensor.data_type == TensorProto.FLOAT:
            held = 4 * len(tensor.float_data)
        else:
            continue
        if needed is not None and held != needed:
            raise InputError(
                f"{place}tensor {tensor.name!r} holds {held} bytes, but its shape and type need {needed};"
                " the model is damaged, export it again"
            )


def _parse(data: bytes, path: Path) -> ModelProto:
    model = ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError as error:
        missing = _missing_bytes(data)
        if missing is None:
            raise InputError(f"{path}: not an ONNX model{_what_it_is(data)}; give an .onnx file") from error
        if missing:
            raise InputError(f"{path}: the file is truncated; copy or download it again") from error
        raise InputError(f"{path}: the file is damaged; copy or download it again") from error
    return model


def _missing_bytes(data: bytes) -> int | None:
    """How many bytes data that begins like a model falls short of what it announces; None if it does not."""
    fields = {field.number: field for field in ModelProto.DESCRIPTOR.fields}
    position = 0
    try:
        while position < len(data):
            tag, position = _read_varint(data, position)
            field = fields.get(tag >> 3)
            wire_type = _VARINT if field is not None and field.cpp_type in _INTEGERS else _LENGTH_DELIMITED
            if field is None or tag & 7 != wire_type:
                return None
            value, position = _read_varint(data, position)
            position += value if wire_type == _LENGTH_DELIMITED else 0
    except IndexError:
        return 1
    return position - len(data)


_INTEGERS = {ModelProto.DESCRIPTOR.fields_by_name[name].cpp_type for name in ("ir_version", "model_version")}


def _read_varint(data: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[position]
        value |= (byte & 0x7F) << shift
        position, shift = position + 1, shift + 7
        if byte < 0x80:
            return value, position


def _what_it_is(data: bytes) -> str:
    """What a file that people mistake for a model is, as an aside."""
    if data.startswith(b"version https://git-lfs"):
        return " but a Git LFS pointer to one (run: git lfs pull)"
    if data.startswith(b"PK\x03\x04"):
        return " but a zip archive, perhaps a PyTorch checkpoint (export it to ONNX first)"
    if data[4:8] == b"ORTM":
        return " but ONNX Runtime's own format (give the ONNX model it was made from)"
    if data.startswith(b"\x1f\x8b"):
        return " but compressed (run: gunzip)"
    return ""


def _reject_external(proto: ModelProto) -> None:
    for tensor in tensors(proto):
        if is_external(tensor):
            raise InputError(
                f"tensor {tensor.name!r} refers to external data that is not loaded;"
                " load the model with its external data first"
            )


# -- writing ------------------------------------------------------------------------------------------------


def _source_files(source: Path | None) -> set[Path]:
    """Real paths of a model file and its data files."""
    if source is None:
        return set()
    source = Path(source)
    files = {Path(os.path.realpath(source))}
    with (
        contextlib.suppress(OSError, ValueError, InputError),
        source.open("rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
    ):
        # Parsing a large model takes a while; without this key there is nothing to find in it.
        if data.find(b"location") >= 0:
            files |= data_files(_parse(data[:], source), source)
    return files


def _check_target(path: Path, protected: set[Path]) -> None:
    parent = path.parent
    if not parent.exists():
        raise InputError(f"{path}: the folder {parent} does not exist; create it first")
    if not parent.is_dir():
        raise InputError(f"{path}: {parent} is not a folder; give another path")
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give the name of a file in it")
    if path.exists() and not path.is_file():
        raise InputError(f"{path}: is not a regular file; give another path")
    if any(_is_same(path, file) for file in protected):
        raise InputError(f"{path}: is the input model or one of its data files; give another path")
    if path.exists() and not os.access(path, os.W_OK):
        raise InputError(f"{path}: is write-protected; change its permissions or give another path")


def _is_same(path: Path, other: Path) -> bool:
    if os.path.realpath(path) == os.path.realpath(other):
        return True
    return path.exists() and other.exists() and path.samefile(other)


def _write_error(path: Path, error: OSError) -> InputError:
    return InputError(f"{path}: cannot be written ({error.strerror}); give a path on a disk you can write to")


def _create_temporary(path: Path) -> tuple[int, Path]:
    """A new file beside ``path``, locked for as long as it is open, so that `_remove_leftovers` spares it."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}{_TEMPORARY}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    with contextlib.suppress(OSError):  # some network file systems have no locks
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return descriptor, temporary


def _open_temporary(path: Path, cleanup: contextlib.ExitStack) -> tuple[IO[bytes], Path]:
    """A temporary file that is closed and, unless it was renamed by then, removed by ``cleanup``."""
    descriptor, temporary = _create_temporary(path)
    cleanup.callback(temporary.unlink, missing_ok=True)
    return cleanup.enter_context(os.fdopen(descriptor, "wb")), temporary


def _to_disk(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _folder_to_disk(folder: Path) -> None:
    with contextlib.suppress(OSError):  # not every file system can, and the folder may not be readable
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _save_inline(
    encoding: "_Encoding", path: Path, protected: set[Path], cleanup: contextlib.ExitStack
) -> int:
    file, temporary = _open_temporary(path, cleanup)
    for chunk in encoding.chunks():
        file.write(chunk)
    _to_disk(file)
    size = file.tell()
    temporary.replace(path)
    _folder_to_disk(path.parent)
    _remove_leftovers(path, keep=protected)
    return size


def _save_external(proto: ModelProto, path: Path, protected: set[Path], cleanup: contextlib.ExitStack) -> int:
    data, temporary_data = _open_temporary(path, cleanup)
    content = hashlib.blake2b(digest_size=8)
    references: list[Any] = []

    def move(tensor: TensorProto, target: TensorProto) -> None:
        payload = _external_payload(tensor)
        if payload is None:
            target.CopyFrom(tensor)
            return
        offset = data.tell()
        padding = b"\0" * (-offset % (_PAGE if len(payload) >= _PAGED_BYTES else _ALIGNMENT))
        for piece in (padding, payload):
            data.write(piece)
            content.update(piece)
        for name in ("name", "doc_string", "data_type"):
            if tensor.HasField(name):
                setattr(target, name, getattr(tensor, name))
        target.dims.extend(tensor.dims)
        target.metadata_props.extend(tensor.metadata_props)
        target.data_location = TensorProto.EXTERNAL
        references.append(target.external_data.add(key="location"))
        target.external_data.add(key="offset", value=str(offset + len(padding)))
        target.external_data.add(key="length", value=str(len(payload)))

    light = ModelProto()
    _copy(proto, light, move)
    if not references:
        temporary_data.unlink()
        return _save_inline(_Encoding(proto), path, protected, cleanup)
    data_path = path.with_name(f"{path.name}.{content.hexdigest()}.data")
    for reference in references:
        reference.value = data_path.name
    _to_disk(data)
    file, temporary = _open_temporary(path, cleanup)
    file.write(light.SerializeToString())
    _to_disk(file)
    size = data.tell() + file.tell()
    if Path(os.path.realpath(data_path)) in protected:
        temporary_data.unlink()  # the name says that the source's data file has this very content
    else:
        temporary_data.replace(data_path)
        _folder_to_disk(path.parent)
    temporary.replace(path)
    _folder_to_disk(path.parent)
    _remove_leftovers(path, keep=protected | {Path(os.path.realpath(data_path))})
    return size


def _external_payload(tensor: TensorProto) -> bytes | None:
    """The raw bytes of a tensor that is to go into the data file; None for one that stays in the model."""
    expected = payload_bytes(tensor)
    if expected is None or expected < _EXTERNAL_BYTES:
        return None
    if tensor.HasField("raw_data"):
        payload = tensor.raw_data
    else:
        try:
            payload = numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
        except (TypeError, ValueError):
            return None
    return payload if len(payload) == expected else None


def _remove_leftovers(path: Path, keep: set[Path]) -> None:
    """Removes data files of former models at ``path`` and temporary files of saves that were killed."""
    name = re.escape(path.name)
    temporary = re.compile(rf"\.{name}\.[0-9a-f]{{12}}{re.escape(_TEMPORARY)}")
    superseded = re.compile(rf"{name}\.[0-9a-f]{{16}}\.data")
    try:
        names = [entry.name for entry in path.parent.iterdir()]
    except OSError:
        return
    alive = [n for n in names if temporary.fullmatch(n) and not _remove_if_abandoned(path.with_name(n))]
    if alive:
        return  # another save to the same path is under way: a data file may be its
    for candidate in names:
        file = path.with_name(candidate)
        if superseded.fullmatch(candidate) and Path(os.path.realpath(file)) not in keep:
            with contextlib.suppress(OSError):
                file.unlink()


def _remove_if_abandoned(temporary: Path) -> bool:
    """Removes a temporary file unless a running save holds it; says whether it is gone."""
    try:
        with temporary.open("rb") as file:
            fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


_COPIED_DEEPLY = (
    onnx.ModelProto,
    onnx.GraphProto,
    onnx.NodeProto,
    onnx.AttributeProto,
    onnx.FunctionProto,
    onnx.TrainingInfoProto,
)


def _copy(source: Message, target: Message, tensor: Callable[[TensorProto, TensorProto], None]) -> None:
    """Copies a message; tensors outside sparse tensors are handed to ``tensor``."""
    for field, value in source.ListFields():
        if field.message_type is None:
            _copy_field(field.name, value, target)
            continue
        parts = getattr(target, field.name)
        if isinstance(value, Message):
            parts.SetInParent()
            pairs = [(value, parts)]
        else:
            pairs = [(part, parts.add()) for part in value]
        for part, copied in pairs:
            if isinstance(part, TensorProto):
                tensor(part, copied)
            elif isinstance(part, _COPIED_DEEPLY):
                _copy(part, copied, tensor)
            else:
                copied.CopyFrom(part)


def _copy_field(name: str, value: Any, target: Message) -> None:
    if isinstance(value, str | bytes | int | float):
        setattr(target, name, value)
    else:
        getattr(target, name).MergeFrom(value)


def _encode(proto: ModelProto) -> "_Encoding | None":
    """The encoding as one file; None if it would be too large for one."""
    if weight_bytes(proto) > PROTOBUF_LIMIT:
        return None
    encoding = _Encoding(proto)
    return encoding if encoding.size <= PROTOBUF_LIMIT else None


class _Encoding:
    """A model's protobuf encoding, made initializer by initializer so that no second copy is needed."""

    def __init__(self, proto: ModelProto) -> None:
        head, graph = ModelProto(), GraphProto()
        for source, target, left_out in ((proto, head, "graph"), (proto.graph, graph, "initializer")):
            for field, value in source.ListFields():
                if field.name != left_out:
                    _copy_field(field.name, value, target)
        self._initializers = proto.graph.initializer
        self._head = head.SerializeToString()
        self._graph = graph.SerializeToString()
        sizes = [len(tensor.SerializeToString()) for tensor in self._initializers]
        self._graph_size = len(self._graph) + sum(
            len(_prefix(_INITIALIZER_IN_GRAPH, size)) + size for size in sizes
        )
        self.size = len(self._head) + len(_prefix(_GRAPH_IN_MODEL, self._graph_size)) + self._graph_size

    def chunks(self) -> Iterator[bytes]:
        yield self._head
        yield _prefix(_GRAPH_IN_MODEL, self._graph_size)
        yield self._graph
        for tensor in self._initializers:
            data = tensor.SerializeToString()
            yield _prefix(_INITIALIZER_IN_GRAPH, len(data))
            yield data


def _prefix(field_number: int, size: int) -> bytes:
    """Tag and length of a message field."""
    encoded = bytearray()
    for number in (field_number << 3 | _LENGTH_DELIMITED, size):
        rest = number
        while rest >= 0x80:
            encoded.append(rest & 0x7F | 0x80)
            rest >>= 7
        encoded.append(rest)
    return bytes(encoded)
