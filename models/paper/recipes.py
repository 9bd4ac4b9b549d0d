"""How each network is trained and pruned, as data: epochs, learning rates, pruning rates, penalties.

The rates are the paper's or higher; its figures for sizes and nodes are in `models.paper.published`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from scalpel_graph.group_csr import GroupShape

#: Of a variant: the hardware it is for.
TARGETS = ("mcu", "cpu", "gpu")
#: And the way of pruning. ``cost-model`` is Scalpel with the group shapes that the cost model of this machine
#: likes best, in convolutions too.
TECHNIQUES = ("traditional", "optimized", "scalpel", "cost-model")


@dataclass(frozen=True)
class Fit:
    """How a network is trained, dense or pruned: SGD with Nesterov momentum of 0.9, cosine learning rate.

    Attributes:
        batch: images in a step.
        weight_decay: of the weights.
        augment: shift by up to so many pixels, each way.
        flip: mirror half of the images.
        bfloat16: multiply in bfloat16 where the processor is faster at it; weights stay float32.
    """

    batch: int = 128
    weight_decay: float = 5e-4
    augment: int = 0
    flip: bool = False
    bfloat16: bool = False


@dataclass(frozen=True)
class Groups:
    """SIMD-aware pruning; of single weights where the groups are 1×1.

    Attributes:
        shape: of the groups; None for what the cost model likes best, layer by layer.
        rate: the part of all weights of the layers that goes, by one threshold for all, as in the paper; or
            the part for each layer.
        layers: patterns of their names.
        exclude: patterns of layers to leave alone all the same.
    """

    shape: GroupShape | None
    rate: float | Mapping[str, float]
    layers: tuple[str, ...] = ("*",)
    exclude: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pruning:
    """What is pruned: nodes first, then groups.

    Attributes:
        nodes: the part of each layer's nodes that goes.
        groups: what goes in groups; None for nothing.
    """

    nodes: Mapping[str, float] = field(default_factory=dict)
    groups: Groups | None = None


@dataclass(frozen=True)
class Distillation:
    """What the dense network teaches one that is pruned of it (Hinton et al., 2015).

    Attributes:
        part: of the loss that asks for the dense network's answers, not the labels.
        temperature: softens those answers.
    """

    part: float
    temperature: float = 3.0


@dataclass(frozen=True)
class Polish:
    """Some epochs at the end, for networks that lost nodes.

    Attributes:
        epochs: how many.
        lr: learning rate of the first.
        distillation: as in `Schedule`.
    """

    epochs: int
    lr: float
    distillation: Distillation | None = None


@dataclass(frozen=True)
class Schedule:
    """Epochs and learning rates.

    Attributes:
        dense: epochs of the dense network.
        dense_lr: its first learning rate.
        penalties: λ of the stages of node pruning.
        penalty_epochs: of each.
        node_lr: learning rate of those.
        stages: of group pruning; rates rise as `scalpel_graph.torch.cubic_stages` has it.
        stage_epochs: of each stage but the last.
        retrain: epochs at the end.
        lr: first learning rate of each stage of retraining.
        distillation: of pruning and retraining; None: labels alone.
        polish: after all that, for networks that lost nodes. What is left has little to overfit with: a tenth
            of the weight decay.
    """

    dense: int
    dense_lr: float
    penalties: tuple[float, ...] = ()
    penalty_epochs: int = 1
    node_lr: float = 0.01
    stages: int = 5
    stage_epochs: int = 2
    retrain: int = 10
    lr: float = 0.05
    distillation: Distillation | None = None
    polish: tuple[Polish, ...] = ()


@dataclass(frozen=True)
class Recipe:
    """A network of the paper, done again.

    Attributes:
        network: name in `models.NETWORKS`.
        dataset: name in `models.paper.data.DATASETS`; None: it is not trained, its weights are seeded.
        variants: what is pruned for each target and technique. ``optimized`` prunes as ``traditional`` does,
            in the layers that it pays for.
        fit, schedule: of training.
        train_images, test_images: only so many, the first ones; None for all.
        seed: of first weights, the order of images and augmentation.
    """

    network: str
    dataset: str | None
    variants: Mapping[tuple[str, str], Pruning]
    fit: Fit = field(default_factory=Fit)
    schedule: Schedule = field(default_factory=lambda: Schedule(0, 0.0))
    train_images: int | None = None
    test_images: int | None = None
    seed: int = 0

    @property
    def targets(self) -> list[str]:
        """What it is pruned for."""
        return [target for target in TARGETS if ("scalpel", target) in self.variants]


def _variants(
    traditional: Groups,
    *,
    mcu: Groups | None = None,
    cpu: Pruning,
    cost_model: Pruning,
    gpu: Pruning,
) -> dict[tuple[str, str], Pruning]:
    scalpel = {"cpu": cpu, "gpu": gpu} | ({} if mcu is None else {"mcu": Pruning(groups=mcu)})
    single = {
        (technique, target): Pruning(groups=traditional)
        for technique in ("traditional", "optimized")
        for target in scalpel
    }
    return {
        **{("scalpel", target): pruning for target, pruning in scalpel.items()},
        ("cost-model", "cpu"): cost_model,
        **single,
    }


_LENET_5_CONV = {"conv1": 0.50, "conv2": 0.60}
_CONVNET_NODES = {"conv1": 0.28, "conv2": 0.25, "conv3": 0.50}
_NIN_NODES = {
    "conv1": 0.28, "cccp1": 0.20, "cccp2": 0.05, "conv2": 0.02, "cccp3": 0.14, "cccp4": 0.08, "conv3": 0.22,
    "cccp5": 0.48,
}  # fmt: skip
_ALEXNET_CONV_NODES = {"conv1": 0.03, "conv2": 0.20, "conv3": 0.24, "conv4": 0.18}
_ALEXNET_FC = {"fc6": 0.92, "fc7": 0.91, "fc8": 0.75}
#: Traditional pruning of AlexNet's convolutions and classifier (Han et al., NIPS 2015, table 4).
_ALEXNET_SINGLE = {
    "conv1": 0.16, "conv2": 0.62, "conv3": 0.65, "conv4": 0.63, "conv5": 0.63, "fc6": 0.91, "fc7": 0.91,
    "fc8": 0.75,
}  # fmt: skip
_ALEXNET_CONV = {layer: _ALEXNET_SINGLE[layer] for layer in ("conv2", "conv3", "conv4", "conv5")}

RECIPES: dict[str, Recipe] = {
    recipe.network: recipe
    for recipe in (
        Recipe(
            "lenet-300-100",
            "fashion-mnist",
            _variants(
                Groups((1, 1), 0.953),
                mcu=Groups((1, 2), 0.957),
                cpu=Pruning(groups=Groups((1, 8), 0.936)),
                cost_model=Pruning(groups=Groups(None, 0.936)),
                gpu=Pruning({"fc1": 0.31, "fc2": 0.32}),
            ),
            Fit(batch=64),
            Schedule(
                dense=40,
                dense_lr=0.05,
                penalties=(0.0002, 0.0003, 0.0010, 0.003, 0.01, 0.1),
                stages=6,
                stage_epochs=3,
                retrain=30,
                lr=0.05,
            ),
        ),
        Recipe(
            "lenet-5",
            "fashion-mnist",
            _variants(
                Groups((1, 1), 0.964),
                mcu=Groups((1, 2), 0.958),
                cpu=Pruning(_LENET_5_CONV, Groups((1, 8), 0.962, layers=("fc*",))),
                cost_model=Pruning(groups=Groups(None, 0.95, exclude=("conv1",))),
                gpu=Pruning({"conv1": 0.50, "conv2": 0.68, "fc1": 0.65}),
            ),
            Fit(flip=True, bfloat16=True),
            Schedule(
                dense=16,
                dense_lr=0.05,
                penalties=(0.001, 0.01, 0.1),
                stages=4,
                stage_epochs=1,
                retrain=22,
                lr=0.05,
                distillation=Distillation(0.5),
                polish=(
                    Polish(40, 0.03, Distillation(0.5)),
                    Polish(25, 0.03, Distillation(0.9, temperature=1.0)),
                ),
            ),
        ),
        Recipe(
            "convnet",
            "padded-fashion-mnist",
            _variants(
                Groups((1, 1), 0.76),
                mcu=Groups((1, 2), 0.731),
                cpu=Pruning(_CONVNET_NODES),
                cost_model=Pruning(groups=Groups(None, 0.85, exclude=("conv1",))),
                gpu=Pruning(_CONVNET_NODES),
            ),
            Fit(batch=64, bfloat16=True),
            Schedule(
                dense=6,
                dense_lr=0.02,
                penalties=(0.03, 0.06, 0.1),
                stages=2,
                stage_epochs=1,
                retrain=2,
                lr=0.02,
                distillation=Distillation(0.5),
            ),
            train_images=20_000,
        ),
        Recipe(
            "nin",
            "padded-fashion-mnist",
            _variants(
                Groups((1, 1), 0.40),
                cpu=Pruning(_NIN_NODES),
                cost_model=Pruning(groups=Groups(None, 0.85, exclude=("conv1", "cccp6"))),
                gpu=Pruning(_NIN_NODES),
            ),
            Fit(batch=64, bfloat16=True),
            Schedule(
                dense=10,
                dense_lr=0.02,
                penalties=(0.001, 0.007, 0.03),
                node_lr=0.002,
                stages=2,
                stage_epochs=1,
                retrain=4,
                lr=0.01,
                distillation=Distillation(0.5, temperature=1.0),
            ),
            train_images=4_000,
            test_images=2_000,
        ),
        Recipe(
            "alexnet",
            None,
            _variants(
                Groups((1, 1), _ALEXNET_SINGLE),
                cpu=Pruning(_ALEXNET_CONV_NODES, Groups((1, 8), _ALEXNET_FC)),
                cost_model=Pruning(groups=Groups(None, _ALEXNET_CONV | _ALEXNET_FC)),
                gpu=Pruning(_ALEXNET_CONV_NODES | {"fc6": 0.17, "fc7": 0.23}),
            ),
        ),
    )
}


def short(recipe: Recipe) -> Recipe:
    """The same in seconds: a few hundred images and few epochs; for trying out, and for tests."""
    schedule = replace(
        recipe.schedule,
        dense=3,
        penalties=(0.3, 30.0),
        stages=2,
        stage_epochs=1,
        retrain=1,
        polish=tuple(replace(round_, epochs=1) for round_ in recipe.schedule.polish),
        node_lr=0.01,
    )
    return replace(recipe, schedule=schedule, train_images=384, test_images=200)
