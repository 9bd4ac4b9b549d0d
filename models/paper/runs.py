"""One training run: a network, dense or pruned to a plan, from its recipe to its weights."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from models.paper.masks import has_all_blocked, mask_places, shares, without_blocked, zero_what_reads_blocked
from models.paper.networks import TORCH_NETWORKS
from models.paper.plans import Plan
from models.paper.recipes import Recipe
from models.paper.training import Epoch, Step, Subject, Trainer, in_channels_last
from scalpel_graph.errors import CheckError
from scalpel_graph.group_csr import Array
from scalpel_graph.torch import GroupPruner, NodePruner, cubic_stages, insert_masks


@dataclass(frozen=True)
class Outcome:
    """What a run gave.

    Attributes:
        arrays: weights and biases by name; zero where they were pruned.
        history: its epochs.
    """

    arrays: dict[str, Array]
    history: list[Epoch]


def dense_steps(recipe: Recipe) -> list[Step]:
    """Training from nothing."""
    return [Step("dense", recipe.schedule.dense, recipe.schedule.dense_lr)]


def pruning_steps(recipe: Recipe, plan: Plan) -> list[Step]:
    """Node pruning with rising penalties, then group pruning with rising rates, then retraining."""
    schedule = recipe.schedule
    taught = schedule.distillation
    steps = []
    if plan.nodes:
        steps += [
            Step(
                f"penalty {penalty:g}",
                schedule.penalty_epochs,
                schedule.node_lr,
                penalty=penalty,
                constant=True,
                distillation=taught,
            )
            for penalty in schedule.penalties
        ]
    if plan.shapes:
        for number, part in enumerate(cubic_stages(1.0, schedule.stages), start=1):
            rate: float | dict[str, float]
            rate = (
                plan.rate * part
                if isinstance(plan.rate, float)
                else {layer: rate * part for layer, rate in plan.rate.items()}
            )
            epochs = schedule.retrain if number == schedule.stages else schedule.stage_epochs
            name = f"stage {number} of {schedule.stages}"
            steps.append(Step(name, epochs, schedule.lr, rate=rate, distillation=taught))
    else:
        steps.append(Step("retraining", schedule.retrain, schedule.lr, distillation=taught))
    if plan.nodes:
        steps += [
            Step("polishing", polish.epochs, polish.lr, weight_decay=0.1, distillation=polish.distillation)
            for polish in schedule.polish
        ]
    return steps


def epochs_of(recipe: Recipe, plan: Plan | None) -> int:
    """How many epochs a run has; a dense one if there is no plan."""
    steps = dense_steps(recipe) if plan is None else pruning_steps(recipe, plan)
    return sum(step.epochs for step in steps)


def train_dense(recipe: Recipe, trainer: Trainer, folder: Path, advance: Callable[[], None]) -> Outcome:
    """Trains the network from seeded weights.

    Raises:
        OutOfTime: see `Trainer.run`.
    """
    torch.manual_seed(recipe.seed)
    model = TORCH_NETWORKS[recipe.network]()
    history = trainer.run(Subject(model), dense_steps(recipe), folder, advance)
    return Outcome(_arrays(model.state_dict()), history)


def train_pruned(
    recipe: Recipe,
    plan: Plan,
    dense: Mapping[str, Array],
    trainer: Trainer,
    *,
    folder: Path,
    advance: Callable[[], None],
) -> Outcome:
    """Prunes a trained network to a plan and retrains it.

    Raises:
        OutOfTime: see `Trainer.run`.
        CheckError: the penalties did not block as many nodes as they should.
    """
    model = network(recipe.network, dense)
    teacher = in_channels_last(network(recipe.network, dense)).eval()
    places = mask_places(model, plan.nodes)
    wanted = shares(model, plan.nodes)
    subject = Subject(model, teacher=teacher)
    if places:
        insert_masks(model, list(places.values()), trainer.example)
        subject.nodes = NodePruner(
            model, wanted={f"{places[layer]}.mask": share for layer, share in wanted.items()}
        )
        subject.before_pruning = partial(zero_what_reads_blocked, model, places)
    if plan.shapes:
        subject.groups = GroupPruner(
            model,
            plan.shapes,
            layers=list(plan.shapes),
            channels_last=bool(plan.orders),
            example_inputs=trainer.example,
        )
    history = trainer.run(subject, pruning_steps(recipe, plan), folder, advance)
    state = model.state_dict()
    if not has_all_blocked(state, wanted, places):
        raise CheckError(
            f"{recipe.network}: the penalties blocked too few nodes: give the recipe a higher one at the end"
        )
    return Outcome(_arrays(without_blocked(state, places)), history)


def fingerprint(recipe: Recipe, plan: Plan | None) -> dict[str, Any]:
    """Everything that a run's weights depend on: a folder with another one belongs to another run."""
    return {
        "network": recipe.network,
        "dataset": recipe.dataset,
        "train_images": recipe.train_images,
        "seed": recipe.seed,
        "fit": asdict(recipe.fit),
        "dense": [asdict(step) for step in dense_steps(recipe)],
        "plan": None if plan is None else asdict(plan),
        "steps": None if plan is None else [asdict(step) for step in pruning_steps(recipe, plan)],
    }


def network(name: str, arrays: Mapping[str, Array]) -> nn.Sequential:
    """A network with these weights and biases."""
    model = TORCH_NETWORKS[name]()
    model.load_state_dict({key: torch.from_numpy(array.copy()) for key, array in arrays.items()})
    return model


def _arrays(state: Mapping[str, torch.Tensor]) -> dict[str, Array]:
    return {name: value.detach().contiguous().numpy().copy() for name, value in state.items()}
