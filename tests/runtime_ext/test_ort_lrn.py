"""WindowedLrn in ONNX Runtime with the library: what it computes, infers and refuses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from scalpel_graph import _kernels, ops
from tests.lrn_layer import BETAS, LrnLayer, assemble, lrn, uneven
from tests.ort_sessions import run, session
from tests.sparse_layer import OPSETS, Dims

LAYERS = {
    **{f"beta-{beta}": lrn((2, 7, 5, 6), beta=beta) for beta in BETAS},
    "uneven": uneven((2, 12, 9, 13)),
    "larger": lrn((2, 40, 31, 33)),
    "1d": lrn((2, 6, 11), size=2),
    "3d": lrn((1, 6, 3, 4, 2), size=4),
}
NORM = LAYERS["beta-0.75"]
TOLERANCE = {"rtol": 3e-6, "atol": 1e-7}


@pytest.mark.parametrize("isa", _kernels.isas())
@pytest.mark.parametrize("layer", LAYERS.values(), ids=LAYERS.keys())
def test_it_computes_the_definition(layer: LrnLayer, isa: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALPEL_ISA", isa)
    feeds = layer.feeds()
    for threads in (1, 2):
        y = run(layer.model(), feeds, threads=threads)
        np.testing.assert_allclose(y, layer.expected(feeds["x"]), **TOLERANCE)


@pytest.mark.parametrize("opset", OPSETS)
def test_the_library_runs_in_place_of_the_function(opset: int, tmp_path: Any) -> None:
    path = tmp_path / "optimized.onnx"
    session(NORM.model(opset), save_to=path)
    assert [node.op_type for node in onnx.load(path).graph.node] == [ops.LRN]


def test_one_session_takes_any_size() -> None:
    running = session(NORM.model(x_dims=["b", 7, "h", "w"]), threads=2)
    for batch, h, w in [(1, 1, 1), (2, 5, 6), (3, 17, 40), (1, 60, 55), (0, 5, 6), (2, 0, 6)]:
        x = np.random.default_rng(batch).standard_normal((batch, 7, h, w)).astype(np.float32)
        np.testing.assert_allclose(running.run(None, {"x": x})[0], NORM.expected(x), **TOLERANCE)


@pytest.mark.parametrize(
    ("layer", "x"), [(NORM, ["b", 7, "h", "w"]), (NORM, [3, 7, 5, "w"]), (LAYERS["1d"], ["b", 6, 9])]
)
def test_onnx_runtime_infers_the_shape_of_the_input(layer: LrnLayer, x: Dims) -> None:
    assert session(layer.model(x_dims=x)).get_outputs()[0].shape == x


def test_a_size_that_is_not_known_leaves_the_shape_open() -> None:
    model = NORM.model(x_dims=[None, 7, 5, None])
    assert all(not isinstance(dim, int) or dim >= 0 for dim in session(model).get_outputs()[0].shape)
    model.graph.input[0].type.tensor_type.ClearField("shape")
    feeds = NORM.feeds()
    np.testing.assert_allclose(run(model, feeds), NORM.expected(feeds["x"]), **TOLERANCE)


def put(name: str, change: Callable[[Any], Any]) -> Callable[[dict[str, Any], dict[str, Any]], None]:
    """A corruption of an array or an attribute; None takes an attribute away."""

    def corrupt(arrays: dict[str, Any], attributes: dict[str, Any]) -> None:
        parts = arrays if name in arrays else attributes
        parts[name] = change(parts[name])
        if parts[name] is None:
            del parts[name]

    return corrupt


def at(index: int, value: int) -> Callable[[Any], Any]:
    def change(array: Any) -> Any:
        array = array.copy()
        array[index] = value
        return array

    return change


CORRUPTIONS = {
    "begin-negative": (put("window_begin", at(3, -1)), "window_begin[3] = -1 is outside the 7 channels"),
    "begin-beyond": (put("window_begin", at(0, 8)), "window_begin[0] = 8 is outside the 7 channels"),
    "end-beyond": (put("window_end", at(6, 8)), "window_end[6] = 8 is outside the 7 channels"),
    "end-before": (put("window_end", at(5, 2)), "window_end[5] = 2 is before window_begin[5] = 3"),
    "begin-int64": (
        put("window_begin", lambda a: a.astype(np.int64)),
        "window_begin must be int32 [7], got int64 [7]",
    ),
    "begin-short": (put("window_begin", lambda a: a[:6]), "window_begin must be int32 [7], got int32 [6]"),
    "begin-empty": (put("window_begin", lambda a: a[:0]), "window_begin must be int32 [7], got int32 [0]"),
    "end-long": (put("window_end", lambda a: a.repeat(2)), "window_end must be int32 [7], got int32 [14]"),
    "end-matrix": (put("window_end", lambda a: a[None]), "window_end must be int32 [7], got int32 [1, 7]"),
    "end-scalar": (put("window_end", lambda a: a[0]), "window_end must be int32 [7], got int32 []"),
    "bias-short": (put("bias", lambda a: a[:1]), "bias must be float32 [7], got float32 [1]"),
    "bias-float64": (
        put("bias", lambda a: a.astype(np.float64)),
        "bias must be float32 [7], got float64 [7]",
    ),
    "no-weight-shape": (put("weight_shape", lambda _: None), "weight_shape (ints) is missing"),
    "no-alpha": (put("alpha", lambda _: None), "alpha (float) is missing"),
    "no-beta": (put("beta", lambda _: None), "beta (float) is missing"),
    "beta-other": (put("beta", lambda _: 2.0), "beta must be 0.5, 0.75 or 1, got 2.0"),
    "beta-int": (put("beta", lambda _: 1), "beta (float) is missing"),
    "weight-shape-matrix": (
        put("weight_shape", lambda _: [7, 7]),
        "weight_shape [7, 7] must be [C, C, 1, ...]",
    ),
    "weight-shape-oblong": (put("weight_shape", lambda _: [7, 6, 1, 1]), "weight_shape [7, 6, 1, 1] must be"),
    "weight-shape-3x3": (put("weight_shape", lambda _: [7, 7, 3, 3]), "weight_shape [7, 7, 3, 3] must be"),
    "weight-shape-negative": (
        put("weight_shape", lambda _: [-7, -7, 1, 1]),
        "weight_shape [-7, -7, 1, 1] must",
    ),
    "weight-shape-huge": (
        put("weight_shape", lambda _: [2**62, 2**62, 1, 1]),
        "window_begin must be int32 [4611686018427387904], got int32 [7]",
    ),
}


@pytest.mark.parametrize(("corrupt", "words"), CORRUPTIONS.values(), ids=CORRUPTIONS.keys())
def test_a_corrupted_part_is_named_when_the_session_is_created(corrupt: Any, words: str) -> None:
    arrays, attributes = NORM.initializers(), NORM.attributes()
    session(assemble(arrays, attributes, x_dims=NORM.x_shape))
    corrupt(arrays, attributes)
    with pytest.raises(Exception) as error:
        session(assemble(arrays, attributes, x_dims=NORM.x_shape))
    assert type(error.value).__module__.startswith("onnxruntime")
    assert "WindowedLrn node 'norm': " in str(error.value)
    assert words in str(error.value)


@pytest.mark.parametrize("name", ["window_begin", "window_end", "bias"])
def test_an_array_that_is_an_input_of_the_graph_is_refused(name: str) -> None:
    model = NORM.model()
    (tensor,) = (tensor for tensor in model.graph.initializer if tensor.name == name)
    model.graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
    with pytest.raises(
        Exception, match=rf"WindowedLrn node 'norm': input \d, {name}, is not a constant: store it"
    ):
        session(model)


@pytest.mark.parametrize("shape", [(1, 6, 5, 5), (1, 7, 5), (1, 7, 5, 5, 5), (7,), ()])
def test_an_input_of_another_shape_is_refused_by_the_call(shape: tuple[int, ...]) -> None:
    model = NORM.model()
    model.graph.input[0].type.tensor_type.ClearField("shape")
    running = session(model)
    words = r"WindowedLrn node 'norm': X \[.*\] must have the shape \[N, 7, \.\.\.\] with 4 dimensions"
    with pytest.raises(Exception, match=words):
        running.run(None, {"x": np.zeros(shape, np.float32)})
    feeds = NORM.feeds()
    np.testing.assert_allclose(running.run(None, feeds)[0], NORM.expected(feeds["x"]), **TOLERANCE)


def test_an_unknown_instruction_set_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCALPEL_ISA", "abacus")
    with pytest.raises(Exception, match=r"WindowedLrn node 'norm': .*abacus"):
        session(NORM.model())
