import json

import numpy as np
import pytest
from onnx import numpy_helper

from benchmarks.networks import main, predicted_bytes
from models import NETWORKS
from scalpel_graph import group_csr, ops
from scalpel_graph.pruning import prune_magnitude
from scalpel_graph.report import Candidate, LayerDecision


def decision(name: str, op: str, group_shape: tuple[int, int]) -> LayerDecision:
    return LayerDecision(name, op, Candidate("group_csr", group_shape, 0.1, 1.0), 0.1)


def test_predicted_size_is_that_of_what_is_stored():
    model = prune_magnitude(NETWORKS["lenet-5"].build(), 0.9, (4, 1), layers=["conv2", "fc1"]).model
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    sparse = [decision("conv2", "Conv", (4, 1)), decision("fc1", "Gemm", (8, 1))]
    expected = 2_000_000
    for name, group_shape in (("conv2", (4, 1)), ("fc1", (8, 1))):
        weight = weights[f"{name}.weight"]
        expected += group_csr.encode(weight.reshape(len(weight), -1), group_shape).nbytes - weight.nbytes
    expected += ops.function(ops.CONV, 17).ByteSize() + ops.function(ops.GEMM, 17).ByteSize()
    assert predicted_bytes(model, sparse, 2_000_000) == expected


def test_predicted_size_with_nothing_substituted():
    assert predicted_bytes(NETWORKS["lenet-5"].build(), [], 12345) == 12345


def test_measures_a_network(tmp_path, capsys):
    path = tmp_path / "results" / "networks.json"
    options = ["--network", "lenet-300-100", "--sparsity", "0.9", "--group-shape", "1x8", "--threads", "1"]
    assert main([*options, "--seconds", "0.01", "--json", str(path)]) == 0
    (result,) = json.loads(path.read_text())["results"]
    assert result["group_shape"] == [1, 8]
    assert result["dense_bytes"] > 4 * 266_200
    assert result["layers"] == 3
    assert abs(result["size_error"]) < 0.03
    assert 0 < result["speed_up"]["low"] <= result["speed_up"]["median"] <= result["speed_up"]["high"]
    assert np.isfinite(result["optimized_ms"])
    assert "lenet-300-100" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--network", "lenet-6"], "no network is called 'lenet-6'"),
        (["--sparsity", "2"], "'2' is not a fraction from 0 to 1"),
        (["--sparsity", "half"], "'half' is not a fraction from 0 to 1"),
        (["--group-shape", "8"], "such as 4x1, got '8'"),
        (["--threads", "0"], "'0' is not a positive whole number"),
        (["--seconds", "0"], "'0' is not a positive number of seconds"),
        (["--seconds", "nan"], "'nan' is not a positive number of seconds"),
    ],
)
def test_bad_command_line_gets_one_line(capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_unusable_output_gets_one_line(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["--json", str(tmp_path / "file" / "x.json")]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_markdown_has_a_table_for_each_number_of_threads(capsys, tmp_path):
    options = [
        "--network",
        "lenet-300-100",
        "--sparsity",
        "0",
        "--group-shape",
        "1x8",
        "--group-shape",
        "4x1",
    ]
    assert main([*options, "--seconds", "0.01", "--markdown", "--json", str(tmp_path / "x.json")]) == 0
    table = "| network | sparsity | 1×8 | 4×1 |\n|---|---|---|---|\n"
    table += "| lenet-300-100 | 0 % | same file | same file |\n"
    printed = capsys.readouterr().out
    assert f"### 1 thread\n\n{table}" in printed and f"### 2 threads\n\n{table}" in printed
