import itertools
import math
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.paper.data import fashion_mnist
from models.paper.networks import lenet_5, lenet_300_100
from models.paper.recipes import Distillation, Fit
from models.paper.training import OutOfTime, Step, Subject, Trainer
from scalpel_graph.errors import CheckError
from scalpel_graph.torch import GroupPruner, NodePruner, insert_masks
from tests.models.paper.fashion_mnist import needs_fashion_mnist

pytestmark = needs_fashion_mnist

STEPS = [
    Step("low penalty", 1, 0.01, penalty=0.001, constant=True),
    Step("penalty", 2, 0.01, penalty=20.0, constant=True),
    Step("retraining", 1, 0.05),
    Step("first", 1, 0.02, rate=0.5),
    Step("second", 2, 0.02, rate=0.9, distillation=Distillation(0.5)),
]
FIT = Fit(augment=2, flip=True)


@pytest.fixture(scope="module")
def data():
    return fashion_mnist().first(300, 100)


def subject(build=lenet_5):
    torch.manual_seed(3)
    model = build()
    insert_masks(model, ["pool1" if build is lenet_5 else "relu1"], torch.zeros(1, 1, 28, 28))
    nodes = NodePruner(model, wanted=0.5)
    return Subject(model, GroupPruner(model, "1x8", layers=["fc*"]), nodes, build().eval())


def weights(found):
    return {key: value.clone() for key, value in found.model.state_dict().items()}


def test_interrupted_anywhere_it_ends_with_the_same_weights(data, tmp_path, monkeypatch):
    """Stopped after every single epoch, also between two steps."""
    whole = subject()
    torch.set_num_threads(1)
    (tmp_path / "whole").mkdir()
    history = Trainer(data, FIT, 7).run(whole, STEPS, tmp_path / "whole", lambda: None)
    (tmp_path / "pieces").mkdir()
    stops = 0
    for _ in range(20):
        clock = itertools.chain([0.0], itertools.repeat(1.0))
        found = subject()
        trainer = Trainer(data, FIT, 7, deadline=0.5)
        advances = []
        # The clock of deadlines passes 0.5 after one epoch.
        monkeypatch.setattr("models.paper.training._now", lambda clock=clock: next(clock))
        try:
            pieces = trainer.run(
                found, STEPS, tmp_path / "pieces", lambda advances=advances: advances.append(1)
            )
            break
        except OutOfTime:
            stops += 1
            assert len(advances) == stops
    assert stops == sum(step.epochs for step in STEPS) - 1
    assert [(e.step, e.epoch, e.loss, e.accuracy) for e in pieces] == [
        (e.step, e.epoch, e.loss, e.accuracy) for e in history
    ]
    expected = weights(whole)
    for key, value in weights(found).items():
        assert torch.equal(value, expected[key]), key


def test_zeros_and_masks_hold(data, tmp_path):
    found = subject()
    Trainer(data, FIT, 0).run(found, STEPS, tmp_path, lambda: None)
    assert found.groups.rate == pytest.approx(0.9, abs=1e-3)
    zeros = sum(int((m.weight == 0).sum()) for n, m in found.model.named_children() if n.startswith("fc"))
    assert zeros >= 0.9 * (800 * 500 + 5000) - 8
    assert found.nodes.blocked() == {"pool1.mask": 0.5}
    assert float(found.model.pool1.mask.alpha.sum()) == 10


def test_learns(data, tmp_path):
    torch.manual_seed(0)
    model = lenet_300_100()
    trainer = Trainer(data, Fit(batch=32), 0)
    before = trainer.accuracy(model)
    history = trainer.run(Subject(model), [Step("dense", 6, 0.1)], tmp_path, lambda: None)
    assert history[-1].accuracy > max(before, 0.1) + 0.3
    assert history[-1].accuracy == trainer.accuracy(model)
    assert [e.epoch for e in history] == [1, 2, 3, 4, 5, 6] and all(e.seconds > 0 for e in history)


def test_distilling_asks_for_the_teachers_answers(data, tmp_path):
    """With nothing but the teacher's answers, a student of a wrong teacher learns what is wrong."""
    wrong = replace(data, train_labels=(data.train_labels + 1) % 10, test_labels=(data.test_labels + 1) % 10)
    torch.manual_seed(0)
    teacher = lenet_300_100()
    for folder in ("teacher", "student"):
        (tmp_path / folder).mkdir()
    Trainer(wrong, Fit(batch=32), 0).run(
        Subject(teacher), [Step("dense", 6, 0.1)], tmp_path / "teacher", lambda: None
    )
    student = lenet_300_100()
    Trainer(data, Fit(batch=32), 0).run(
        Subject(student, teacher=teacher.eval()),
        [Step("d", 6, 0.05, distillation=Distillation(1.0))],
        tmp_path / "student",
        lambda: None,
    )
    assert Trainer(wrong, Fit(), 0).accuracy(student) > 0.4
    assert Trainer(data, Fit(), 0).accuracy(student) < 0.2


def test_augmentation_shifts_and_mirrors(data):
    trainer = Trainer(data, Fit(augment=2, flip=True, batch=300), 0)
    (images, labels), *_ = trainer._batches((0, 0))
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    np.testing.assert_array_equal(labels, data.train_labels[order])
    background = data.train_images.min()
    seen = set()
    for image, source in zip(images[:60, 0].numpy(), data.train_images[order][:60, 0], strict=True):
        padded = np.pad(source, 2, constant_values=background)
        matches = {
            (down, right, mirrored)
            for down in range(5)
            for right in range(5)
            for mirrored, candidate in (
                (False, padded),
                (True, np.pad(source[:, ::-1], 2, constant_values=background)),
            )
            if np.array_equal(candidate[down : down + 28, right : right + 28], image)
        }
        assert matches
        seen |= matches
    assert len(seen) > 15 and {mirrored for _, _, mirrored in seen} == {False, True}


def test_learning_rate_follows_a_cosine(data, tmp_path, monkeypatch):
    rates = []
    step = torch.optim.SGD.step

    def record(self, *args, **options):
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", record)
    Trainer(data, Fit(batch=100), 0).run(
        Subject(lenet_300_100()), [Step("dense", 2, 0.1)], tmp_path, lambda: None
    )
    np.testing.assert_allclose(rates, [0.05 + 0.05 * math.cos(math.pi * i / 6) for i in range(6)])


def test_deadline(data, tmp_path):
    with pytest.raises(OutOfTime):
        Trainer(data, FIT, 0, deadline=time.monotonic() - 1).run(subject(), STEPS, tmp_path, lambda: None)
    assert list(tmp_path.iterdir()) == []


def test_divergence_gets_one_line(data, tmp_path):
    with pytest.raises(
        CheckError, match="training diverged in 'dense': give the recipe a lower learning rate"
    ):
        Trainer(data, Fit(), 0).run(Subject(lenet_300_100()), [Step("dense", 3, 1e6)], tmp_path, lambda: None)
