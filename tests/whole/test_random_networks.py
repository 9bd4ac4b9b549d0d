"""Random networks go through the whole tool: verified, valid, the same answers, and done in one go.

RANDOM_NETWORKS=5000 pytest tests/whole/test_random_networks.py tries as many instead of a few;
RANDOM_NETWORKS=1234:1235 tries the one of that seed.
"""

import os
from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx
import onnxruntime as ort
import pytest

import scalpel_graph as sg
from scalpel_graph.compare import compare
from scalpel_graph.inputs import Recipe, make_inputs, required_inputs
from scalpel_graph.session import run, session
from scalpel_graph.target import Target, load_target
from tests.pass_runner import EAGER
from tests.random_networks import random_network


def _seeds() -> range:
    first, _, last = os.environ.get("RANDOM_NETWORKS", "500").rpartition(":")
    return range(int(first or 0), int(last))


_PARTS = 8


def _target(seed: int) -> Target:
    """The profile that ships, or one that makes everything sparse in the group shape that comes next."""
    if seed % 8 == 0:
        return load_target("cpu")
    kernels = EAGER.kernels
    return replace(EAGER, kernels=(kernels[seed % len(kernels)],)) if seed % 2 else EAGER


def _check(seed: int) -> None:
    model, target = random_network(seed), _target(seed)
    onnx.checker.check_model(model)
    before = model.SerializeToString(deterministic=True)
    result = sg.optimize(model, target=target)
    report = result.report
    assert model.SerializeToString(deterministic=True) == before, "the caller's model was changed"
    assert report.verified.ok
    if not report.modified:
        if "cannot load the original" in report.verified.reason:
            _assert_optimizer_at_fault(model)
        else:
            assert report.verified.reason == "no pass found anything to change"
        return
    assert report.verified.fallback
    assert report.verified.custom_ops == any(node.domain == "ai.scalpel" for node in result.model.graph.node)
    onnx.checker.check_model(result.model, full_check=True)
    assert _names(result.model.graph.output) == _names(model.graph.output)
    assert _names(required_inputs(result.model)) == _names(required_inputs(model))
    _compare_on_other_inputs(model, result.model, seed)
    skipped = [skip.reason for run in report.passes for skip in run.skipped]
    if not any("would make the file" in reason for reason in skipped):  # once layers are sparse, it may not
        again = sg.optimize(result.model, target=target)
        changed = [run.name for run in again.report.passes if run.modified]
        assert "substitute-group-csr" not in changed, f"a second run still found work: {changed}"


def _assert_optimizer_at_fault(model: onnx.ModelProto) -> None:
    """ONNX Runtime's own optimizations break one network in ten thousand."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _names(values: Iterable[onnx.ValueInfoProto]) -> list[str]:
    return [value.name for value in values]


def _compare_on_other_inputs(model: onnx.ModelProto, optimized: onnx.ModelProto, seed: int) -> None:
    """Larger than those that the tool itself checks on."""
    inputs = make_inputs(model, seed=seed + 1000, recipe=Recipe(batch=3, size=48))
    expected = run(session(model), inputs)
    for library in (sg.custom_op_library(), None):
        actual = run(session(optimized, library=library), inputs)
        for name, value in expected.items():
            difference = compare(value, actual[name], rtol=1e-3, atol=1e-5)
            assert not difference.reason, f"{name} {difference.reason}, library: {library is not None}"


@pytest.mark.parametrize("part", range(_PARTS))
def test_random_networks(part: int) -> None:
    failures = []
    with np.errstate(all="ignore"):
        for seed in _seeds()[part::_PARTS]:
            try:
                _check(seed)
            except Exception as error:
                failures.append(f"{seed}: {type(error).__name__}: {str(error)[:300]}")
    assert not failures, "\n".join(failures)
