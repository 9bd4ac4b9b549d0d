"""Pages that need nothing but a browser: nodes removed, sizes, and the curve of group importance."""

import html
from collections.abc import Mapping
from importlib.util import find_spec
from typing import Any

from models.paper.published import FIGURES, NODES_REMOVED
from models.paper.reproduce import Reproduction
from scalpel_graph.errors import InputError

#: Of Okabe and Ito, which people with any colour vision tell apart.
_OURS, _PAPER = "#0072B2", "#E69F00"
_COLOURS = {"rms": "#0072B2", "mean": "#D55E00", "max": "#009E73"}
_NAMES = {"rms": "root mean square", "mean": "mean magnitude", "max": "largest magnitude"}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 1100px; }}
body {{ margin: 1.5rem auto; padding: 0 1rem; }}
h1 {{ font-size: 1.4rem; margin: 0; }}
p {{ max-width: 50rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
<p>{text}</p>
{figures}
</body>
</html>
"""


def require_plotly() -> None:
    """Raises `InputError` if there is no Plotly to draw with."""
    if find_spec("plotly") is None:
        raise InputError("plots need Plotly; install it with: pip install 'scalpel-graph[bench]'")


def reproduction_page(result: Reproduction) -> str:
    """Nodes removed by node pruning, and sizes by target and technique, beside the paper's."""
    network = result.recipe.network
    where = f"on {result.dataset}" if result.dataset else "with seeded weights: sizes only"
    figures = [_sizes(result)]
    if any(variant.plan.nodes for variant in result.variants):
        figures.insert(0, _nodes(result))
    return _page(f"{network}, {where}", "Ours beside those of the Scalpel paper (ISCA 2017).", figures)


def importance_page(curve: Mapping[str, Any]) -> str:
    """Accuracy against pruning rate, for each measure of importance."""
    go = _plotly()
    figure = go.Figure()
    for importance, colour in _COLOURS.items():
        points = [point for point in curve["points"] if point["importance"] == importance]
        for state, dash in (("retrained", "solid"), ("pruned", "dot")):
            figure.add_scatter(
                x=[100 * point["rate"] for point in points],
                y=[100 * point[state] for point in points],
                mode="lines+markers",
                name=f"{_NAMES[importance]}, {state}",
                line={"color": colour, "dash": dash},
            )
    figure.add_hline(y=100 * curve["dense_accuracy"], line={"color": "#444444", "width": 1})
    figure.update_layout(
        template="plotly_white", xaxis_title="pruning rate, %", yaxis_title="accuracy, %", height=620
    )
    shape = "×".join(map(str, curve["group_shape"]))
    text = (
        f"{shape} groups of all layers are pruned once, by one threshold, and retrained for"
        f" {curve['retraining_epochs']} epochs. Dotted: before retraining. The line is the dense network."
    )
    return _page(f"Importance of groups: {curve['network']} on {curve['dataset']}", text, [figure])


def _nodes(result: Reproduction) -> Any:
    go = _plotly()
    published = NODES_REMOVED[result.recipe.network]
    figure = go.Figure()
    figure.add_bar(name="paper", x=list(published), y=list(published.values()), marker_color=_PAPER)
    for variant in result.variants:
        if variant.technique == "scalpel" and variant.plan.nodes:
            removed = {
                name: 100 * (before - after) / before for name, (before, after) in variant.nodes.items()
            }
            figure.add_bar(
                name=variant.target,
                x=list(published),
                y=[removed.get(layer, 0.0) for layer in published],
                marker_color=_OURS if variant.target == "cpu" else "#56B4E9",
            )
    figure.update_layout(template="plotly_white", barmode="group", title="nodes removed, %", height=420)
    return figure


def _sizes(result: Reproduction) -> Any:
    go = _plotly()
    figure = go.Figure()
    names = [f"{variant.target} {variant.technique}" for variant in result.variants]
    ours = [100 * variant.size.share for variant in result.variants]
    figure.add_bar(name="ours", x=names, y=ours, marker_color=_OURS)
    paper = []
    for variant in result.variants:
        figures = FIGURES.get((variant.target, result.recipe.network))
        sizes = {} if figures is None else {"scalpel": figures.size, "traditional": figures.traditional_size}
        paper.append(sizes.get(variant.technique))
    figure.add_bar(name="paper", x=names, y=paper, marker_color=_PAPER)
    figure.update_layout(
        template="plotly_white", barmode="group", title="size of the weights, % of the original", height=420
    )
    return figure


def _page(title: str, text: str, figures: list[Any]) -> str:
    first, *others = figures
    parts = [_html(first, True), *(_html(figure, False) for figure in others)]
    return _PAGE.format(title=html.escape(title), text=html.escape(text), figures="\n".join(parts))


def _html(figure: Any, with_library: bool) -> str:
    return str(figure.to_html(full_html=False, include_plotlyjs=with_library, config={"displaylogo": False}))


def _plotly() -> Any:
    import plotly.graph_objects as go  # noqa: PLC0415 - optional

    return go
