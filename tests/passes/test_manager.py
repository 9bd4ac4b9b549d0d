import shlex

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from scalpel_graph.errors import CheckError, InputError
from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.clean_up import CleanUp
from scalpel_graph.passes.fold_constants import FoldConstants
from scalpel_graph.passes.manager import PassManager
from scalpel_graph.passes.pipelines import list_passes, pipeline_for
from scalpel_graph.target import load_target
from tests.pass_runner import CPU, model, random


class Raises(Pass):
    name, summary = "raises", "goes wrong"

    def run(self, graph, context):
        graph.nodes[0].op = "Abs"
        raise ValueError("the reason\nin two lines")


class Breaks(Pass):
    name, summary = "breaks", "leaves an invalid graph"

    def run(self, graph, context):
        graph.nodes[0].attrs["axis"] = 7
        return PassResult(rewritten=["a"])


class Looks(Pass):
    name, summary = "looks", "notes the shape it sees"

    def run(self, graph, context):
        self.seen = graph.shape(graph.nodes[-1].outputs[0])
        return PassResult()


class Renames(Pass):
    name, summary = "renames", "inserts a node"

    def run(self, graph, context):
        node = graph.nodes[-1]
        before = node.inputs[0]
        node.inputs[0] = graph.add_variable("new")

        graph.insert_before(node, gs.Node("Neg", inputs=[before], outputs=[node.inputs[0]]))
        return PassResult(rewritten=["Y"])


def network():
    return model(
        """(float[N, 64] X) => (float[N, 64] Y)
           { s = Softmax<axis = 1>(X)  a = Identity(s)  Y = MatMul(a, W) }""",
        {"W": random(64, 64)},
    )


def test_records_say_what_each_pass_did():
    graph = ModelGraph(network())
    seen = []
    records = PassManager(
        [FoldConstants(), CleanUp()], on_pass=lambda name, number, total: seen.append((name, number, total))
    ).run(graph, PassContext(CPU))
    assert [(r.name, r.modified, r.rewritten) for r in records] == [
        ("fold-constants", False, []), ("clean-up", True, ["a"])
    ]  # fmt: skip
    assert all(record.seconds >= 0 for record in records)
    assert seen == [("fold-constants", 1, 2), ("clean-up", 2, 2)]


def test_skipped_passes_do_not_run():
    records = PassManager(pipeline_for(CPU), skip=["clean-up", "fuse-bias"]).run(
        ModelGraph(network()), PassContext(CPU)
    )
    assert {"clean-up", "fuse-bias"}.isdisjoint(record.name for record in records)


def test_unknown_pass_to_skip():
    with pytest.raises(
        InputError, match=r"--skip-pass cleanup: no such pass; did you mean clean-up\?.*fuse-bias"
    ):
        PassManager(pipeline_for(CPU), skip=["cleanup"])


@pytest.mark.parametrize(("step", "why"), [(Raises(), "the reason in two lines"), (Breaks(), "axis")])
def test_a_failing_pass_leaves_a_reproducer(tmp_path, step, why):
    proto = network()
    context = PassContext(CPU, threads=2, dimensions={"N": 3}, weights="bf16")
    manager = PassManager([CleanUp(), step], reproducer_dir=tmp_path / "failures")
    with pytest.raises(CheckError) as caught:
        manager.run(ModelGraph(proto), context)
    message = str(caught.value)
    assert "\n" not in message and f"pass {step.name} failed" in message and why in message
    assert caught.value.exit_code == 3
    (folder,) = (tmp_path / "failures").iterdir()
    assert str(folder) in message
    before = onnx.load(folder / "before.onnx")
    onnx.checker.check_model(before, full_check=True)
    assert [node.op_type for node in before.graph.node] == ["Softmax", "MatMul"]
    weight = onnx.numpy_helper.to_array(before.graph.initializer[0])
    np.testing.assert_array_equal(weight, random(64, 64))
    command = shlex.split((folder / "command.txt").read_text())
    assert command[:2] == ["scalpel-opt", str(folder / "before.onnx")]
    assert command[command.index("--input-shape") + 1] == "X:3,64"
    assert command[command.index("--weights") + 1] == "bf16"
    assert command[command.index("--skip-pass") + 1] == "clean-up" and step.name not in command[4:]


def test_the_failure_is_told_even_if_no_reproducer_can_be_written(tmp_path):
    (tmp_path / "file").write_text("in the way")
    manager = PassManager([Raises()], reproducer_dir=tmp_path / "file")
    with pytest.raises(
        CheckError, match=r"pass raises failed: the reason in two lines.*could not be written"
    ):
        manager.run(ModelGraph(network()), PassContext(CPU))


def test_shapes_are_fresh_for_the_next_pass():
    looks = Looks()
    proto = network()
    graph = ModelGraph(proto)
    PassManager([Renames(), looks]).run(graph, PassContext(CPU))
    assert looks.seen == ("N", 64)
    assert graph.shape(graph.nodes[-2].outputs[0]) == ("N", 64)


def test_a_model_that_is_broken_as_it_came_is_still_handled_and_that_is_said_once():
    proto = model("(float[4] X, float[5] Z) => (float[4] Y) { a = Identity(X)  b = Add(a, Z)  Y = Neg(a) }")
    graph = ModelGraph(proto)
    records = PassManager([FoldConstants(), CleanUp(), CleanUp()]).run(graph, PassContext(CPU))
    notes = [skip.reason for record in records for skip in record.skipped if "strict checks" in skip.reason]
    assert len(notes) == 1
    assert [node.op for node in graph.nodes] == ["Neg"]


def test_a_pass_that_fails_on_a_broken_model_blames_the_model():
    proto = model("(float[4] X, float[5] Z) => (float[4] Y) { a = Identity(X)  b = Add(a, Z)  Y = Neg(a) }")
    with pytest.raises(
        InputError, match=r"pass raises cannot .*the reason.* refuse it as it came .*; export it"
    ):
        PassManager([Raises()]).run(ModelGraph(proto), PassContext(CPU))


def test_the_list_of_passes_is_distinct_and_complete():
    names = [step.name for step in list_passes()]
    every = {step.name for target in (CPU, load_target("mcu")) for step in pipeline_for(target)}
    assert len(names) == len(set(names)) and set(names) == every
    assert all(step.summary and "\n" not in step.summary for step in list_passes())
