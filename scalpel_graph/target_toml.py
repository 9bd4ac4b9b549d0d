"""Writes a profile as TOML for people to read and `scalpel_graph.target` to parse."""

import json
from collections.abc import Mapping

from scalpel_graph.target import (
    DEPTHWISE_KERNEL,
    QUANTIZED_DEPTHWISE_KERNEL,
    CpuTarget,
    GpuTarget,
    Prices,
    Table,
    Target,
)

_HEAD = """\
# What scalpel-calibrate measured on a machine; docs/adding-a-target.md says what the keys mean.
# A call is priced in microseconds, everything else in nanoseconds each: one number, or [size, price] points.
"""


def to_toml(target: Target) -> str:
    """The profile as the text of a TOML file."""
    lines = _gpu(target) if isinstance(target, GpuTarget) else _cpu(target)
    return "\n".join([_HEAD, *lines]) + "\n"


def _cpu(target: Target) -> list[str]:
    assert isinstance(target, CpuTarget)
    lines = [
        f"kind = {_text(target.kind)}",
        f"description = {_text(target.description)}",
        f"isa = {_text(target.isa)}",
        f"lanes = {target.lanes}",
        f"block = {target.block}",
        f"round_channels_to = {target.round_channels_to}",
        f"round_features_to = {target.round_features_to}",
        f"round_from = {target.round_from}",
        f"min_columns = {target.min_columns}",
        f"margin = {target.margin}",
    ]
    lines += _host(target.host)
    lines += _prices("dense.", target.dense)
    for kernel in target.kernels:
        lines += ["", "[[kernels]]", f"group_shape = {list(kernel.group_shape)}"]
        lines += _prices("kernels.", kernel.prices)
    lines += _prices("", {DEPTHWISE_KERNEL: target.depthwise_kernel})
    if target.quantized is not None:
        lines += _prices("quantized.", target.quantized.dense)
        depthwise = {QUANTIZED_DEPTHWISE_KERNEL: target.quantized.depthwise_kernel}
        lines += _prices("quantized.", depthwise)
        for kernel in target.quantized.kernels:
            lines += ["", "[[quantized.kernels]]", f"group_shape = {list(kernel.group_shape)}"]
            lines += _prices("quantized.kernels.", kernel.prices)
    return lines


def _gpu(target: GpuTarget) -> list[str]:
    lines = [
        f"kind = {_text(target.kind)}",
        f"description = {_text(target.description)}",
        f"round_channels_to = {target.round_channels_to}",
        f"round_features_to = {target.round_features_to}",
        f"round_from = {target.round_from}",
    ]
    if target.kernels:
        lines.append(f"margin = {target.margin}")
    lines += _host(target.host)
    if target.kernels:
        lines += ["", "[dense]", *_tables(target.dense)]
    for kernel in target.kernels:
        lines += ["", "[[kernels]]", f"group_shape = {list(kernel.group_shape)}", *_tables(kernel.prices)]
    return lines


def _host(host: Mapping[str, str]) -> list[str]:
    if not host:
        return []
    return ["", "[host]", *(f"{key} = {_text(value)}" for key, value in host.items())]


def _tables(prices: Mapping[str, Table]) -> list[str]:
    return [f"{name} = {_table(table)}" for name, table in prices.items()]


def _prices(place: str, operations: Mapping[str, Prices]) -> list[str]:
    lines = []
    for operation, prices in operations.items():
        for threads, found in sorted(prices.items()):
            lines += ["", f"[[{place}{operation}]]", f"threads = {threads}"]
            lines += _tables(found)
    return lines


def _table(table: Table) -> str:
    if len(table) == 1:
        return _number(table[0][1])
    return "[" + ", ".join(f"[{_number(size)}, {_number(price)}]" for size, price in table) + "]"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
