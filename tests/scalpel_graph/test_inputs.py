"""Generated inputs run in ONNX Runtime; given ones are checked against the model."""

from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, TypeProto, helper, numpy_helper

from scalpel_graph import ops
from scalpel_graph.errors import InputError, Unverifiable
from scalpel_graph.inputs import (
    Recipe,
    has_open_dimensions,
    load_check_inputs,
    make_inputs,
    parse_input_shapes,
    required_inputs,
    symbol_sizes,
)
from scalpel_graph.session import run, session

FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64
value = helper.make_tensor_value_info


def model_of(nodes, inputs, outputs=(), weights=None, opset: int = 18, **fields) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "main",
        inputs,
        outputs,
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (weights or {}).items()],
    )
    imports = [helper.make_opsetid("", opset), helper.make_opsetid("ai.onnx.ml", 3)]
    return helper.make_model(graph, opset_imports=imports, ir_version=10, **fields)


def inputs_only(*inputs) -> onnx.ModelProto:
    return model_of([], inputs)


def runs(model: onnx.ModelProto, **options) -> dict[str, np.ndarray]:
    """Makes inputs and runs the model on them."""
    return run(session(model), make_inputs(model, seed=0, **options))


@pytest.mark.parametrize(
    "data_type",
    [number for number in TensorProto.DataType.values() if number not in (0, 27, 28)],
    ids=TensorProto.DataType.Name,
)
def test_every_element_type_gets_values(data_type):
    model = inputs_only(value("x", data_type, [40, 50]))
    x = make_inputs(model, seed=1)["x"]
    assert x.shape == (40, 50)
    assert x.dtype == helper.tensor_dtype_to_np_dtype(data_type)
    if data_type != TensorProto.STRING:
        assert len(np.unique(x.astype(np.complex128))) > 1
    same, other = make_inputs(model, seed=1)["x"], make_inputs(model, seed=2)["x"]
    assert np.array_equal(x, same) and not np.array_equal(x, other)
    for kind in ("bits", "ones", "zeros"):
        for floats in ("normal", "positive", "ones"):
            recipe = Recipe(integers=kind, floats=floats)
            assert make_inputs(model, seed=1, recipe=recipe)["x"].shape == (40, 50)


def test_floats_are_standard_normal_and_integers_small():
    x = make_inputs(inputs_only(value("x", FLOAT, [100, 100])), seed=0)["x"]
    assert abs(x.mean()) < 0.05 and abs(x.std() - 1) < 0.05
    for data_type, top in (
        (INT64, 9),
        (TensorProto.INT16, 9),
        (TensorProto.UINT8, 255),
        (TensorProto.INT4, 7),
    ):
        x = make_inputs(inputs_only(value("x", data_type, [100, 100])), seed=0)["x"].astype(np.int64)
        assert x.min() == 0 and x.max() == top


@pytest.mark.parametrize("shape", [[], [0], [3, 0, 2], [1], [2, 1, 3]])
@pytest.mark.parametrize(
    "data_type", [FLOAT, INT64, TensorProto.BOOL, TensorProto.STRING, TensorProto.BFLOAT16]
)
def test_scalars_and_empty_shapes_run(shape, data_type):
    model = model_of(
        [helper.make_node("Identity", ["x"], ["y"])],
        [value("x", data_type, shape)],
        [value("y", data_type, shape)],
    )
    assert runs(model)["y"].shape == tuple(shape)


@pytest.mark.parametrize(
    "data_type", [TensorProto.BFLOAT16, TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2FNUZ]
)
def test_types_numpy_lacks_go_through_onnxruntime(data_type):
    model = model_of(
        [helper.make_node("Cast", ["x"], ["f"], to=FLOAT), helper.make_node("Identity", ["x"], ["y"])],
        [value("x", data_type, ["N", 9])],
        [value("f", FLOAT, ["N", 9]), value("y", data_type, ["N", 9])],
        opset=19,
    )
    x = make_inputs(model, seed=3)
    outputs = run(session(model), x)
    np.testing.assert_array_equal(outputs["f"], x["x"].astype(np.float32))
    assert outputs["y"].dtype == x["x"].dtype
    np.testing.assert_array_equal(outputs["y"], x["x"])


