import json

import pytest

from benchmarks import one_shot
from benchmarks.one_shot import main
from models.paper.recipes import RECIPES, short
from models.paper.reproduce import Reproducer
from scalpel_graph.pruning import measured
from tests.models.paper.fashion_mnist import needs_fashion_mnist


@needs_fashion_mnist
def test_measures_losses_and_speeds(tmp_path, capsys, monkeypatch):
    Reproducer(tmp_path).run(short(RECIPES["lenet-300-100"]), techniques=())
    monkeypatch.setattr(one_shot, "SPARSITIES", (0.8,))
    monkeypatch.setattr(measured, "_SECONDS", 0.01)
    path = tmp_path / "one-shot.json"
    options = ["--network", "lenet-300-100", "--images", "60", "--speedup", "2", "--seconds", "0.01"]
    assert main([*options, "--work", str(tmp_path), "--json", str(path)]) == 0
    written = json.loads(path.read_text())
    (loss,) = written["losses"]
    assert loss["sparsity"] == 0.8 and loss["magnitude"] <= loss["dense"] + 0.02 and loss["calibrated"] > 0.1
    assert [(speed["asked"], speed["measured"]) for speed in written["speeds"]] == [(2.0, False), (2.0, True)]
    assert all(speed["speed_up"]["median"] > 0 for speed in written["speeds"])
    assert "of magnitude's loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--work", "{}"], "run python -m models reproduce lenet-300-100 first"),
        (["--speedup", "0.5"], "'0.5' is less than 1"),
    ],
)
def test_bad_input_gets_one_line(tmp_path, capsys, arguments, message):
    path = ["--json", str(tmp_path / "x.json")]
    try:
        code = main([*(argument.format(tmp_path) for argument in arguments), *path])
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
