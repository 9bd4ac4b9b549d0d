"""The report as one web page that needs nothing beside it."""

from typing import Any

import jinja2

from scalpel_graph import formatting
from scalpel_graph.report import Report


def render(report: Report) -> str:
    """The page, as HTML with its style inside: no script, no font and no picture is loaded."""
    return page("report.html.j2", report)


def page(template: str, report: Any) -> str:
    """A report of any kind in one of our templates, which know it as ``report``."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("scalpel_graph", "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return environment.get_template(template).render(report=report, show=formatting)
