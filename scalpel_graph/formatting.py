"""Figures as people read them."""

import re
from collections.abc import Iterable, Sequence

from scalpel_graph.pruning.report import LayerReport
from scalpel_graph.report import Candidate, LayerDecision, McuReport, QuantizationReport, Report

_NUMBER = re.compile(r"\d+(?:\.\d+)?")


def size(n_bytes: int) -> str:
    """Bytes in a decimal unit: ``97.5 MB``."""
    return _scaled(n_bytes, ("B", "kB", "MB", "GB", "TB"))


def count(number: int) -> str:
    """A count with a decimal prefix: ``25.6 M``."""
    return _scaled(number, ("", "k", "M", "G", "T"))


def change(before: int, after: int) -> str:
    """How much smaller or larger, in percent: ``−89.6 %``."""
    if before == 0:
        return ""
    percent = 100 * (after - before) / before
    return "±0 %" if abs(percent) < 0.05 else f"{percent:+.1f} %".replace("-", "−")


def fraction(part: float) -> str:
    """A fraction in percent: ``9.8 %``."""
    return f"{100 * part:.1f} %"


def microseconds(us: float) -> str:
    """A duration in the unit that suits it: ``3.42 ms``."""
    for unit, factor in (("µs", 1.0), ("ms", 1e3)):
        if us < 999.5 * factor:
            return f"{us / factor:.3g} {unit}"
    return f"{us / 1e6:.3g} s"


def group_shape(candidate: Candidate) -> str:
    """``1×8`` for a group-CSR candidate, ``dense`` for the other."""
    return "dense" if candidate.group_shape is None else "×".join(map(str, candidate.group_shape))


def speed_up(layer: LayerDecision) -> str:
    """How many times faster than dense the chosen way is predicted to be; empty if dense was no candidate."""
    if layer.dense_us is None or layer.chosen.predicted_us <= 0:
        return ""
    return f"{layer.dense_us / layer.chosen.predicted_us:.1f}×"


def technique(layer: LayerReport) -> str:
    """What the zeros of a pruned layer come in: ``1×8 groups``, ``nodes``, ``2:4``."""
    if layer.group_shape is not None:
        if layer.group_shape == (1, 1):
            return "single weights"
        return f"{layer.group_shape[0]}×{layer.group_shape[1]} groups"
    return {"node": "nodes", "none": ""}.get(layer.technique, layer.technique)


def faster(before_us: float | None, after_us: float | None) -> str:
    """How many times faster something is predicted to get: ``2.1×``; empty if that is not known."""
    return f"{before_us / after_us:.1f}×" if before_us and after_us else ""


def left_dense(layers: Iterable[LayerDecision]) -> list[tuple[str, list[str]]]:
    """The names of the layers that stay dense, by the reason why, most common reason first.

    Reasons that differ in their numbers alone are one; it states the ranges of the numbers.
    """
    groups: dict[str, list[LayerDecision]] = {}
    for layer in layers:
        if layer.chosen.decision == "dense":
            groups.setdefault(_NUMBER.sub("#", layer.reason), []).append(layer)
    by_reason = [
        (_with_ranges([layer.reason for layer in group]), [layer.name for layer in group])
        for group in groups.values()
    ]
    return sorted(by_reason, key=lambda item: -len(item[1]))


def stored_values(report: Report) -> list[str]:
    """What became of the wish to store weights in 16 bits; nothing if there was none."""
    if report.weights == "fp32":
        return []
    sparse = [layer for layer in report.layers if layer.chosen.decision == "group_csr"]
    if not sparse:
        return [f"Weights as {report.weights}: no effect, since no layer is sparse"]
    lines = []
    if report.rounded:
        error = max(layer.values.error for layer in report.rounded)
        lines.append(
            f"Weights as {report.weights} in {len(report.rounded)} of {plural(len(sparse), 'sparse layer')}:"
            f" those of an output are off by at most {error:.1e} of their norm"
        )
    lines += [
        f"Weights as float32 in {layer.name}: {layer.values.reason}"
        for layer in sparse
        if layer.values.reason
    ]
    return lines


def on_the_microcontroller(report: McuReport) -> list[str]:
    """What an integer network takes, and how far it is from the float one."""
    gain = report.dense_instructions / max(report.instructions, 1)
    right = ""
    if report.same_class is not None:
        right = f"; the largest output is the same one in {fraction(report.same_class)}"
    return [
        f"{report.dtype}: about {count(report.instructions)} instructions, {gain:.1f}× fewer than dense",
        f"{size(report.flash_bytes)} of constants in flash, {size(report.ram_bytes)} of RAM beside input and"
        " output",
        f"answers {fraction(report.relative_error)} off those of the float network on {report.samples}"
        f" calibration inputs{right}",
    ]


def plural(number: int, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def _with_ranges(reasons: Sequence[str]) -> str:
    """One text for texts that differ in their numbers alone."""
    columns = zip(*(_NUMBER.findall(reason) for reason in reasons), strict=True)
    ranges = []
    for column in columns:
        low, high = min(column, key=float), max(column, key=float)
        ranges.append(low if low == high else f"{low}–{high}")
    numbers = iter(ranges)
    return _NUMBER.sub(lambda _: next(numbers), reasons[0]) or "no reason given"


def _scaled(number: float, units: Sequence[str]) -> str:
    if number < 1000:
        return f"{number:g} {units[0]}".rstrip()
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {units[unit]}"


def quantized(report: QuantizationReport) -> str:
    """What quantizing did to the answers."""
    same = ""
    if report.same_class is not None:
        same = f", {fraction(report.same_class)} with the same largest output"
    return (
        f"to {report.type} by ONNX Runtime's quantizer: answers on"
        f" {plural(report.samples, 'calibration input')} are {100 * report.relative_error:.2g} % off{same}"
    )
