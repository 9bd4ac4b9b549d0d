"""Inputs to run a model on: made from a seed, or read from what a person gives."""

import zipfile
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from math import prod
from pathlib import Path
from typing import Any, Literal

import ml_dtypes
import numpy as np
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
)

from scalpel_graph import ops
from scalpel_graph.errors import InputError, Unverifiable
from scalpel_graph.group_csr import Array

_MAX_ELEMENTS = 2**30
_WORDS = ("", "a", "scalpel", "Graph", "0", "ünï", "two words")

#: Largest integer made, plus one, for an input that is no index. Bytes are taken for pixels.
_INTEGERS_BELOW = {np.dtype(np.uint8): 256, np.dtype(np.int8): 128}
_OTHER_INTEGERS_BELOW = 10


@dataclass(frozen=True)
class Recipe:
    """How to fill in what a model leaves open.

    Attributes:
        batch: size of an open first dimension.
        size: size of every other open dimension; None picks what is usual there (8 steps of a sequence, 3
            channels, 64×64 pixels).
        integers: ``indices`` are below the size of the tables they are used on; ``bits`` are 0 and 1.
        floats: standard normal, uniform between 0 and 1, or 1.
    """

    batch: int = 1
    size: int | None = 1
    integers: Literal["indices", "bits", "ones", "zeros"] = "indices"
    floats: Literal["normal", "positive", "ones"] = "normal"


def make_inputs(
    model: ModelProto,
    *,
    seed: int,
    dimensions: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
    recipe: Recipe | None = None,
) -> dict[str, Any]:
    """Makes a value for every input of a model that has no default.

    Integers are small, not negative, and below the size of the tables that they are seen to index.

    Args:
        model: the model.
        seed: the same seed gives the same values.
        dimensions: size of symbolic dimensions.
        shapes: shape of inputs, which also settles the symbols in them (see `parse_input_shapes`).
        recipe: what to do about the dimensions that are still open: 1 by default.

    Returns:
        For each input an array (of an ml_dtypes type where numpy has none), a list of arrays for a sequence,
        a dict for a map.

    Raises:
        InputError: ``shapes`` contradicts the model.
        Unverifiable: an input is of a type or rank that no value can be made for.
    """
    recipe = recipe or Recipe()
    shapes = shapes or {}
    resolved = _resolve_shapes(model, {**symbol_sizes(model, shapes), **(dimensions or {})}, shapes, recipe)
    limits = _IntegerLimits(model, resolved)
    rng = np.random.default_rng(seed)
    return {
        value.name: _Maker(value.name, recipe, rng, limits).value(value.type, resolved)
        for value in required_inputs(model)
    }


def required_inputs(model: ModelProto) -> list[ValueInfoProto]:
    """The inputs of the main graph that have no default."""
    defaults = set(_initializer_dims(model.graph))
    return [value for value in model.graph.input if value.name not in defaults]


def has_open_dimensions(
    model: ModelProto,
    dimensions: Mapping[str, int] | None = None,
    shapes: Mapping[str, Sequence[int]] | None = None,
) -> bool:
    """Whether the shape of any input is left to the recipe."""
    shapes = shapes or {}
    known = {**symbol_sizes(model, shapes), **(dimensions or {})}
    for value in required_inputs(model):
        tensor = tensor_type(value.type)
        if tensor is None or value.name in shapes:
            continue
        if not tensor.HasField("shape") or any(
            not isinstance(dim, int) and dim not in known for dim in dims_of(tensor)
        ):
            return True
    return False


