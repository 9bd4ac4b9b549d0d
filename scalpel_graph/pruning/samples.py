"""Inputs that a person gives: the data that a network is calibrated and judged on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array
from scalpel_graph.inputs import (
    checked_type,
    dims_of,
    make_inputs,
    read_npz,
    required_inputs,
    show_dims,
    symbol_sizes,
    tensor_type,
)

#: Samples of a batch where the model leaves that open.
_BATCH = 16


@dataclass(frozen=True)
class Samples:
    """Inputs of many runs.

    Attributes:
        arrays: by input, ``[count, ...]``.
        count: how many samples there are.
        batch: how many the model takes at a time.
        fixed: whether it takes just that many.
        labels: ``[count, ...]``: the right answers; None if they are not known.
    """

    arrays: Mapping[str, Array]
    count: int
    batch: int
    fixed: bool
    labels: Array | None = None

    def batches(self) -> list[dict[str, Array]]:
        """The inputs of each run."""
        return [
            {name: array[start : start + self.batch] for name, array in self.arrays.items()}
            for start in range(0, self.count, self.batch)
        ]

    def split(self, fraction: float) -> tuple["Samples", "Samples | None"]:
        """The first samples and the last, of which there are about a fraction; None if there are too few."""
        unit = self.batch if self.fixed else 1
        units = self.count // unit
        back = max(1, round(fraction * units))
        if units < 2:
            return self, None
        cut = (units - back) * unit
        return self._part(0, cut), self._part(cut, self.count)

    def with_labels(self, labels: Array, source: str) -> "Samples":
        """The same with the right answers.

        Raises:
            InputError: there is not one for each sample.
        """
        if labels.shape[:1] != (self.count,):
            raise InputError(
                f"{source}: labels of shape {list(labels.shape)} for {self.count} samples; give one each"
            )
        return Samples(self.arrays, self.count, self.batch, self.fixed, labels)

    def _part(self, start: int, stop: int) -> "Samples":
        arrays = {name: array[start:stop] for name, array in self.arrays.items()}
        labels = None if self.labels is None else self.labels[start:stop]
        return Samples(arrays, stop - start, self.batch, self.fixed, labels)


def load_samples(path: str | Path, model: ModelProto) -> Samples:
    """Reads an ``.npz`` file with an array for each input of a model, whose first axis counts samples.

    Raises:
        InputError: the file is unreadable, an input is missing or unknown, or an array has a type or shape
            that the model does not take, no samples, or numbers that are not finite.
    """
    path = Path(path)
    return check_samples(read_npz(path), model, path)


def check_samples(arrays: Mapping[str, Array], model: ModelProto, path: Path) -> Samples:
    """Samples from arrays by input name; see `load_samples`. ``path`` is for messages."""
    types = {value.name: value.type for value in model.graph.input}
    required = [value.name for value in required_inputs(model)]
    holds = f"it must hold: {', '.join(required) or 'nothing'}"
    for name in required:
        if name not in arrays:
            raise InputError(f"{path}: no array for input {name!r}; {holds}")
    for name in arrays:
        if name not in types:
            raise InputError(f"{path}: the model has no input {name!r}; {holds}")
    checked = {name: checked_type(path, name, array, types[name]) for name, array in arrays.items()}
    counts = {name: len(array) if array.ndim else 0 for name, array in checked.items()}
    if not counts:
        raise InputError(f"{path}: the model has no inputs to calibrate with")
    count = next(iter(counts.values()))
    if set(counts.values()) != {count}:
        told = ", ".join(f"{name} {n}" for name, n in counts.items())
        raise InputError(f"{path}: the inputs must hold equally many samples, but hold: {told}")
    if not count:
        raise InputError(f"{path}: holds no samples")
    sizes: set[int] = set()
    for name, array in checked.items():
        tensor = tensor_type(types[name])
        assert tensor is not None  # else it would have been refused for its type
        dims = dims_of(tensor) if tensor.HasField("shape") else (None,) * array.ndim
        _check_shape(path, name, array, dims)
        if isinstance(dims[0], int):
            sizes.add(dims[0])
        if array.dtype.kind not in "iubOS" and not _is_finite(array):
            bad = next(i for i, sample in enumerate(array) if not _is_finite(sample))
            raise InputError(f"{path}: input {name!r} holds NaN or infinity, first in sample {bad}")
    batch = max(sizes, default=min(_BATCH, count))
    if sizes and (len(sizes) > 1 or count % batch):
        raise InputError(f"{path}: {count} samples, but the model takes {batch} at a time; give a multiple")
    try:
        symbol_sizes(model, {name: (batch, *array.shape[1:]) for name, array in checked.items()})
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Samples(checked, count, batch, bool(sizes))


def random_samples(model: ModelProto, count: int, dimensions: Mapping[str, int]) -> Samples:
    """Seeded random inputs, for want of real ones."""
    parts = [make_inputs(model, seed=seed, dimensions=dimensions) for seed in range(count)]
    first = parts[0]
    stacked = {name: np.concatenate([part[name] for part in parts]) for name in first if first[name].ndim}
    if len(stacked) < len(first):
        raise InputError("the model has an input that is a single number; give --held-back inputs")
    batch = min((len(value) for value in first.values()), default=1)
    return Samples(stacked, count * batch, batch, True)


def load_labels(path: str | Path) -> Array:
    """Reads labels: whole numbers from an ``.npy`` file or an ``.npz`` file with one array.

    Raises:
        InputError: the file is something else.
    """
    path = Path(path)
    if path.suffix == ".npz":
        arrays = list(read_npz(path).values())
        if len(arrays) != 1:
            raise InputError(f"{path}: holds {len(arrays)} arrays; labels are one")
        labels = arrays[0]
    else:
        try:
            labels = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise InputError(
                f"{path}: not a readable .npy file; write it with numpy.save(path, labels)"
            ) from error
    if not isinstance(labels, np.ndarray) or labels.dtype.kind not in "iu":
        raise InputError(f"{path}: labels must be one array of whole numbers")
    return labels


def _check_shape(path: Path, name: str, array: Array, dims: Sequence[int | str | None]) -> None:
    wrong = len(dims) != array.ndim or any(
        isinstance(dim, int) and dim != size for dim, size in zip(dims[1:], array.shape[1:], strict=True)
    )
    if wrong:
        raise InputError(
            f"{path}: input {name!r} has shape {list(array.shape)}, but the model takes {show_dims(dims)};"
            " the first axis counts samples"
        )


def _is_finite(array: Array) -> bool:
    return bool(np.isfinite(array.astype(np.float32) if array.dtype.itemsize < 4 else array).all())
