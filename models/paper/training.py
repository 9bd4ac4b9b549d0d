"""Training that can be interrupted at any time: steps of so many epochs, each epoch saved.

Interrupted and gone on with, a run gives the same weights as in one go: whatever is random in an epoch
depends on nothing but the seed and the number of the epoch.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.paper.data import Data
from models.paper.recipes import Distillation, Fit
from scalpel_graph.errors import CheckError, ScalpelError
from scalpel_graph.torch import GroupPruner, NodePruner

_EVALUATION_BATCH = 500
_FILE = "training.pt"

_Model = TypeVar("_Model", bound=nn.Module)


@dataclass(frozen=True)
class Step:
    """Some epochs under the same conditions.

    Attributes:
        name: for people.
        epochs: how many.
        lr: learning rate of the first; it falls to nearly nothing along a cosine.
        rate: what the pruner's groups are pruned to before; None for no change.
        penalty: λ of the nodes meanwhile; None: the nodes stay as they are.
        constant: keep the learning rate.
        weight_decay: times that of `Fit`.
        distillation: of the teacher's answers; None: labels alone.
    """

    name: str
    epochs: int
    lr: float
    rate: float | Mapping[str, float] | None = None
    penalty: float | None = None
    constant: bool = False
    weight_decay: float = 1.0
    distillation: Distillation | None = None


@dataclass(frozen=True)
class Epoch:
    """One line of a run's history: the epoch, its mean loss, and the accuracy on the test images after it."""

    step: str
    epoch: int
    loss: float
    accuracy: float
    seconds: float


@dataclass
class Subject:
    """What is trained.

    Attributes:
        model: the network.
        groups: holds zeros; None for none.
        nodes: drives masks; None for none.
        teacher: a network whose answers count beside the labels in steps that say so.
        before_pruning: is called before groups are pruned.
    """

    model: nn.Module
    groups: GroupPruner | None = None
    nodes: NodePruner | None = None
    teacher: nn.Module | None = None
    before_pruning: Callable[[], None] = lambda: None


#: For deadlines.
_now = time.monotonic


class OutOfTime(ScalpelError):  # noqa: N818 - nothing went wrong
    """The time that was given is over; everything up to the last epoch is saved."""

    exit_code = 75  # EX_TEMPFAIL of sysexits.h: try again


