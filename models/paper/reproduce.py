"""The paper done again, network by network: train, prune for each target, retrain, export, optimize, measure.

Every run has a folder with what it needs to go on after an interruption, and its pruned network as ONNX once
it is done. What is measured goes into one JSON file for each network.
"""

import json
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx

import scalpel_graph
from models import NETWORKS
from models.paper import plans, sizes
from models.paper.data import DATASETS, Data
from models.paper.onnx_files import accuracy, arrays_of, pruned_by_magnitude, with_weights
from models.paper.plans import Plan
from models.paper.published import NODES_REMOVED
from models.paper.recipes import TARGETS, TECHNIQUES, Pruning, Recipe
from scalpel_graph import io
from scalpel_graph.cli import console
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array, GroupShape
from scalpel_graph.report import Report
from scalpel_graph.target import Target

DENSE = "dense"
#: The pruned network in the folder of its run.
MODEL_FILE = "network.onnx"
_HISTORY, _SETTINGS = "history.json", "settings.json"
#: Bytes of a weight: the microcontroller computes with 16 bits.
_WEIGHT_BYTES = {"mcu": 2, "cpu": 4, "gpu": 4}
#: Group shapes that ``scalpel-opt`` may choose from on a CPU, by technique; all where there is none.
_CPU_SHAPES: dict[str, set[GroupShape]] = {
    "traditional": {(1, 1)},
    "optimized": {(1, 1)},
    "scalpel": {(1, 8)},
}
_SUBSTITUTION = "substitute-group-csr"

Advance = Callable[[], None]
#: Makes a bar of so many epochs.
Bar = Callable[[str, int], AbstractContextManager[Advance]]


@dataclass(frozen=True)
class Variant:
    """One pruned network, measured.

    Attributes:
        target, technique: what it was pruned for, and how.
        run: the run that its weights are from; variants with the same plan share one.
        plan: what was pruned.
        accuracy: on the test images, of the optimized file where there is one; None for networks that are not
            trained.
        size: of its weights in the paper's form.
        file_bytes: of the optimized ONNX file; None for ``mcu``.
        nodes: by layer, how many there were and how many can do something, where some are dead. The file may
            keep more, where its target likes round widths.
        sparse_layers: layers that ``scalpel-opt`` made sparse, with their group shapes.
    """

    target: str
    technique: str
    run: str
    plan: Plan
    accuracy: float | None
    size: sizes.Size
    file_bytes: int | None
    nodes: dict[str, tuple[int, int]]
    sparse_layers: dict[str, GroupShape]


@dataclass
class Reproduction:
    """What is known of a network after reproducing it.

    Attributes:
        recipe: as it was carried out.
        dataset: for people; empty for networks that are not trained.
        images: how many it was trained and tested on.
        dense_accuracy: before pruning.
        file_bytes: of the dense ONNX file.
        seconds: of training, by run.
        variants: what came out.
    """

    recipe: Recipe
    dataset: str
    images: tuple[int, int]
    dense_accuracy: float | None
    file_bytes: int
    seconds: dict[str, float] = field(default_factory=dict)
    variants: list[Variant] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """For the results file."""
        return {
            "scalpel_graph": scalpel_graph.__version__,
            "network": self.recipe.network,
            "dataset": self.dataset,
            "train_images": self.images[0],
            "test_images": self.images[1],
            "dense": {"accuracy": self.dense_accuracy, "file_bytes": self.file_bytes},
            "training_seconds": self.seconds,
            "variants": [
                asdict(variant) | {"size": asdict(variant.size) | {"share": variant.size.share}}
                for variant in self.variants
            ],
        }


