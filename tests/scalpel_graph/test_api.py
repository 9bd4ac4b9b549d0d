import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import scalpel_graph as sg
from scalpel_graph import api
from scalpel_graph.passes.base import Pass, PassResult
from scalpel_graph.value_types import unit_roundoff
from tests.pruned_networks import mlp, save


class Halve(Pass):
    name = "halve"
    summary = "Breaks a weight."

    def run(self, graph, context):
        weight = next(tensor for node in graph.nodes for tensor in node.inputs if tensor.name == "fc2.weight")
        weight.values = graph.constant(weight) / 2
        return PassResult(rewritten=["fc2"])


def test_importing_the_package_is_quick():
    program = "import sys, scalpel_graph; print(sorted({'onnx', 'onnxruntime', 'numpy'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_everything_exported_is_there():
    for name in sg.__all__:
        assert getattr(sg, name) is not None
        assert name in dir(sg)
    assert Path(sg.custom_op_library()).is_file()
    with pytest.raises(AttributeError, match="nothing_here"):
        _ = sg.nothing_here


def test_a_model_in_memory_is_not_changed_and_the_result_runs_both_ways():
    model = mlp(sparsity=0.9)
    before = model.SerializeToString()
    result = sg.optimize(model)
    assert model.SerializeToString() == before
    assert result.report.modified
    assert result.report.verified.ok
    assert result.report.input is None
    assert result.report.output is None
    assert result.report.size_bytes.before == len(before)
    assert result.report.size_bytes.after == len(result.model.SerializeToString())
    assert {node.op_type for node in result.model.graph.node} == {"GroupCsrGemm"}
    onnx.checker.check_model(result.model, full_check=True)

    x = np.random.default_rng(1).standard_normal((1, 512), dtype=np.float32)
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(sg.custom_op_library())
    expected, sparse, plain = (
        onnxruntime.InferenceSession(proto.SerializeToString(), chosen).run(None, {"x": x})[0]
        for proto, chosen in ((model, None), (result.model, options), (result.model, None))
    )
    np.testing.assert_allclose(sparse, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(plain, expected, rtol=1e-4, atol=1e-5)


def test_a_path_and_a_model_give_the_same_result(tmp_path):
    path = save(mlp(sparsity=0.9), tmp_path / "in.onnx")
    from_path, from_text = sg.optimize(path), sg.optimize(str(path), "cpu")
    from_memory = sg.optimize(onnx.load(str(path)))
    assert from_path.model == from_text.model == from_memory.model
    assert from_path.report.input == str(path)


def test_a_model_with_nothing_to_gain_comes_back_itself():
    model = mlp(sparsity=0)
    result = sg.optimize(model)
    assert result.model is model
    assert not result.report.modified
    assert result.report.verified.ok
    assert result.report.verified.runs == 0
    assert result.report.size_bytes.before == result.report.size_bytes.after
    assert result.report.macs.before == result.report.macs.after
    assert {layer.chosen.decision for layer in result.report.layers} == {"dense"}
    assert all(layer.reason for layer in result.report.layers)


def test_a_symbolic_batch_stays_symbolic():
    result = sg.optimize(mlp(sparsity=0.9, batch="n"), input_shapes={"x": [4, 512]})
    assert result.report.modified
    for value in (result.model.graph.input[0], result.model.graph.output[0]):
        assert value.type.tensor_type.shape.dim[0].dim_param == "n"
    assert result.report.macs.before == 4 * (512 * 1024 + 1024 * 1024)


def test_metadata_is_kept():
    model = mlp(sparsity=0.9)
    model.doc_string, model.producer_name, model.model_version = "doc", "someone", 7
    model.metadata_props.add(key="license", value="MIT")
    result = sg.optimize(model).model
    assert (result.doc_string, result.producer_name, result.model_version) == ("doc", "someone", 7)
    assert [(entry.key, entry.value) for entry in result.metadata_props] == [("license", "MIT")]


def test_a_wrong_result_raises(monkeypatch):
    monkeypatch.setattr(api.pipelines, "pipeline_for", lambda target: [Halve()])
    with pytest.raises(sg.CheckError, match="y"):
        sg.optimize(mlp(sparsity=0.9))
    unchecked = sg.optimize(mlp(sparsity=0.9), check=False)
    assert unchecked.report.modified
    assert not unchecked.report.verified.ok


def test_a_model_that_onnx_runtime_cannot_run_is_left_as_it_is():
    model = mlp(sparsity=0.9)
    model.graph.node[1].op_type, model.graph.node[1].domain = "Mystery", "com.example"
    model.opset_import.append(onnx.helper.make_opsetid("com.example", 1))
    result = sg.optimize(model)
    assert result.model is model
    assert not result.report.modified
    assert "Mystery" in result.report.verified.reason
    assert result.report.layers == []
    # Without the check there is nothing that keeps its Gemms from becoming sparse.
    assert sg.optimize(model, check=False).report.modified


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"target": "toaster"}, "toaster"),
        ({"input_shapes": {"z": [1]}}, "z"),
        ({"input_shapes": {"x": [1, 2, 3]}}, "x"),
        ({"skip_passes": ["everything"]}, "everything"),
        ({"check_inputs": "missing.npz"}, "missing.npz"),
        ({"threads": 0}, "threads"),
        ({"weights": "fp8"}, "weights must be fp32, fp16, bf16 or int8, got 'fp8'"),
    ],
)
def test_unusable_options_raise(options, words):
    with pytest.raises(sg.InputError, match=words):
        sg.optimize(mlp(sparsity=0.9), **options)


