"""What the benchmark computes from times; the times themselves are made up."""

import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import regret
from benchmarks.regret import POLICIES, Case, Way
from scalpel_graph.calibration.layers import LAYERS, conv, gemm
from scalpel_graph.target import load_target


def a_case(chosen: int, *, dense: float, sparse: float, sparsity: float = 0.9) -> Case:
    ways = [Way(None, 1.0, dense), Way((4, 1), 1.0, sparse), Way((1, 1), 1.0, 2 * sparse)]
    return Case("layer", sparsity, (4, 1), 1, ways, chosen)


def test_regret_is_against_the_best_measured_way():
    case = a_case(1, dense=30.0, sparse=20.0)
    assert [case.regret(way) for way in range(3)] == pytest.approx([0.5, 0.0, 1.0])


def test_policies():
    few, many = (a_case(2, dense=3.0, sparse=2.0, sparsity=zeros) for zeros in (0.5, 0.7))
    assert {name: (choose(few), choose(many)) for name, choose in POLICIES.items()} == {
        "the cost model": (2, 2),
        "always dense": (0, 0),
        "always sparse": (1, 1),
        "sparse from two thirds of zeros": (0, 1),
    }


def test_summary():
    found = regret.summary([0.0] * 19 + [3.0])
    assert found["geomean"] == pytest.approx(4 ** (1 / 20) - 1)
    assert found["max"] == 3.0 and 0 <= found["p95"] < 3.0


def test_layers_are_held_out(monkeypatch):
    monkeypatch.setattr(regret, "NETWORKS", {name: regret.NETWORKS[name] for name in ("lenet-5", "nin")})
    found = regret.held_out_layers()
    assert {layer.work.op for layer in found} == {"Conv", "Gemm"}
    assert not {layer.work for layer in found} & {layer.work for layer in LAYERS}
    assert len({layer.work for layer in found}) == len(found)


def test_the_command_writes_every_case(monkeypatch, tmp_path, capsys):
    layers = [conv(32, 32, 1, 8), gemm(100, 50)]
    monkeypatch.setattr(regret, "held_out_layers", lambda: layers)
    monkeypatch.setattr(
        regret, "measure_on_host", lambda question: [10.0 + i for i in range(len(question.ways))]
    )
    path = tmp_path / "out" / "regret.json"
    assert regret.main(["--json", str(path), "--sparsity", "0.9", "--target", "avx2"]) == 0
    data = json.loads(path.read_text())
    assert len(data["cases"]) == 2 * 2 and data["profile"] == "avx2"
    assert data["policies"]["always dense"] == {"geomean": 0, "p95": 0, "max": 0}
    assert "the cost model" in capsys.readouterr().out
    assert regret.main(["--json", str(path), "--sparsity", "0.9", "--target", "avx2", "--markdown"]) == 0
    assert "| always dense | 0.0 % | 0.0 % | 0.0 % |" in capsys.readouterr().out


def test_layers_of_integers(monkeypatch, tmp_path):
    asked = []

    def timed(question):
        asked.append(question)
        return [10.0 + i for i in range(len(question.ways))]

    monkeypatch.setattr(regret, "held_out_layers", lambda: [conv(32, 32, 1, 8), gemm(100, 50)])
    monkeypatch.setattr(regret, "measure_on_host", timed)
    monkeypatch.chdir(tmp_path)
    arguments = ["--quantized", "--sparsity", "0.9", "--threads", "1", "--target", "avx512"]
    assert regret.main(arguments) == 0
    assert {str(question.weights.dtype) for question in asked} == {"int8"}
    of_integers = {kernel.group_shape for kernel in load_target("avx512").quantized.kernels}
    cases = json.loads((tmp_path / "build/benchmarks/regret-int8.json").read_text())["cases"]
    assert {tuple(case["group_shape"]) for case in cases} <= of_integers


def test_a_target_without_prices_of_integers_is_refused(monkeypatch, capsys):
    without = replace(load_target("avx512"), quantized=None)
    monkeypatch.setattr(regret, "load_target", lambda name: without)
    assert regret.main(["--quantized", "--target", "avx512"]) == 2
    assert "has no prices for quantized layers" in capsys.readouterr().err


def test_other_targets_are_refused(capsys):
    assert regret.main(["--target", "gpu"]) == 2
    assert "is not a CPU" in capsys.readouterr().err


def test_cases_have_weights_of_the_sparsity_asked_for(monkeypatch):
    seen = []
    monkeypatch.setattr(
        regret, "measure_on_host", lambda question: seen.append(question) or [1.0] * len(question.ways)
    )
    target = load_target("avx2")
    cases = list(regret.measure([gemm(512, 512)], [0.9], [1], target, np.random.default_rng(0)))
    assert len(cases) == 1 and 0.08 < np.count_nonzero(seen[0].weights) / 512**2 < 0.12
    assert [way.group_shape for way in cases[0].ways] == list(seen[0].ways)
