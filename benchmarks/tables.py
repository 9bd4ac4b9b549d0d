"""Tables of results: for the terminal, and as Markdown for the documentation."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from scalpel_graph.group_csr import GroupShape

Cell = str | Text

_WIDEST = 1000


@dataclass
class Results:
    """Rows under headings; the first columns name things, the others hold figures.

    Attributes:
        headings: of the columns.
        names: how many of the columns name things.
        rows: of as many cells as there are headings.
    """

    headings: Sequence[str]
    names: int = 1
    rows: list[Sequence[Cell]] = field(default_factory=list)

    def print(self, console: Console, *, markdown: bool = False) -> None:
        """Prints it, in colours or as Markdown; off a terminal as wide as it is."""
        if markdown:
            console.print(self.markdown(), soft_wrap=True)
            return
        table = self.table()
        if not console.is_terminal:
            whole = Measurement.get(console, console.options.update(width=_WIDEST), table).maximum
            console.width = max(console.width, whole)
        console.print(table)

    def table(self) -> Table:
        """For a terminal."""
        table = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
        for number, heading in enumerate(self.headings):
            is_name = number < self.names
            table.add_column(heading, justify="left" if is_name else "right", no_wrap=True)
        for row in self.rows:
            table.add_row(*row)
        return table

    def markdown(self) -> str:
        """As the documentation has it."""
        rule = "|" + "---|" * len(self.headings)
        heading, *rows = ("| " + " | ".join(map(str, row)) + " |" for row in (self.headings, *self.rows))
        return "\n".join((heading, rule, *rows)) + "\n"


def add_markdown_option(parser: argparse.ArgumentParser) -> None:
    """Adds ``--markdown``."""
    parser.add_argument(
        "--markdown", action="store_true", help="print tables as docs/performance.md has them"
    )


def percent(fraction: float, digits: int = 0) -> str:
    """``42 %``."""
    return f"{100 * fraction:.{digits}f} %"


def shape_name(group_shape: GroupShape) -> str:
    """``4×1``."""
    return "×".join(map(str, group_shape))