def test_packed_integers_go_through_onnxruntime():
    model = model_of(
        [helper.make_node("DequantizeLinear", ["x", "scale"], ["y"])],
        [value("x", TensorProto.INT4, [3, 5])],
        [value("y", FLOAT, [3, 5])],
        {"scale": np.float32(0.5)},
        opset=21,
    )
    x = {"x": np.arange(-8, 7).reshape(3, 5).astype(ml_dtypes.int4)}
    np.testing.assert_array_equal(run(session(model), x)["y"], x["x"].astype(np.float32) / 2)


def test_inputs_with_a_default_are_left_out():
    model = model_of(
        [], [value("x", FLOAT, [2]), value("w", FLOAT, [3])], weights={"w": np.ones(3, np.float32)}
    )
    sparse = model.graph.sparse_initializer.add(dims=[4])
    sparse.values.name = "s"
    model.graph.input.append(value("s", FLOAT, [4]))
    assert list(make_inputs(model, seed=0)) == ["x"]
    assert [v.name for v in required_inputs(model)] == ["x"]


# -- shapes -------------------------------------------------------------------------------------------------


def test_one_symbol_has_one_size():
    model = inputs_only(
        value("a", FLOAT, ["N", "T"]), value("b", FLOAT, ["T", "N", None]), value("c", FLOAT, [-1, 4])
    )
    shapes = {name: x.shape for name, x in make_inputs(model, seed=0).items()}
    assert shapes == {"a": (1, 1), "b": (1, 1, 1), "c": (1, 4)}
    given = make_inputs(model, seed=0, dimensions={"N": 3, "T": 5})
    assert {name: x.shape for name, x in given.items()} == {"a": (3, 5), "b": (5, 3, 1), "c": (1, 4)}
    shaped = make_inputs(model, seed=0, shapes={"b": (7, 2, 9)})
    assert {name: x.shape for name, x in shaped.items()} == {"a": (2, 7), "b": (7, 2, 9), "c": (1, 4)}
    batch = make_inputs(inputs_only(value("a", FLOAT, ["N", "T"])), seed=0, recipe=Recipe(batch=2, size=None))
    assert batch["a"].shape == (2, 8)
    image = make_inputs(inputs_only(value("a", FLOAT, [None] * 4)), seed=0, recipe=Recipe(size=None))
    assert image["a"].shape == (1, 3, 64, 64)


def test_open_dimensions_are_noticed():
    model = inputs_only(value("a", FLOAT, ["N", 2]))
    assert has_open_dimensions(model)
    assert not has_open_dimensions(model, {"N": 1})
    assert not has_open_dimensions(model, None, {"a": (1, 2)})
    assert not has_open_dimensions(inputs_only(value("a", FLOAT, [1, 2])))
    assert has_open_dimensions(inputs_only(value("a", FLOAT, None)))


CONV = helper.make_node("Conv", ["x", "w"], ["y"], group=2)
SCALPEL = helper.make_node(ops.CONV, ["x", "v"], ["y"], domain=ops.DOMAIN, weight_shape=[4, 3, 5, 5], group=2)


@pytest.mark.parametrize(
    ("node", "weight", "expected"),
    [
        (CONV, (4, 3, 5, 5), (1, 6, 64, 64)),
        (SCALPEL, (1, 1, 1), (1, 6, 64, 64)),
        (helper.make_node("ConvTranspose", ["x", "w"], ["y"]), (5, 2, 3), (1, 5, 8)),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), (6, 7), (1, 6)),
        (helper.make_node("Gemm", ["x", "w"], ["y"]), (6, 7), (1, 6)),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), (6, 7), (1, 7)),
        (
            helper.make_node(ops.GEMM, ["x", "v"], ["y"], domain=ops.DOMAIN, weight_shape=[3, 8]),
            (1, 1),
            (1, 8),
        ),
    ],
)
@pytest.mark.parametrize("stated", ["rank", "none", "symbols"])
def test_layers_with_weights_say_what_an_open_shape_is(node, weight, expected, stated):
    dims = {"rank": [None] * len(expected), "none": None, "symbols": [f"d{i}" for i in range(len(expected))]}[
        stated
    ]
    model = model_of([node], [value("x", FLOAT, dims)], weights={"w": np.ones(weight, np.float32)})
    assert make_inputs(model, seed=0, recipe=Recipe(size=None))["x"].shape == expected


