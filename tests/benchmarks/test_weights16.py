"""What the benchmark computes from times; the times themselves are made up."""

import json

import pytest

from benchmarks import weights16
from benchmarks.weights16 import LayerCase
from scalpel_graph.calibration.layers import gemm
from scalpel_graph.target import load_target


class Timer:
    """Takes so many microseconds for each byte of the values."""

    def __init__(self, model, feed, threads):
        values = next(tensor for tensor in model.graph.initializer if tensor.name == "values")
        self._us = float(len(values.raw_data))

    def run(self, seconds):
        pass

    def run_cold(self, runs, sweeper):
        self._us *= 2

    def finish(self):
        return {"GroupCsrGemm": self._us}

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(weights16, "NodeTimer", Timer)
    monkeypatch.setattr(weights16, "Sweeper", lambda: None)
    monkeypatch.setattr(weights16, "LAYERS", (gemm(64, 32),))
    monkeypatch.setattr(weights16, "GROUP_SHAPES", ((1, 8), (3, 1)))
    monkeypatch.setattr(weights16, "PRUNED_NETWORKS", (("lenet-300-100", (1, 8)),))


def test_gains_are_against_float32():
    case = LayerCase("1×1", (1, 8), True, {"fp32": 6.0, "fp16": 3.0, "bf16": 2.0}, {"fp32": 4.0, "fp16": 3.0})
    assert (case.gain("fp16"), case.gain("bf16"), case.predicted_gain("fp16")) == (2.0, 3.0, 4 / 3)


def test_every_layer_is_measured_in_each_type_from_memory_and_near():
    cold, near, *others = weights16.measure_layers(0.5, 1, 2, load_target("avx2"))
    assert (cold.from_memory, near.from_memory) == (True, False) and cold.us["fp32"] == 2 * near.us["fp32"]
    assert cold.gain("fp16") == cold.gain("bf16") == 2.0
    assert 1 < cold.predicted_gain("fp16") == cold.predicted_gain("bf16") < 2
    # No profile has prices for groups of three rows.
    assert [case.group_shape for case in others] == [(3, 1)] * 2 and not others[0].predicted_us


def test_the_command_writes_every_case(tmp_path, capsys):
    path = tmp_path / "weights16.json"
    arguments = ["--json", str(path), "--target", "avx2", "--rounds", "1", "--seconds", "0.01"]
    assert weights16.main(arguments) == 0
    written = json.loads(path.read_text())
    assert len(written["layers"]) == 4
    networks = written["networks"]
    assert [network["value_type"] for network in networks] == ["fp32", "fp16", "bf16"]
    assert networks[0]["gain"]["median"] == 1.0
    assert networks[1]["size_bytes"] < 0.7 * networks[0]["size_bytes"]
    assert networks[0]["rounding_error"] == 0 < networks[1]["rounding_error"] < networks[2]["rounding_error"]
    assert "32×64" in capsys.readouterr().out
