"""Command-line options that several benchmarks have, and their types."""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

from benchmarks.tables import add_markdown_option
from models import NETWORKS
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning import parse_group_shape


def network(text: str) -> str:
    """A name in `models.NETWORKS`."""
    if text not in NETWORKS:
        raise argparse.ArgumentTypeError(f"no network is called {text!r}: choose from {', '.join(NETWORKS)}")
    return text


def fraction(text: str) -> float:
    """A number from 0 to 1."""
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a fraction from 0 to 1")
    return number


def seconds(text: str) -> float:
    """A positive number of seconds."""
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return number


def group_shape(text: str) -> GroupShape:
    """Such as ``4x1``."""
    try:
        return parse_group_shape(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def density(text: str) -> float:
    """A number above 0 and up to 1."""
    number = fraction(text)
    if number == 0:
        raise argparse.ArgumentTypeError("a density of 0 leaves nothing to run")
    return number


def add_work_option(parser: argparse.ArgumentParser) -> None:
    """``--work``: where ``models reproduce`` keeps its networks."""
    parser.add_argument(
        "--work",
        metavar="DIR",
        type=Path,
        default=Path("build/paper"),
        help="of models reproduce (%(default)s)",
    )


def add_layer_timing_options(parser: argparse.ArgumentParser, group_shapes: Sequence[GroupShape]) -> None:
    """Declares which layers and group shapes are timed, for how long, and where the figures go.

    Args:
        parser: gets the options.
        group_shapes: those that are timed by default.
    """
    parser.add_argument(
        "--group-shape",
        action="append",
        type=group_shape,
        help=f"repeatable; default: {' '.join(f'{r}x{c}' for r, c in group_shapes)}",
    )
    parser.add_argument("--layers", default="", metavar="TEXT", help="only layers with this in their name")
    parser.add_argument(
        "--rounds", type=console.positive, default=5, help="turns of each measurement (default 5)"
    )
    parser.add_argument(
        "--seconds", type=seconds, default=0.02, help="at least this long a turn (default 0.02)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there")
    add_markdown_option(parser)
