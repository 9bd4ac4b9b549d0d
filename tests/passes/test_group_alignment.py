"""Dead channels stay where the groups of zeros behind them would fall apart, and go where they would not."""

from pathlib import Path

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

import scalpel_graph
from scalpel_graph.mcu.network import Multiply
from tests.pass_runner import CPU


def groups(generator: np.random.Generator, M: int, K: int, keep: float) -> np.ndarray:
    """``[M, K]`` with a fraction of its 1×8 groups kept."""
    mask = np.repeat(generator.random((M, K // 8)) < keep, 8, axis=1)
    return (generator.standard_normal((M, K)) * mask / np.sqrt(K * keep)).astype(np.float32)


def two_layers(dead: list[int], keep: float) -> ModelProto:
    """Gemm, Relu, Gemm of width 1024; the hidden neurons in ``dead`` are always zero."""
    generator = np.random.default_rng(0)
    first, second = (groups(generator, 1024, 1024, keep) for _ in range(2))
    bias = generator.standard_normal(1024).astype(np.float32)
    first[dead], bias[dead] = 0, 0
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], name="first", transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w2"], ["y"], name="second", transB=1),
    ]
    weights = [numpy_helper.from_array(a, n) for n, a in (("w1", first), ("b1", bias), ("w2", second))]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(nodes, "g", [value("x", 1, ["n", 1024])], [value("y", 1, ["n", 1024])], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def hidden_width(result: scalpel_graph.OptimizeResult) -> int:
    return next((n.after for n in result.report.removed_nodes if n.name == "first"), 1024)


@pytest.mark.parametrize("dead", [[5], [3, 100, 777]])
def test_scattered_neurons_stay_in_front_of_groups(dead: list[int]) -> None:
    result = scalpel_graph.optimize(two_layers(dead, keep=0.1), CPU)
    assert hidden_width(result) == 1024
    second = next(layer for layer in result.report.layers if layer.name == "second")
    assert second.chosen.group_shape == (1, 8)
    assert second.chosen.density < 0.11
    reasons = {skip.node: skip.reason for run in result.report.passes for skip in run.skipped}
    assert "groups of zeros" in reasons["second"]


def test_whole_groups_of_neurons_go() -> None:
    result = scalpel_graph.optimize(two_layers([*range(16), *range(512, 528)], keep=0.1), CPU)
    assert hidden_width(result) == 1024 - 32
    assert all(layer.chosen.group_shape == (1, 8) for layer in result.report.layers)


def test_neurons_go_from_dense_layers() -> None:
    result = scalpel_graph.optimize(two_layers([3, 100, 777], keep=1.0), CPU)
    assert hidden_width(result) == 1024 - 3


def test_a_second_run_changes_nothing() -> None:
    once = scalpel_graph.optimize(two_layers([5], keep=0.1), CPU)
    assert not scalpel_graph.optimize(once.model, CPU).report.modified


def test_a_layer_that_was_dead_as_a_whole_is_held_with_all_it_needs() -> None:
    """Five dead neurons in front of the others: without them every group behind moves."""
    generator = np.random.default_rng(0)
    second = groups(generator, 1024, 1024, keep=0.1)
    weights = {
        "w0": np.zeros((5, 64), np.float32),
        "w1": groups(generator, 1019, 1024, keep=0.1),
        "w2": second,
        "w": generator.standard_normal((64, 1024)).astype(np.float32),
    }
    weights["w"][:, :32] = 0  # whole groups, which go
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="input"),
        helper.make_node("Relu", ["h"], ["g"]),
        helper.make_node("Gemm", ["x", "w0"], ["a"], name="dead", transB=1),
        helper.make_node("Relu", ["a"], ["c"]),
        helper.make_node("Gemm", ["g", "w1"], ["b"], name="first", transB=1),
        helper.make_node("Concat", ["c", "b"], ["r"], axis=1),
        helper.make_node("Gemm", ["r", "w2"], ["y"], name="second", transB=1),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "g",
        [value("x", 1, ["n", 64])],
        [value("y", 1, ["n", 1024])],
        [numpy_helper.from_array(values, name) for name, values in weights.items()],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    result = scalpel_graph.optimize(proto, CPU)
    assert result.report.verified.ok
    choice = next(layer for layer in result.report.layers if layer.name == "second")
    assert choice.chosen.group_shape == (1, 8) and choice.chosen.density < 0.11
    widths = {node.name: (node.after, node.possible) for node in result.report.removed_nodes}
    assert widths == {"input": (992, 992), "dead": (5, 0), "first": (1019, 1019)}
    assert "dead" in {node.name for node in result.model.graph.node}


def for_microcontroller(
    path: Path, dead: list[int], keep: float, rows: int = 1
) -> scalpel_graph.OptimizeResult:
    """`two_layers` of 64 neurons in blocks of ``rows`` × 2, the hidden ones in ``dead`` without weights."""
    generator = np.random.default_rng(0)
    first, second = (
        np.kron(generator.random((64 // rows, 32)) < keep, np.ones((rows, 2)))
        * generator.choice([-0.7, 0.9, 1.1], (64, 64))
        for _ in range(2)
    )
    bias = np.ones(64)
    first[dead], bias[dead] = 0, 0
    model = two_layers([], keep=1.0)
    del model.graph.initializer[:]
    for name, array in (("w1", first), ("b1", bias), ("w2", second)):
        model.graph.initializer.append(numpy_helper.from_array(array.astype(np.float32), name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = 64
    np.savez(path / "x.npz", x=generator.standard_normal((50, 64), dtype=np.float32))
    return scalpel_graph.optimize(model, "mcu", calibration=path / "x.npz")


def stored(result: scalpel_graph.OptimizeResult, name: str, shape: tuple[int, int]) -> int:
    """Groups of a shape that a layer has on the device."""
    candidates = next(layer for layer in result.report.layers if layer.name == name).candidates
    assert result.program is not None
    weights = next(
        x.weights for x in result.program.network.layers if isinstance(x, Multiply) and x.name == name
    )
    M, K = weights.shape
    density = next(c.density for c in candidates if c.group_shape == shape)
    return round(density * -(-M // shape[0]) * -(-K // shape[1]))


@pytest.mark.parametrize(("shape", "widths"), [((1, 2), (62, 59)), ((2, 2), (62, 59)), ((4, 2), (64, 57))])
def test_a_microcontroller_keeps_neurons_that_share_a_group(
    shape: tuple[int, int], widths: tuple[int, int], tmp_path: Path
) -> None:
    rows = shape[0]
    whole = for_microcontroller(tmp_path, [], keep=0.2, rows=rows)
    result = for_microcontroller(tmp_path, [3, 10, 11, 40, 50], keep=0.2, rows=rows)
    (first,) = (node for node in result.report.removed_nodes if node.name == "first")
    assert (first.after, first.possible) == widths  # in groups of 4, two are read by nobody
    assert stored(result, "first", shape) <= stored(whole, "first", shape)
    assert stored(result, "second", shape) <= stored(whole, "second", shape)


def test_neurons_go_from_a_microcontrollers_dense_layers(tmp_path: Path) -> None:
    removed = for_microcontroller(tmp_path, [3, 40], keep=0.9).report.removed_nodes
    assert [node.after for node in removed if node.name == "first"] == [62]