def parse_input_shapes(texts: Iterable[str], model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Reads ``NAME:1,3,224,224`` options. A name may itself contain colons; ``NAME:`` is a scalar.

    Raises:
        InputError: an unknown or repeated name, something that is not a number, a rank or size that
            contradicts the model, or one symbol that would have two sizes.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, colon, numbers = text.rpartition(":")
        if not colon or not name:
            raise InputError(f"--input-shape {text!r}: write NAME:1,3,224,224")
        parts = [part.strip() for part in numbers.split(",")] if numbers.strip() else []
        if not all(part.isascii() and part.isdecimal() and len(part) < 10 for part in parts):
            raise InputError(f"--input-shape {text!r}: {numbers!r} are not sizes; write NAME:1,3,224,224")
        if name in shapes:
            raise InputError(f"--input-shape {text!r}: input {name!r} is given twice; leave one out")
        shapes[name] = tuple(int(part) for part in parts)
    symbol_sizes(model, shapes)
    return shapes


def symbol_sizes(model: ModelProto, shapes: Mapping[str, Sequence[int]]) -> dict[str, int]:
    """The sizes that ``shapes`` of inputs give to symbolic dimensions.

    Raises:
        InputError: the shapes contradict the model or each other.
    """
    types = {value.name: tensor_type(value.type) for value in model.graph.input}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        tensor = types.get(name)
        if name not in types:
            known = ", ".join(value.name for value in required_inputs(model)) or "none"
            raise InputError(f"input shape of {name!r}: the model has no such input; its inputs are: {known}")
        if tensor is None:
            raise InputError(f"input shape of {name!r}: this input is not a tensor; leave the option out")
        if not tensor.HasField("shape"):
            continue
        dims = dims_of(tensor)
        if len(dims) != len(shape):
            raise InputError(
                f"input shape of {name!r}: it is {show_dims(dims)}; give {len(dims)} sizes, not {len(shape)}"
            )
        for axis, (dim, size) in enumerate(zip(dims, shape, strict=True)):
            fixed = sizes.setdefault(dim, size) if isinstance(dim, str) else dim
            if fixed is not None and fixed != size:
                raise InputError(
                    f"input shape of {name!r}: dimension {axis} of {show_dims(dims)} must be {fixed}, not"
                    f" {size}"
                )
    return sizes


def load_check_inputs(path: str | Path, model: ModelProto) -> dict[str, Any]:
    """Reads the inputs of one run from an ``.npz`` file: one array for each input, under its name.

    Arrays of an ml_dtypes type, which numpy stores as raw bytes, are given their type back.

    Raises:
        InputError: the file is no ``.npz`` file, an input is missing or unknown, or an array does not have
            the type or shape that the model states.
    """
    path = Path(path)
    arrays = read_npz(path)
    types = {value.name: value.type for value in model.graph.input}
    required = [value.name for value in required_inputs(model)]
    for name in required:
        if name not in arrays:
            raise InputError(f"{path}: no array for input {name!r}; it must hold: {', '.join(required)}")
    for name in arrays:
        if name not in types:
            raise InputError(f"{path}: the model has no input {name!r}; it must hold: {', '.join(required)}")
    inputs = {name: checked_type(path, name, array, types[name]) for name, array in arrays.items()}
    try:
        symbol_sizes(model, {name: array.shape for name, array in inputs.items()})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return inputs


# -- files --------------------------------------------------------------------------------------------------


def read_npz(path: Path) -> dict[str, Array]:
    """The arrays of an ``.npz`` file.

    Raises:
        InputError: there is no such file, or it is not readable as one.
    """
    try:
        archive = np.load(path, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise InputError(f"{path}: no such file; check the path") from error
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(
            f"{path}: not a readable .npz file; write it with numpy.savez(path, NAME=array, ...)"
        ) from error


def checked_type(path: Path, name: str, array: Array, declared: TypeProto) -> Array:
    """An array of a file, which must be of the element type that an input declares.

    Raises:
        InputError: it is not, or the input is no tensor.
    """
    tensor = tensor_type(declared)
    dtype = None if tensor is None else _dtype(tensor.elem_type)
    if dtype is None:
        raise InputError(
            f"{path}: input {name!r} is not a tensor that an array can hold; use generated inputs"
        )
    if array.dtype.kind == "V" and array.dtype.itemsize == dtype.itemsize:
        array = array.view(dtype)
    if array.dtype.kind == "U" and dtype == np.dtype(object):
        array = array.astype(object)
    if array.dtype != dtype:
        raise InputError(
            f"{path}: input {name!r} has type {array.dtype}, but the model takes {dtype}; convert it"
        )
    return array


# -- types and shapes ---------------------------------------------------------------------------------------


def tensor_type(declared: TypeProto) -> TypeProto.Tensor | None:
    """The tensor type in a type, possibly an optional one."""
    if declared.HasField("optional_type"):
        declared = declared.optional_type.elem_type
    return declared.tensor_type if declared.HasField("tensor_type") else None


def dims_of(tensor: TypeProto.Tensor) -> tuple[int | str | None, ...]:
    """Sizes, symbols, and None for unknown (some exporters write −1 for that)."""
    return tuple(
        dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else (dim.dim_param or None)
        for dim in tensor.shape.dim
    )


def show_dims(dims: Iterable[int | str | None]) -> str:
    """``[?, n, 3]``, for messages."""
    return "[" + ", ".join("?" if dim is None else str(dim) for dim in dims) + "]"


def _dtype(elem_type: int) -> np.dtype[Any] | None:
    try:
        return (
            np.dtype(object)
            if elem_type == TensorProto.STRING
            else helper.tensor_dtype_to_np_dtype(elem_type)
        )
    except KeyError:
        return None


def _initializer_dims(graph: GraphProto) -> dict[str, tuple[int, ...]]:
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    return dims | {sparse.values.name: tuple(sparse.dims) for sparse in graph.sparse_initializer}


def _resolve_shapes(
    model: ModelProto, sizes: dict[str, int], shapes: Mapping[str, Sequence[int]], recipe: Recipe
) -> dict[str, tuple[int, ...]]:
    """A shape for each tensor input. ``sizes`` gains the symbols that it is first to settle."""
    resolved = {name: tuple(shape) for name, shape in shapes.items()}
    open_dims: dict[str, tuple[int | str | None, ...]] = {}
    for value in required_inputs(model):
        tensor = tensor_type(value.type)
        if tensor is None or value.name in resolved:
            continue
        expected = _dims_by_use(model.graph, value.name)
        if tensor.HasField("shape"):
            dims = dims_of(tensor)
            if expected is None or len(expected) != len(dims):
                expected = (None,) * len(dims)
        elif expected is not None:
            dims = (None,) * len(expected)
        else:
            raise Unverifiable(f"input {value.name!r} has no stated rank; give its shape with --input-shape")
        for dim, use in zip(dims, expected, strict=True):
            if isinstance(dim, str) and use is not None:
                sizes.setdefault(dim, use)
        open_dims[value.name] = tuple(
            use if dim is None else dim for dim, use in zip(dims, expected, strict=True)
        )
    # A symbol that is a first dimension anywhere is taken for the batch.
    for dims in open_dims.values():
        if dims and isinstance(dims[0], str):
            sizes.setdefault(dims[0], recipe.batch)
    for name, dims in open_dims.items():
        shape = []
        for axis, dim in enumerate(dims):
            guess = recipe.batch if axis == 0 else recipe.size
            if guess is None:
                guess = 8 if len(dims) < 4 else 3 if axis == 1 else 64
            shape.append(
                sizes.setdefault(dim, guess) if isinstance(dim, str) else guess if dim is None else dim
            )
        resolved[name] = tuple(shape)
    return resolved


def _dims_by_use(graph: GraphProto, name: str) -> tuple[int | None, ...] | None:
    """What the layer with constant weights that reads an input says about its shape."""
    weights = _initializer_dims(graph)
    for node in graph.node:
        if not node.input or node.input[0] != name:
            continue
        if node.domain == ops.DOMAIN:
            shape = next((tuple(a.ints) for a in node.attribute if a.name == "weight_shape"), ())
        else:
            shape = weights.get(node.input[1], ()) if len(node.input) > 1 else ()
        if node.op_type in ("Conv", ops.CONV, ops.LRN) and len(shape) > 2:
            return (None, shape[1] * _integer(node, "group", 1), *(None,) * (len(shape) - 2))
        if node.op_type == "ConvTranspose" and len(shape) > 2:
            return (None, shape[0], *(None,) * (len(shape) - 2))
        if node.op_type == ops.GEMM and len(shape) == 2:
            return None, shape[1]
        if node.op_type == "MatMul" and len(shape) == 2:
            return None, shape[0]
        if node.op_type == "Gemm" and len(shape) == 2 and not _integer(node, "transA", 0):
            return None, shape[1 if _integer(node, "transB", 0) else 0]
    return None


def _integer(node: NodeProto, name: str, default: int) -> int:
    return next((a.i for a in node.attribute if a.name == name and a.type == AttributeProto.INT), default)


# -- values -------------------------------------------------------------------------------------------------


@dataclass
class _Maker:
    """Makes the value of one input."""

    name: str
    recipe: Recipe
    rng: np.random.Generator
    limits: "_IntegerLimits"

    def value(self, declared: TypeProto, resolved: Mapping[str, tuple[int, ...]]) -> Any:
        if declared.HasField("optional_type"):
            return self.value(declared.optional_type.elem_type, resolved)
        if declared.HasField("tensor_type"):
            return self.tensor(declared.tensor_type.elem_type, resolved[self.name])
        if declared.HasField("sequence_type") and declared.sequence_type.elem_type.HasField("tensor_type"):
            tensor = declared.sequence_type.elem_type.tensor_type
            shape = tuple(dim if isinstance(dim, int) else 2 for dim in dims_of(tensor))
            return [
                self.tensor(tensor.elem_type, shape if tensor.HasField("shape") else (2,)) for _ in range(3)
            ]
        if declared.HasField("map_type") and declared.map_type.value_type.HasField("tensor_type"):
            keys = _WORDS if declared.map_type.key_type == TensorProto.STRING else range(4)
            values = self.tensor(declared.map_type.value_type.tensor_type.elem_type, (len(keys),))
            return dict(zip(keys, values.tolist(), strict=True))
        kind = declared.WhichOneof("value") or "unknown type"
        raise Unverifiable(f"no value can be made for input {self.name!r} of {kind.replace('_', ' ')}")

    def tensor(self, elem_type: int, shape: tuple[int, ...]) -> Array:
        if prod(shape) > _MAX_ELEMENTS:
            raise Unverifiable(f"input {self.name!r} would have the shape {list(shape)}, too large to run")
        dtype = _dtype(elem_type)
        if dtype is None:
            raise Unverifiable(f"no value can be made for input {self.name!r} of element type {elem_type}")
        if elem_type == TensorProto.STRING:
            return self.rng.choice(np.array(_WORDS, dtype=object), size=shape).reshape(shape)
        if dtype == np.dtype(bool):
            return self.rng.integers(0, 2, size=shape).astype(bool).reshape(shape)
        if np.issubdtype(dtype, np.complexfloating):
            return (self._floats(shape) + 1j * self._floats(shape)).astype(dtype).reshape(shape)
        limit = _integer_limit(dtype)
        if limit is None:
            floats = self._floats(shape)
            has_no_sign = bool(np.isnan(np.float32(-1).astype(dtype)))
            return (np.abs(floats) if has_no_sign else floats).astype(dtype).reshape(shape)
        return self._integers(shape, dtype, limit)

    def _floats(self, shape: tuple[int, ...]) -> Array:
        if self.recipe.floats == "normal":
            return np.asarray(self.rng.standard_normal(size=shape, dtype=np.float32))
        if self.recipe.floats == "ones":
            return np.ones(shape, np.float32)
        return np.asarray(self.rng.random(size=shape, dtype=np.float32))

    def _integers(self, shape: tuple[int, ...], dtype: np.dtype[Any], limit: int) -> Array:
        if self.recipe.integers in ("zeros", "ones"):
            return np.full(shape, int(self.recipe.integers == "ones")).astype(dtype)
        below = _INTEGERS_BELOW.get(dtype, _OTHER_INTEGERS_BELOW)
        low = 0
        if self.recipe.integers == "bits":
            below = 2
        else:
            below = self.limits.below.get(self.name, below)
            low = int(self.name in self.limits.divisors)
        below = min(below, limit)
        return (
            self.rng.integers(min(low, max(below - 1, 0)), max(below, 1), size=shape)
            .astype(dtype)
            .reshape(shape)
        )


def _integer_limit(dtype: np.dtype[Any]) -> int | None:
    """Largest value of an integer type, plus one; None for other types."""
    try:
        return int(ml_dtypes.iinfo(dtype).max) + 1  # type: ignore[no-untyped-call]
    except ValueError:
        return None


#: Operators that hand on the values of their first input (Concat: of all), whatever they do to its shape.
_HANDS_ON = {
    "Cast",
    "Concat",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Tile",
    "Transpose",
    "Unsqueeze",
}


class _IntegerLimits:
    """Which integers an input can take: found by following it to the operators that use it.

    Attributes:
        below: for inputs that are used as indices or counts, the smallest number that is too large.
        divisors: inputs that something is divided by.
    """

    def __init__(self, model: ModelProto, resolved: Mapping[str, tuple[int, ...]]) -> None:
        self.below: dict[str, int] = {}
        self.divisors: set[str] = set()
        self._dims: dict[str, tuple[int, ...]] = dict(resolved)
        self._constants: dict[str, TensorProto] = {}
        self._readers: dict[str, list[tuple[NodeProto, int]]] = defaultdict(list)
        for graph in _graphs(model.graph):
            self._add(graph)
        for value in required_inputs(model):
            self._follow(value.name)

    def _add(self, graph: GraphProto) -> None:
        for value in graph.value_info:
            tensor = tensor_type(value.type)
            dims = dims_of(tensor) if tensor is not None and tensor.HasField("shape") else (None,)
            known = tuple(dim for dim in dims if isinstance(dim, int))
            if len(known) == len(dims):
                self._dims.setdefault(value.name, known)
        self._dims.update(_initializer_dims(graph))
        self._constants.update((tensor.name, tensor) for tensor in graph.initializer)
        for node in graph.node:
            if node.op_type == "Constant" and node.attribute and node.attribute[0].HasField("t"):
                self._constants[node.output[0]] = node.attribute[0].t
                self._dims[node.output[0]] = tuple(node.attribute[0].t.dims)
            for position, name in enumerate(node.input):
                self._readers[name].append((node, position))

    def _follow(self, start: str) -> None:
        names, seen = [start], {start}
        while names:
            for node, position in self._readers[names.pop()]:
                below = self._limit(node, position)
                if below is not None:
                    self.below[start] = min(self.below.get(start, below), below)
                if node.op_type in ("Div", "Mod") and position == 1:
                    self.divisors.add(start)
                if node.op_type in _HANDS_ON and (position == 0 or node.op_type == "Concat"):
                    new = [name for name in node.output if name and name not in seen]
                    names.extend(new)
                    seen.update(new)

    def _limit(self, node: NodeProto, position: int) -> int | None:
        rule = _LIMITS.get((node.op_type, position))
        if rule is None:
            return None
        try:
            return rule(node, [self._dims.get(name, ()) for name in node.input], self)
        except IndexError:  # the shape that would tell is not known
            return None

    def depth(self, name: str) -> int:
        """The value of a constant with one element."""
        if name not in self._constants:
            raise IndexError(name)
        return int(numpy_helper.to_array(self._constants[name]).reshape(-1)[0])


_Rule = Callable[[NodeProto, list[tuple[int, ...]], _IntegerLimits], int]


def _along_axis(default: int) -> _Rule:
    return lambda node, dims, _: dims[0][_integer(node, "axis", default)]


def _smallest_dim(_: NodeProto, dims: list[tuple[int, ...]], __: _IntegerLimits) -> int:
    if not dims[0]:
        raise IndexError
    return min(dims[0])


#: (operator, position of the input) → the smallest integer that is too large there.
_LIMITS: dict[tuple[str, int], _Rule] = {
    ("Gather", 1): _along_axis(0),
    ("GatherElements", 1): _along_axis(0),
    ("ScatterElements", 1): _along_axis(0),
    ("Scatter", 1): _along_axis(0),
    ("GatherND", 1): _smallest_dim,
    ("ScatterND", 1): _smallest_dim,
    ("TopK", 1): lambda node, dims, _: dims[0][_integer(node, "axis", -1)] + 1,
    ("OneHot", 0): lambda node, _, limits: limits.depth(node.input[1]),
    ("EmbedLayerNormalization", 0): lambda _, dims, __: dims[2][0],
    ("EmbedLayerNormalization", 1): lambda _, dims, __: dims[4][0],
    ("RNN", 4): lambda node, dims, _: dims[0][_integer(node, "layout", 0)] + 1,
    ("GRU", 4): lambda node, dims, _: dims[0][_integer(node, "layout", 0)] + 1,
    ("LSTM", 4): lambda node, dims, _: dims[0][_integer(node, "layout", 0)] + 1,
    ("ReverseSequence", 1): lambda node, dims, _: dims[0][_integer(node, "time_axis", 0)] + 1,
    ("NegativeLogLikelihoodLoss", 1): lambda _, dims, __: dims[0][1],
    ("SoftmaxCrossEntropyLoss", 1): lambda _, dims, __: dims[0][1],
}


def _graphs(graph: GraphProto) -> Iterator[GraphProto]:
    """A graph and all graphs inside it."""
    yield graph
    for attribute in chain.from_iterable(node.attribute for node in graph.node):
        for inner in (attribute.g,) if attribute.type == AttributeProto.GRAPH else attribute.graphs:
            yield from _graphs(inner)
