import json

import numpy as np
import pytest

import scalpel_graph as sg
from scalpel_graph import api, autotune, cost
from scalpel_graph.autotune import Autotuner
from scalpel_graph.calibration.layers import conv, gemm
from scalpel_graph.errors import InputError
from scalpel_graph.report import Candidate
from tests.pass_runner import CPU, model, random, sparse


class Clock:
    """Says how long each way takes, and remembers what it was asked."""

    def __init__(self, **times: float) -> None:
        self.times = {"dense": 100.0, "other": 50.0, **times}
        self.asked: list[autotune.Question] = []

    def __call__(self, question: autotune.Question) -> list[float]:
        self.asked.append(question)
        names = ["dense" if way is None else f"r{way[0]}c{way[1]}" for way in question.ways]
        return [self.times.get(name, self.times["other"]) for name in names]


def retime(tuner, layer, density=0.1, shape=(8, 1), threads=1, step=1, value_type="fp32"):
    weights = layer.weights(np.random.default_rng(0), shape, density)[::step]
    ways = cost.candidates(layer.work, weights, CPU, threads)
    return tuner.retime(
        ways,
        layer.work,
        weights,
        attributes=layer.attributes,
        threads=threads,
        name="layer",
        value_type=value_type,
    )


def test_measured_times_take_the_place_of_predictions():
    clock = Clock(r8c1=7.0)
    ways = retime(Autotuner(clock), gemm(512, 256))
    assert ways[0].decision == "dense" and ways[0].predicted_us == 100.0
    assert {way.group_shape: way.predicted_us for way in ways}[8, 1] == 7.0
    assert cost.choose(ways, autotune.MARGIN).group_shape == (8, 1)
    (question,) = clock.asked
    assert question.x_shape == (1, 512) and question.threads == 1 and question.weights.shape == (256, 512)


def test_a_measured_choice_may_contradict_the_prediction():
    assert (
        cost.choose(retime(Autotuner(Clock(other=200.0)), gemm(2048, 2048)), autotune.MARGIN).decision
        == "dense"
    )


def test_like_layers_are_measured_once():
    clock, layer = Clock(), conv(64, 64, 3, 14)
    tuner = Autotuner(clock)
    retime(tuner, layer)
    retime(tuner, layer, step=-1)  # other weights, as dense in every group shape
    assert (tuner.measured, tuner.remembered) == (1, 1)
    for other in (
        {"layer": conv(64, 64, 3, 14, stride=2)},
        {"layer": conv(64, 64, 3, 28)},
        {"density": 0.3},
        {"value_type": "bf16"},
        {"threads": 2},
    ):
        retime(tuner, **{"layer": layer, **other})
    assert tuner.measured == 6
    assert [question.value_type for question in clock.asked] == ["fp32"] * 4 + ["bf16", "fp32"]


def test_hopeless_candidates_are_not_timed():
    clock, layer = Clock(), gemm(64, 64)
    predicted = {None: 900.0, (8, 1): 10.0, (4, 1): 29.0, (1, 1): 31.0}
    ways = [Candidate("group_csr" if shape else "dense", shape, 0.1, us) for shape, us in predicted.items()]
    weights = layer.weights(np.random.default_rng(0), (8, 1), 0.1)
    found = Autotuner(clock).retime(
        ways, layer.work, weights, attributes=layer.attributes, threads=1, name="layer"
    )
    assert clock.asked[0].ways == [way.group_shape for way in found] == [None, (8, 1), (4, 1)]


def test_nothing_is_measured_where_there_is_no_choice():
    clock, layer = Clock(), gemm(64, 64)
    assert [way.decision for way in retime(Autotuner(clock), layer, density=1.0)] == ["dense"]
    assert not clock.asked


def test_weights_of_a_network_that_no_cache_holds_are_timed_from_memory(monkeypatch):
    monkeypatch.setattr(autotune, "last_cache_bytes", lambda: 1 << 25)
    clock, layer = Clock(), gemm(1024, 1024)
    weights = layer.weights(np.random.default_rng(0), (8, 1), 0.1)
    for network_bytes in (0, 1 << 27):
        work = sg.cost.LayerWork("Gemm", 1024, 1024, 1, network_bytes=network_bytes)
        ways = cost.candidates(work, weights, CPU, 1)
        Autotuner(clock).retime(ways, work, weights, attributes=layer.attributes, threads=1, name="")
    alone, large = clock.asked
    assert not any(alone.cold)
    assert large.cold[0] and not large.cold[list(large.ways).index((8, 1))]


def test_the_cache_serves_a_later_run(tmp_path):
    path, clock = tmp_path / "deep" / "times.json", Clock(r8c1=7.0)
    first = Autotuner(clock, path)
    ways = retime(first, gemm(512, 256))
    first.save()
    later = Autotuner(clock, path)
    assert retime(later, gemm(512, 256)) == ways
    assert (later.measured, later.remembered, len(clock.asked)) == (0, 1, 1)
    assert [p.name for p in path.parent.iterdir()] == ["times.json"]


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": -1, "b": "x", "c": true}', "\0"])
def test_a_damaged_cache_is_measured_again(tmp_path, content):
    path = tmp_path / "times.json"
    path.write_text(content)
    tuner = Autotuner(Clock(), path)
    retime(tuner, gemm(512, 256))
    tuner.save()
    assert tuner.measured == 1
    assert len(json.loads(path.read_text())) > 1


def test_a_cache_that_cannot_be_written_is_an_error_that_says_what_to_do(tmp_path):
    (tmp_path / "file").write_text("")
    tuner = Autotuner(Clock(), tmp_path / "file" / "times.json")
    retime(tuner, gemm(512, 256))
    with pytest.raises(InputError, match=r"cannot be kept .* XDG_CACHE_HOME"):
        tuner.save()


def test_the_cache_is_in_the_users_cache_directory(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(autotune.sys, "platform", "linux")
    path = autotune.cache_path()
    assert path.parent == tmp_path / "scalpel-graph"
    monkeypatch.setattr(autotune, "chosen_isa", lambda: "another")
    assert autotune.cache_path() != path


def test_optimize_chooses_by_measured_times_and_says_so(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    proto = model(
        "(float[1, 512] X) => (Y) { h = Gemm<transB = 1>(X, W)  Y = Gemm<transB = 1>(h, V) }",
        {"W": sparse(512, 512, group_shape=(8, 1), density=0.1), "V": random(16, 512)},
    )
    for times, decision in (({"r8c1": 5.0}, "group_csr"), ({"other": 500.0}, "dense")):
        monkeypatch.setattr(api, "measure_on_host", Clock(**times))
        monkeypatch.setattr(api, "cache_path", lambda decision=decision: tmp_path / f"{decision}.json")
        result = sg.optimize(proto, CPU, autotune=True)
        assert result.report.times == "measured" and result.report.to_json()["times"] == "measured"
        layer = next(layer for layer in result.report.layers if layer.weight_density < 1)
        assert layer.chosen.decision == decision and "measured" in layer.reason
    assert sg.optimize(proto, CPU).report.times == "predicted"


def test_the_host_is_timed():
    layer = conv(16, 16, 3, 6)
    weights = layer.weights(np.random.default_rng(0), (4, 1), 0.2)
    question = autotune.Question(
        weights, layer.attributes, layer.x_shape, [None, (4, 1), (1, 1)], [False, False, True], 1
    )
    times = autotune.measure_on_host(question)
    assert len(times) == 3 and all(0 < us < 1e6 for us in times)
