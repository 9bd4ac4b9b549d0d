"""Writes a CPU's profile as TOML for people to read and `scalpel_graph.target` to parse."""

import json
from collections.abc import Mapping

from scalpel_graph.target import DEPTHWISE_KERNEL, CpuTarget, Prices, Table

_HEAD = """\
# What scalpel-calibrate measured on a machine; docs/adding-a-target.md says what the keys mean.
# A call is priced in microseconds, everything else in nanoseconds each: one number, or [size, price] points.
"""


def to_toml(target: CpuTarget) -> str:
    """The profile as the text of a TOML file."""
    lines = [
        _HEAD,
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
    if target.host:
        lines += ["", "[host]", *(f"{key} = {_text(value)}" for key, value in target.host.items())]
    lines += _prices("dense.", target.dense)
    for kernel in target.kernels:
        lines += ["", "[[kernels]]", f"group_shape = {list(kernel.group_shape)}"]
        lines += _prices("kernels.", kernel.prices)
    lines += _prices("", {DEPTHWISE_KERNEL: target.depthwise_kernel})
    return "\n".join(lines) + "\n"


def _prices(place: str, operations: Mapping[str, Prices]) -> list[str]:
    lines = []
    for operation, prices in operations.items():
        for threads, found in sorted(prices.items()):
            lines += ["", f"[[{place}{operation}]]", f"threads = {threads}"]
            lines += [f"{name} = {_table(table)}" for name, table in found.items()]
    return lines


def _table(table: Table) -> str:
    if len(table) == 1:
        return _number(table[0][1])
    return "[" + ", ".join(f"[{_number(size)}, {_number(price)}]" for size, price in table) + "]"


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) and abs(value) < 1e15 else repr(value)


def _text(value: str) -> str:
    return json.dumps(value, ensure_ascii=False)
