import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from scalpel_graph.cli import bench
from tests.pruned_networks import mlp, save


def run(*arguments: object) -> int:
    try:
        return bench.main([str(argument) for argument in ("--seconds", "0.01", *arguments)])
    except SystemExit as end:
        return end.code


def assert_refused(code: int, capfd, *words: object) -> None:
    out, err = capfd.readouterr()
    assert code == 2, err
    assert out == ""
    assert err.count("\n") == 1 and err.startswith("scalpel-bench: "), err
    for word in words:
        assert str(word) in err


@pytest.fixture
def models(tmp_path: Path, monkeypatch) -> list[Path]:
    """A network, the same network again, and one whose last bias is larger by 1."""
    other = mlp(sparsity=0.9)
    bias = next(tensor for tensor in other.graph.initializer if tensor.name == "fc2.bias")
    bias.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(bias) + np.float32(1), "fc2.bias"))
    monkeypatch.chdir(tmp_path)
    return [
        save(mlp(sparsity=0.9), Path("a.onnx")),
        save(mlp(sparsity=0.9), Path("b.onnx")),
        save(other, Path("c.onnx")),
    ]


def test_models_are_compared_with_the_first(models, tmp_path, capfd):
    path = tmp_path / "times.json"
    assert run(*models, "--json", path, "--threads", 2) == 0
    out, err = capfd.readouterr()
    assert err == ""
    for model in models:
        assert str(model) in out
    data = json.loads(path.read_text())
    assert data["threads"] == 2
    assert data["rounds"] >= 6
    assert [entry["model"] for entry in data["models"]] == [str(model) for model in models]
    a, b, c = data["models"]
    assert a["speed_up"] == {"median": 1.0, "low": 1.0, "high": 1.0}
    assert a["max_abs_diff"] == b["max_abs_diff"] == 0
    assert c["max_abs_diff"] == pytest.approx(1, rel=1e-5)
    for entry in data["models"]:
        assert entry["size_bytes"] == Path(entry["model"]).stat().st_size
        assert 0 < entry["low_us"] <= entry["median_us"] <= entry["high_us"]
        assert entry["speed_up"]["low"] <= entry["speed_up"]["median"] <= entry["speed_up"]["high"]


def test_one_model_alone_is_timed(models, capfd):
    assert run(models[0]) == 0
    assert str(models[0]) in capfd.readouterr().out


def test_quiet_prints_nothing(models, tmp_path, capfd):
    assert run(*models, "-q", "--json", tmp_path / "times.json") == 0
    assert capfd.readouterr() == ("", "")
    assert (tmp_path / "times.json").exists()


def test_symbolic_dimensions_get_the_size_given(tmp_path):
    model = save(mlp(sparsity=0.9, batch="n"), tmp_path / "a.onnx")
    assert run(model, "-q", "--input-shape", "x:4,512") == 0


def test_outputs_of_another_shape_are_not_compared(models, tmp_path, capfd):
    transposed = mlp(sparsity=0.9)
    transposed.graph.node[-1].output[0] = "z"
    transposed.graph.node.add(op_type="Transpose", input=["z"], output=["y"])
    del transposed.graph.output[0].type.tensor_type.shape.dim[:]
    transposed.graph.output[0].type.tensor_type.ClearField("shape")
    other = save(transposed, tmp_path / "t.onnx")
    path = tmp_path / "times.json"
    assert run(models[0], other, "--json", path) == 0
    assert json.loads(path.read_text())["models"][1]["max_abs_diff"] is None
    assert "shape" in capfd.readouterr().out


def test_models_with_other_inputs_cannot_be_compared(models, tmp_path, capfd):
    other = mlp(sparsity=0.9)
    other.graph.input[0].name = other.graph.node[0].input[0] = "pixels"
    path = save(other, tmp_path / "other.onnx")
    assert_refused(run(models[0], path), capfd, path, "pixels", "x")


def test_a_size_that_only_one_model_fixes_is_no_difference_unless_it_contradicts(models, tmp_path, capfd):
    symbolic = save(mlp(sparsity=0.9, batch="n"), tmp_path / "symbolic.onnx")
    assert run(symbolic, models[0], "-q") == 0
    three = save(mlp(sparsity=0.9, batch=3), tmp_path / "three.onnx")
    assert_refused(run(models[0], three), capfd, three)


def test_unusable_models_and_options(models, tmp_path, capfd):
    (tmp_path / "text.onnx").write_text("no model")
    assert_refused(run(), capfd, "A.onnx")
    assert_refused(run(tmp_path / "missing.onnx"), capfd, "missing.onnx")
    assert_refused(run(models[0], tmp_path / "text.onnx"), capfd, "text.onnx")
    assert_refused(run(models[0], "--threads", 0), capfd, "--threads")
    assert_refused(run(models[0], "--json", tmp_path / "no" / "times.json"), capfd, "no")
    assert_refused(run(models[0], "--input-shape", "y:1"), capfd, "y")
    assert_refused(run(models[0], "--seconds", "-1"), capfd, "--seconds")


def test_a_model_that_onnx_runtime_refuses(tmp_path, capfd):
    model = mlp(sparsity=0.9)
    model.graph.node[1].op_type, model.graph.node[1].domain = "Mystery", "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    path = save(model, tmp_path / "mystery.onnx")
    assert_refused(run(path), capfd, path, "Mystery")
