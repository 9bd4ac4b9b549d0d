"""``python -m models``: lists the networks, builds one, or does the Scalpel paper again."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from models import NETWORKS
from models.paper import commands as paper
from scalpel_graph import formatting, io
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError
from scalpel_graph.pruning import IMPORTANCES, parse_group_shape, prune_magnitude

_PROG = "python -m models"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    return console.run(_run, _PROG, arguments)


def _run(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    options.run(options)
    return 0


def _parser() -> console.Parser:
    parser = console.Parser(
        prog=_PROG, description="Networks as ONNX files, and the Scalpel paper reproduced."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    commands.add_parser("list", help="list the networks").set_defaults(run=_list)
    build = commands.add_parser("build", help="write one to a file")
    build.add_argument("name", metavar="NAME", help="a network from the list")
    build.add_argument("output", metavar="OUT.onnx", type=Path)
    build.add_argument("--seed", type=int, default=0, help="of the weights (default: 0)")
    build.add_argument("--sparsity", type=float, help="prune: fraction of groups to set to zero")
    build.add_argument("--group-shape", metavar="RxC", default="1x8", help="outputs x inputs (default: 1x8)")
    build.add_argument("--importance", choices=IMPORTANCES, default="rms", help="default: rms")
    build.add_argument(
        "--layers", metavar="PATTERN", action="append", help="prune these, not the network's usual ones"
    )
    build.add_argument("--exclude", metavar="PATTERN", action="append", default=[], help="leave these alone")
    build.set_defaults(run=_build)
    paper.add_parsers(commands)
    return parser


def _list(_: argparse.Namespace) -> None:
    table = Table("network", "input", "pruned layers", "what it is")
    for name, network in NETWORKS.items():
        shape = "×".join(map(str, network.input_shape))
        table.add_row(name, shape, " ".join(network.pruned_layers), network.summary)
    console.output_console().print(table)


def _build(options: argparse.Namespace) -> None:
    io.check_writable(options.output)
    network = NETWORKS.get(options.name)
    if network is None:
        raise InputError(f"no network is called {options.name!r}: choose from {', '.join(NETWORKS)}")
    if options.seed < 0:
        raise InputError(f"--seed must not be negative, got {options.seed}")
    group_shape = parse_group_shape(options.group_shape)
    model = network.build(seed=options.seed)
    summary = "dense"
    if options.sparsity is not None:
        result = prune_magnitude(
            model,
            options.sparsity,
            group_shape,
            importance=options.importance,
            layers=options.layers or network.pruned_layers,
            exclude=options.exclude,
        )
        model = result.model
        pruned = sum(layer.pruned for layer in result.layers)
        groups = f"{options.sparsity:.0%} of {options.group_shape} groups"
        summary = f"{groups} zero in {pruned} of {len(result.layers)} layers"
    size = io.save(model, options.output)
    print(f"{options.output}: {options.name}, {formatting.size(size)}, {summary}")


if __name__ == "__main__":
    sys.exit(main())
