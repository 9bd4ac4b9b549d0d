"""Command-line options that several benchmarks have, and their types."""

import argparse
import math
from pathlib import Path

from models import NETWORKS
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
