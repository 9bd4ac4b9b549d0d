"""A model that contradicts itself is refused when the session is created, in words that say where."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper

from scalpel_graph import _kernels, group_csr, ops
from scalpel_graph.errors import GroupCsrError
from tests.ort_sessions import run, session
from tests.sparse_layer import SparseLayer, assemble, conv, gemm

Arrays = dict[str, npt.NDArray[Any]]
Attributes = dict[str, Any]
Corruption = Callable[[Arrays, Attributes], None]

GEMM = gemm(12, 40, (2, 4), (3, 40), bias=True)
CONV = conv((12, 4, 3, 3), (2, 4), (1, 8, 9, 9), group=2, pads=(1, 1, 1, 1), bias=True)
SCALED = gemm(12, 40, (2, 4), (3, 40), bias=True, value_type="int8")
LAYERS = {ops.GEMM: GEMM, ops.CONV: CONV, ops.SCALED_GEMM: SCALED}


def setting(name: str, value: Any) -> Corruption:
    """Replaces an array (a function of the old one, or a value) or an attribute."""

    def corrupt(arrays: Arrays, attributes: Attributes) -> None:
        if name in arrays:
            arrays[name] = value(arrays[name]) if callable(value) else value
        else:
            assert name in attributes
            attributes[name] = value

    return corrupt


def together(*corruptions: Corruption) -> Corruption:
    def corrupt(arrays: Arrays, attributes: Attributes) -> None:
        for each in corruptions:
            each(arrays, attributes)

    return corrupt


def without(name: str) -> Corruption:
    def corrupt(_: Arrays, attributes: Attributes) -> None:
        del attributes[name]

    return corrupt


def changed(index: int, value: int) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    def change(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
        array = array.copy()
        array[index] = value
        return array

    return change


def signed(index: int, value: int) -> Callable[[npt.NDArray[Any]], npt.NDArray[Any]]:
    return lambda array: changed(index, value)(array.astype(np.int32))


def duplicated(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Makes two groups of a row block that has several the same."""
    for layer in LAYERS.values():
        arrays = layer.initializers()
        if arrays["column_indices"].shape == array.shape and (arrays["column_indices"] == array).all():
            block = int(np.argmax(np.diff(arrays["row_offsets"]) > 1))
            first = int(arrays["row_offsets"][block])
            return changed(first + 1, int(array[first]))(array)
    raise AssertionError("not the column indices of one of the layers")


