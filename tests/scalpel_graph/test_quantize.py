"""Quantizing a float network, and optimizing networks that are quantized, through the API and the command."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import scalpel_graph as sg
from scalpel_graph import ops, qlinear_ops
from scalpel_graph.cli.opt import main
from scalpel_graph.last_steps import last_steps
from scalpel_graph.passes import quantized_layers
from tests.ort_sessions import run
from tests.pass_runner import EAGER
from tests.quantized_networks import convnet, dynamic, inputs, mixer, quantized
from tests.report_contract import CONTRACT, assert_follows


@pytest.fixture
def calibration(tmp_path: Path) -> Path:
    path = tmp_path / "inputs.npz"
    np.savez(path, X=np.concatenate([feeds["X"] for feeds in inputs(convnet(), 6)]))
    return path


def test_a_float_network_is_quantized_and_then_made_sparse(calibration: Path) -> None:
    before = convnet()
    result = sg.optimize(before, EAGER, quantize="int8", calibration=calibration)
    kinds = {node.op_type for node in result.model.graph.node if node.domain == ops.DOMAIN}
    assert kinds == {qlinear_ops.CONV, qlinear_ops.CONV_ADD, qlinear_ops.GEMM}
    report = result.report
    assert report.verified.ok and report.verified.custom_ops and report.verified.fallback
    assert report.quantization is not None and report.quantization.samples == 6
    assert 0 < report.quantization.relative_error < 0.1
    assert report.size_bytes.after < 0.6 * report.size_bytes.before  # half of it is functions
    assert_follows(report.to_json(), CONTRACT)
    for feeds in inputs(before, 2):
        expected = run(before, feeds, library=False)
        error = np.linalg.norm(run(result.model, feeds) - expected) / np.linalg.norm(expected)
        assert error < 0.1
    values = [tensor for tensor in result.model.graph.initializer if tensor.name.endswith("_values")]
    assert all(numpy_helper.to_array(tensor).dtype == np.int8 for tensor in values)


def test_what_is_quantized_is_written_even_if_nothing_gets_sparse(calibration: Path, tmp_path: Path) -> None:
    onnx.save(convnet(), tmp_path / "in.onnx")
    arguments = [str(tmp_path / "in.onnx"), str(tmp_path / "out.onnx"), "--target", "avx2", "-q"]
    arguments += ["--report", str(tmp_path / "report.json")]
    assert main([*arguments, "--quantize", "int8", "--calibration", str(calibration)]) == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["quantization"]["type"] == "int8"
    kinds = {node.op_type for node in onnx.load(tmp_path / "out.onnx").graph.node}
    assert "DequantizeLinear" in kinds


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantize": "int8"}, "--quantize needs inputs"),
        ({"quantize": "int4", "calibration": "x.npz"}, "quantize must be int8, got 'int4'"),
        ({"quantize": "int8", "target": "gpu", "calibration": "x.npz"}, "for target gpu: it is for CPUs"),
        ({"quantize": "int8", "target": "mcu", "calibration": "x.npz"}, "for target mcu: see --dtype"),
        ({"calibration": "x.npz"}, "it is for microcontrollers and --quantize"),
    ],
)  # fmt: skip
def test_options_that_cannot_work(options: dict[str, Any], message: str, calibration: Path) -> None:
    if "calibration" in options:
        options = {**options, "calibration": calibration}
    with pytest.raises(sg.InputError, match=message):
        sg.optimize(convnet(), **options)


def test_a_quantized_network_is_not_quantized_again(calibration: Path) -> None:
    with pytest.raises(sg.InputError, match=r"is quantized already .* leave out --quantize"):
        sg.optimize(quantized(convnet()), quantize="int8", calibration=calibration)


def test_networks_that_quantize_while_they_run_pass_the_check() -> None:
    result = sg.optimize(dynamic(mixer()), EAGER)
    assert result.report.verified.ok and result.report.verified.custom_ops
    assert any(node.op_type == qlinear_ops.GEMM_TO_FLOAT for node in result.model.graph.node)


def test_a_result_that_is_off_by_more_than_a_step_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = quantized(convnet())

    def wrong(*arguments: Any, **options: Any) -> Any:
        return original(*arguments, **options) + np.int32(2000)

    original = quantized_layers.integer_bias
    monkeypatch.setattr(quantized_layers, "integer_bias", wrong)
    with pytest.raises(sg.CheckError, match="nothing was written"):
        sg.optimize(model, EAGER)


def test_the_last_steps_are_those_of_the_integers_nearest_to_the_output() -> None:
    model = quantized(convnet())
    scales = {tensor.name: tensor for tensor in model.graph.initializer}
    last = next(node for node in model.graph.node if "Y" in node.output)
    assert last_steps(model) == {"Y": float(numpy_helper.to_array(scales[last.input[1]]))}
    assert last_steps(convnet()) == {"Y": 0.0}