def test_an_unknown_rank_that_nothing_tells_is_a_clear_refusal():
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], [value("x", FLOAT, None)])
    with pytest.raises(Unverifiable, match="'x' has no stated rank"):
        make_inputs(model, seed=0)
    assert make_inputs(model, seed=0, shapes={"x": (2, 3)})["x"].shape == (2, 3)


def test_an_absurd_shape_is_a_clear_refusal():
    with pytest.raises(Unverifiable, match="too large"):
        make_inputs(inputs_only(value("x", FLOAT, [2**20, 2**20])), seed=0)


# -- integers -----------------------------------------------------------------------------------------------


def through(*nodes_of_middle: str) -> list[onnx.NodeProto]:
    """Identity-like nodes from ``i`` to ``j``."""
    names = ["i", *(f"m{n}" for n in range(len(nodes_of_middle) - 1)), "j"]
    made = []
    for op, a, b in zip(nodes_of_middle, names, names[1:], strict=False):
        extra = {"Unsqueeze": ["zero"], "Reshape": ["flat"], "Concat": [a]}.get(op, [])
        attributes = {"Cast": {"to": INT64}, "Concat": {"axis": 0}}.get(op, {})
        made.append(helper.make_node(op, [a, *extra], [b], **attributes))
    return made


@pytest.mark.parametrize("middle", [("Identity",), ("Cast", "Reshape"), ("Unsqueeze", "Reshape", "Concat")])
@pytest.mark.parametrize(
    ("node", "weights", "below"),
    [
        (helper.make_node("Gather", ["t", "j"], ["y"]), {"t": np.ones((3, 9), np.float32)}, 3),
        (helper.make_node("Gather", ["t", "j"], ["y"], axis=-1), {"t": np.ones((3, 40), np.float32)}, 40),
        (helper.make_node("OneHot", ["j", "depth", "v"], ["y"]),
         {"depth": np.array([17]), "v": np.array([0.0, 1.0], np.float32)}, 17),
    ],
)  # fmt: skip
def test_indices_stay_inside_their_tables(middle, node, weights, below):
    model = model_of(
        [*through(*middle), node],
        [value("i", TensorProto.INT32 if "Cast" in middle else INT64, [1000])],
        [value("y", FLOAT, None)],
        {"zero": np.array([0]), "flat": np.array([-1]), **weights},
    )
    indices = make_inputs(model, seed=0)["i"]
    assert indices.min() == 0 and indices.max() == below - 1
    assert np.isfinite(runs(model)["y"]).all()


@pytest.mark.parametrize(
    ("node", "inputs"),
    [
        (helper.make_node("GatherElements", ["x", "i"], ["y"], axis=1), {"x": [4, 2], "i": [4, 3]}),
        (helper.make_node("GatherND", ["x", "i"], ["y"]), {"x": [4, 2, 3], "i": [50, 2]}),
        (helper.make_node("ScatterND", ["x", "i", "u"], ["y"]), {"x": [2, 3], "i": [2, 1], "u": [2, 3]}),
        (helper.make_node("TopK", ["x", "i"], ["y", "z"]), {"x": [4, 2], "i": [1]}),
        (
            helper.make_node("ReverseSequence", ["x", "i"], ["y"], time_axis=1, batch_axis=0),
            {"x": [50, 3], "i": [50]},
        ),
        (helper.make_node("NegativeLogLikelihoodLoss", ["x", "i"], ["y"]), {"x": [50, 3], "i": [50]}),
    ],
    ids=lambda case: getattr(case, "op_type", ""),
)
def test_integers_that_pick_from_another_input_fit_it(node, inputs):
    ports = [value(name, INT64 if name == "i" else FLOAT, dims) for name, dims in inputs.items()]
    model = model_of([node], ports, [value("y", FLOAT, None)])
    for seed in range(5):
        run(session(model), make_inputs(model, seed=seed))


def test_indices_are_followed_into_subgraphs():
    table = numpy_helper.from_array(np.ones((4, 2), np.float32), "t")
    body = helper.make_graph(
        [helper.make_node("Gather", ["t", "i"], ["b"])], "b", [], [value("b", FLOAT, None)]
    )
    model = model_of(
        [helper.make_node("If", ["c"], ["y"], then_branch=body, else_branch=body)],
        [value("i", INT64, [500]), value("c", TensorProto.BOOL, [])],
    )
    model.graph.initializer.append(table)
    assert make_inputs(model, seed=0)["i"].max() == 3


