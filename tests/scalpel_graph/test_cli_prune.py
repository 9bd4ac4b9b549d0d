import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from scalpel_graph.cli import prune
from tests.pruned_networks import save
from tests.scalpel_graph.pruning.small_models import convolutional, matrices, normal


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return save(convolutional(), tmp_path / "in.onnx")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    np.savez(tmp_path / "x.npz", x=normal(40, 4, 8, 8))
    np.save(tmp_path / "labels.npy", np.arange(40) % 5)
    return tmp_path / "x.npz"


def run(*arguments: object) -> int:
    try:
        return prune.main([str(argument) for argument in arguments])
    except SystemExit as end:
        return end.code


def assert_refused(code: int, capfd, tmp_path: Path, *words: str) -> None:
    """Exit code 2, one line on stderr that has ``words``, nothing on stdout and nothing written."""
    out, err = capfd.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1 and err.endswith("\n"), err
    assert err.startswith("scalpel-prune: ")
    assert "Traceback" not in err
    for word in words:
        assert word in err
    assert not list(tmp_path.glob("out*")), "something was written"


def test_prunes_by_calibration(model, data, tmp_path, capfd):
    before = model.read_bytes()
    out, report = tmp_path / "out.onnx", tmp_path / "report.json"
    arguments = ["--sparsity", 0.5, "--target", "mcu", "--calibration", data]
    labels = ["--labels", tmp_path / "labels.npy"]
    assert run(model, out, *arguments, *labels, "--report", report) == 0
    stdout, stderr = capfd.readouterr()
    assert stderr == ""
    assert model.read_bytes() == before
    for word in ("conv1", "1×2 groups", "50.0 %", "accuracy", "scalpel-opt"):
        assert word in stdout
    for matrix in matrices(onnx.load(out)).values():
        assert (matrix == 0).mean() == pytest.approx(0.5, abs=0.01)
    found = json.loads(report.read_text())
    assert found["output"] == str(out)
    assert found["calibration"] == 32
    assert found["agreement"]["accuracy"]["before"] >= 0


def test_warns_without_calibration(model, tmp_path, capfd):
    assert run(model, tmp_path / "out.onnx", "--sparsity", 0.5) == 0
    stdout, stderr = capfd.readouterr()
    assert stderr.startswith("scalpel-prune: warning: importance is by magnitude")
    assert "weight lost" in stdout


def test_every_option(model, data, tmp_path, capfd):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("layers:\n  conv2: {sparsity: 0.75}\n")
    arguments = [
        "--sparsity", 0.5, "--method", "group", "--group-shape", "4x1", "--importance", "max",
        "--exclude", "conv1", "--recipe", recipe, "--held-back", data, "--threads", 2, "--target", "avx2",
        "--input-shape", "x:1,4,8,8", "--report", tmp_path / "report.html", "-v",
    ]  # fmt: skip
    assert run(model, tmp_path / "out.onnx", *arguments) == 0
    found = matrices(onnx.load(tmp_path / "out.onnx"))
    assert found["conv1"].all()
    assert (found["conv2"] == 0).mean() == 0.75
    assert "excluded" in capfd.readouterr().out
    assert "conv2" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("amount", [["--speedup", 1.5, "--target", "mcu"], ["--size", 0.5], ["--nodes", 0.3]])
def test_other_amounts(model, tmp_path, amount):
    assert run(model, tmp_path / "out.onnx", *amount, "-q") == 0
    assert any((matrix == 0).any() for matrix in matrices(onnx.load(tmp_path / "out.onnx")).values())


def test_quiet(model, tmp_path, capfd):
    assert run(model, tmp_path / "out.onnx", "--sparsity", 0.5, "-q") == 0
    assert capfd.readouterr() == ("", "")


def test_dry_run_writes_nothing_but_the_report(model, tmp_path, capfd):
    assert run(model, "--sparsity", 0.5, "--dry-run", "--report", tmp_path / "r.json") == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.onnx", "r.json"]
    assert "Nothing was written" in capfd.readouterr().out


