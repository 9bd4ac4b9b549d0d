"""Target profiles: what the cost model knows of a kind of hardware.

A profile is a TOML file. Those that ship are in `scalpel_graph/targets`; a person can give their own file.
A CPU's holds rates and costs that a benchmark can measure (`docs/adding-a-target.md` says how), which
`scalpel_graph.cost` reads.
"""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape

#: Kinds of hardware, which choose the pipeline (`scalpel_graph.passes.pipelines`).
KINDS = ("cpu", "gpu")

#: ``(columns, rate)`` points, by increasing columns; a rate in between is interpolated.
Table = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Memory:
    """Where data comes from.

    Attributes:
        l2_bytes, l3_bytes: cache sizes; a core's own L2 and the L3 that all cores share.
        l2_gbps, l3_gbps, dram_gbps: GB/s at which one core streams from each.
        thread_scaling: by how much DRAM and L3 rates grow with each further thread (0: not at all, 1: doubled
            by the second).
    """

    l2_bytes: float
    l3_bytes: float
    l2_gbps: float
    l3_gbps: float
    dram_gbps: float
    thread_scaling: float


@dataclass(frozen=True)
class Dense:
    """How fast ONNX Runtime's own kernels are, on one thread.

    Attributes:
        conv_gflops: over the number of multiply-adds per output (K): small reductions run slower.
        depthwise_gflops: a Conv with one input channel in each group.
        conv1d_gflops: a Conv of rank 3, which ONNX Runtime runs as im2col and Gemm.
        gemm_gflops: over the number of rows of X.
        thread_efficiency: fraction of linear speed-up that further threads bring.
        overhead_us: of one call.
        reorder_gbps: GB/s of an NCHW to NCHWc copy or back, counting the bytes of the tensor once.
        block: channels of an NCHWc block; a Conv whose channels do not divide runs on plain NCHW.
    """

    conv_gflops: Table
    depthwise_gflops: float
    conv1d_gflops: float
    gemm_gflops: Table
    thread_efficiency: float
    overhead_us: float
    reorder_gbps: float
    block: int


@dataclass(frozen=True)
class Sparse:
    """What all group-CSR kernels have in common.

    Attributes:
        thread_efficiency: fraction of linear speed-up that further threads bring.
        overhead_us: of one call.
        copy_gbps: GB/s at which a Conv that pads or strides lays out its input, counting the bytes once.
        min_columns: a Conv with a smaller K has too little to skip and stays dense.
    """

    thread_efficiency: float
    overhead_us: float
    copy_gbps: float
    min_columns: int


@dataclass(frozen=True)
class Kernel:
    """How fast the kernels for one group shape work through stored weights, on one thread.

    Attributes:
        group_shape: ``(r, c)``.
        gemm_gflops: over the number of rows of X; 1 is SpMV.
        conv_gflops: over the number of output pixels.
    """

    group_shape: GroupShape
    gemm_gflops: Table
    conv_gflops: Table


@dataclass(frozen=True, kw_only=True)
class Target:
    """One hardware profile.

    Attributes:
        name: what ``--target`` calls it.
        source: the file it was read from, for a profile that did not ship with the package.
        kind: one of `KINDS`.
        description: one line for a person.
        round_channels_to: convolutions that lose channels keep as many as make their width a multiple of
            this; 1 keeps none.
        round_features_to: likewise Gemm, MatMul, and the hidden units of recurrent layers.
        round_from: only layers are rounded that need at least this share of the rounded width.
    """

    name: str
    kind: str
    description: str
    round_channels_to: int = 1
    round_features_to: int = 1
    round_from: float = 0.0
    source: str | None = None

    @property
    def option(self) -> str:
        """What to give ``--target`` to get this profile again."""
        return self.source or self.name


