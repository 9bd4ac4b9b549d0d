"""Every model that the onnx package ships goes through the whole tool: no crash, no changed answer."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import ModelProto, TensorProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

import scalpel_graph

_DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
_CHUNKS = 16


def _node_models() -> list[tuple[str, ModelProto]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        cases = collect_testcases(None)
    return [(case.name, case.model) for case in cases if case.model is not None]


def _file_models() -> list[Path]:
    return sorted(path for path in _DATA.rglob("*.onnx") if path.parent.name != "light")


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


def _check(model: ModelProto) -> None:
    """Optimizes; `optimize` itself compares the answers, and raises if they differ."""
    before = model.SerializeToString(deterministic=True)
    result = scalpel_graph.optimize(model, target="cpu")
    assert model.SerializeToString(deterministic=True) == before, "the caller's model was changed"
    if result.report.modified:
        assert result.report.verified.ok
        assert result.report.verified.runs > 0
        onnx.checker.check_model(result.model, full_check=True)
    else:
        assert result.model.SerializeToString(deterministic=True) == before
    assert [v.SerializeToString() for v in result.model.graph.output] == [
        v.SerializeToString() for v in model.graph.output
    ]


@pytest.fixture(scope="module")
def node_models() -> list[tuple[str, ModelProto]]:
    models = _node_models()
    assert len(models) > 1000
    return models


def _failures(models: Iterator[tuple[str, ModelProto]]) -> list[str]:
    failures = []
    for name, model in models:
        try:
            _check(model)
        except Exception as error:
            failures.append(f"{name}: {type(error).__name__}: {error}")
    return failures


@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_node_cases(node_models: list[tuple[str, ModelProto]], chunk: int) -> None:
    failures = _failures(iter(node_models[chunk::_CHUNKS]))
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("chunk", range(_CHUNKS))
def test_node_cases_with_weights(node_models: list[tuple[str, ModelProto]], chunk: int) -> None:
    frozen = ((name, _frozen(model)) for name, model in node_models[chunk::_CHUNKS] if model.graph.input)
    failures = _failures((name, model) for name, model in frozen if model is not None)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("folder", ["simple", "pytorch-operator", "pytorch-converted"])
def test_model_cases(folder: str) -> None:
    paths = [path for path in _file_models() if folder in path.parts]
    assert paths
    failures = _failures((path.parent.name, onnx.load(path)) for path in paths)
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("path", sorted((_DATA / "light").glob("*.onnx")), ids=lambda path: path.stem)
def test_light_networks(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.onnx"
    result = scalpel_graph.optimize(path, target="cpu")
    onnx.save(result.model, out)
    assert result.report.verified.ok
    # Their weights are made by ConstantOfShape: folding those would turn kilobytes into megabytes.
    assert out.stat().st_size <= path.stat().st_size * 1.05
    reasons = {skip.reason for run in result.report.passes for skip in run.skipped}
    assert any("not constant" in reason or "constant" in reason for reason in reasons), reasons
