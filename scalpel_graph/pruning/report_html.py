"""The report of pruning as one web page that needs nothing beside it."""

import jinja2

from scalpel_graph import formatting
from scalpel_graph.pruning.report import PruneReport


def render(report: PruneReport) -> str:
    """The page, as HTML with its style inside: no script, no font and no picture is loaded."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("scalpel_graph", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template("prune_report.html.j2").render(report=report, show=formatting)