@dataclass(frozen=True, kw_only=True)
class CpuTarget(Target):
    """A CPU: what the cost model needs to choose sparse layers.

    Attributes:
        isa: instruction set of the sparse kernels that the numbers are for.
        cores: cores of the machine the numbers are for.
        margin: a layer becomes sparse only where it is predicted to take less than ``1 - margin`` of the
            dense time.
        memory, dense, sparse: rates and costs.
        kernels: one entry for each group shape to consider, in the order that breaks ties.
    """

    isa: str
    cores: int
    margin: float
    memory: Memory
    dense: Dense
    sparse: Sparse
    kernels: tuple[Kernel, ...]


def available_targets() -> list[str]:
    """Names of the profiles that ship with the package."""
    folder = resources.files("scalpel_graph") / "targets"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_target(name: str) -> Target:
    """Reads a profile.

    Args:
        name: one of `available_targets`, or the path of a TOML file (it ends in ``.toml``).

    Raises:
        InputError: no such profile, or the file is unreadable or lacks something: says which key.
    """
    if name.endswith(".toml"):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InputError(f"target {name}: cannot be read: {_one_line(error)}") from error
        return parse_target(text, Path(name).stem, name)
    names = available_targets()
    if name not in names:
        close = get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(
            f"target {name!r}: no such profile; {hint}choose from {', '.join(names)}, or give a .toml file"
        )
    text = (resources.files("scalpel_graph") / "targets" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_target(text, name, None)


def parse_target(text: str, name: str, source: str | None) -> Target:
    """Reads a profile from TOML text.

    Args:
        text: the TOML.
        name: what to call the profile.
        source: the file the text came from; None for one that ships with the package.

    Raises:
        InputError: not TOML, or a key is missing, unknown or has an unusable value.
    """
    place = f"target {source or name}"
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(f"{place}: not valid TOML: {_one_line(error)}") from error
    root = _Reader(place, "", table)
    kind = root.text("kind")
    if kind not in KINDS:
        raise root.error("kind", f"is {kind!r}, must be one of {', '.join(KINDS)}")
    common: dict[str, Any] = {
        "name": name,
        "source": source,
        "kind": kind,
        "description": root.text("description"),
        "round_channels_to": root.integer("round_channels_to", 1),
        "round_features_to": root.integer("round_features_to", 1),
        "round_from": root.fraction("round_from", 0.0),
    }
    target = _cpu(root, common) if kind == "cpu" else Target(**common)
    root.finish()
    return target


def _cpu(root: "_Reader", common: Mapping[str, Any]) -> CpuTarget:
    memory, dense, sparse = root.table("memory"), root.table("dense"), root.table("sparse")
    target = CpuTarget(
        **common,
        isa=root.text("isa"),
        cores=root.integer("cores"),
        margin=root.fraction("margin"),
        memory=Memory(
            l2_bytes=memory.positive("l2_kib") * 1024,
            l3_bytes=memory.positive("l3_kib") * 1024,
            l2_gbps=memory.positive("l2_gbps"),
            l3_gbps=memory.positive("l3_gbps"),
            dram_gbps=memory.positive("dram_gbps"),
            thread_scaling=memory.fraction("thread_scaling"),
        ),
        dense=Dense(
            conv_gflops=dense.points("conv_gflops"),
            depthwise_gflops=dense.positive("depthwise_gflops"),
            conv1d_gflops=dense.positive("conv1d_gflops"),
            gemm_gflops=dense.points("gemm_gflops"),
            thread_efficiency=dense.fraction("thread_efficiency"),
            overhead_us=dense.positive("overhead_us"),
            reorder_gbps=dense.positive("reorder_gbps"),
            block=dense.integer("block"),
        ),
        sparse=Sparse(
            thread_efficiency=sparse.fraction("thread_efficiency"),
            overhead_us=sparse.positive("overhead_us"),
            copy_gbps=sparse.positive("copy_gbps"),
            min_columns=sparse.integer("min_columns"),
        ),
        kernels=tuple(_kernel(entry) for entry in root.tables("kernels")),
    )
    for reader in (memory, dense, sparse):
        reader.finish()
    shapes = [kernel.group_shape for kernel in target.kernels]
    for shape in shapes:
        if shapes.count(shape) > 1:
            raise root.error("kernels", f"lists group_shape {list(shape)} twice")
    return target


def _kernel(entry: "_Reader") -> Kernel:
    kernel = Kernel(
        group_shape=entry.group_shape("group_shape"),
        gemm_gflops=entry.points("gemm_gflops"),
        conv_gflops=entry.points("conv_gflops"),
    )
    entry.finish()
    return kernel


class _Reader:
    """One TOML table; every error names the file and the key."""

    def __init__(self, place: str, prefix: str, table: Mapping[str, Any]) -> None:
        self._place, self._prefix, self._table = place, prefix, table
        self._read: set[str] = set()

    def error(self, key: str, what: str) -> InputError:
        return InputError(f"{self._place}: {self._prefix}{key} {what}")

    def finish(self) -> None:
        """Refuses keys nobody asked for: a misspelt one would go unnoticed."""
        for key in self._table.keys() - self._read:
            close = get_close_matches(key, self._read, n=1)
            raise self.error(key, f"is not a known key{f'; did you mean {close[0]}?' if close else ''}")

    def text(self, key: str) -> str:
        value = self._get(key)
        if not isinstance(value, str) or not value:
            raise self.error(key, f"must be a text, got {value!r}")
        return value

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1; the default, where there is one, stands for a key that is missing."""
        if default is not None and key not in self._table:
            self._read.add(key)
            return default
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, f"must be a whole number of at least 1, got {value!r}")
        return value

    def positive(self, key: str) -> float:
        return self._positive(key, self._get(key))

    def fraction(self, key: str, default: float | None = None) -> float:
        """A number from 0 to 1; the default, where there is one, stands for a key that is missing."""
        if default is not None and key not in self._table:
            self._read.add(key)
            return default
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.error(key, f"must be a number from 0 to 1, got {value!r}")
        return float(value)

    def points(self, key: str) -> Table:
        """One number (the same everywhere), or a list of ``[columns, rate]`` with increasing columns."""
        value = self._get(key)
        if not isinstance(value, list):
            return ((1.0, self._positive(key, value)),)
        if not value or any(not isinstance(point, list) or len(point) != 2 for point in value):
            raise self.error(key, f"must be a number or a list of [columns, rate] pairs, got {value!r}")
        points = tuple((self._positive(key, x), self._positive(key, y)) for x, y in value)
        if any(a[0] >= b[0] for a, b in pairwise(points)):
            raise self.error(key, "must list its columns in increasing order")
        return points

    def group_shape(self, key: str) -> GroupShape:
        value = self._get(key)
        if (
            not isinstance(value, list)
            or len(value) != 2
            or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in value)
        ):
            raise self.error(key, f"must be two whole numbers [r, c] of at least 1, got {value!r}")
        return value[0], value[1]

    def table(self, key: str) -> "_Reader":
        value = self._get(key)
        if not isinstance(value, dict):
            raise self.error(key, "must be a table")
        return _Reader(self._place, f"{self._prefix}{key}.", value)

    def tables(self, key: str) -> list["_Reader"]:
        value = self._get(key)
        if not isinstance(value, list) or not value or any(not isinstance(entry, dict) for entry in value):
            raise self.error(key, "must be a list of tables ([[" + key + "]]), at least one")
        return [_Reader(self._place, f"{self._prefix}{key}[{i}].", entry) for i, entry in enumerate(value)]

    def _get(self, key: str) -> Any:
        self._read.add(key)
        if key not in self._table:
            raise self.error(key, "is missing")
        return self._table[key]

    def _positive(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self.error(key, f"must be a positive number, got {value!r}")
        return float(value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
