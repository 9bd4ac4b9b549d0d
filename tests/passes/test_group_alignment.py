"""Dead channels stay where the groups of zeros behind them would fall apart, and go where they would not."""

import numpy as np
import pytest
from onnx import ModelProto, helper, numpy_helper

import scalpel_graph
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
