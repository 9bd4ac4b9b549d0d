"""Draws a roofline as a page that needs nothing but a browser."""

import html
import math
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from benchmarks.roofline_model import Case, Machine
from scalpel_graph import formatting
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape

#: Of Okabe and Ito, which people with any colour vision tell apart; each with a symbol of its own.
_STYLES = (
    ("#0072B2", "circle"),
    ("#D55E00", "square"),
    ("#009E73", "diamond"),
    ("#CC79A7", "triangle-up"),
    ("#56B4E9", "triangle-down"),
    ("#E69F00", "cross"),
    ("#000000", "x"),
)
_ROOF = "#444444"
_PANEL_HEIGHT = 640
#: How far along a line its label is, as a share of the width of its panel.
_LABEL = 0.09
#: Slopes less than this many times apart are too close for a label each.
_MEET = 1.3

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1600px; }}
body {{ margin: 1.5rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; margin: 0; }}
p {{ max-width: 60rem; margin: 0.4rem 0; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>Each point is one layer at one density: the denser, the larger. Its place from left to right says how
many floating-point operations it has for each byte that it must move at least, its height how many a
second it did. Lines are what this machine was measured to allow: a point close under a slope is held
back by moving data out of that cache, one close under the flat line by multiply-adds. Point at one to
see which; click in the legend to hide group shapes.</p>
{figure}
</body>
</html>
"""


def require_plotly() -> None:
    """Raises `InputError` if there is no Plotly to draw with."""
    if find_spec("plotly") is None:
        raise InputError("--plot needs Plotly; install it with: pip install 'scalpel-graph[bench]'")


def page(processor: str, machines: Sequence[Machine], cases: Sequence[Case]) -> str:
    """The page, as HTML.

    Args:
        processor: its name.
        machines: one panel each: a row for each instruction set, a column for each number of threads.
        cases: the points; at least one.
    """
    title = f"Sparse layers on the roofline of {processor}"
    figure = _figure(machines, cases)
    content = figure.to_html(full_html=False, include_plotlyjs=True, config={"displaylogo": False})
    return _PAGE.format(title=html.escape(title), figure=content)


def _figure(machines: Sequence[Machine], cases: Sequence[Case]) -> Any:
    from plotly.subplots import make_subplots  # noqa: PLC0415

    isas = list(dict.fromkeys(machine.isa for machine in machines))
    threads = list(dict.fromkeys(machine.threads for machine in machines))
    titles = [f"{isa}, {formatting.plural(count, 'thread')}" for isa in isas for count in threads]
    figure = make_subplots(
        len(isas),
        len(threads),
        shared_xaxes="all",
        shared_yaxes="all",
        horizontal_spacing=0.03,
        vertical_spacing=0.09 / len(isas),
        subplot_titles=titles,
    )
    low, high = 0.7 * min(case.intensity for case in cases), 1.5 * max(case.intensity for case in cases)
    shapes = list(dict.fromkeys(case.group_shape for case in cases))
    for machine in machines:
        place = {"row": isas.index(machine.isa) + 1, "col": threads.index(machine.threads) + 1}
        first = machine is machines[0]
        for name, x, y in _roofs(machine, low, high):
            figure.add_scatter(
                x=x,
                y=y,
                mode="lines",
                line={"color": _ROOF, "width": 1.5},
                hoverinfo="skip",
                showlegend=False,
                **place,
            )
            if not name:
                continue
            is_flat = y[0] == y[1]
            along = _LABEL * math.log10(high / low)
            # In logarithms, unlike points. The label of a slope breaks it near its left end.
            figure.add_annotation(
                x=math.log10(high) - along if is_flat else math.log10(low) + along,
                y=math.log10(y[0]) + (0 if is_flat else along),
                yanchor="bottom" if is_flat else "middle",
                text=name,
                showarrow=False,
                bgcolor=None if is_flat else "white",
                borderpad=1,
                font={"color": _ROOF, "size": 12},
                **place,
            )
        for number, shape in enumerate(shapes):
            mine = [
                case
                for case in cases
                if (case.isa, case.threads, case.group_shape) == (machine.isa, machine.threads, shape)
            ]
            _add_points(figure, mine, shape, number, place, legend=first)
    bottom, top = 0.6 * min(case.gflops for case in cases), 1.8 * max(m.peak for m in machines) / 1e9
    figure.update_xaxes(type="log", range=[math.log10(low), math.log10(high)], **_ticks(low, high))
    figure.update_yaxes(type="log", range=[math.log10(bottom), math.log10(top)], **_ticks(bottom, top))
    figure.update_xaxes(title="FLOP on non-zeros per byte of X, Y and stored weights", row=len(isas))
    figure.update_yaxes(title="GFLOP/s on non-zeros", col=1)
    figure.update_layout(
        template="plotly_white",
        height=_PANEL_HEIGHT * len(isas),
        font={"size": 13},
        margin={"l": 70, "r": 20, "t": 90, "b": 70},
        legend={
            "title": {"text": "group shape"},
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1 + 0.06 / len(isas),
            "x": 0,
        },
        hoverlabel={"align": "left"},
    )
    return figure


def _add_points(
    figure: Any, cases: Sequence[Case], shape: GroupShape, number: int, place: dict[str, int], *, legend: bool
) -> None:
    color, symbol = _STYLES[number % len(_STYLES)]
    name = "×".join(map(str, shape))
    figure.add_scatter(
        x=[case.intensity for case in cases],
        y=[case.gflops for case in cases],
        mode="markers",
        marker={
            "color": color,
            "symbol": symbol,
            "size": [5 + 10 * math.sqrt(case.density) for case in cases],
            "opacity": 0.75,
            "line": {"color": "white", "width": 0.5},
        },
        name=name,
        legendgroup=name,
        showlegend=legend,
        text=[_described(case, name) for case in cases],
        hovertemplate="%{text}<extra></extra>",
        **place,
    )


def _described(case: Case, shape: str) -> str:
    threads = formatting.plural(case.threads, "thread")
    moved = formatting.size(case.read_bytes + case.written_bytes)
    return (
        f"<b>{case.layer}</b><br>{shape} at density {case.density:g}, {threads}<br>"
        f"{formatting.microseconds(case.us)}, {case.gflops:.1f} GFLOP/s, {case.intensity:.1f} FLOP/byte<br>"
        f"{100 * case.share:.0f} % of the bound by {case.bound_by}<br>"
        f"{moved} at least, which fit into {case.level}"
    )


def _roofs(machine: Machine, low: float, high: float) -> list[tuple[str, list[float], list[float]]]:
    """The label and the points of each line, in FLOP/B and GFLOP/s; lines that are close share a label."""
    peak = machine.peak / 1e9
    lines: list[tuple[str, list[float], list[float]]] = []
    names, last = "", 0.0
    for level in reversed(machine.levels):
        rate = level.read / 1e9
        begin, end = low, min(peak / rate, high)
        if begin >= end:
            continue
        if lines and rate < _MEET * last:
            lines[-1] = ("", *lines[-1][1:])
            names = f"{level.name}, {names}"
        else:
            names = level.name
        lines.append((f"{names} {rate:.0f} GB/s", [begin, end], [begin * rate, end * rate]))
        last = rate
    flat = max(low, min(peak * 1e9 / level.read for level in machine.levels))
    lines.append((f"peak {peak:.0f} GFLOP/s", [flat, high], [peak, peak]))
    return lines


def _ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks at 1, 2 and 5 of each decade, in plain numbers."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    values = [step * 10.0**decade for decade in decades for step in (1, 2, 5)]
    return {"tickvals": values, "ticktext": [f"{value:g}" for value in values], "ticks": "outside"}
