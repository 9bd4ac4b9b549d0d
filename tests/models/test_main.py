import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from models import NETWORKS
from models.__main__ import main
from scalpel_graph import group_csr
from scalpel_graph.pruning import prune_magnitude


def test_list_names_every_network(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    for name in NETWORKS:
        assert f" {name} " in out


def test_build_writes_the_network(tmp_path, capsys):
    path = tmp_path / "net.onnx"
    assert main(["build", "lenet-5", str(path), "--seed", "7"]) == 0
    assert onnx.load(path) == NETWORKS["lenet-5"].build(seed=7)
    assert "lenet-5" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == [path]


def test_build_prunes_the_usual_layers(tmp_path):
    path = tmp_path / "net.onnx"
    assert main(["build", "lenet-5", str(path), "--sparsity", "0.9", "--group-shape", "4x1"]) == 0
    expected = prune_magnitude(NETWORKS["lenet-5"].build(), 0.9, (4, 1), layers=("conv2", "fc*")).model
    assert onnx.load(path) == expected


def test_build_prunes_what_it_is_told(tmp_path):
    path = tmp_path / "net.onnx"
    options = [
        "--sparsity",
        "0.5",
        "--group-shape",
        "1×2",
        "--importance",
        "max",
        "--layers",
        "fc*",
        "--exclude",
        "fc2",
    ]
    assert main(["build", "lenet-300-100", str(path), *options]) == 0
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    densities = {i: group_csr.density(weights[f"fc{i}.weight"], (1, 2)) for i in (1, 2, 3)}
    assert densities == {1: 0.5, 2: 1.0, 3: 0.5}
    assert np.isfinite(weights["fc1.weight"]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["build", "lenet-6", "{}/x.onnx"],
            "no network is called 'lenet-6': choose from lenet-300-100, lenet-5",
        ),
        (["build", "lenet-5", "{}/missing/x.onnx"], "missing does not exist"),
        (["build", "lenet-5", "{}"], "folder"),
        (["build", "lenet-5", "{}/x.onnx", "--seed", "-1"], "--seed must not be negative, got -1"),
        (["build", "lenet-5", "{}/x.onnx", "--sparsity", "1.5"], "sparsity must be between 0 and 1, got 1.5"),
        (["build", "lenet-5", "{}/x.onnx", "--sparsity", "nan"], "sparsity must be between 0 and 1, got nan"),
        (["build", "lenet-5", "{}/x.onnx", "--group-shape", "4"], "such as 4x1, got '4'"),
        (["build", "lenet-5", "{}/x.onnx", "--group-shape", "0x1"], "such as 4x1, got '0x1'"),
        (
            ["build", "lenet-5", "{}/x.onnx", "--sparsity", ".5", "--layers", "fc7"],
            "is called 'fc7': did you mean 'fc",
        ),
        (
            ["build", "lenet-5", "{}/x.onnx", "--sparsity", ".5", "--exclude", "zzz"],
            "is called 'zzz': there are 4",
        ),
    ],
)
def test_bad_input_gets_one_line(tmp_path, capsys, arguments, message):
    assert main([argument.format(tmp_path) for argument in arguments]) == 2
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments", [[], ["build", "lenet-5"], ["list", "--sparsity", "1"], ["build", "--seed", "x"]]
)
def test_bad_command_line_gets_one_line(capsys, arguments):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert capsys.readouterr().err.count("\n") == 1
