"""Target profiles: what the cost model knows of a kind of hardware.

A profile is a TOML file. Those that ship are in `scalpel_graph/targets`; a person can give their own file.
A CPU's holds the prices that ``scalpel-calibrate`` measures and `scalpel_graph.cost` adds up
(`docs/adding-a-target.md`).
"""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import resources
from itertools import pairwise
from pathlib import Path
from typing import Any

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.host import processor
from scalpel_graph.kernel_table import chosen_isa

#: Kinds of hardware, which choose the pipeline (`scalpel_graph.passes.pipelines`).
KINDS = ("cpu", "gpu", "mcu")

#: Stands for the shipped profile that suits the machine that asks.
HOST = "cpu"

#: ``(size, nanoseconds)`` points, by increasing size; a price in between is interpolated.
Table = tuple[tuple[float, float], ...]

#: By number of threads: the price of each thing that an operation does, and of a ``call`` (in microseconds).
Prices = Mapping[int, Mapping[str, Table]]

#: What `scalpel_graph.cost` counts in each kind of operation beside calls, and a profile gives the price of.
#: Dense ones are ONNX Runtime's; its blocked layout has ``pointwise``, ``conv`` and ``depthwise``, and
#: ``reorder`` is the way into that layout or out of it. ``depthwise_kernel`` is ours for depthwise Conv; the
#: others are those of each group shape. Those of 8-bit layers begin with ``quantized_``; ONNX Runtime
#: computes dense Conv of integers channels last, and ``quantized_reorder`` is the way there or back.
OPERATIONS: Mapping[str, tuple[str, ...]] = {
    "pointwise": ("multiply_add", "few_multiply_adds", "narrow", "input", "output", "weight"),
    "conv": ("multiply_add", "few_multiply_adds", "narrow", "edge", "input", "output", "weight"),
    "plain_conv": ("multiply_add", "input", "unrolled"),
    "depthwise": ("multiply_add", "input"),
    "gemm": ("multiply_add", "few_multiply_adds", "input", "output", "weight"),
    "gemv": ("output", "weight"),
    "reorder": ("input",),
    "sparse_conv": (
        "multiply_add", "few_multiply_adds", "missed", "large_input", "input", "output", "padded", "strided",
        "weight",
    ),
    "sparse_gemm": (
        "multiply_add", "few_multiply_adds", "missed", "large_input", "input", "output", "weight",
    ),
    "sparse_few_rows": ("multiply_add", "few_multiply_adds", "input", "output", "weight"),
    "sparse_gemv": ("input", "output", "weight"),
    "depthwise_kernel": ("multiply_add", "strided", "input", "output", "channel"),
    "quantized_depthwise_kernel": ("multiply_add", "strided", "input", "output", "channel"),
    "quantized_conv": (
        "multiply_add", "few_multiply_adds", "input", "output", "unrolled", "copy", "left_over", "weight",
    ),
    "quantized_depthwise": ("multiply_add", "input", "left_over"),
    "quantized_gemm": ("multiply_add", "few_multiply_adds", "input", "output", "weight"),
    "quantized_gemv": ("output", "weight"),
    "quantized_reorder": ("input",),
    "quantized_sparse_conv": (
        "multiply_add", "few_multiply_adds", "missed", "large_input", "input", "output", "padded", "strided",
        "weight",
    ),
    "quantized_sparse_gemm": ("multiply_add", "few_multiply_adds", "input", "output", "weight"),
    "quantized_sparse_gemv": ("input", "output", "weight"),
}  # fmt: skip
DEPTHWISE_KERNEL = "depthwise_kernel"
QUANTIZED_DEPTHWISE_KERNEL = "quantized_depthwise_kernel"
_BLOCKED_OPERATIONS = ("pointwise", "conv", "depthwise", "reorder")
QUANTIZED_SPARSE_OPERATIONS = tuple(name for name in OPERATIONS if name.startswith("quantized_sparse_"))
QUANTIZED_DENSE_OPERATIONS = tuple(
    name
    for name in OPERATIONS
    if name.startswith("quantized_")
    and name not in (*QUANTIZED_SPARSE_OPERATIONS, QUANTIZED_DEPTHWISE_KERNEL)
)
SPARSE_OPERATIONS = tuple(name for name in OPERATIONS if name.startswith("sparse_"))
DENSE_OPERATIONS = tuple(
    name for name in OPERATIONS if not name.startswith(("sparse_", "quantized_")) and name != DEPTHWISE_KERNEL
)


