"""Sparsity chosen for a speed-up or a size."""

import numpy as np
import pytest

import scalpel_graph as sg
from models import NETWORKS
from scalpel_graph.errors import InputError
from scalpel_graph.pruning import curves
from scalpel_graph.pruning.fit import prune_by_cost
from scalpel_graph.pruning.measured import measured_speed_up
from scalpel_graph.pruning.structure import Groups
from scalpel_graph.target import load_target
from tests.scalpel_graph.pruning.quadratics import correlated, of_data
from tests.scalpel_graph.pruning.small_models import convolutional, normal, perceptron

LENET = NETWORKS["lenet-5"].build()


@pytest.mark.parametrize("speedup", [1.5, 2.0, 3.0])
def test_predicted_time_is_within_what_was_asked(speedup):
    report = sg.prune(LENET, "avx2", speedup=speedup).report
    before, after = report.predicted_us
    assert speedup <= before / after < 1.15 * speedup


@pytest.mark.parametrize("size", [0.1, 0.3])
@pytest.mark.parametrize("target", ["avx2", "mcu", "gpu"])
def test_bytes_are_within_what_was_asked(target, size):
    report = sg.prune(LENET, target, size=size).report
    assert 0.8 * size < report.size_bytes.after / report.size_bytes.before <= 1.01 * size


@pytest.mark.parametrize("target", ["mcu", "gpu"])
def test_products_stand_for_time_without_a_cost_model(target):
    report = sg.prune(LENET, target, speedup=2.0).report
    assert report.predicted_us is None
    assert any("multiply-adds stand for time" in warning for warning in report.warnings)
    assert report.pruned


def test_layers_that_lose_little_lose_most():
    """Half of one layer's groups are nearly zero: they go before any of the other."""
    model = perceptron((64, 64, 64))
    weights = next(t for t in model.graph.initializer if t.name == "w1")
    values = np.frombuffer(weights.raw_data, np.float32).reshape(64, 64).copy()
    values[::2] *= 1e-4
    weights.raw_data = values.tobytes()
    layers = sg.prune(model, "mcu", size=0.82).report.layers
    assert layers[0].sparsity >= 0.5
    assert layers[0].error < 0.01
    assert layers[1].sparsity <= 0.2


def test_calibrated():
    report = sg.prune(LENET, "avx2", speedup=2.0, calibration={"input": normal(50, 1, 28, 28)}).report
    before, after = report.predicted_us
    assert 2 <= before / after < 2.4


def test_what_a_recipe_fixes_stays():
    recipe = {"layers": {"fc1": {"sparsity": 0.5}, "conv1": {"method": "none"}}}
    layers = {layer.name: layer for layer in sg.prune(LENET, "avx2", size=0.52, recipe=recipe).report.layers}
    assert layers["conv1"].technique == "none"
    assert layers["fc1"].sparsity == 0.5


class TestCorrection:
    """A machine on which the whole network gets faster than its layers are predicted to, or less so."""

    @pytest.mark.parametrize("factor", [0.8, 1.3])
    def test_until_the_measured_speed_up_is_what_was_asked(self, factor, monkeypatch):
        seen = []

        def measured(original, inputs, target, threads, pruned):
            assert inputs["input"].shape == (1, 1, 28, 28)
            before, after = sg.optimize(pruned, target, check=False).report.predicted_us
            seen.append(factor * before / after)
            return seen[-1]

        monkeypatch.setattr("scalpel_graph.pruning.api.measured_speed_up", measured)
        report = sg.prune(LENET, "avx2", speedup=2.0, measure=True).report
        assert seen[0] == pytest.approx(2 * factor, rel=0.05)
        assert abs(seen[-1] - 2) < 0.1
        before, after = report.predicted_us
        assert factor * before / after == pytest.approx(2, rel=0.05)

    def test_is_really_timed(self, monkeypatch):
        monkeypatch.setattr("scalpel_graph.pruning.measured._SECONDS", 0.01)
        pruned = sg.prune(LENET, "cpu", size=0.3).model
        image = {"input": normal(1, 1, 28, 28)}
        assert 0 < measured_speed_up(LENET, image, load_target("cpu"), 1, pruned) < 100

    @pytest.mark.parametrize("options", [{"size": 0.5}, {"sparsity": 0.5}, {"speedup": 2.0, "target": "gpu"}])
    def test_is_for_a_speed_up_on_a_cpu(self, options):
        with pytest.raises(InputError, match="--measure corrects a --speedup for a CPU"):
            sg.prune(LENET, measure=True, **options)


def test_out_of_reach():
    with pytest.raises(InputError, match=r"--speedup 1000 is out of reach: .* predicted to be \d"):
        sg.prune(LENET, "avx2", speedup=1000)
    with pytest.raises(InputError, match=r"--size 0.0001 is out of reach: the least is 0.0"):
        sg.prune(LENET, "avx2", size=0.0001)
    with pytest.raises(InputError, match=r"--size 0.0001 is out of reach: with nearly all nodes gone"):
        sg.prune(LENET, "gpu", size=0.0001)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"speedup": 2.0, "sparsity": 0.5}, "--sparsity and --speedup contradict each other"),
        ({"speedup": 2.0, "size": 0.5}, "--speedup and --size contradict each other"),
        ({"speedup": 0.5}, "--speedup must be a number of at least 1"),
        ({"speedup": float("nan")}, "--speedup must be a number of at least 1"),
        ({"size": 0.0}, "--size must be more than 0 and at most 1"),
        ({"size": 1.5}, "--size must be more than 0 and at most 1"),
        ({"size": 0.5, "method": "combined"}, "--size chooses among groups or among nodes"),
        ({"size": 0.5, "method": "2:4"}, "--size chooses among groups or among nodes"),
    ],
)
def test_unusable(options, message):
    with pytest.raises(InputError, match=message):
        sg.prune(convolutional(), **options)


class TestCurves:
    weights = normal(32, 64).astype(np.float64)

    def test_by_magnitude_is_what_goes(self):
        for shape in [(1, 1), (1, 8), (4, 1)]:
            found = curves.by_magnitude(self.weights, shape, [1.0, 0.75, 0.25, 0.0])
            for density, lost in zip([1.0, 0.75, 0.25, 0.0], found, strict=True):
                from_mask = Groups(shape).drop(self.weights, 1 - density)
                expected = (self.weights[from_mask] ** 2).sum() / (self.weights**2).sum()
                assert lost == pytest.approx(expected)

    def test_by_fit_grows_with_sparsity_and_is_near_the_fit(self):
        cost = of_data(correlated(64, 400), self.weights)
        densities = [1.0, 0.8, 0.6, 0.4, 0.2, 0.1, 0.02, 0.0]
        errors = curves.by_fit(cost, (1, 1), densities)
        assert errors[0] == 0
        assert errors[-1] == pytest.approx(1)
        assert errors == sorted(errors)
        exact = prune_by_cost(cost, Groups((1, 1)), 0.8).error
        assert exact <= errors[4] < 2 * exact