def test_unusable_models_raise(tmp_path):
    with pytest.raises(sg.InputError, match=r"missing\.onnx"):
        sg.optimize(tmp_path / "missing.onnx")
    with pytest.raises(sg.InputError):
        sg.optimize(onnx.ModelProto())


def test_progress_is_told():
    steps: list[str] = []
    sg.optimize(mlp(sparsity=0.9), progress=steps.append)
    assert len(steps) == len(api.pipelines.pipeline_for(api.load_target("cpu"))) + 1
    assert steps[0].startswith("pass 1 of ")
    assert steps[-1].startswith("checking")


def test_every_pass_is_listed_once_with_a_summary():
    names = [name for name, _ in api.list_passes()]
    assert names
    assert len(set(names)) == len(names)
    assert all(summary for _, summary in api.list_passes())


@pytest.mark.parametrize("weights", ["fp16", "bf16"])
def test_weights_of_16_bits_halve_the_file_and_run_both_ways(weights):
    model = mlp(sparsity=0.9)
    wide, result = sg.optimize(model), sg.optimize(model, weights=weights)
    assert result.report.size_bytes.after < 0.65 * wide.report.size_bytes.after
    assert result.report.weights == weights and wide.report.weights == "fp32"
    verified = result.report.verified
    assert verified.ok and verified.custom_ops and verified.fallback
    # Rounding shows, and is what the tolerance is made for.
    roundoff = unit_roundoff(weights)
    assert wide.report.verified.max_rel_diff < 1e-5 < verified.max_rel_diff < 2**0.5 * roundoff
    assert [layer.values.type for layer in result.report.layers] == [weights] * 2
    assert all(0 < layer.values.error < roundoff for layer in result.report.layers)
    onnx.checker.check_model(result.model, full_check=True)


def test_weights_of_8_bits_quarter_the_file_and_run_both_ways():
    model = mlp(sparsity=0.9)
    wide, result = sg.optimize(model), sg.optimize(model, weights="int8")
    assert result.report.size_bytes.after < 0.5 * wide.report.size_bytes.after
    assert [layer.values.type for layer in result.report.layers] == ["int8"] * 2
    verified = result.report.verified
    assert verified.ok and verified.custom_ops and verified.fallback
    assert 1e-5 < verified.max_rel_diff < 0.02
    with pytest.raises(sg.InputError, match="--weights int8 has no meaning for target gpu"):
        sg.optimize(model, target="gpu", weights="int8")


def test_rounding_is_allowed_for_and_nothing_else(monkeypatch):
    passes = api.pipelines.pipeline_for(api.load_target("cpu"))
    monkeypatch.setattr(api.pipelines, "pipeline_for", lambda target: [Halve(), *passes])
    with pytest.raises(sg.CheckError, match=r"'y' is off by .* or leave out --weights bf16"):
        sg.optimize(mlp(sparsity=0.9), weights="bf16")


def test_what_came_as_16_bits_can_be_optimized_again():
    result = sg.optimize(mlp(sparsity=0.9), weights="bf16")
    again = sg.optimize(result.model)
    assert again.report.parameters.after == result.report.parameters.after
    assert again.report.verified.ok
