"""Sessions: quiet, of any size, and with ONNX Runtime's complaints in one sentence."""

import tempfile

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from scalpel_graph import io
from scalpel_graph import session as session_module
from scalpel_graph.errors import InputError
from scalpel_graph.session import SessionError, run, session

FLOAT = TensorProto.FLOAT


def gather_model() -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node("Gather", ["w", "i"], ["y"], name="pick")],
        "main",
        [helper.make_tensor_value_info("i", TensorProto.INT64, [2])],
        [helper.make_tensor_value_info("y", FLOAT, [2, 500])],
        [numpy_helper.from_array(np.arange(1500, dtype=np.float32).reshape(3, 500), "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_models_and_paths_run(tmp_path):
    model = gather_model()
    io.save(model, tmp_path / "m.onnx")
    for given in (model, tmp_path / "m.onnx", str(tmp_path / "m.onnx")):
        made = session(given, threads=2)
        assert made.get_session_options().intra_op_num_threads == 2
        np.testing.assert_array_equal(run(made, {"i": np.array([2, 0])})["y"][:, 0], [1000, 0])


def test_large_models_go_through_temporary_files(tmp_path, monkeypatch):
    monkeypatch.setattr(session_module, "IN_MEMORY_BYTES", 3000)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    saved = []
    real_save = io.save
    monkeypatch.setattr(
        io, "save", lambda model, path, **o: saved.append(path) or real_save(model, path, **o)
    )
    made = session(gather_model())
    assert len(saved) == 1 and tmp_path in saved[0].parents
    assert not list(tmp_path.iterdir())
    np.testing.assert_array_equal(run(made, {"i": np.array([2, 0])})["y"][:, 0], [1000, 0])


@pytest.mark.parametrize("options", [{"prepack": False}, {"fold": False}])
def test_sparing_sessions_give_the_same(options):
    model = gather_model()
    model.graph.node.insert(0, helper.make_node("Neg", ["v"], ["w"], name="negate"))
    model.graph.initializer[0].name = "v"
    inputs = {"i": np.array([2, 0])}
    expected = run(session(model), inputs)
    np.testing.assert_array_equal(run(session(model, **options), inputs)["y"], expected["y"])


def test_complaints_are_one_sentence_and_nothing_reaches_stderr(tmp_path, capfd):
    broken = gather_model()
    broken.graph.node[0].op_type = "Gathering"
    newer = gather_model()
    newer.opset_import[0].version = 999
    untyped = gather_model()
    untyped.graph.node[0].input[0] = "nowhere"
    for bad in (broken, newer, untyped, tmp_path / "none.onnx"):
        with pytest.raises(SessionError) as caught:
            session(bad)
        sentence(caught.value)
    good = session(gather_model())
    for inputs in (
        {},
        {"i": np.array([7, 7])},
        {"i": np.array([1.5, 1])},
        {"i": np.array([1])},
        {"i": "text"},
    ):
        with pytest.raises(SessionError) as caught:
            run(good, inputs)
        sentence(caught.value)
    with pytest.raises(SessionError, match="indices element out of data bounds, idx=7"):
        run(good, {"i": np.array([7, 7])})
    assert capfd.readouterr() == ("", "")


def sentence(error: SessionError) -> None:
    text = str(error)
    assert text and "\n" not in text and len(text) <= 300
    for noise in ("ONNXRuntimeError", ".cc:", "onnxruntime::", "/onnxruntime_src"):
        assert noise not in text


def test_an_unusable_library_is_named(tmp_path):
    for path in (tmp_path / "none.so", tmp_path / "text.so"):
        (tmp_path / "text.so").write_text("no library")
        with pytest.raises(InputError, match="the operator library cannot be loaded") as caught:
            session(gather_model(), library=path)
        assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_an_internal_error_of_onnx_runtime_prints_nothing(monkeypatch, capfd):
    def fails(*arguments):
        raise RuntimeError("something inside")

    monkeypatch.setattr(ort.InferenceSession, "_create_inference_session", fails)
    with pytest.raises(SessionError, match="something inside"):
        session(gather_model())
    assert capfd.readouterr() == ("", "")
