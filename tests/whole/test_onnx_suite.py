"""Every model that the onnx package ships goes through the whole tool: no crash, no changed answer."""

import warnings
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

import scalpel_graph as sg

_DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
_LIGHT = sorted((_DATA / "light").glob("*.onnx"))
_FILES = sorted(_DATA.rglob("model.onnx"))

#: Node cases are too many to be tests of their own; each of these parts is one.
_PARTS = 16


def _frozen(model: ModelProto) -> ModelProto | None:
    """The same model with all float inputs but the first made initializers, many of their rows zero.

    The cases of the suite give everything as an input, so nothing could be rewritten; networks do not.
    """
    first, *rest = model.graph.input
    weights = []
    generator = np.random.default_rng(len(model.graph.node))
    for value in rest:
        tensor = value.type.tensor_type
        if tensor.elem_type not in (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16):
            return None
        shape = [dim.dim_value for dim in tensor.shape.dim]
        weight = np.abs(generator.standard_normal(shape)) + 0.1
        if weight.ndim > 1:
            weight[generator.random(shape[0]) < 0.7] = 0
        weight = weight.astype(onnx.helper.tensor_dtype_to_np_dtype(tensor.elem_type))
        weights.append(numpy_helper.from_array(weight, value.name))
    if not weights:
        return None
    frozen = ModelProto()
    frozen.CopyFrom(model)
    del frozen.graph.input[:]
    frozen.graph.input.append(first)
    frozen.graph.initializer.extend(weights)
    return frozen


def _check(model: ModelProto) -> sg.OptimizeResult:
    """Optimizes, which itself compares the answers and raises if they differ, and checks what came out."""
    before = model.SerializeToString(deterministic=True)
    result = sg.optimize(model)
    report = result.report
    assert model.SerializeToString(deterministic=True) == before, "the caller's model was changed"
    assert report.verified.ok
    assert result.model.graph.output == model.graph.output
    if report.modified:
        assert report.verified.runs > 0
        assert report.verified.fallback
        onnx.checker.check_model(result.model, full_check=True)
    else:
        assert result.model == model
        assert report.verified.reason
    return result


def _failures(models: Iterable[tuple[str, ModelProto]]) -> str:
    failures = []
    for name, model in models:
        try:
            _check(model)
        except Exception as error:
            failures.append(f"{name}: {type(error).__name__}: {error}")
    return "\n".join(failures)


@pytest.fixture(scope="module")
def node_models() -> list[tuple[str, ModelProto]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose
        cases = collect_testcases(None)
    return [(case.name, case.model) for case in cases if case.model is not None]


@pytest.mark.parametrize("part", range(_PARTS))
def test_node_cases(node_models: list[tuple[str, ModelProto]], part: int) -> None:
    failures = _failures(node_models[part::_PARTS])
    assert not failures, failures


@pytest.mark.parametrize("part", range(_PARTS))
def test_node_cases_with_weights(node_models: list[tuple[str, ModelProto]], part: int) -> None:
    frozen = ((name, _frozen(model)) for name, model in node_models[part::_PARTS] if model.graph.input)
    failures = _failures((name, model) for name, model in frozen if model is not None)
    assert not failures, failures


@pytest.mark.parametrize("folder", ["simple", "pytorch-operator", "pytorch-converted"])
def test_model_cases(folder: str) -> None:
    failures = _failures(
        (path.parent.name, onnx.load(path)) for path in _FILES if path.parent.parent.name == folder
    )
    assert not failures, failures


@pytest.mark.parametrize("path", _LIGHT, ids=lambda path: path.stem)
def test_light_networks(path: Path, tmp_path: Path) -> None:
    result = _check(onnx.load(path))
    assert sg.optimize(path).model == result.model
    onnx.save(result.model, tmp_path / "out.onnx")
    # Their weights are made by ConstantOfShape: folding those would make megabytes of kilobytes. Our LRN has
    # a function, and three numbers for each channel.
    allowed = 6_000 if any(node.op_type == "LRN" for node in onnx.load(path).graph.node) else 0
    assert (tmp_path / "out.onnx").stat().st_size <= path.stat().st_size * 1.05 + allowed
    reasons = {skip.reason for run in result.report.passes for skip in run.skipped}
    assert any("constant" in reason for reason in reasons), reasons


def test_all_of_them_are_there(node_models: list[tuple[str, ModelProto]]) -> None:
    assert len(node_models) > 1000
    assert len(_LIGHT) == 9
    folders = [path.parent.parent.name for path in _FILES]
    assert set(folders) == {"simple", "pytorch-operator", "pytorch-converted"} and len(folders) > 100
