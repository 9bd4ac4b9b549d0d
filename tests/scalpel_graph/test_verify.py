"""The check of a result against its original: what it accepts, what it catches, what it cannot say."""

import tempfile
import weakref
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scalpel_graph import group_csr, io, ops, verify
from scalpel_graph import session as session_module
from scalpel_graph.errors import CheckError, InputError, Unverifiable
from scalpel_graph.session import session

FLOAT, INT64, BOOL, STRING = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL, TensorProto.STRING
value = helper.make_tensor_value_info
LIBRARY = Path("operators.so")


def model_of(nodes, inputs, outputs, weights=None, opset: int = 17) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "main",
        inputs,
        outputs,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=8)


def weights(seed: int = 0) -> np.ndarray:
    dense = np.random.default_rng(seed).standard_normal((16, 24)).astype(np.float32)
    dense[np.random.default_rng(seed + 1).random((16, 24)) < 0.8] = 0
    return dense


def dense_model(matrix: np.ndarray | None = None, batch: int | str = "N") -> onnx.ModelProto:
    return model_of(
        [helper.make_node("Gemm", ["x", "w", "b"], ["g"], transB=1), helper.make_node("Relu", ["g"], ["y"])],
        [value("x", FLOAT, [batch, 24])],
        [value("y", FLOAT, [batch, 16])],
        {"w": weights() if matrix is None else matrix, "b": np.linspace(-1, 1, 16, dtype=np.float32)},
    )


def sparse_model(matrix: np.ndarray | None = None) -> onnx.ModelProto:
    encoded = group_csr.encode(weights() if matrix is None else matrix, (1, 4))
    node = helper.make_node(
        ops.GEMM,
        ["x", "values", "row_offsets", "column_indices", "b", "none"],
        ["y"],
        domain=ops.DOMAIN,
        weight_shape=[16, 24],
        activation_min=0.0,
        activation_max=float("inf"),
        activation_gate=0,
    )
    model = model_of(
        [node],
        [value("x", FLOAT, ["N", 24])],
        [value("y", FLOAT, ["N", 16])],
        {
            "values": encoded.values,
            "row_offsets": encoded.row_offsets,
            "column_indices": encoded.column_indices,
            "b": np.linspace(-1, 1, 16, dtype=np.float32),
            "none": np.float32(0),
        },
    )
    ops.add_functions(model, [ops.GEMM])
    return model


def check(before: onnx.ModelProto, after: onnx.ModelProto, **options) -> verify.Verification:
    return verify.verify(io.from_proto(before), after, **options)


def pretend_library(monkeypatch, substitute: onnx.ModelProto) -> list[Path | None]:
    """Stands in for the operator library: where it is registered, ``substitute`` runs. Returns the calls."""
    calls: list[Path | None] = []

    def pretend(model, *, library=None, **options):
        calls.append(library)
        return session(model if library is None else substitute, **options)

    monkeypatch.setattr(verify, "session", pretend)
    return calls


# -- what is accepted ---------------------------------------------------------------------------------------


def test_a_model_equals_itself():
    result = check(dense_model(), dense_model(), library=LIBRARY)
    assert result == verify.Verification(True, 0.0, 0.0, 2, custom_ops=False, fallback=True)


def test_operators_are_checked_both_ways(monkeypatch):
    calls = pretend_library(monkeypatch, dense_model())
    result = check(dense_model(), sparse_model(), library=LIBRARY)
    assert result.ok and result.custom_ops and result.fallback and not result.reason
    assert result.max_abs_diff < 1e-5
    assert calls == [None, LIBRARY, None]


def test_without_a_library_only_the_functions_are_checked():
    result = check(dense_model(), sparse_model())
    assert result.ok and result.fallback and not result.custom_ops
    assert check(dense_model(), sparse_model(), runs=5).runs == 5


def test_an_original_with_our_operators_is_run_by_its_functions():
    result = check(sparse_model(), dense_model(), library=LIBRARY)
    assert result.ok and result.fallback and not result.custom_ops


def test_rounding_is_accepted_and_measured():
    matrix = weights()
    result = check(dense_model(), dense_model(matrix * np.float32(1 + 1e-5)))
    assert result.ok
    assert 0 < result.max_rel_diff < 2e-5
    assert 0 < result.max_abs_diff < 1e-4
    assert not check(dense_model(), dense_model(matrix * np.float32(1 + 1e-5)), rtol=1e-7, atol=1e-7).ok


