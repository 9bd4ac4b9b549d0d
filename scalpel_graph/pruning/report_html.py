"""The report of pruning as one web page that needs nothing beside it."""

from scalpel_graph import report_html
from scalpel_graph.pruning.report import PruneReport


def render(report: PruneReport) -> str:
    """The page, as HTML with its style inside: no script, no font and no picture is loaded."""
    return report_html.page("prune_report.html.j2", report)