def one_too_many(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate([array, array[-1:]])


def ones(*shape: int) -> npt.NDArray[Any]:
    return np.ones(shape, np.float32)


# What is done to it, and what the message must name.
COMMON: dict[str, tuple[Corruption, str]] = {
    "offsets-do-not-start-at-0": (setting("row_offsets", changed(0, 1)), "row_offsets"),
    "offsets-start-below-0": (setting("row_offsets", changed(0, -1)), "row_offsets"),
    "offsets-decrease": (setting("row_offsets", changed(1, 10**6)), "row_offsets"),
    "offsets-negative": (setting("row_offsets", changed(2, -(2**31))), "row_offsets"),
    "offsets-end-beyond-groups": (setting("row_offsets", changed(-1, 10**6)), "row_offsets"),
    "offsets-end-before-groups": (setting("row_offsets", changed(-1, 0)), "row_offsets"),
    "offsets-too-long": (setting("row_offsets", one_too_many), "row_offsets"),
    "offsets-too-short": (setting("row_offsets", lambda a: a[:-1]), "row_offsets"),
    "offsets-empty": (setting("row_offsets", lambda a: a[:0]), "row_offsets"),
    "offsets-int64": (setting("row_offsets", lambda a: a.astype(np.int64)), "row_offsets"),
    "offsets-float": (setting("row_offsets", lambda a: a.astype(np.float32)), "row_offsets"),
    "offsets-matrix": (setting("row_offsets", lambda a: a[:, None]), "row_offsets"),
    "offsets-scalar": (setting("row_offsets", np.int32(0)), "row_offsets"),
    "columns-out-of-range": (setting("column_indices", changed(3, 10)), "column_indices"),
    "columns-far-out-of-range": (setting("column_indices", changed(-1, 65535)), "column_indices"),
    "columns-int32-out-of-range": (setting("column_indices", signed(-1, 2**31 - 1)), "column_indices"),
    "columns-negative": (setting("column_indices", signed(0, -1)), "column_indices"),
    "columns-very-negative": (setting("column_indices", signed(0, -(2**31))), "column_indices"),
    "columns-duplicated": (setting("column_indices", duplicated), "column_indices"),
    "columns-too-long": (setting("column_indices", one_too_many), "column_indices"),
    "columns-too-short": (setting("column_indices", lambda a: a[:-1]), "column_indices"),
    "columns-int64": (setting("column_indices", lambda a: a.astype(np.int64)), "column_indices"),
    "columns-uint8": (setting("column_indices", lambda a: a.astype(np.uint8)), "column_indices"),
    "columns-int16": (setting("column_indices", lambda a: a.astype(np.int16)), "column_indices"),
    "columns-matrix": (setting("column_indices", lambda a: a[None]), "column_indices"),
    "values-float64": (setting("values", lambda a: a.astype(np.float64)), "values"),
    "values-uint16": (setting("values", lambda a: a.astype(np.uint16)), "values"),
    "values-int8": (setting("values", lambda a: a.astype(np.int8)), "values"),
    "values-float16-matrix": (setting("values", lambda a: a[:, 0].astype(np.float16)), "values"),
    "values-matrix": (setting("values", lambda a: a[:, 0]), "values"),
    "values-rank-4": (setting("values", lambda a: a[None]), "values"),
    "values-scalar": (setting("values", np.float32(0)), "values"),
    "values-r-0": (setting("values", lambda a: a[:, :0]), "values"),
    "values-c-0": (setting("values", lambda a: a[:, :, :0]), "values"),
    "values-too-few": (setting("values", lambda a: a[:-1]), "column_indices"),
    "values-of-more-rows": (setting("values", lambda a: a.repeat(2, axis=1)), "row_offsets"),
    "values-of-more-columns": (
        setting("values", lambda a: np.concatenate([a, a, a], axis=2)),
        "column_indices",
    ),
    "bias-too-long": (setting("bias", ones(13)), "bias"),
    "bias-too-short": (setting("bias", ones(1)), "bias"),
    "bias-matrix": (setting("bias", ones(1, 12)), "bias"),
    "bias-float64": (setting("bias", lambda a: a.astype(np.float64)), "bias"),
    "bias-scalar-not-0": (setting("bias", np.float32(1)), "bias"),
    "bias-integer-0": (setting("bias", np.int32(0)), "bias"),
    "residual-scalar-not-0": (setting("residual", np.float32(0.5)), "residual"),
    "no-weight-shape": (without("weight_shape"), "weight_shape"),
    "no-activation-min": (without("activation_min"), "activation_min"),
    "no-activation-max": (without("activation_max"), "activation_max"),
    "weight-shape-vector": (setting("weight_shape", [12]), "weight_shape"),
    "weight-shape-float": (setting("weight_shape", [12.0, 40.0]), "weight_shape"),
    "activation-bounds-swapped": (
        together(setting("activation_min", 6.0), setting("activation_max", 0.0)),
        "activation_min",
    ),
    "activation-nan": (setting("activation_max", float("nan")), "activation_max"),
    "no-activation-gate": (without("activation_gate"), "activation_gate"),
    "activation-gate-unknown": (setting("activation_gate", 4), "activation_gate must be 0 to 3, got 4"),
    "activation-gate-negative": (setting("activation_gate", -1), "activation_gate must be 0 to 3, got -1"),
    "activation-int": (setting("activation_min", 0), "activation_min"),
}
GEMM_ONLY: dict[str, tuple[Corruption, str]] = {
    "weight-shape-of-more-rows": (
        together(setting("weight_shape", [14, 40]), setting("bias", np.float32(0))),
        "row_offsets",
    ),
    "weight-shape-of-fewer-columns": (setting("weight_shape", [12, 4]), "column_indices"),
    "weight-shape-of-3": (setting("weight_shape", [12, 10, 4]), "weight_shape"),
    "weight-shape-negative": (setting("weight_shape", [12, -40]), "weight_shape"),
    "weight-shape-zero": (setting("weight_shape", [12, 0]), "weight_shape"),
    "weight-shape-overflows": (setting("weight_shape", [2**62, 2**62]), "weight_shape"),
}
CONV_ONLY: dict[str, tuple[Corruption, str]] = {
    "weight-shape-of-more-rows": (
        together(setting("weight_shape", [16, 4, 3, 3]), setting("bias", np.float32(0))),
        "row_offsets",
    ),
    "weight-shape-of-fewer-columns": (setting("weight_shape", [12, 1, 1, 1]), "column_indices"),
    "weight-shape-of-2": (setting("weight_shape", [12, 36]), "weight_shape"),
    "weight-shape-of-5": (setting("weight_shape", [12, 4, 3, 3, 1]), "weight_shape"),
    "weight-shape-overflows": (setting("weight_shape", [2**40, 2**20, 2**20, 1]), "weight_shape"),
    "kernel-of-0": (setting("weight_shape", [12, 4, 0, 3]), "weight_shape"),
    "group-0": (setting("group", 0), "group"),
    "group-negative": (setting("group", -2), "group"),
    "group-does-not-divide": (setting("group", 5), "group"),
    "group-overflows": (setting("group", 2**62), "group"),
    "row-block-straddles-groups": (setting("group", 4), "group"),
    "no-strides": (without("strides"), "strides"),
    "no-pads": (without("pads"), "pads"),
    "no-dilations": (without("dilations"), "dilations"),
    "no-group": (without("group"), "group"),
    "strides-too-short": (setting("strides", [1]), "strides"),
    "strides-0": (setting("strides", [1, 0]), "strides"),
    "strides-overflow": (setting("strides", [1, 2**62]), "strides"),
    "dilations-too-long": (setting("dilations", [1, 1, 1]), "dilations"),
    "dilations-negative": (setting("dilations", [-1, 1]), "dilations"),
    "dilations-overflow": (setting("dilations", [2**62, 1]), "dilations"),
    "pads-too-short": (setting("pads", [1, 1]), "pads"),
    "pads-negative": (setting("pads", [0, 0, 0, -1]), "pads"),
    "pads-overflow": (setting("pads", [2**62, 0, 0, 0]), "pads"),
}
SCALED_ONLY: dict[str, tuple[Corruption, str]] = {
    "values-float32": (setting("values", lambda a: a.astype(np.float32)), "values must be int8"),
    "scales-too-many": (setting("w_scale", ones(13)), "w_scale must be float32 [12] or a scalar"),
    "scales-float64": (setting("w_scale", lambda a: a.astype(np.float64)), "w_scale"),
    "scale-infinite": (setting("w_scale", np.float32("inf")), "w_scale is not finite"),
}
CASES = [
    pytest.param(op_type, corrupt, named, id=f"{op_type}-{name}")
    for op_type, own in ((ops.GEMM, {**COMMON, **GEMM_ONLY}), (ops.CONV, {**COMMON, **CONV_ONLY}))
    for name, (corrupt, named) in own.items()
] + [
    pytest.param(ops.SCALED_GEMM, corrupt, named, id=f"{ops.SCALED_GEMM}-{name}")
    for name, (corrupt, named) in SCALED_ONLY.items()
]


@pytest.mark.parametrize(("op_type", "corrupt", "named"), CASES)
def test_a_corrupted_part_is_named_when_the_session_is_created(
    op_type: str, corrupt: Corruption, named: str
) -> None:
    layer = LAYERS[op_type]
    arrays, attributes = layer.initializers(), layer.attributes()
    session(assemble(op_type, arrays, attributes, x_dims=layer.x_shape))
    corrupt(arrays, attributes)
    arrays = {name: np.asarray(array) for name, array in arrays.items()}
    with pytest.raises(Exception) as error:
        session(assemble(op_type, arrays, attributes, x_dims=layer.x_shape))
    assert type(error.value).__module__.startswith("onnxruntime")
    assert op_type in str(error.value)
    assert "'layer'" in str(error.value)
    assert named in str(error.value).split("'layer'")[1]


@pytest.mark.parametrize("name", ["values", "row_offsets", "column_indices", "bias"])
@pytest.mark.parametrize("op_type", ops.GROUP_CSR_OPERATORS)
def test_an_array_that_is_an_input_of_the_graph_is_refused(op_type: str, name: str) -> None:
    model = LAYERS[op_type].model()
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    model.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    with pytest.raises(
        Exception, match=rf"{op_type} node 'layer': input \d, {name}, is not a constant: store it"
    ):
        session(model)


@pytest.mark.parametrize("op_type", ops.GROUP_CSR_OPERATORS)
def test_a_missing_input_is_refused(op_type: str) -> None:
    model = LAYERS[op_type].model()
    del model.graph.node[0].input[5]
    with pytest.raises(Exception, match=op_type):
        session(model)


@pytest.mark.parametrize("op_type", ops.GROUP_CSR_OPERATORS)
def test_an_input_that_is_not_float32_is_refused(op_type: str) -> None:
    model = LAYERS[op_type].model()
    model.graph.input[0].type.tensor_type.elem_type = helper.np_dtype_to_tensor_dtype(np.dtype(np.float64))
    with pytest.raises(Exception, match=op_type):
        session(model)


@pytest.mark.parametrize(
    ("layer", "shape", "words"),
    [
        (GEMM, (3, 41), r"X \[3, 41\] must have the shape \[\.\.\., 40\]"),
        (GEMM, (), r"X \[\] must have the shape \[\.\.\., 40\]"),
        (CONV, (1, 7, 9, 9), r"X \[1, 7, 9, 9\] must have the shape \[N, 8, H, W\]"),
        (CONV, (1, 8, 9), r"X \[1, 8, 9\] must have the shape \[N, 8, H, W\]"),
        (CONV, (1, 8, 9, 0), r"X \[1, 8, 9, 0\] with its pads is smaller than the kernel"),
    ],
)
def test_an_input_of_another_shape_is_refused_by_the_call(
    layer: SparseLayer, shape: tuple[int, ...], words: str
) -> None:
    model = layer.model()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    running = session(model)
    with pytest.raises(Exception, match=f"{layer.op_type} node 'layer': {words}"):
        running.run(None, {"x": np.zeros(shape, np.float32)})
    feeds = layer.feeds()
    np.testing.assert_allclose(running.run(None, feeds)[0], layer.expected(feeds), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("op_type", ops.GROUP_CSR_OPERATORS)
@pytest.mark.parametrize("shape", [(), (1,), (12,), (1, 12), (3, 1), (3, 13), (1, 3, 12), (1, 1, 1, 1)])
def test_a_residual_of_another_shape_is_refused_by_the_call(op_type: str, shape: tuple[int, ...]) -> None:
    layer = SparseLayer(**{**vars(LAYERS[op_type]), "has_residual": True})
    feeds = layer.feeds()
    model = layer.model()
    with pytest.raises(Exception, match=f"{op_type} node 'layer': residual .* must have the output's shape"):
        run(model, {**feeds, "residual": np.zeros(shape, np.float32)})


@pytest.mark.parametrize("isa", [isa for isa in _kernels.isas() if isa != "scalar"])
def test_a_call_that_needs_more_memory_than_there_is_says_so(
    isa: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SCALPEL_ISA", isa)
    most = 2**31 - 1
    layer = conv((1, 1, 2, 2), (1, 1), (1, 1, 2, 2), dilations=(most, most), pads=(most, most, 0, 0))
    with pytest.raises(Exception, match=r"GroupCsrConv node 'layer': no memory for \d+ bytes of workspace"):
        run(layer.model(), layer.feeds())


def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALPEL_ISA", "abacus")
    with pytest.raises(Exception, match=r"GroupCsrGemm node 'layer': .*abacus"):
        session(GEMM.model())


@st.composite
def nearly_valid(draw: st.DrawFn) -> group_csr.GroupCsr:
    """A small matrix with up to three numbers of its arrays replaced."""
    group_shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    M, K = draw(st.integers(1, 7)), draw(st.integers(1, 9))
    weights = np.array(draw(st.lists(st.integers(0, 1), min_size=M * K, max_size=M * K)), np.float32)
    matrix = group_csr.encode(weights.reshape(M, K), group_shape)
    columns = matrix.column_indices.astype(draw(st.sampled_from([np.uint16, np.int32])))
    for _ in range(draw(st.integers(0, 3))):
        array = draw(st.sampled_from([matrix.row_offsets, columns]))
        if array.size:
            array[draw(st.integers(0, array.size - 1))] = draw(
                st.integers(0, 9) | st.integers(np.iinfo(array.dtype).min, np.iinfo(array.dtype).max)
            )
    return group_csr.GroupCsr(matrix.values, matrix.row_offsets, columns, (M, K))


@settings(max_examples=300, deadline=None)
@given(nearly_valid())
def test_a_session_is_created_exactly_where_the_specification_finds_nothing_wrong(
    matrix: group_csr.GroupCsr,
) -> None:
    zero = np.zeros((), np.float32)
    model = assemble(
        ops.GEMM,
        {
            "values": matrix.values,
            "row_offsets": matrix.row_offsets,
            "column_indices": matrix.column_indices,
            "bias": zero,
            "residual": zero,
        },
        {
            "weight_shape": list(matrix.shape),
            "activation_min": -float("inf"),
            "activation_max": float("inf"),
            "activation_gate": 0,
        },
        x_dims=(2, matrix.shape[1]),
    )
    try:
        weights = group_csr.decode(matrix)
    except GroupCsrError as error:
        with pytest.raises(Exception, match=f"GroupCsrGemm node 'layer': {re.escape(str(error))}"):
            session(model)
        return
    x = np.arange(2 * matrix.shape[1], dtype=np.float32).reshape(2, -1)
    np.testing.assert_allclose(run(model, {"x": x}), x @ weights.T)
