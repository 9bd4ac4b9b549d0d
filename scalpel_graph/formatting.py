"""Figures as people read them."""

from collections.abc import Iterable, Sequence

from scalpel_graph.report import Candidate, LayerDecision


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


def left_dense(layers: Iterable[LayerDecision]) -> list[tuple[str, list[str]]]:
    """The names of the layers that stay dense, by the reason why, most common reason first."""
    groups: dict[str, list[str]] = {}
    for layer in layers:
        if layer.chosen.decision == "dense":
            groups.setdefault(layer.reason or "no reason given", []).append(layer.name)
    return sorted(groups.items(), key=lambda item: -len(item[1]))


def plural(number: int, noun: str) -> str:
    """``1 layer``, ``2 layers``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}{'es' if noun.endswith('s') else 's'}"


def _scaled(number: float, units: Sequence[str]) -> str:
    if number < 1000:
        return f"{number:g} {units[0]}".rstrip()
    value, unit = float(number), 0
    while value >= 999.5 and unit < len(units) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {units[unit]}"