@dataclass(frozen=True)
class Kernel:
    """What our kernels for one group shape take.

    Attributes:
        group_shape: ``(r, c)``.
        prices: of each of `SPARSE_OPERATIONS`, or of `QUANTIZED_SPARSE_OPERATIONS`.
    """

    group_shape: GroupShape
    prices: Mapping[str, Prices]


@dataclass(frozen=True)
class QuantizedPrices:
    """What layers of 8-bit integers take.

    Attributes:
        dense: prices of each of `QUANTIZED_DENSE_OPERATIONS`, in ONNX Runtime.
        kernels: one entry for each group shape to consider, in the order that breaks ties.
        depthwise_kernel: prices of our kernels for depthwise Conv; none: it is left to ONNX Runtime.
    """

    dense: Mapping[str, Prices]
    kernels: tuple[Kernel, ...]
    depthwise_kernel: Prices


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
        isa: instruction set of the sparse kernels that the prices are for.
        lanes: floats in one of their vectors.
        block: channels in a block of ONNX Runtime's layout: 16 with AVX-512, else 8; 1 on processors
            that it has no such layout for.
        min_columns: a Conv with a smaller K has too little to skip and stays dense.
        margin: a layer becomes sparse only where it is predicted to take less than ``1 - margin`` of the
            dense time.
        host: where the prices were measured, for people; ``processor`` also says which machines this profile
            is the best for.
        dense: prices of each of `dense_operations`.
        kernels: one entry for each group shape to consider, in the order that breaks ties; none: all layers
            stay dense.
        depthwise_kernel: prices of our kernels for depthwise Conv; none: it is left to ONNX Runtime.
        quantized: prices of 8-bit layers; None where none were measured, and all of them stay dense.
    """

    isa: str
    lanes: int
    block: int
    min_columns: int
    margin: float
    host: Mapping[str, str]
    dense: Mapping[str, Prices]
    kernels: tuple[Kernel, ...]
    depthwise_kernel: Prices
    quantized: QuantizedPrices | None = None


#: What `scalpel_graph.gpu_cost` counts in a matrix product on a GPU beside calls.
GPU_AMOUNTS = ("byte", "multiply_add", "activation")

#: Prices of a matrix product on a GPU: of a ``call`` (in microseconds) and of each of `GPU_AMOUNTS`.
GpuPrices = Mapping[str, Table]


@dataclass(frozen=True)
class GpuKernel:
    """What our CUDA kernels for one group shape take.

    Attributes:
        group_shape: ``(r, c)``.
        prices: of a matrix product.
    """

    group_shape: GroupShape
    prices: GpuPrices


@dataclass(frozen=True, kw_only=True)
class GpuTarget(Target):
    """A GPU: widths, and where they were measured, what matrix products take.

    Attributes:
        host: where the prices were measured, for people.
        margin: a layer becomes sparse only where it is predicted to take less than ``1 - margin`` of the
            dense time.
        dense: prices of a dense matrix product; empty where none were measured.
        kernels: one entry for each group shape to consider; none: all layers stay dense.
    """

    host: Mapping[str, str] = field(default_factory=dict)
    margin: float = 0.0
    dense: GpuPrices = field(default_factory=dict)
    kernels: tuple[GpuKernel, ...] = ()


@dataclass(frozen=True, kw_only=True)
class McuTarget(Target):
    """A microcontroller.

    Attributes:
        clock_mhz: its clock.
        flash_bytes, ram_bytes: how much there is for a network, its constants, its code and its arena.
        code_bytes: what the kernels of a network take of the flash.
        margin: a layer becomes sparse only where it is predicted to take less than ``1 - margin`` of the
            dense time.
        instructions: by kernel (its name without ``scalpel_``, or what that begins with), the numbers of
            instructions for each thing that it does (`scalpel_graph.mcu.cost`), and of a ``call``.
        cycles: likewise the numbers of clock cycles, by which layers are chosen.
    """

    clock_mhz: float
    flash_bytes: int
    ram_bytes: int
    code_bytes: int
    margin: float
    instructions: Mapping[str, Mapping[str, float]]
    cycles: Mapping[str, Mapping[str, float]]


def dense_operations(block: int) -> tuple[str, ...]:
    """Those of `DENSE_OPERATIONS` that there are with so many channels in a block."""
    return tuple(name for name in DENSE_OPERATIONS if block > 1 or name not in _BLOCKED_OPERATIONS)


def target_names() -> list[str]:
    """What ``--target`` takes beside a file: `HOST`, and the profiles that ship with the package."""
    return [HOST, *available_targets()]


def available_targets() -> list[str]:
    """Names of the profiles that ship with the package."""
    folder = resources.files("scalpel_graph") / "targets"
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".toml"))


def load_target(name: str) -> Target:
    """Reads a profile.

    Args:
        name: one of `target_names`, or the path of a TOML file (it ends in ``.toml``).

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
    if name == HOST:
        return load_target(_for_host(names))
    if name not in names:
        close = get_close_matches(name, target_names(), n=1)
        hint = f"did you mean {close[0]}? " if close else ""
        raise InputError(
            f"target {name!r}: no such profile; {hint}choose from {', '.join(target_names())}, or give a"
            " .toml file"
        )
    text = (resources.files("scalpel_graph") / "targets" / f"{name}.toml").read_text(encoding="utf-8")
    return parse_target(text, name, None)


