"""The whole tool on every model inside the onnx wheel: nothing crashes, nothing changes what it computes."""

import warnings
from pathlib import Path

import onnx
import pytest
from onnx.backend.test.loader import load_model_tests

import scalpel_graph as sg

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"
FILES = sorted(
    path for path in DATA.rglob("*.onnx") if path.name == "model.onnx" or path.parent.name == "light"
)

#: Node cases are too many to be tests of their own; each of these parts is one.
PARTS = 8


def assert_kept(model: onnx.ModelProto, result: sg.OptimizeResult) -> None:
    """The result was compared with the model and agrees, or it is the model and the report says why."""
    report = result.report
    assert report.verified.ok
    if report.modified:
        assert report.verified.runs > 0
        assert report.verified.fallback
        onnx.checker.check_model(result.model)
    else:
        assert result.model == model
        assert report.verified.reason


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(DATA).with_suffix("")))
def test_model_files(path):
    assert_kept(onnx.load(str(path)), sg.optimize(path))


@pytest.fixture(scope="module")
def node_cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the cases divide by zero on purpose
        return load_model_tests(kind="node")


@pytest.mark.parametrize("part", range(PARTS))
def test_nodes(part, node_cases):
    cases = node_cases[part::PARTS]
    assert len(cases) > 100
    for case in cases:
        before = case.model.SerializeToString()
        try:
            result = sg.optimize(case.model)
            assert case.model.SerializeToString() == before
            assert_kept(case.model, result)
        except Exception as error:
            raise AssertionError(f"{case.name}: {error}") from error


def test_all_of_them_are_there():
    assert sum(path.parent.name == "light" for path in FILES) == 9
    assert len(FILES) > 100