def test_only_one_session_is_alive_at_a_time(monkeypatch):
    alive: weakref.WeakSet = weakref.WeakSet()
    most = 0

    def counting(*args, library=None, **kwargs):
        nonlocal most
        made = session(*args, **kwargs)
        alive.add(made)
        most = max(most, len(alive))
        return made

    monkeypatch.setattr(verify, "session", counting)
    assert check(dense_model(), sparse_model(), library=LIBRARY).ok
    assert most == 1


def test_large_models_are_checked_through_files(tmp_path, monkeypatch):
    path, temporary = tmp_path / "in.onnx", tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    for module in (verify, session_module):
        monkeypatch.setattr(module, "IN_MEMORY_BYTES", 1000)
    io.save(dense_model(), path, external_data=True)
    loaded = io.load(path)
    assert loaded.uses_external_data
    given, sparing = [], []

    def recording(model, *, library=None, **options):
        given.append(model)
        sparing.append([name for name in ("prepack", "fold") if not options.get(name, True)])
        return session(model, **options)

    monkeypatch.setattr(verify, "session", recording)
    assert verify.verify(loaded, sparse_model(), library=LIBRARY).ok
    assert sparing == [["prepack"], [], ["fold"]]
    assert given[0] == path
    # The result, which is not a file yet, is written once for both ways of running it.
    assert temporary in given[1].parents and given[1] == given[2]
    assert not list(temporary.iterdir())


def test_a_large_original_whose_file_cannot_be_mapped_is_checked_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(verify, "IN_MEMORY_BYTES", 1000)
    io.save(dense_model(), tmp_path / "in.onnx", external_data=True)
    loaded = io.load(tmp_path / "in.onnx")
    for file in tmp_path.glob("*.data"):
        file.unlink()
    assert verify.verify(loaded, dense_model()).ok


# -- what is caught -----------------------------------------------------------------------------------------


def test_a_perturbed_weight_is_caught():
    matrix = weights()
    row, column = np.argwhere(matrix)[7]
    for wrong in (matrix[row, column] * 1.1, 0.0):
        matrix = weights()
        matrix[row, column] = wrong
        for after in (dense_model(matrix), sparse_model(matrix)):
            result = check(dense_model(), after, runs=4)
            assert not result.ok and not result.fallback
            assert result.max_abs_diff > 0
            assert "output 'y'" in result.reason and "run" in result.reason and "is allowed" in result.reason
            assert "\n" not in result.reason


def test_an_error_of_one_way_only_is_caught_and_named(monkeypatch):
    wrong = weights() * np.float32(1.01)
    pretend_library(monkeypatch, dense_model(wrong))
    result = check(dense_model(), sparse_model(), library=LIBRARY)
    assert not result.ok and not result.custom_ops and result.fallback
    assert "with the operator library" in result.reason
    pretend_library(monkeypatch, dense_model())
    result = check(dense_model(), sparse_model(wrong), library=LIBRARY)
    assert not result.ok and result.custom_ops and not result.fallback
    assert "without the operator library" in result.reason


def elementwise(op: str, **attributes) -> onnx.ModelProto:
    return model_of(
        [helper.make_node(op, ["x"], ["y"], **attributes)],
        [value("x", FLOAT, [100])],
        [value("y", FLOAT, [100])],
    )


def test_nan_in_other_places_is_caught():
    wide = model_of(
        [helper.make_node("Div", ["x", "zeros"], ["y"])],
        [value("x", FLOAT, [3])],
        [value("y", FLOAT, [3])],
        {"zeros": np.array([0, 1, 1], np.float32)},
    )
    moved = onnx.ModelProto()
    moved.CopyFrom(wide)
    moved.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([1, 0, 1], np.float32), "zeros"))
    assert check(wide, wide).ok
    result = check(wide, moved)
    assert not result.ok and "inf" in result.reason


@pytest.mark.parametrize("kind", ["indices", "bools", "strings", "sequence"])
def test_what_is_no_float_must_be_equal(kind):
    def model(axis: int) -> onnx.ModelProto:
        nodes, outputs = {
            "indices": ([helper.make_node("ArgMax", ["x"], ["y"], axis=axis)], [value("y", INT64, None)]),
            "bools": (
                [helper.make_node("Greater" if axis else "Less", ["x", "zero"], ["y"])],
                [value("y", BOOL, [4, 4])],
            ),
            "strings": (
                [helper.make_node("Greater" if axis else "Less", ["x", "zero"], ["b"]),
                 helper.make_node("Cast", ["b"], ["y"], to=STRING)],
                [value("y", STRING, [4, 4])],
            ),
            "sequence": (
                [helper.make_node("SplitToSequence", ["x"], ["y"], axis=axis)],
                [helper.make_tensor_sequence_value_info("y", FLOAT, None)],
            ),
        }[kind]  # fmt: skip
        return model_of(nodes, [value("x", FLOAT, [4, 4])], outputs, {"zero": np.float32(0)})

    assert check(model(0), model(0)).ok
    result = check(model(0), model(1))
    assert not result.ok and "output 'y'" in result.reason