def _for_host(names: Sequence[str]) -> str:
    """The shipped profile for this machine: of its processor if there is one, else of its instruction set."""
    isa, here = chosen_isa(), processor()
    fitting: list[str] = []
    for name in names:
        target = load_target(name)
        if isinstance(target, CpuTarget) and target.isa == isa:
            measured_on = target.host.get("processor")
            if measured_on is None:
                fitting.append(name)
            elif measured_on == here:
                return name
    if not fitting:
        raise InputError(
            f"target {HOST}: there is no profile for {isa} kernels; make one with scalpel-calibrate and give"
            " its file"
        )
    return fitting[0]


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
    makers = {"cpu": _cpu, "gpu": _gpu, "mcu": _mcu}
    target = makers[kind](root, common)
    root.finish()
    return target


def _cpu(root: "_Reader", common: Mapping[str, Any]) -> CpuTarget:
    dense = root.table("dense")
    target = CpuTarget(
        **common,
        isa=root.text("isa"),
        lanes=root.integer("lanes"),
        block=root.integer("block"),
        min_columns=root.integer("min_columns"),
        margin=root.fraction("margin"),
        host=root.texts("host"),
        dense={name: _prices(dense, name) for name in dense_operations(root.integer("block"))},
        kernels=tuple(_kernel(entry) for entry in root.tables("kernels", least=0)),
        depthwise_kernel=_prices_if_any(root, DEPTHWISE_KERNEL),
        quantized=_quantized(root.table("quantized")) if "quantized" in root else None,
    )
    dense.finish()
    _refuse_repeated(root, [kernel.group_shape for kernel in target.kernels])
    return target


def _gpu(root: "_Reader", common: Mapping[str, Any]) -> GpuTarget:
    host = root.texts("host")
    if "kernels" not in root:
        return GpuTarget(**common, host=host)
    kernels = []
    for entry in root.tables("kernels"):
        shape = entry.group_shape("group_shape")
        kernels.append(GpuKernel(shape, _gpu_prices(entry)))
    _refuse_repeated(root, [kernel.group_shape for kernel in kernels])
    dense = _gpu_prices(root.table("dense"))
    return GpuTarget(**common, host=host, margin=root.fraction("margin"), dense=dense, kernels=tuple(kernels))


def _gpu_prices(reader: "_Reader") -> GpuPrices:
    found = {name: reader.points(name) for name in GPU_AMOUNTS if name in reader}
    prices = {"call": reader.points("call"), **found}
    reader.finish(known=GPU_AMOUNTS)
    return prices


def _refuse_repeated(root: "_Reader", shapes: Sequence[GroupShape]) -> None:
    for shape in shapes:
        if shapes.count(shape) > 1:
            raise root.error("kernels", f"lists group_shape {list(shape)} twice")


def _mcu(root: "_Reader", common: Mapping[str, Any]) -> McuTarget:
    return McuTarget(
        **common,
        clock_mhz=root.number("clock_mhz"),
        flash_bytes=root.integer("flash_bytes"),
        ram_bytes=root.integer("ram_bytes"),
        code_bytes=root.integer("code_bytes"),
        margin=root.fraction("margin"),
        instructions=root.table("instructions").numbers_by_name(),
        cycles=root.table("cycles").numbers_by_name(),
    )


def _kernel(entry: "_Reader", operations: Sequence[str] = SPARSE_OPERATIONS) -> Kernel:
    shape = entry.group_shape("group_shape")
    kernel = Kernel(shape, {name: _prices(entry, name) for name in operations})
    entry.finish()
    return kernel


