import io

from rich.console import Console
from rich.text import Text

from benchmarks.tables import Results, percent, shape_name


def printed(*, markdown):
    out = io.StringIO()
    table = Results(
        ["network", "1 thread"], rows=[["lenet-5", Text("2.33", "green")], ["a " * 40, "same file"]]
    )
    table.print(Console(file=out, width=30, color_system=None), markdown=markdown)
    return out.getvalue()


def test_markdown_has_one_line_for_each_row_however_narrow_the_terminal():
    assert printed(markdown=True).rstrip("\n") == (
        f"| network | 1 thread |\n|---|---|\n| lenet-5 | 2.33 |\n| {'a ' * 40} | same file |"
    )


def test_a_table_is_whole_even_where_the_console_is_narrow():
    lines = printed(markdown=False).splitlines()
    assert len(lines) == 3
    assert lines[1].split() == ["lenet-5", "2.33"]
    assert lines[2].rstrip() == "a " * 40 + "  same file"


def test_figures():
    assert percent(0.416) == "42 %"
    assert percent(0.0128, 1) == "1.3 %"
    assert shape_name((4, 1)) == "4×1"
