"""Accuracy against pruning rate for each measure of a group's importance: the paper's figure 7.

The trained network is pruned once to each rate, by root mean square, mean and largest magnitude of a group,
and retrained for a few epochs. Interrupted, it goes on with the point it was at.
"""

import copy
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from models.paper import runs
from models.paper.recipes import Recipe
from models.paper.reproduce import DENSE, Reproducer, Trained
from models.paper.training import Step, Subject
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.pruning import IMPORTANCES
from scalpel_graph.torch import GroupPruner

RATES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.93, 0.95)
_SHORT_RATES = (0.5, 0.9)
GROUP_SHAPE: GroupShape = (1, 8)
_RETRAIN = 3


def measure(
    reproducer: Reproducer,
    recipe: Recipe,
    bar: Callable[[str, int], AbstractContextManager[Callable[[], None]]],
) -> dict[str, Any]:
    """The curve, as JSON.

    Args:
        reproducer: trains the dense network, unless it is there.
        recipe: of the network.
        bar: shows progress.

    Returns:
        ``network``, ``group_shape``, ``retraining_epochs``, ``dense_accuracy`` and ``points``, each with
        ``importance``, ``rate``, and accuracy ``pruned`` and ``retrained``.
    """
    trained = Trained(reproducer, recipe)
    trained.dense()
    trainer, schedule = trained.trainer, recipe.schedule
    epochs = min(_RETRAIN, schedule.retrain)
    model = runs.network(recipe.network, trained.dense_arrays)
    points = []
    rates = RATES if recipe.train_images is None or recipe.train_images > 1000 else _SHORT_RATES
    with bar(f"{recipe.network}, importance", len(rates) * len(IMPORTANCES) * epochs) as advance:
        for importance in IMPORTANCES:
            for rate in rates:
                pruned = copy.deepcopy(model)
                groups = GroupPruner(pruned, GROUP_SHAPE, importance=importance)
                folder = _folder(reproducer.folder(recipe, "importance"), importance, rate)
                groups.prune_to(rate, overall=True)
                before = trainer.accuracy(pruned)
                history = trainer.run(
                    Subject(pruned, groups), [Step("retraining", epochs, schedule.lr / 5)], folder, advance
                )
                points.append(
                    {
                        "importance": importance,
                        "rate": rate,
                        "pruned": before,
                        "retrained": history[-1].accuracy,
                    }
                )
    return {
        "network": recipe.network,
        "dataset": trained.data.name,
        "group_shape": list(GROUP_SHAPE),
        "retraining_epochs": epochs,
        "dense_accuracy": trainer.accuracy(model),
        "dense_run": DENSE,
        "points": points,
    }


def _folder(parent: Path, importance: str, rate: float) -> Path:
    folder = parent / f"{importance}-{rate:g}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