def _quantized(reader: "_Reader") -> QuantizedPrices:
    prices = QuantizedPrices(
        dense={name: _prices(reader, name) for name in QUANTIZED_DENSE_OPERATIONS},
        kernels=tuple(_kernel(entry, QUANTIZED_SPARSE_OPERATIONS) for entry in reader.tables("kernels")),
        depthwise_kernel=_prices_if_any(reader, QUANTIZED_DEPTHWISE_KERNEL),
    )
    reader.finish()
    _refuse_repeated(reader, [kernel.group_shape for kernel in prices.kernels])
    return prices


def _prices_if_any(reader: "_Reader", operation: str) -> Prices:
    return _prices(reader, operation) if operation in reader else {}


def _prices(reader: "_Reader", operation: str) -> Prices:
    prices: dict[int, Mapping[str, Table]] = {}
    for entry in reader.tables(operation):
        threads = entry.integer("threads")
        if threads in prices:
            raise entry.error("threads", f"is {threads} twice for {operation}")
        found = {name: entry.points(name) for name in OPERATIONS[operation] if name in entry}
        prices[threads] = {"call": entry.points("call"), **found}
        entry.finish(known=OPERATIONS[operation])
    return prices


class _Reader:
    """One TOML table; every error names the file and the key."""

    def __init__(self, place: str, prefix: str, table: Mapping[str, Any]) -> None:
        self._place, self._prefix, self._table = place, prefix, table
        self._read: set[str] = set()

    def error(self, key: str, what: str) -> InputError:
        return InputError(f"{self._place}: {self._prefix}{key} {what}")

    def __contains__(self, key: str) -> bool:
        return key in self._table

    def finish(self, known: Sequence[str] = ()) -> None:
        """Refuses keys nobody asked for: a misspelt one would go unnoticed. ``known`` ones may be missing."""
        for key in self._table.keys() - self._read:
            close = get_close_matches(key, [*self._read, *known], n=1)
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

    def fraction(self, key: str, default: float | None = None) -> float:
        """A number from 0 to 1; the default, where there is one, stands for a key that is missing."""
        if default is not None and key not in self._table:
            self._read.add(key)
            return default
        value = self._get(key)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
            raise self.error(key, f"must be a number from 0 to 1, got {value!r}")
        return float(value)

    def number(self, key: str) -> float:
        """A number above 0."""
        return self._positive(key, self._get(key))

    def numbers_by_name(self) -> Mapping[str, Mapping[str, float]]:
        """All of this table: tables of numbers of at least 0."""
        tables = {name: self.table(name) for name in self._table}
        return {
            name: {key: inner._price(key, value) for key, value in inner._table.items()}
            for name, inner in tables.items()
        }

    def points(self, key: str) -> Table:
        """One price (the same everywhere), or a list of ``[size, price]`` with increasing sizes."""
        value = self._get(key)
        if not isinstance(value, list):
            return ((1.0, self._price(key, value)),)
        if not value or any(not isinstance(point, list) or len(point) != 2 for point in value):
            raise self.error(key, f"must be a number or a list of [size, price] pairs, got {value!r}")
        points = tuple((self._positive(key, x), self._price(key, y)) for x, y in value)
        if any(a[0] >= b[0] for a, b in pairwise(points)):
            raise self.error(key, "must list its sizes in increasing order")
        return points

    def texts(self, key: str) -> Mapping[str, str]:
        """A table of texts; empty if there is none."""
        if key not in self._table:
            return {}
        table = self.table(key)
        return {name: table.text(name) for name in table._table}

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

    def tables(self, key: str, least: int = 1) -> list["_Reader"]:
        value = self._get(key)
        if (
            not isinstance(value, list)
            or len(value) < least
            or any(not isinstance(entry, dict) for entry in value)
        ):
            raise self.error(key, f"must be a list of tables ([[{key}]])" + ", at least one" * least)
        return [_Reader(self._place, f"{self._prefix}{key}[{i}].", entry) for i, entry in enumerate(value)]

    def _get(self, key: str) -> Any:
        self._read.add(key)
        if key not in self._table:
            raise self.error(key, "is missing")
        return self._table[key]

    def _price(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
            raise self.error(key, f"must be a number of at least 0, got {value!r}")
        return float(value)

    def _positive(self, key: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self.error(key, f"must be a positive number, got {value!r}")
        return float(value)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())
