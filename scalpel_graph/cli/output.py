"""Checks of report files that the commands share."""

from collections.abc import Iterable
from pathlib import Path

from scalpel_graph.cli.console import check_folder
from scalpel_graph.errors import InputError

_REPORT_SUFFIXES = (".json", ".html")


def file_report_suffix(path: Path) -> str:
    """The kind of a report, by the end of its name in small letters."""
    return path.suffix.lower()


def check_report(path: Path, models: Iterable[Path | None]) -> None:
    """Finds out before the work whether a report can be written.

    Args:
        path: the report.
        models: files that it must not overwrite; None stands for none.

    Raises:
        InputError: it cannot.
    """
    if file_report_suffix(path) not in _REPORT_SUFFIXES:
        raise InputError(f"--report {path}: its name must end in {' or '.join(_REPORT_SUFFIXES)}")
    check_folder(path)
    if any(model and _is_same(path, model) for model in models):
        raise InputError(f"--report {path}: is one of the models; give another name")


def _is_same(path: Path, other: Path) -> bool:
    return path.resolve() == other.resolve() or (path.exists() and other.exists() and path.samefile(other))