def test_nothing_is_divided_by_zero():
    for op in ("Div", "Mod"):
        model = model_of(
            [helper.make_node("Reshape", ["b", "flat"], ["c"]), helper.make_node(op, ["a", "c"], ["y"])],
            [value("a", INT64, [1000]), value("b", INT64, [1000])],
            [value("y", INT64, [1000])],
            {"flat": np.array([-1])},
        )
        made = make_inputs(model, seed=0)
        assert made["b"].min() == 1 and made["a"].min() == 0
        runs(model)


# -- other types --------------------------------------------------------------------------------------------


def test_sequences_optionals_and_maps_run():
    sequence = helper.make_tensor_sequence_value_info("s", FLOAT, [2, None])
    model = model_of(
        [helper.make_node("ConcatFromSequence", ["s"], ["y"], axis=1)], [sequence], [value("y", FLOAT, None)]
    )
    assert runs(model)["y"].shape == (2, 6)
    strings = helper.make_tensor_sequence_value_info("s", TensorProto.STRING, None)
    model = model_of([helper.make_node("SequenceLength", ["s"], ["y"])], [strings], [value("y", INT64, [])])
    assert runs(model)["y"] == 3
    optional = helper.make_optional_type_proto(helper.make_tensor_type_proto(FLOAT, ["N", 3]))
    model = model_of(
        [helper.make_node("OptionalGetElement", ["o"], ["y"])],
        [helper.make_value_info("o", optional)],
        [value("y", FLOAT, None)],
    )
    assert runs(model)["y"].shape == (1, 3)
    assert run(session(model), {"o": np.ones((2, 3), np.float32)})["y"].shape == (2, 3)
    of_map = TypeProto()
    of_map.map_type.key_type = TensorProto.STRING
    of_map.map_type.value_type.CopyFrom(helper.make_tensor_type_proto(FLOAT, []))
    model = model_of(
        [
            helper.make_node(
                "DictVectorizer", ["m"], ["y"], domain="ai.onnx.ml", string_vocabulary=["a", "scalpel"]
            )
        ],
        [helper.make_value_info("m", of_map)],
        [value("y", FLOAT, None)],
    )
    assert (runs(model)["y"] != 0).all()


def test_types_nothing_can_be_made_for_are_named():
    of_sparse = TypeProto()
    of_sparse.sparse_tensor_type.elem_type = FLOAT
    for kind, words in (
        (of_sparse, "sparse tensor"),
        (TypeProto(), "unknown type"),
        (helper.make_tensor_type_proto(99, [1]), "element type 99"),
    ):
        with pytest.raises(Unverifiable, match=f"'x'.*{words}"):
            make_inputs(inputs_only(helper.make_value_info("x", kind)), seed=0)


# -- --input-shape ------------------------------------------------------------------------------------------

SHAPED = inputs_only(
    value("x", FLOAT, ["N", 3, "H", "H"]),
    value("input:0", INT64, ["N", None]),
    value("scalar", FLOAT, []),
    value("free", FLOAT, None),
    helper.make_tensor_sequence_value_info("s", FLOAT, None),
)


def test_input_shapes_are_read():
    assert parse_input_shapes([], SHAPED) == {}
    assert parse_input_shapes(["x:2,3,8,8", "input:0: 2, 5", "scalar:", "free:0,4"], SHAPED) == {
        "x": (2, 3, 8, 8),
        "input:0": (2, 5),
        "scalar": (),
        "free": (0, 4),
    }
    assert symbol_sizes(SHAPED, {"x": (2, 3, 8, 8)}) == {"N": 2, "H": 8}


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["x"], "NAME:1,3,224,224"),
        ([":1,2"], "NAME:1,3,224,224"),
        (["x:1,3,8,"], "are not sizes"),
        (["x:1,3,8,b"], "are not sizes"),
        (["x:1,3,8,-8"], "are not sizes"),
        (["x:1,3,8,8.0"], "are not sizes"),
        (["x:1x3x8x8"], "are not sizes"),
        (["x:1,3,8,99999999999999999999"], "are not sizes"),
        (["y:1"], "no such input; its inputs are: x, input:0"),
        (["x:1,3,8"], r"it is \[N, 3, H, H\]; give 4 sizes, not 3"),
        (["x:1,4,8,8"], "dimension 1 .* must be 3, not 4"),
        (["x:1,3,8,9"], "dimension 3 .* must be 8, not 9"),
        (["x:1,3,8,8", "input:0:2,5"], "'input:0': dimension 0 .* must be 1, not 2"),
        (["x:1,3,8,8", "x:1,3,8,8"], "given twice"),
        (["scalar:1"], "give 0 sizes"),
        (["s:1"], "not a tensor"),
    ],
)
def test_unusable_input_shapes_are_refused(texts, words):
    with pytest.raises(InputError, match=words) as caught:
        parse_input_shapes(texts, SHAPED)
    assert "\n" not in str(caught.value)