def test_external_data_stays_external(tmp_path):
    onnx.save(convolutional(), tmp_path / "in.onnx", save_as_external_data=True, size_threshold=0)
    assert run(tmp_path / "in.onnx", tmp_path / "out.onnx", "--sparsity", 0.5, "-q") == 0
    assert list(tmp_path.glob("out.onnx.*.data"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["say how"]),
        (["--sparsity", 1.5], ["sparsity must be at least 0 and less than 1, got 1.5"]),
        (["--sparsity", "much"], ["--sparsity", "much"]),
        (["--sparsity", 0.5, "--speedup", 2], ["--sparsity and --speedup contradict each other"]),
        (["--sparsity", 0.5, "--exclude", "conv3"], ["no Conv, Gemm or MatMul is called 'conv3'", "did you"]),
        (["--sparsity", 0.5, "--method", "n:m"], ["n:m must be two whole numbers"]),
        (["--sparsity", 0.5, "--group-shape", "x"], ["group shape must be two positive numbers"]),
        (["--sparsity", 0.5, "--target", "tpu"], ["target 'tpu': no such profile"]),
        (["--sparsity", 0.5, "--calibration", "none.npz"], ["none.npz: no such file"]),
        (["--sparsity", 0.5, "--recipe", "none.yaml"], ["none.yaml: cannot be read"]),
        (["--sparsity", 0.5, "--method", "obs"], ["give --calibration"]),
        (["--sparsity", 0.5, "--report", "r.txt"], ["its name must end in .json or .html"]),
        (["--sparsity", 0.5, "--threads", 0], ["'0' is not a positive whole number"]),
        (["--size", 0.0001], ["--size 0.0001 is out of reach"]),
    ],
)
def test_unusable_options(model, tmp_path, capfd, arguments, words):
    assert_refused(run(model, tmp_path / "out.onnx", *arguments), capfd, tmp_path, *words)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": normal(4, 4, 8, 9)}, ["input 'x' has shape [4, 4, 8, 9], but the model takes [n, 4, 8, 8]"]),
        ({"z": normal(4, 4, 8, 8)}, ["no array for input 'x'; it must hold: x"]),
        ({"x": np.full((4, 4, 8, 8), np.nan, np.float32)}, ["holds NaN or infinity, first in sample 0"]),
        ({"x": normal(4, 4, 8, 8).astype(int)}, ["has type int64, but the model takes float32"]),
    ],
)
def test_unusable_calibration(model, tmp_path, capfd, arrays, words):
    np.savez(tmp_path / "bad.npz", **arrays)
    arguments = ["--sparsity", 0.5, "--calibration", tmp_path / "bad.npz"]
    assert_refused(run(model, tmp_path / "out.onnx", *arguments), capfd, tmp_path, "bad.npz", *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sparsty: 0.5\n", ["'sparsty' is not a known key: did you mean 'sparsity'?"]),
        ("layers: {conv9: {sparsity: 0.5}}\n", ["is called 'conv9': did you mean 'conv"]),
        ("layers: {conv1: {sparsity: 5}}\n", ["layers.conv1: sparsity must be at least 0"]),
        ("a: [\n", ["not valid YAML"]),
    ],
)
def test_unusable_recipe(model, tmp_path, capfd, text, words):
    (tmp_path / "bad.yaml").write_text(text)
    arguments = ["--sparsity", 0.5, "--recipe", tmp_path / "bad.yaml"]
    assert_refused(run(model, tmp_path / "out.onnx", *arguments), capfd, tmp_path, "bad.yaml", *words)


def test_missing_names(model, tmp_path, capfd):
    assert_refused(run(), capfd, tmp_path, "IN.onnx is missing")
    assert_refused(run(model, "--sparsity", 0.5), capfd, tmp_path, "OUT.onnx is missing")
    assert_refused(run(tmp_path / "no.onnx", tmp_path / "out.onnx"), capfd, tmp_path, "no such file")


def test_never_over_its_input(model, tmp_path, capfd):
    before = model.read_bytes()
    assert_refused(run(model, model, "--sparsity", 0.5), capfd, tmp_path, "is the input model")
    assert model.read_bytes() == before


def test_progress_shows_on_a_terminal(model, data, tmp_path):
    reader, writer = pty.openpty()
    command = [sys.executable, "-m", "scalpel_graph.cli.prune", model, tmp_path / "out.onnx"]
    command += ["--sparsity", "0.5", "--calibration", data]
    environment = {**os.environ, "TERM": "xterm-256color", "COLUMNS": "120"}
    with subprocess.Popen(
        [str(word) for word in command], stdout=subprocess.DEVNULL, stderr=writer, env=environment
    ) as process:
        os.close(writer)
        shown = b""
        try:
            while chunk := os.read(reader, 4096):
                shown += chunk
        except OSError:  # the other end of a closed terminal
            pass
    os.close(reader)
    assert process.returncode == 0
    # Which of the steps are drawn depends on how long each takes.
    assert any(step in shown for step in (b"reading", b"fitting layers", b"comparing"))
    assert b"\x1b[?25h" in shown, "the cursor was not given back"
