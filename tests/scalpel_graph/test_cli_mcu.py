"""``scalpel-opt --target mcu``: what it writes, and what it refuses in one line."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from models.builder import BATCH, GraphBuilder
from scalpel_graph.cli.opt import main
from tests.mcu_networks import inputs, many_operators, perceptron, pruned
from tests.ort_sessions import run


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = pruned(perceptron(), 0.8, (1, 2))
    onnx.save(model, "in.onnx")
    np.savez("x.npz", **inputs(model))
    return tmp_path


def opt(*arguments, model="in.onnx"):
    return main([model, "out.onnx", "--target", "mcu", *map(str, arguments)])


def refused(capsys, *arguments, model="in.onnx") -> str:
    assert opt(*arguments, model=model) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1, lines
    assert not Path("out.onnx").exists()
    return lines[0]


def test_it_writes_a_model_a_bundle_and_a_report(folder, capsys):
    assert opt("--calibration", "x.npz", "--emit-c", "c", "--report", "r.json") == 0
    printed = capsys.readouterr().out
    assert "instructions" in printed
    report = json.loads(Path("r.json").read_text())
    mcu = report["microcontroller"]
    assert report["verified"]["ok"] and report["verified"]["custom_ops"] and report["verified"]["fallback"]
    assert mcu["dtype"] == "q15"
    assert mcu["instructions"] < mcu["dense_instructions"]
    assert mcu["instructions"] == sum(layer["instructions"] for layer in mcu["layers"])
    assert mcu["flash_bytes"] == sum(layer["flash_bytes"] for layer in mcu["layers"])
    assert any("×2" in layer["stored"] for layer in mcu["layers"])
    header = Path("c/include/perceptron.h").read_text()
    assert f"ARENA_BYTES {mcu['ram_bytes']}u" in header
    model = onnx.load("in.onnx")
    feeds = inputs(model, 5, seed=3)
    expected, actual = run(model, feeds), run(onnx.load("out.onnx"), feeds, library=False)
    assert np.linalg.norm(expected - actual) < 0.05 * np.linalg.norm(expected)


def test_the_page_shows_the_microcontroller(folder):
    assert opt("--calibration", "x.npz", "--dtype", "int8", "--report", "r.html") == 0
    page = Path("r.html").read_text()
    assert "On the microcontroller" in page
    assert "int8" in page


def test_options_that_are_missing_or_have_no_meaning(folder, capsys):
    assert "give --calibration X.npz" in refused(capsys)
    assert "--weights has no meaning" in refused(capsys, "--calibration", "x.npz", "--weights", "fp16")
    assert "--no-check has no meaning" in refused(capsys, "--calibration", "x.npz", "--no-check")
    assert "--rtol has no meaning" in refused(capsys, "--calibration", "x.npz", "--rtol", "0.1")
    assert "no target mcu without it" in refused(capsys, "--calibration", "x.npz", "--skip-pass", "quantize")
    assert main(["in.onnx", "out.onnx", "--target", "gpu", "--calibration", "x.npz"]) == 2
    assert "--calibration has no meaning for target gpu" in capsys.readouterr().err
    assert main(["in.onnx", "out.onnx", "--target", "gpu", "--emit-c", "c"]) == 2
    assert "--emit-c has no meaning for target gpu" in capsys.readouterr().err
    assert not Path("out.onnx").exists()
    assert "contradict" in refused(capsys, "--calibration", "x.npz", "--dry-run", "--emit-c", "c")


def test_unusable_calibration_inputs(folder, capsys):
    x = np.load("x.npz")["x"]
    np.savez("nan.npz", x=np.where(x > 2, np.nan, x))
    np.savez("shape.npz", x=x[:, :5])
    np.savez("name.npz", y=x)
    np.savez("none.npz", x=x[:0])
    assert "NaN or infinity" in refused(capsys, "--calibration", "nan.npz")
    assert "has shape [40, 5]" in refused(capsys, "--calibration", "shape.npz")
    assert "no array for input 'x'" in refused(capsys, "--calibration", "name.npz")
    assert "no samples" in refused(capsys, "--calibration", "none.npz")
    assert "missing.npz" in refused(capsys, "--calibration", "missing.npz")


def test_folders_that_hold_something_else_stay(folder, capsys):
    Path("c").mkdir()
    Path("c/thesis.txt").touch()
    assert "not a bundle" in refused(capsys, "--calibration", "x.npz", "--emit-c", "c")
    assert [path.name for path in Path("c").iterdir()] == ["thesis.txt"]
    assert "does not exist" in refused(capsys, "--calibration", "x.npz", "--emit-c", "no/c")
    assert "is a file" in refused(capsys, "--calibration", "x.npz", "--emit-c", "x.npz")


def test_a_model_that_does_not_fit_says_by_how_much(folder, capsys):
    text = (Path(__file__).parents[2] / "scalpel_graph/targets/mcu.toml").read_text()
    for key, value in (("flash_bytes", 9000), ("ram_bytes", 64)):
        lines = [f"{key} = {value}" if line.startswith(f"{key} =") else line for line in text.splitlines()]
        Path("small.toml").write_text("\n".join(lines))
        arguments = ["in.onnx", "out.onnx", "--target", "small.toml", "--calibration", "x.npz"]
        assert main(arguments) == 2
        error = capsys.readouterr().err
        assert f"target small has {value:,}" in error
        assert "too many" in error
    assert not Path("out.onnx").exists()


def test_answers_that_are_too_far_off_are_not_written(folder, capsys):
    assert opt("--calibration", "x.npz", "--max-error", "1e-7") == 3
    assert "more than 0.0%" in capsys.readouterr().err
    assert not Path("out.onnx").exists()


def layer_model(op: str, shape=(4, 6, 6), **attributes) -> onnx.ModelProto:
    g = GraphBuilder("one", seed=0, opset=17)
    y = g.node(op, "it", [g.input("x", [BATCH, *shape])], **attributes)
    model = g.model({y: [BATCH, *("abc"[: len(shape)])]})
    if op == "ArgMax":
        model.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64
    return model


def quantized_model() -> onnx.ModelProto:
    g = GraphBuilder("quantized", seed=0, opset=17)
    scale = [g.initializer("scale", np.float32(0.1)), g.initializer("zero", np.int8(0))]
    x = g.node("QuantizeLinear", "it", [g.input("x", [BATCH, 6]), *scale])
    x = g.node("DequantizeLinear", "back", [x, *scale])
    return g.model({g.gemm(x, "fc", 6, 4): [BATCH, 4]})


@pytest.mark.parametrize(
    ("model", "why"),
    [
        (layer_model("Tanh"), "node 'it' (Tanh): operator Tanh has no integer form; there are: Add, ArgMax"),
        (layer_model("Softmax", axis=1), "node 'it' (Softmax): it is not over the features"),
        (layer_model("Flatten", axis=2), "node 'it' (Flatten): it makes [4, 36]"),
        (layer_model("AveragePool", (2, 40, 40), kernel_shape=[30, 30]), "it averages 900 elements"),
        (quantized_model(), "node 'fc' (Gemm): the model does not say how its output is stored: no Quantize"),
    ],
    ids=["operator", "softmax", "flatten", "average", "quantized"],
)  # fmt: skip
def test_layers_without_an_integer_form_are_refused_by_name(model, why, folder, capsys):
    onnx.save(model, "odd.onnx")
    np.savez("odd.npz", **inputs(model))
    assert why in refused(capsys, "--calibration", "odd.npz", model="odd.onnx")


def test_networks_of_other_kinds_are_refused(folder, capsys):
    model = many_operators()
    model.graph.output.append(helper.make_tensor_value_info("relu_output", TensorProto.FLOAT, None))
    onnx.save(model, "two.onnx")
    np.savez("two.npz", **inputs(model))
    error = refused(capsys, "--calibration", "two.npz", model="two.onnx")
    assert "has 1 inputs and 2 outputs" in error