def test_another_interface_is_caught():
    renamed = dense_model()
    renamed.graph.node[1].output[0] = renamed.graph.output[0].name = "z"
    assert "outputs ['z'] instead of ['y']" in check(dense_model(), renamed).reason
    needs_more = dense_model()
    needs_more.graph.input.append(value("extra", FLOAT, [1]))
    assert "cannot run the result" in check(dense_model(), needs_more).reason
    other_type = dense_model()
    other_type.graph.node.append(helper.make_node("Cast", ["y"], ["z"], to=TensorProto.DOUBLE))
    other_type.graph.output[0].CopyFrom(value("z", TensorProto.DOUBLE, None))
    other_type.graph.node[1].output[0], other_type.graph.node[2].input[0] = "r", "r"
    other_type.graph.node[2].output[0] = other_type.graph.output[0].name = "y"
    assert "type float64 instead of float32" in check(dense_model(), other_type).reason


def test_a_result_that_does_not_load_or_run_is_caught(capfd):
    unknown = dense_model()
    unknown.graph.node[1].op_type = "Rely"
    result = check(dense_model(), unknown)
    assert not result.ok and "cannot load the result" in result.reason and "\n" not in result.reason
    narrow = dense_model(batch=1)
    result = check(dense_model(), narrow)
    assert not result.ok and "run 2 of 2" in result.reason, "a result that takes a batch of 1 only is wrong"
    assert capfd.readouterr() == ("", "")


# -- inputs -------------------------------------------------------------------------------------------------


def seen_inputs(monkeypatch, model: onnx.ModelProto, **options) -> list[dict]:
    """The input sets that a check of a model against itself used in the end."""
    seen: list[verify._Run] = []
    real = verify._run_original
    with monkeypatch.context() as patch:
        patch.setattr(verify, "_run_original", lambda *args: seen.extend(real(*args)) or seen)
        assert check(model, model, **options).ok
    return [run.inputs for run in seen]


def test_open_batches_are_1_and_2(monkeypatch):
    shapes = [inputs["x"].shape for inputs in seen_inputs(monkeypatch, dense_model(), runs=3)]
    assert shapes == [(1, 24), (2, 24), (1, 24)]


def test_given_sizes_are_used(monkeypatch):
    for options in ({"dimensions": {"N": 5}}, {"shapes": {"x": (5, 24)}}):
        assert {inputs["x"].shape for inputs in seen_inputs(monkeypatch, dense_model(), **options)} == {
            (5, 24)
        }


def test_a_batch_the_model_cannot_take_is_left(monkeypatch):
    model = model_of(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [value("x", FLOAT, ["N", 4])],
        [value("y", FLOAT, None)],
        {"shape": np.array([2, 2])},
    )
    seen = seen_inputs(monkeypatch, model)
    assert [inputs["x"].shape for inputs in seen] == [(1, 4), (1, 4)]
    assert not np.array_equal(seen[0]["x"], seen[1]["x"])


def test_other_sizes_are_tried(monkeypatch):
    kernel = np.ones((1, 3, 100, 100), np.float32)
    model = model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"])],
        [value("x", FLOAT, [None, None, "H", "W"])],
        [value("y", FLOAT, None)],
        {"w": kernel},
    )
    assert [inputs["x"].shape for inputs in seen_inputs(monkeypatch, model)] == [
        (1, 3, 224, 224),
        (2, 3, 224, 224),
    ]


def test_other_integers_are_tried(monkeypatch):
    # Five is the only limit there is, and nothing in the graph says that it is one.
    model = model_of(
        [helper.make_node("Add", ["i", "one"], ["j"]), helper.make_node("Gather", ["t", "j"], ["y"])],
        [value("i", INT64, [50])],
        [value("y", FLOAT, [50])],
        {"one": np.array([1]), "t": np.arange(3, dtype=np.float32)},
    )
    assert all(inputs["i"].max() == 1 for inputs in seen_inputs(monkeypatch, model))


def test_floats_that_keep_the_outputs_finite_are_preferred(monkeypatch):
    assert all((inputs["x"] > 0).all() for inputs in seen_inputs(monkeypatch, elementwise("Log")))
    infinite = model_of(
        [helper.make_node("Div", ["x", "zero"], ["y"])], [value("x", FLOAT, [9])], [value("y", FLOAT, [9])],
        {"zero": np.float32(0)},
    )  # fmt: skip
    assert (seen_inputs(monkeypatch, infinite)[0]["x"] < 0).any()


