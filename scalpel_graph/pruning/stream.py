"""Runs a model piece by piece over many inputs, while its weights change behind the place where it is.

What is still needed of earlier pieces is kept, in files where it is much: every node runs once for each
input, and no more is in memory than one piece needs.
"""

import tempfile
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TypeProto, ValueInfoProto, helper

from scalpel_graph.group_csr import Array
from scalpel_graph.session import run, session


class Stream:
    """A model and the values that its next nodes need, for each batch of inputs.

    Args:
        model: the model; nodes and initializers are read when it is their turn.
        batches: the inputs of each run.
        threads: of ONNX Runtime.
        memory: bytes of values to keep in memory; what is more goes to temporary files.
    """

    def __init__(
        self, model: ModelProto, batches: Sequence[Mapping[str, Array]], *, threads: int, memory: int
    ) -> None:
        self._model = model
        self._threads = threads
        self._store = _Store(len(batches), memory)
        self._position = 0
        self._readers = _last_readers(model)
        for number, batch in enumerate(batches):
            for name, value in batch.items():
                self._store.put(name, number, value)

    def __enter__(self) -> "Stream":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._store.close()

    @property
    def batches(self) -> int:
        """How many batches there are."""
        return self._store.batches

    def advance(self, position: int, keep: str = "") -> None:
        """Runs the nodes up to, and without, the one at a position.

        Args:
            position: of a node, not before the place where the stream is.
            keep: a value that is kept until the next call even if no later node reads it.
        """
        nodes = list(self._model.graph.node)[self._position : position]
        self._position = position
        # Constants are read where they are used: their values may change in between.
        made = {name for node in nodes for name in node.output if name and node.op_type != "Constant"}
        outputs = sorted(name for name in made if name == keep or self._readers.get(name, -1) >= position)
        if outputs:
            self._run(nodes, outputs)
        for name in self._store.names():
            if name != keep and self._readers.get(name, -1) < position:
                self._store.drop(name)

    def value(self, name: str, batch: int) -> Array:
        """A value that the next node reads."""
        return np.asarray(self._store.get(name, batch))

    def _run(self, nodes: Sequence[NodeProto], outputs: Sequence[str]) -> None:
        needed = _needed(nodes, outputs)
        inputs = [name for name in self._store.names() if name in needed.names]
        model = part_of(
            self._model, needed.nodes, {name: self._store.get(name, 0) for name in inputs}, outputs
        )
        made = session(model, threads=self._threads)
        for number in range(self._store.batches):
            values = run(made, {name: self._store.get(name, number) for name in inputs})
            for name, value in values.items():
                self._store.put(name, number, value)


def part_of(
    model: ModelProto, nodes: Iterable[NodeProto], inputs: Mapping[str, Any], outputs: Sequence[str]
) -> ModelProto:
    """Some nodes of a model as a model.

    Args:
        model: the whole.
        nodes: the nodes, in order; Constant nodes that they read are added.
        inputs: an example of each value that comes from outside.
        outputs: names of what it is to give.
    """
    nodes = list(nodes)
    made = {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in _reads(node)} | set(outputs)
    constants = [
        node
        for node in model.graph.node
        if node.op_type == "Constant" and node.output[0] in read - made and node.output[0] not in inputs
    ]
    part = ModelProto(ir_version=model.ir_version)
    part.opset_import.extend(model.opset_import)
    part.functions.extend(model.functions)
    part.graph.name = "part"
    part.graph.node.extend([*constants, *nodes])
    part.graph.initializer.extend(
        t for t in model.graph.initializer if t.name in read and t.name not in inputs
    )
    part.graph.sparse_initializer.extend(t for t in model.graph.sparse_initializer if t.values.name in read)
    part.graph.input.extend(ValueInfoProto(name=name, type=_type(value)) for name, value in inputs.items())
    if model.ir_version < 4:
        part.ir_version = 4  # initializers need not be listed as inputs
    part.graph.output.extend(ValueInfoProto(name=name) for name in outputs)
    return part


def _type(value: Any) -> TypeProto:
    """The type of a value, sizes left open."""
    if isinstance(value, list):
        return helper.make_sequence_type_proto(_type(value[0] if value else np.zeros(0, np.float32)))
    value = np.asarray(value)
    kind = helper.np_dtype_to_tensor_dtype(value.dtype)
    return helper.make_tensor_type_proto(kind, [None] * value.ndim)


def _reads(node: NodeProto) -> Iterable[str]:
    """What a node reads by name, its subgraphs included."""
    yield from (name for name in node.input if name)
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from _reads(inner)
            yield from (value.name for value in graph.output)


def _last_readers(model: ModelProto) -> dict[str, int]:
    """By name, the place of the last node that reads a value."""
    return {name: place for place, node in enumerate(model.graph.node) for name in _reads(node)}


class _Needed:
    """The nodes that some outputs need, and the names that these read."""

    def __init__(self) -> None:
        self.nodes: deque[NodeProto] = deque()
        self.names: set[str] = set()


def _needed(nodes: Sequence[NodeProto], outputs: Sequence[str]) -> _Needed:
    needed = _Needed()
    needed.names.update(outputs)
    for node in reversed(nodes):
        if needed.names.intersection(node.output):
            needed.nodes.appendleft(node)
            needed.names.update(_reads(node))
    return needed


class _Store:
    """Values by name and batch; those that do not fit into memory are in files."""

    def __init__(self, batches: int, memory: int) -> None:
        self.batches = batches
        self._free = memory
        self._values: dict[str, dict[int, Any]] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._files = 0

    def names(self) -> list[str]:
        return list(self._values)

    def put(self, name: str, batch: int, value: Any) -> None:
        size = value.nbytes if isinstance(value, np.ndarray) else 0
        if size > self._free and value.dtype.kind in "fiub":
            value = self._to_file(value)
        else:
            self._free -= size
        self._values.setdefault(name, {})[batch] = value

    def get(self, name: str, batch: int) -> Any:
        value = self._values[name][batch]
        return np.load(value, mmap_mode="r") if isinstance(value, Path) else value

    def drop(self, name: str) -> None:
        for value in self._values.pop(name).values():
            if isinstance(value, Path):
                value.unlink()
            elif isinstance(value, np.ndarray):
                self._free += value.nbytes

    def close(self) -> None:
        self._values.clear()
        if self._folder is not None:
            self._folder.cleanup()

    def _to_file(self, value: Array) -> Path:
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="scalpel-prune-")
        self._files += 1
        path = Path(self._folder.name) / f"{self._files}.npy"
        np.save(path, value)
        return path