class Reproducer:
    """Carries recipes out.

    Attributes:
        work, data_folder, bar, threads: see `__init__`.
        deadline: of `time.monotonic`; no training epoch begins after it.
    """

    def __init__(
        self,
        work: Path,
        *,
        data_folder: Path | None = None,
        bar: Bar | None = None,
        minutes: float = math.inf,
        threads: int = 1,
    ) -> None:
        """Does nothing yet.

        Args:
            work: folder for everything; is made.
            data_folder: where the data set is; None for its usual place.
            bar: shows progress.
            minutes: after these no training epoch begins any more.
            threads: of PyTorch.
        """
        self.work = work
        self.data_folder = data_folder
        self.bar: Bar = bar or (lambda what, total: console.counted(what, total, True))
        self.deadline = time.monotonic() + 60 * minutes
        self.threads = threads

    def run(
        self,
        recipe: Recipe,
        *,
        targets: tuple[str, ...] = TARGETS,
        techniques: tuple[str, ...] = TECHNIQUES,
        seeded: bool = False,
    ) -> Reproduction:
        """Reproduces one network.

        Args:
            recipe: how.
            targets, techniques: only these.
            seeded: do not train; prune seeded weights by magnitude, for speed and size only.

        Raises:
            InputError: data or PyTorch are missing, or the folder belongs to another recipe.
            OutOfTime: the minutes are over. Everything up to then is saved.
        """
        trained = recipe.dataset is not None and not seeded
        runner = Trained(self, recipe) if trained else _Seeded(self, recipe)
        data = runner.data if isinstance(runner, Trained) else None
        dense = runner.dense()
        result = Reproduction(
            recipe,
            data.name if data else "",
            (len(data.train_labels), len(data.test_labels)) if data else (0, 0),
            accuracy(dense, data.test_images, data.test_labels) if data else None,
            io.encoded_bytes(dense),
            runner.seconds,
        )
        done: dict[str, Plan] = {}
        for (technique, target), pruning in recipe.variants.items():
            if target not in targets or technique not in techniques:
                continue
            wanted = pruning if trained else _with_published_nodes(recipe.network, pruning)
            plan = plans.plan(dense, wanted, technique, target)
            name = next((run for run, known in done.items() if known == plan), f"{technique}-{target}")
            model = dense if plan.is_empty else runner.pruned(name, plan)
            name = DENSE if plan.is_empty else name
            done.setdefault(name, plan)
            result.variants.append(
                _variant(technique, target, name, plan, dense=dense, model=model, data=data)
            )
        return result

    def folder(self, recipe: Recipe, run: str) -> Path:
        """Of a run."""
        return self.work / recipe.network / run


class Trained:
    """Networks that are trained; what is there already is not trained again.

    Attributes:
        data: what they are trained on.
        trainer: trains them.
        dense_arrays: weights and biases of the dense network, once there is one.
        seconds: of training, by run.
    """

    def __init__(self, owner: "Reproducer", recipe: Recipe) -> None:
        """Loads the data.

        Raises:
            InputError: there is none, or no PyTorch.
        """
        require_torch()
        import torch  # noqa: PLC0415 - optional

        from models.paper import runs, training  # noqa: PLC0415

        torch.set_num_threads(owner.threads)
        assert recipe.dataset is not None
        self.data: Data = DATASETS[recipe.dataset](owner.data_folder)
        self.data = self.data.first(recipe.train_images, recipe.test_images)
        self.trainer = training.Trainer(self.data, recipe.fit, recipe.seed, owner.deadline)
        self.dense_arrays: dict[str, Array] = {}
        self.seconds: dict[str, float] = {}
        self._owner, self._recipe, self._runs = owner, recipe, runs

    def dense(self) -> onnx.ModelProto:
        """The network before pruning."""
        model = self._run(DENSE, None)
        self.dense_arrays = arrays_of(model)
        return model

    def pruned(self, name: str, plan: Plan) -> onnx.ModelProto:
        """The network pruned to a plan and retrained."""
        return self._run(name, plan)

    def _run(self, name: str, plan: Plan | None) -> onnx.ModelProto:
        recipe = self._recipe
        folder = self._owner.folder(recipe, name)
        folder.mkdir(parents=True, exist_ok=True)
        _check_settings(folder, self._runs.fingerprint(recipe, plan))
        if not (folder / MODEL_FILE).exists():
            total = self._runs.epochs_of(recipe, plan)
            with self._owner.bar(f"{recipe.network}, {name}", total) as advance:
                if plan is None:
                    outcome = self._runs.train_dense(recipe, self.trainer, folder, advance)
                else:
                    outcome = self._runs.train_pruned(
                        recipe, plan, self.dense_arrays, self.trainer, folder=folder, advance=advance
                    )
            history = json.dumps([asdict(epoch) for epoch in outcome.history], indent=1)
            console.write_file(folder / _HISTORY, history + "\n")
            io.save(with_weights(recipe.network, outcome.arrays), folder / MODEL_FILE)
        epochs = json.loads((folder / _HISTORY).read_text())
        self.seconds[name] = sum(epoch["seconds"] for epoch in epochs)
        return io.load(folder / MODEL_FILE).proto


