import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from benchmarks import peers
from benchmarks.peers import Case, main, measure, zero_filters
from models import NETWORKS

SMALL = Case("lenet-300-100", 0.9, (1, 8))


def test_every_engine_is_timed_and_compared():
    result = measure(SMALL, 1, {}, 0.1, pytest.fail)
    assert list(result.ms) == ["dense", "scalpel", "int8", "scalpel-int8"]
    assert all(time > 0 for time in result.ms.values())
    assert result.speed_up["dense"].median == 1
    assert result.difference["dense"] == 0
    assert 0 < result.difference["scalpel"] < 1e-5 < result.difference["int8"] < 0.2
    assert result.difference["scalpel-int8"] == result.difference["int8"]


def test_an_engine_that_is_not_there_is_left_out_and_named():
    told = []
    result = measure(
        SMALL, 1, {"deepsparse": sys.executable, "openvino": "/no/such/python"}, 0.1, told.append
    )
    assert list(result.ms) == ["dense", "scalpel", "int8", "scalpel-int8"]
    assert len(told) == 2
    assert "deepsparse left out" in told[0] and "No module named 'deepsparse'" in told[0]
    assert "openvino left out" in told[1]


def test_an_engine_runs_in_an_environment_without_this_package(tmp_path):
    """As the environments of other engines are: numpy and the engine are all that can be imported."""
    model, inputs = tmp_path / "model.onnx", tmp_path / "inputs.npz"
    network = NETWORKS["lenet-300-100"]
    onnx.save(network.build(), model)
    np.savez(inputs, **{network.build().graph.input[0].name: network.sample_input()})
    worker = Path(peers.__file__).with_name("engine_process.py")
    hide = "import runpy, sys; sys.modules['scalpel_graph'] = None"
    code = f"{hide}; runpy.run_path({str(worker)!r}, run_name='__main__')"
    done = subprocess.run(
        [sys.executable, "-c", code, "onnxruntime", str(model), str(inputs)],
        input="turn 0.01\n",
        capture_output=True,
        text=True,
        check=True,
    )
    version, turn = map(json.loads, done.stdout.splitlines())
    assert version["version"] and turn["seconds"] > 0


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    assert "resnet-50 90% 4x1" in capsys.readouterr().out


def test_table_and_file(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(peers, "CASES", (SMALL,))
    path = tmp_path / "results" / "peers.json"
    assert main(["--threads", "1", "--seconds", "0.1", "--markdown", "--json", str(path)]) == 0
    (result,) = json.loads(path.read_text())["results"]
    assert result["case"] == "lenet-300-100 90% 1x8"
    assert result["speed_up"]["scalpel"]["low"] <= result["speed_up"]["scalpel"]["median"]
    printed = capsys.readouterr().out
    assert "| network | threads | ONNX Runtime | Scalpel Graph | ONNX Runtime int8 |" in printed
    assert "| lenet-300-100 90% 1x8 | 1 | " in printed


def test_unknown_case(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--case", "lenet-6*"])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "no case is called 'lenet-6*'" in error


def test_cases_are_of_networks_there_are():
    names = [case.name for case in peers.CASES]
    assert len(set(names)) == len(names)
    assert all(case.network in NETWORKS for case in peers.CASES)


def test_zero_filters():
    model = NETWORKS["lenet-5"].build()
    zero_filters(model, {"conv1": 0.25})
    weights: dict[str, onnx.TensorProto] = {tensor.name: tensor for tensor in model.graph.initializer}
    filters = numpy_helper.to_array(weights["conv1.weight"])
    dead = ~filters.any(axis=(1, 2, 3))
    assert dead.sum() == 5
    np.testing.assert_array_equal(numpy_helper.to_array(weights["conv1.bias"])[dead], 0)
    assert numpy_helper.to_array(weights["conv2.weight"]).all()