class Trainer:
    """Trains on one data set."""

    def __init__(self, data: Data, fit: Fit, seed: int, deadline: float = math.inf) -> None:
        """Takes the data over.

        Args:
            data: images and labels.
            fit: how to train.
            seed: of everything random.
            deadline: of `time.monotonic`; no epoch begins after it.
        """
        self._fit, self._seed, self._deadline = fit, seed, deadline
        self._images = _channels_last(torch.from_numpy(data.train_images))
        self._labels = torch.from_numpy(data.train_labels)
        self._test_images = _channels_last(torch.from_numpy(data.test_images))
        self._test_labels = torch.from_numpy(data.test_labels)
        #: One image, for looking at a model.
        self.example = self._images[:1]
        # What a shifted image has where it was not: the darkest pixel.
        self._background = float(self._images.min())

    def run(
        self, subject: Subject, steps: Sequence[Step], folder: Path, advance: Callable[[], None]
    ) -> list[Epoch]:
        """Goes through the steps, from where an earlier call with the same folder stopped.

        Args:
            subject: as it is before the first step.
            steps: what to do.
            folder: an existing one, for what is needed to go on.
            advance: is called after each epoch, and for each that was there.

        Returns:
            The history.

        Raises:
            OutOfTime: the deadline has passed.
            CheckError: the loss is no number any more.
        """
        model = in_channels_last(subject.model)
        file = folder / _FILE
        history: list[Epoch] = []
        saved: dict[str, Any] | None = None
        if file.exists():
            saved = torch.load(file, weights_only=True)
            history = [Epoch(**entry) for entry in saved["history"]]
            _restore(subject, saved)
            for _ in history:
                advance()
        before = 0
        for number, step in enumerate(steps):
            done = min(max(len(history) - before, 0), step.epochs)
            before += step.epochs
            if done == step.epochs > 0:
                continue
            if done == 0:
                _begin(subject, step)
            optimizer = _optimizer(model, step.lr, step.weight_decay * self._fit.weight_decay)
            if done and saved is not None:
                optimizer.load_state_dict(saved["optimizer"])
            with _held(subject, optimizer, step):
                for epoch in range(done, step.epochs):
                    if _now() > self._deadline:
                        raise OutOfTime("the minutes are over; run it again to go on")
                    history.append(self._epoch(subject, optimizer, step, (number, epoch)))
                    _save(file, subject, optimizer, history)
                    advance()
        return history

    def accuracy(self, model: nn.Module) -> float:
        """The part of the test images that the model gets right."""
        model.eval()
        right = 0
        with torch.no_grad():
            for start in range(0, len(self._test_labels), _EVALUATION_BATCH):
                batch = slice(start, start + _EVALUATION_BATCH)
                with self._autocast():
                    answers = model(self._test_images[batch])
                right += int((answers.argmax(1) == self._test_labels[batch]).sum())
        return right / len(self._test_labels)

    def _epoch(
        self, subject: Subject, optimizer: torch.optim.Optimizer, step: Step, number: tuple[int, int]
    ) -> Epoch:
        started = time.monotonic()
        total, images_seen = 0.0, 0
        batches = math.ceil(len(self._labels) / self._fit.batch)
        subject.model.train()
        for place, (images, labels) in enumerate(self._batches(number)):
            if not step.constant:
                part = (number[1] + place / batches) / step.epochs
                for group in optimizer.param_groups:
                    group["lr"] = step.lr * max(0.5 + 0.5 * math.cos(math.pi * part), 1e-3)
            optimizer.zero_grad()
            loss = self._loss(subject, step.distillation, images, labels)
            torch.autograd.backward([loss])
            optimizer.step()
            total += float(loss.detach()) * len(labels)
            images_seen += len(labels)
        if not math.isfinite(total):
            raise CheckError(f"training diverged in {step.name!r}: give the recipe a lower learning rate")
        accuracy = self.accuracy(subject.model)
        return Epoch(step.name, number[1] + 1, total / images_seen, accuracy, time.monotonic() - started)

    def _loss(
        self, subject: Subject, distillation: Distillation | None, images: Tensor, labels: Tensor
    ) -> Tensor:
        with self._autocast():
            answers = subject.model(images).float()
        loss = functional.cross_entropy(answers, labels)
        if distillation is None:
            return loss
        assert subject.teacher is not None
        with torch.no_grad(), self._autocast():
            wanted = subject.teacher(images).float()
        soft = functional.kl_div(
            functional.log_softmax(answers / distillation.temperature, dim=1),
            functional.log_softmax(wanted / distillation.temperature, dim=1),
            reduction="batchmean",
            log_target=True,
        )
        return (1 - distillation.part) * loss + distillation.part * distillation.temperature**2 * soft

    def _batches(self, number: tuple[int, int]) -> Iterator[tuple[Tensor, Tensor]]:
        step, epoch = number
        generator = torch.Generator().manual_seed((self._seed * 1009 + step) * 1009 + epoch)
        order = torch.randperm(len(self._labels), generator=generator)
        for start in range(0, len(order), self._fit.batch):
            chosen = order[start : start + self._fit.batch]
            yield self._augmented(self._images[chosen], generator), self._labels[chosen]

    def _augmented(self, images: Tensor, generator: torch.Generator) -> Tensor:
        reach = self._fit.augment
        if self._fit.flip:
            mirrored = torch.rand(len(images), generator=generator) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
        if reach:
            height, width = images.shape[2:]
            padded = functional.pad(images, (reach,) * 4, value=self._background)
            down, right = torch.randint(2 * reach + 1, (2, len(images)), generator=generator)
            rows = down[:, None] + torch.arange(height)
            columns = right[:, None] + torch.arange(width)
            batch = torch.arange(len(images))[:, None, None]
            images = padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(
                0, 3, 1, 2
            )
        return _channels_last(images)

    def _autocast(self) -> Any:
        return torch.autocast("cpu", torch.bfloat16) if self._fit.bfloat16 else nullcontext()


def in_channels_last(model: _Model) -> _Model:
    """The model with the weights of its convolutions laid out as images are here; it is the one given."""
    for parameter in model.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return model


def _channels_last(images: Tensor) -> Tensor:
    return images.contiguous(memory_format=torch.channels_last)


def _optimizer(model: nn.Module, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    weights = [parameter for parameter in model.parameters() if parameter.ndim > 1]
    others = [parameter for parameter in model.parameters() if parameter.ndim <= 1]
    groups = [{"params": weights, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)


def _begin(subject: Subject, step: Step) -> None:
    if subject.nodes is not None:
        if step.penalty is None:
            subject.nodes.freeze()
        else:
            subject.nodes.penalty = step.penalty
    if step.rate is not None:
        assert subject.groups is not None
        subject.before_pruning()
        subject.groups.prune_to(step.rate, overall=not isinstance(step.rate, Mapping))


def _held(subject: Subject, optimizer: torch.optim.Optimizer, step: Step) -> ExitStack:
    stack = ExitStack()
    if subject.groups is not None:
        stack.enter_context(subject.groups.attach(optimizer))
    if subject.nodes is not None and step.penalty is not None:
        stack.enter_context(subject.nodes.attach(optimizer))
    return stack


def _save(file: Path, subject: Subject, optimizer: torch.optim.Optimizer, history: Sequence[Epoch]) -> None:
    state = {
        "model": subject.model.state_dict(),
        "groups": None if subject.groups is None else subject.groups.state_dict(),
        "nodes": None if subject.nodes is None else subject.nodes.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": [vars(epoch) for epoch in history],
    }
    temporary = file.with_suffix(".tmp")
    torch.save(state, temporary)
    temporary.replace(file)


def _restore(subject: Subject, saved: Mapping[str, Any]) -> None:
    subject.model.load_state_dict(saved["model"])
    if subject.groups is not None:
        subject.groups.load_state_dict(saved["groups"])
    if subject.nodes is not None:
        subject.nodes.load_state_dict(saved["nodes"])