class _Seeded:
    """Networks whose weights nobody trained."""

    def __init__(self, owner: "Reproducer", recipe: Recipe) -> None:
        self._owner, self._recipe = owner, recipe
        self.seconds: dict[str, float] = {}

    def dense(self) -> onnx.ModelProto:
        return self._saved(DENSE, NETWORKS[self._recipe.network].build())

    def pruned(self, name: str, plan: Plan) -> onnx.ModelProto:
        return self._saved(name, pruned_by_magnitude(self._recipe.network, plan))

    def _saved(self, name: str, model: onnx.ModelProto) -> onnx.ModelProto:
        folder = self._owner.folder(self._recipe, name)
        folder.mkdir(parents=True, exist_ok=True)
        _check_settings(folder, {"seeded": self._recipe.network})
        io.save(model, folder / MODEL_FILE)
        return model


def require_torch() -> None:
    """Raises `InputError` if there is no PyTorch to train with."""
    if find_spec("torch") is None:
        raise InputError("training needs PyTorch; install it with: pip install 'scalpel-graph[torch]'")


def _with_published_nodes(network: str, pruning: Pruning) -> Pruning:
    """What is only timed loses at least as many nodes as in the paper, also where a recipe spares some."""
    published = NODES_REMOVED[network]
    nodes = {layer: max(share, published[layer] / 100) for layer, share in pruning.nodes.items()}
    return replace(pruning, nodes=nodes)


def _check_settings(folder: Path, settings: dict[str, Any]) -> None:
    """Remembers what a run depends on, or compares with what is remembered."""
    file = folder / _SETTINGS
    text = json.dumps(settings, indent=1) + "\n"
    if not file.exists():
        console.write_file(file, text)
    elif file.read_text() != text:
        raise InputError(
            f"{folder} holds a run of another recipe: remove it to train anew, or give another folder with"
            " --work"
        )


def _variant(
    technique: str,
    target: str,
    run: str,
    plan: Plan,
    *,
    dense: onnx.ModelProto,
    model: onnx.ModelProto,
    data: Data | None,
) -> Variant:
    optimized, report = optimized_for(model, technique, target)
    final = model if optimized is None else optimized
    structure = model if target == "mcu" else without_dead_nodes(model)
    # Neurons that lost all their groups can stay: without them the groups of the next layer are cut anew.
    groups = {name: plan.groups(name) for name in plan.shapes}
    stored = [sizes.measure(dense, form, groups, _WEIGHT_BYTES[target]) for form in (model, structure)]
    shapes = {layer.name: layer.chosen.group_shape for layer in report.layers} if report else {}
    return Variant(
        target,
        technique,
        run,
        plan,
        accuracy(final, data.test_images, data.test_labels) if data else None,
        min(stored, key=lambda size: size.bytes),
        None if optimized is None else io.encoded_bytes(optimized),
        sizes.fewer_nodes(dense, structure),
        {name: shape for name, shape in shapes.items() if shape is not None},
    )


def optimized_for(
    model: onnx.ModelProto, technique: str, target: str, threads: int = 1
) -> tuple[onnx.ModelProto | None, Report | None]:
    """Makes a pruned network fast on its target, as its technique allows.

    Args:
        model: the pruned network.
        technique: limits the group shapes on ``cpu``; traditional pruning makes sparse whatever gets smaller.
        target: ``mcu``, ``cpu`` or ``gpu``.
        threads: that it will run on.

    Returns:
        The optimized network and its report; None for ``mcu``, whose compiler quantizes and wants inputs.
    """
    if target == "mcu":
        return None, None
    profile: str | Target = target
    if target == "cpu":
        profile = plans.cpu()
        if technique in _CPU_SHAPES:
            profile = plans.restricted(profile, _CPU_SHAPES[technique], forced=technique == "traditional")
    result = scalpel_graph.optimize(model, profile, threads=threads)
    return result.model, result.report


def without_dead_nodes(model: onnx.ModelProto) -> onnx.ModelProto:
    """A pruned network without its dead nodes: all of them, where a target may keep widths rounded."""
    exact = replace(plans.cpu(), round_channels_to=1, round_features_to=1)
    return scalpel_graph.optimize(model, exact, check=False, skip_passes=[_SUBSTITUTION]).model


def all_recipes(
    recipes: dict[str, Recipe], names: list[str], change: Callable[[Recipe], Recipe]
) -> list[Recipe]:
    """The named recipes, each changed.

    Raises:
        InputError: there is none of a name.
    """
    unknown = [name for name in names if name not in recipes]
    if unknown:
        raise InputError(f"no recipe for {unknown[0]!r}: choose from {', '.join(recipes)}, or all")
    return [change(recipes[name]) for name in names]


def with_dataset(recipe: Recipe, dataset: str | None) -> Recipe:
    """A recipe for another data set; unchanged for None."""
    return recipe if dataset is None or recipe.dataset is None else replace(recipe, dataset=dataset)
