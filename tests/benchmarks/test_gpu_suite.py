"""What of the suite needs no card: that it says so, goes on where it stopped, and runs the right networks."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from onnx import numpy_helper

import scalpel_graph as sg
from benchmarks import gpu_networks, gpu_suite
from benchmarks.gpu_suite import Clock, NotRunError, OutOfTimeError, run_sections
from models import NETWORKS
from scalpel_graph import group_csr
from scalpel_graph.target import Target
from tests.pass_runner import outputs

MACHINE = {"card": "some card", "driver": "1"}
EXACT = Target(name="exact", kind="gpu", description="widths as they come")


def test_without_a_card_it_is_one_line_and_exit_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu_suite", "--json", str(tmp_path / "gpu.json")],
        cwd=Path(__file__).parents[2],
        env={"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "no CUDA device is here" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture
def clock():
    return Clock(time.monotonic() + 1000)


@pytest.fixture
def ran(monkeypatch):
    monkeypatch.setattr(gpu_suite, "_find_build", lambda: None)
    return []


def sections(ran, **others):
    def good(name):
        def section(clock):
            ran.append(name)
            return {"answer": 42}

        return section

    def missing(clock):
        ran.append("missing")
        raise NotRunError("it is not installed")

    def broken(clock):
        ran.append("broken")
        raise ValueError("wrong")

    every = {"first": good("first"), "missing": missing, "broken": broken, "last": good("last"), **others}
    return {name: every[name] for name in every if every[name] is not None}


def read(path):
    return {name: found["status"] for name, found in json.loads(path.read_text())["sections"].items()}


def test_every_section_is_written_down_and_those_done_are_not_run_again(ran, clock, tmp_path):
    path = tmp_path / "results" / "gpu.json"
    assert run_sections(sections(ran), path, MACHINE, clock) == 1
    assert read(path) == {"first": "done", "missing": "not run", "broken": "failed", "last": "done"}
    content = json.loads(path.read_text())
    assert content["machine"] == MACHINE and content["sections"]["first"]["answer"] == 42
    assert content["sections"]["broken"]["reason"] == "ValueError: wrong"
    ran.clear()
    run_sections(sections(ran), path, MACHINE, clock, again=["last"])
    assert ran == ["missing", "broken", "last"]
    ran.clear()
    assert run_sections(sections(ran, broken=None), path, {**MACHINE, "driver": "2"}, clock) == 0
    assert ran == ["first", "missing", "last"]


def test_when_the_time_is_over_what_was_found_stays(ran, tmp_path, clock):
    def long(clock):
        raise OutOfTimeError

    path = tmp_path / "gpu.json"
    assert run_sections(sections(ran, broken=long), path, MACHINE, clock) == 1
    assert read(path) == {"first": "done", "missing": "not run"}
    assert run_sections(sections(ran, broken=None), path, MACHINE, Clock(time.monotonic() - 1)) == 1
    assert run_sections(sections(ran, broken=None), path, MACHINE, clock) == 0
    assert read(path) == {"first": "done", "missing": "not run", "last": "done"}
    assert ran.count("first") == 1


def test_nothing_goes_on_without_a_build(ran, tmp_path, clock):
    def build(clock):
        raise RuntimeError("cmake failed")

    path = tmp_path / "gpu.json"
    assert run_sections({"build": build, **sections(ran)}, path, MACHINE, clock) == 1
    assert read(path) == {"build": "failed"} and not ran


@pytest.mark.parametrize("name", ["lenet-300-100", "lenet-5", "convnet", "nin"])
def test_pytorch_computes_what_onnx_runtime_does(name):
    """Pruned at the paper's counts and shrunk, which is what the suite times."""
    optimized = sg.optimize(gpu_networks.node_pruned(name), target=EXACT).model
    x = NETWORKS[name].sample_input(3)
    for model in (NETWORKS[name].build(), optimized):
        y = gpu_networks.InPyTorch(model, "cpu")(gpu_networks.torch().from_numpy(x)).numpy()
        (expected,) = outputs(model, {"input": x})
        np.testing.assert_allclose(y, expected, rtol=1e-3, atol=1e-4)


def test_the_papers_nodes_are_gone():
    optimized = sg.optimize(gpu_networks.node_pruned("lenet-300-100"), target=EXACT).model
    widths = [
        numpy_helper.to_array(tensor).size for tensor in optimized.graph.initializer if len(tensor.dims) == 1
    ]
    assert sorted(widths) == [10, 68, 207]
    rounded = gpu_networks.node_pruned("lenet-300-100", 8)
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in rounded.graph.initializer}
    assert [int(weights[f"{name}.weight"].any(axis=1).sum()) for name in ("fc1", "fc2")] == [208, 64]


def test_a_network_that_pytorch_is_not_given_is_refused():
    with pytest.raises(ValueError, match=r"no form in PyTorch|does not follow"):
        gpu_networks.InPyTorch(NETWORKS["mobilenet-v1"].build(), "cpu")


@pytest.mark.parametrize("shape", [(1, 8), (8, 1), (1, 1)])
def test_a_tenth_of_the_groups_is_stored(shape):
    dense, matrix = gpu_suite.sparse_matrix(64, 800, shape, np.float16)
    np.testing.assert_array_equal(group_csr.decode(matrix), dense)
    assert matrix.values.dtype == np.float16
    assert matrix.n_groups == pytest.approx(0.1 * 64 * 800 / (shape[0] * shape[1]), rel=0.3)