def test_given_inputs_take_the_place_of_made_ones(monkeypatch):
    given = {"x": np.full((3, 24), 0.5, np.float32)}
    seen = seen_inputs(monkeypatch, dense_model(), check_inputs=given, runs=7)
    assert len(seen) == 1 and seen[0] is given
    with pytest.raises(InputError, match=r"given inputs .* --check-inputs"):
        check(dense_model(), dense_model(), check_inputs={"x": np.ones((3, 23), np.float32)})


# -- what cannot be said ------------------------------------------------------------------------------------


def test_an_original_that_onnxruntime_cannot_load_is_unverifiable(capfd):
    newer, unknown = dense_model(), dense_model()
    newer.opset_import[0].version = 999
    unknown.graph.node[1].domain = "somebody.else"
    unknown.opset_import.append(helper.make_opsetid("somebody.else", 1))
    for model in (newer, unknown):
        with pytest.raises(Unverifiable, match="cannot load the original") as caught:
            check(model, model)
        assert "\n" not in str(caught.value)
    assert not issubclass(Unverifiable, CheckError)
    assert capfd.readouterr() == ("", "")


def test_an_original_that_takes_no_generated_inputs_is_unverifiable(capfd):
    model = model_of(
        [helper.make_node("Reshape", ["x", "shape"], ["y"])],
        [value("x", FLOAT, [4]), value("shape", INT64, [3])],
        [value("y", FLOAT, None)],
    )
    with pytest.raises(Unverifiable, match=r"on generated inputs .* --check-inputs") as caught:
        check(model, model)
    assert "\n" not in str(caught.value)
    good = {"x": np.ones(4, np.float32), "shape": np.array([2, 1, 2])}
    assert check(model, model, check_inputs=good).ok
    assert capfd.readouterr() == ("", "")


def test_inputs_that_cannot_be_made_are_unverifiable():
    model = model_of(
        [helper.make_node("Relu", ["x"], ["y"])], [value("x", FLOAT, None)], [value("y", FLOAT, None)]
    )
    with pytest.raises(Unverifiable, match="no stated rank"):
        check(model, model)
    assert check(model, model, shapes={"x": (2, 2)}).ok


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("RandomNormalLike", ["x"], ["y"]),
        helper.make_node("RandomUniformLike", ["x"], ["y"], seed=1.0),
        helper.make_node("Bernoulli", ["half"], ["y"]),
        helper.make_node("Dropout", ["x", "ratio", "yes"], ["y"]),
    ],
    ids=lambda node: node.op_type,
)
def test_an_original_that_draws_random_numbers_is_unverifiable(node):
    model = model_of(
        [helper.make_node("Sigmoid", ["x"], ["half"]), node],
        [value("x", FLOAT, [50])],
        [value("y", FLOAT, [50])],
        {"ratio": np.float32(0.5), "yes": np.array(True)},
    )
    with pytest.raises(Unverifiable, match="each time it runs"):
        check(model, model)


def test_random_numbers_that_agree_by_luck_are_no_mismatch():
    def model(probability: float) -> onnx.ModelProto:
        return model_of(
            [
                helper.make_node("Bernoulli", ["p"], ["b"], name="coin"),
                helper.make_node("Mul", ["x", "b"], ["y"]),
            ],
            [value("x", FLOAT, [50])],
            [value("y", FLOAT, [50])],
            {"p": np.full(50, probability, np.float32)},
        )

    assert check(model(1.0), model(1.0)).ok
    with pytest.raises(Unverifiable, match=r"random numbers .*'coin'"):
        check(model(1.0), model(0.0))


def test_random_operators_are_found_inside_subgraphs():
    draw = helper.make_node("RandomUniform", [], ["r"], shape=[2], low=0.0, high=0.0)
    branch = helper.make_graph([draw], "b", [], [value("r", FLOAT, [2])])

    def model(offset: float) -> onnx.ModelProto:
        return model_of(
            [
                helper.make_node("If", ["c"], ["i"], then_branch=branch, else_branch=branch),
                helper.make_node("Add", ["i", "o"], ["y"]),
            ],
            [value("c", BOOL, [])],
            [value("y", FLOAT, [2])],
            {"o": np.float32(offset)},
        )

    with pytest.raises(Unverifiable, match="RandomUniform"):
        check(model(0), model(1))


def test_an_unusable_library_is_no_mismatch(tmp_path):
    with pytest.raises(InputError, match="operator library cannot be loaded"):
        check(dense_model(), sparse_model(), library=tmp_path / "none.so")