def test_shapes_given_in_python_are_checked_too():
    with pytest.raises(InputError, match="no such input"):
        make_inputs(SHAPED, seed=0, shapes={"y": (1,)})


# -- --check-inputs -----------------------------------------------------------------------------------------

CHECKED = model_of(
    [],
    [
        value("x", FLOAT, ["N", 3]),
        value("words", TensorProto.STRING, ["N"]),
        value("half", TensorProto.BFLOAT16, [2]),
        value("w", FLOAT, [1]),
    ],
    weights={"w": np.ones(1, np.float32)},
)


def good_arrays() -> dict[str, np.ndarray]:
    return {
        "x": np.ones((2, 3), np.float32),
        "words": np.array(["a", "bc"]),
        "half": np.array([1, 2], ml_dtypes.bfloat16),
    }


def test_check_inputs_are_read(tmp_path):
    path = tmp_path / "in.npz"
    np.savez(path, **good_arrays())
    loaded = load_check_inputs(str(path), CHECKED)
    assert loaded.keys() == good_arrays().keys()
    for name, array in good_arrays().items():
        np.testing.assert_array_equal(loaded[name], array)
    assert loaded["words"].dtype == object
    assert loaded["half"].dtype == ml_dtypes.bfloat16
    np.savez_compressed(path, **good_arrays(), w=np.zeros(1, np.float32))
    assert list(load_check_inputs(path, CHECKED)) == ["x", "words", "half", "w"]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x": None}, "no array for input 'x'"),
        ({"other": np.ones(1)}, "no input 'other'; it must hold: x, words, half"),
        ({"x": np.ones((2, 3))}, "'x' has type float64, but the model takes float32; convert it"),
        ({"x": np.ones((2, 3, 1), np.float32)}, "give 2 sizes, not 3"),
        ({"x": np.ones((2, 4), np.float32)}, "must be 3, not 4"),
        ({"x": np.ones((5, 3), np.float32)}, "must be 5, not 2"),
        ({"half": np.ones(2, np.float32)}, "the model takes bfloat16"),
        ({"x": np.array([None, {}])}, "not a readable .npz file"),
    ],
)
def test_unusable_check_inputs_are_refused(tmp_path, changes, words):
    path = tmp_path / "in.npz"
    np.savez(path, **{name: array for name, array in (good_arrays() | changes).items() if array is not None})
    refused(path, words)


def refused(path: Path, words: str, model: onnx.ModelProto = CHECKED) -> None:
    with pytest.raises(InputError, match=words) as caught:
        load_check_inputs(path, model)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_check_inputs_that_are_no_npz_file_are_refused(tmp_path):
    refused(tmp_path / "none.npz", "no such file")
    refused(tmp_path, "not a readable")
    path = tmp_path / "in.npz"
    for content in (b"", b"text", b"PK\x03\x04", b"\x93NUMPY"):
        path.write_bytes(content)
        refused(path, "not a readable")
    np.save(tmp_path / "in.npy", np.ones(3))
    refused(tmp_path / "in.npy", "not a readable")
    np.savez(path, **good_arrays())
    whole = path.read_bytes()
    for length in range(0, len(whole), 37):
        path.write_bytes(whole[:length])
        refused(path, "not a readable")
    damaged = bytearray(whole)
    damaged[whole.index(b"NUMPY") + 100] ^= 0xFF
    path.write_bytes(damaged)
    refused(path, "not a readable")


def test_check_inputs_hold_tensors_only(tmp_path):
    path = tmp_path / "in.npz"
    np.savez(path, s=np.ones(3, np.float32))
    refused(
        path, "'s' is not a tensor", inputs_only(helper.make_tensor_sequence_value_info("s", FLOAT, None))
    )
