"""The commands of ``python -m models`` that do the paper again: ``reproduce`` and ``importance``."""

import argparse
import json
import math
import os
from functools import partial
from pathlib import Path
from typing import Any

from rich.table import Table

from models.paper import plots
from models.paper.data import DATASETS
from models.paper.published import FIGURES
from models.paper.recipes import RECIPES, TARGETS, TECHNIQUES, Recipe, short
from models.paper.reproduce import Reproducer, Reproduction, all_recipes, require_torch, with_dataset
from scalpel_graph import formatting
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError

_ALL = "all"
_WORK = Path("build/paper")


def add_parsers(commands: Any) -> None:
    """Adds the commands to a group of subparsers."""
    reproduce = commands.add_parser(
        "reproduce", help="train, prune for each target, retrain, optimize and measure a network of the paper"
    )
    _common(reproduce, several=True)
    reproduce.add_argument(
        "--target", choices=TARGETS, action="append", help="repeatable; default: all that the paper has"
    )
    reproduce.add_argument(
        "--technique", choices=TECHNIQUES, action="append", help="repeatable; default: all"
    )
    reproduce.add_argument(
        "--seeded", action="store_true", help="do not train: prune seeded weights, for speed and size only"
    )
    reproduce.set_defaults(run=_reproduce)
    importance = commands.add_parser(
        "importance", help="accuracy against pruning rate, for each measure of a group's importance"
    )
    _common(importance, several=False)
    importance.set_defaults(run=_importance)


def _common(parser: argparse.ArgumentParser, *, several: bool) -> None:
    names = f"{', '.join(RECIPES)}" + (f", or {_ALL}" if several else "")
    parser.add_argument("network", metavar="NETWORK", nargs="+" if several else 1, help=names)
    parser.add_argument(
        "--short", action="store_true", help="a few hundred images and few epochs: seconds, to try it out"
    )
    parser.add_argument("--data", metavar="DIR", type=Path, help="folder of the data set's files")
    parser.add_argument("--dataset", choices=DATASETS, help="another one than the recipe's")
    parser.add_argument(
        "--work",
        metavar="DIR",
        type=Path,
        default=_WORK,
        help="keeps what is needed to go on after an interruption, and the networks (default: %(default)s)",
    )
    parser.add_argument(
        "--results",
        metavar="DIR",
        type=Path,
        default=Path("build/paper/results"),
        help="gets JSON and plots (default: %(default)s)",
    )
    parser.add_argument(
        "--minutes", type=_minutes, default=math.inf, help="stop after so many; run again to go on"
    )
    parser.add_argument(
        "--threads",
        type=console.positive,
        default=len(os.sched_getaffinity(0)),
        help="of PyTorch (default: all)",
    )


def _minutes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = 0.0
    if not number > 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of minutes")
    return number


def _recipes(options: argparse.Namespace) -> list[Recipe]:
    names = list(RECIPES) if options.network == [_ALL] else options.network
    return all_recipes(RECIPES, names, partial(_changed, options=options))


def _changed(recipe: Recipe, options: argparse.Namespace) -> Recipe:
    recipe = with_dataset(recipe, options.dataset)
    return short(recipe) if options.short else recipe


def _reproducer(options: argparse.Namespace) -> Reproducer:
    for folder in (options.work, options.results):
        folder.mkdir(parents=True, exist_ok=True)
    return Reproducer(
        options.work,
        data_folder=options.data,
        bar=lambda what, total: console.counted(what, total, False),
        minutes=options.minutes,
        threads=options.threads,
    )


def _reproduce(options: argparse.Namespace) -> None:
    recipes = _recipes(options)
    plots.require_plotly()
    reproducer = _reproducer(options)
    out = console.output_console()
    for recipe in recipes:
        result = reproducer.run(
            recipe,
            targets=tuple(options.target or TARGETS),
            techniques=tuple(options.technique or TECHNIQUES),
            seeded=options.seeded,
        )
        path = options.results / f"{recipe.network}.json"
        console.write_file(path, json.dumps(result.as_json(), indent=1) + "\n")
        page = path.with_suffix(".html")
        console.write_file(page, plots.reproduction_page(result))
        out.print(_table(result))
        out.print(f"written to {path} and {page}\n")


def _table(result: Reproduction) -> Table:
    dense = result.dense_accuracy
    title = result.recipe.network + (f" on {result.dataset}, dense {dense:.2%}" if dense is not None else "")
    table = Table(
        "target", "technique", "accuracy", "change", "weights kept", "size", "paper's", "nodes", title=title
    )
    for variant in result.variants:
        accuracy = change = ""
        if variant.accuracy is not None and dense is not None:
            accuracy, change = f"{variant.accuracy:.2%}", f"{100 * (variant.accuracy - dense):+.2f}"
        figure = FIGURES.get((variant.target, result.recipe.network))
        published = None
        if figure is not None:
            published = {"scalpel": figure.size, "traditional": figure.traditional_size}.get(
                variant.technique
            )
        table.add_row(
            variant.target,
            variant.technique,
            accuracy,
            change,
            formatting.fraction(variant.size.kept / variant.size.weights),
            f"{variant.size.share:.2%}",
            "" if published is None else f"{published:.2f}%",
            " ".join(f"{name} {after}/{before}" for name, (before, after) in variant.nodes.items()),
        )
    return table


def _importance(options: argparse.Namespace) -> None:
    (recipe,) = _recipes(options)
    if recipe.dataset is None:
        raise InputError(f"{recipe.network} is not trained, so it has no accuracy")
    plots.require_plotly()
    require_torch()
    from models.paper import importance_curve  # noqa: PLC0415 - needs PyTorch

    reproducer = _reproducer(options)
    curve = importance_curve.measure(reproducer, recipe, lambda what, n: console.counted(what, n, False))
    path = options.results / f"importance-{recipe.network}.json"
    console.write_file(path, json.dumps(curve, indent=1) + "\n")
    page = path.with_suffix(".html")
    console.write_file(page, plots.importance_page(curve))
    print(f"written to {path} and {page}")
