"""Models that rewriters tend to break: each goes through the whole tool and must come out equal."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser

import scalpel_graph

_rng = np.random.default_rng(7)


def _sparse(M: int, K: int, dtype: type = np.float32) -> np.ndarray:
    """``[M, K]`` with one in ten 4×1 blocks kept."""
    mask = np.kron(_rng.random((-(-M // 4), K)) < 0.1, np.ones((4, 1)))[:M]
    return (_rng.standard_normal((M, K)) * mask / np.sqrt(0.1 * K)).astype(dtype)


def _init(name: str, array: np.ndarray) -> TensorProto:
    return numpy_helper.from_array(array, name)


def _value(name: str, shape: list[int | str] | None, dtype: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, shape)


def _model(nodes, inputs, outputs, initializers=(), opset: int = 17, **kwargs) -> ModelProto:
    imports = [helper.make_opsetid("", opset), *kwargs.pop("imports", [])]
    graph = helper.make_graph(nodes, "unusual", inputs, outputs, list(initializers))
    return helper.make_model(graph, opset_imports=imports, ir_version=kwargs.pop("ir_version", 8), **kwargs)


def _gemm(
    x: str, y: str, M: int, K: int, dtype: type = np.float32
) -> tuple[onnx.NodeProto, list[TensorProto]]:
    node = helper.make_node("Gemm", [x, f"{y}.w", f"{y}.b"], [y], name=f"{y}.gemm", transB=1)
    return node, [
        _init(f"{y}.w", _sparse(M, K, dtype)),
        _init(f"{y}.b", _rng.standard_normal(M).astype(dtype)),
    ]


def _sparse_layers(result: scalpel_graph.OptimizeResult) -> int:
    return sum(node.domain == "ai.scalpel" for node in result.model.graph.node)


def _optimize(model: ModelProto, **options) -> scalpel_graph.OptimizeResult:
    onnx.checker.check_model(model)
    result = scalpel_graph.optimize(model, target="cpu", **options)
    assert result.report.verified.ok, result.report.verified.reason
    onnx.checker.check_model(result.model, full_check=True)
    return result


def test_lstm_between_sparse_layers() -> None:
    first, weights = _gemm("x2", "h", 512, 512)
    last, more = _gemm("s2", "y", 512, 256)
    nodes = [
        helper.make_node("Reshape", ["x", "flat"], ["x2"]),
        first,
        helper.make_node("Reshape", ["h", "steps"], ["h3"]),
        helper.make_node("LSTM", ["h3", "w", "r", "b"], ["", "s"], hidden_size=256),
        helper.make_node("Reshape", ["s", "flat_out"], ["s2"]),
        last,
    ]
    weights += [
        *more,
        _init("flat", np.array([-1, 512])),
        _init("steps", np.array([5, -1, 512])),
        _init("flat_out", np.array([-1, 256])),
        _init("w", _rng.standard_normal((1, 1024, 512)).astype(np.float32) / 20),
        _init("r", _rng.standard_normal((1, 1024, 256)).astype(np.float32) / 20),
        _init("b", _rng.standard_normal((1, 2048)).astype(np.float32)),
    ]
    result = _optimize(_model(nodes, [_value("x", [5, 1, 512])], [_value("y", [1, 512])], weights))
    assert _sparse_layers(result) == 2


def test_if_reads_outer_names() -> None:
    """Both branches read the output and the weight of a layer that would otherwise change."""
    gemm, weights = _gemm("x", "h", 512, 512)
    relu = helper.make_node("Relu", ["h"], ["r"])
    then = helper.make_graph(
        [helper.make_node("Add", ["h", "h.b"], ["a"])], "then", [], [_value("a", [1, 512])]
    )
    other = helper.make_graph(
        [helper.make_node("MatMul", ["r", "h.w"], ["m"])], "else", [], [_value("m", [1, 512])]
    )
    nodes = [gemm, relu, helper.make_node("If", ["c"], ["y"], then_branch=then, else_branch=other)]
    model = _model(
        nodes,
        [_value("x", [1, 512]), _value("c", [], TensorProto.BOOL)],
        [_value("y", [1, 512])],
        weights,
    )
    result = _optimize(model)
    for condition in (True, False):
        inputs = {"x": _rng.standard_normal((1, 512)).astype(np.float32), "c": np.array(condition)}
        np.testing.assert_allclose(_run(result.model, inputs), _run(model, inputs), rtol=1e-3, atol=1e-4)


def _run(model: ModelProto, inputs: dict[str, np.ndarray]) -> np.ndarray:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


def test_loop_body_reads_outer_weight() -> None:
    gemm, weights = _gemm("x", "h", 512, 512)
    body = helper.make_graph(
        [
            helper.make_node("MatMul", ["state", "h.w"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [_value("i", [], TensorProto.INT64), _value("go", [], TensorProto.BOOL), _value("state", [1, 512])],
        [_value("go_on", [], TensorProto.BOOL), _value("next", [1, 512])],
    )
    nodes = [gemm, helper.make_node("Loop", ["n", "", "h"], ["y"], body=body)]
    weights += [_init("n", np.array(3))]
    _optimize(_model(nodes, [_value("x", [1, 512])], [_value("y", [1, 512])], weights))


def test_channels_go_in_the_body_of_a_loop() -> None:
    """Of 512 features 128 stay zero in every iteration: they go outside of the body and in it."""
    gemm, weights = _gemm("x", "h", 512, 64)
    inner, more = _gemm("state", "m", 512, 512)
    for tensor in (*weights, *more):
        values = numpy_helper.to_array(tensor).copy()
        values[:128] = 0
        tensor.raw_data = values.tobytes()
    body = helper.make_graph(
        [
            inner,
            helper.make_node("Relu", ["m"], ["next"]),
            helper.make_node("Identity", ["go"], ["go_on"]),
        ],
        "body",
        [_value("i", [], TensorProto.INT64), _value("go", [], TensorProto.BOOL), _value("state", None)],
        [_value("go_on", [], TensorProto.BOOL), _value("next", None)],
        more,
    )
    last, end = _gemm("y", "z", 512, 512)
    loop = helper.make_node("Loop", ["n", "", "h"], ["y"], name="loop", body=body)
    model = _model(
        [gemm, loop, last],
        [_value("x", ["batch", 64]), _value("n", [], TensorProto.INT64)],
        [_value("z", ["batch", 512])],
        [*weights, *end],
    )
    result = scalpel_graph.optimize(model, target="gpu")
    assert result.report.verified.ok
    removed = {entry.name: (entry.before, entry.after) for entry in result.report.removed_nodes}
    assert removed == {"h.gemm": (512, 384), "loop/body/m.gemm": (512, 384), "z.gemm": (512, 512)}
    assert result.report.parameters.after < 0.8 * result.report.parameters.before
    for count in (0, 1, 4):
        inputs = {"x": _rng.standard_normal((3, 64)).astype(np.float32), "n": np.array(count)}
        np.testing.assert_allclose(_run(result.model, inputs), _run(model, inputs), rtol=1e-3, atol=1e-4)


def test_a_quantized_layer_becomes_sparse_with_a_float_result() -> None:
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["xq"]),
        helper.make_node("DequantizeLinear", ["xq", "s", "z"], ["xd"]),
        helper.make_node("DequantizeLinear", ["wq", "ws", "wz"], ["wd"]),
        helper.make_node("Gemm", ["xd", "wd"], ["y"], transB=1),
    ]
    weights = [
        _init("s", np.float32(0.05)),
        _init("z", np.int8(0)),
        _init("wq", (_sparse(512, 512) * 20).astype(np.int8)),
        _init("ws", np.float32(0.01)),
        _init("wz", np.int8(0)),
    ]
    result = _optimize(_model(nodes, [_value("x", [1, 512])], [_value("y", [1, 512])], weights))
    assert [node.op_type for node in result.model.graph.node] == [
        "QuantizeLinear",
        "GroupCsrGemmIntegerToFloat",
    ]


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_precisions(dtype: type) -> None:
    gemm, weights = _gemm("x", "y", 512, 512, dtype)
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    model = _model([gemm], [_value("x", [1, 512], kind)], [_value("y", [1, 512], kind)], weights)
    result = _optimize(model)
    assert _sparse_layers(result) == 0
    reasons = [skip.reason for run in result.report.passes for skip in run.skipped]
    assert any(np.dtype(dtype).name in reason or "float" in reason for reason in reasons)


def test_string_input() -> None:
    gemm, weights = _gemm("x", "y", 512, 512)
    nodes = [gemm, helper.make_node("Identity", ["s"], ["t"])]
    model = _model(
        nodes,
        [_value("x", [1, 512]), _value("s", ["n"], TensorProto.STRING)],
        [_value("y", [1, 512]), _value("t", ["n"], TensorProto.STRING)],
        weights,
    )
    assert _sparse_layers(_optimize(model)) == 1


def test_sequence_input() -> None:
    gemm, weights = _gemm("first", "y", 512, 512)
    nodes = [helper.make_node("SequenceAt", ["s", "zero"], ["first"]), gemm]
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, [1, 512])
    weights += [_init("zero", np.array(0))]
    assert _sparse_layers(_optimize(_model(nodes, [sequence], [_value("y", [1, 512])], weights))) == 1


def test_zero_size_dimension() -> None:
    gemm, weights = _gemm("x", "y", 512, 512)
    model = _model([gemm], [_value("x", [0, 512])], [_value("y", [0, 512])], weights)
    _optimize(model)


def test_symbolic_dimensions_stay_symbolic() -> None:
    gemm, weights = _gemm("x", "h", 512, 512)
    nodes = [gemm, helper.make_node("Relu", ["h"], ["y"])]
    model = _model(nodes, [_value("x", ["batch", 512])], [_value("y", ["batch", 512])], weights)
    result = _optimize(model)
    assert _sparse_layers(result) == 1
    for batch in (1, 3):
        inputs = {"x": _rng.standard_normal((batch, 512)).astype(np.float32)}
        np.testing.assert_allclose(_run(result.model, inputs), _run(model, inputs), rtol=1e-3, atol=1e-4)


def test_symbolic_image_size() -> None:
    weight = _sparse(64, 64 * 9).reshape(64, 64, 3, 3)
    nodes = [helper.make_node("Conv", ["x", "w"], ["y"], pads=[1, 1, 1, 1])]
    shape: list[int | str] = ["n", 64, "h", "w_"]
    model = _model(nodes, [_value("x", shape)], [_value("y", shape)], [_init("w", weight)])
    result = scalpel_graph.optimize(model, target="cpu", input_shapes={"x": [1, 64, 28, 28]})
    assert result.report.verified.ok
    for size in ((1, 5, 9), (2, 28, 28)):
        inputs = {"x": _rng.standard_normal((size[0], 64, *size[1:])).astype(np.float32)}
        np.testing.assert_allclose(_run(result.model, inputs), _run(model, inputs), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("opset", [7, 9, 11, 12])
def test_old_opsets(opset: int) -> None:
    gemm, weights = _gemm("x", "h", 512, 512)
    nodes = [gemm, helper.make_node("Relu", ["h"], ["y"])]
    model = _model(
        nodes, [_value("x", [1, 512])], [_value("y", [1, 512])], weights, opset=opset, ir_version=4
    )
    assert _sparse_layers(_optimize(model)) == 1


def test_initializers_listed_as_inputs_by_an_old_exporter() -> None:
    gemm, weights = _gemm("x", "y", 512, 512)
    inputs = [_value("x", [1, 512]), *(_value(w.name, list(w.dims)) for w in weights)]
    model = _model([gemm], inputs, [_value("y", [1, 512])], weights, opset=9, ir_version=3)
    result = _optimize(model)
    assert _sparse_layers(result) == 1
    assert [value.name for value in result.model.graph.input] == ["x"]


def test_overridable_weight_stays() -> None:
    gemm, weights = _gemm("x", "y", 512, 512)
    inputs = [_value("x", [1, 512]), *(_value(w.name, list(w.dims)) for w in weights)]
    model = _model([gemm], inputs, [_value("y", [1, 512])], weights)
    result = _optimize(model)
    assert _sparse_layers(result) == 0
    assert [value.name for value in result.model.graph.input] == [value.name for value in inputs]


def test_local_function_is_kept() -> None:
    gemm, weights = _gemm("x", "h", 512, 512)
    double = helper.make_function(
        "my.domain",
        "Double",
        ["a"],
        ["b"],
        [helper.make_node("Add", ["a", "a"], ["b"])],
        [helper.make_opsetid("", 17)],
    )
    nodes = [gemm, helper.make_node("Double", ["h"], ["y"], domain="my.domain")]
    model = _model(
        nodes,
        [_value("x", [1, 512])],
        [_value("y", [1, 512])],
        weights,
        imports=[helper.make_opsetid("my.domain", 1)],
        functions=[double],
    )
    result = _optimize(model)
    assert _sparse_layers(result) == 1
    assert double.SerializeToString() in [f.SerializeToString() for f in result.model.functions]


def test_other_custom_domain() -> None:
    """com.microsoft operators are known to ONNX Runtime but not to onnx."""
    gemm, weights = _gemm("x", "h", 512, 512)
    nodes = [gemm, helper.make_node("Gelu", ["h"], ["y"], domain="com.microsoft")]
    model = _model(
        nodes,
        [_value("x", [1, 512])],
        [_value("y", [1, 512])],
        weights,
        imports=[helper.make_opsetid("com.microsoft", 1)],
    )
    assert _sparse_layers(_optimize(model)) == 1


def test_operator_nobody_knows_leaves_the_model_as_it_is() -> None:
    gemm, weights = _gemm("x", "h", 512, 512)
    nodes = [gemm, helper.make_node("Mystery", ["h"], ["y"], domain="some.where")]
    model = _model(
        nodes,
        [_value("x", [1, 512])],
        [_value("y", [1, 512])],
        weights,
        imports=[helper.make_opsetid("some.where", 1)],
    )
    result = scalpel_graph.optimize(model, target="cpu")
    assert result.model.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert "Mystery" in result.report.verified.reason


def test_random_network_is_left_as_it_is() -> None:
    gemm, weights = _gemm("n", "y", 512, 512)
    nodes = [
        helper.make_node("RandomNormalLike", ["x"], ["r"]),
        helper.make_node("Add", ["x", "r"], ["n"]),
        gemm,
    ]
    model = _model(nodes, [_value("x", [1, 512])], [_value("y", [1, 512])], weights)
    result = scalpel_graph.optimize(model, target="cpu")
    assert result.model.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
    assert result.report.verified.reason


def test_weight_shared_and_returned() -> None:
    """One weight in two layers, read from both sides, and a graph output itself."""
    weight = _sparse(512, 512)
    nodes = [
        helper.make_node("Gemm", ["x", "w"], ["a"], transB=1),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MatMul", ["b", "w"], ["y"]),
    ]
    model = _model(
        nodes, [_value("x", [1, 512])], [_value("y", [1, 512]), _value("w", [512, 512])], [_init("w", weight)]
    )
    result = _optimize(model)
    assert _sparse_layers(result) >= 1
    assert "w" in [tensor.name for tensor in result.model.graph.initializer]


def test_metadata_survives() -> None:
    gemm, weights = _gemm("x", "y", 512, 512)
    gemm.doc_string = "the layer"
    model = _model(
        [helper.make_node("Relu", ["x"], ["r"], doc_string="kept"), gemm],
        [_value("x", [1, 512])],
        [_value("y", [1, 512])],
        weights,
        producer_name="somebody",
        model_version=3,
        doc_string="a model",
    )
    gemm.input[0] = "r"
    model.graph.node[1].input[0] = "r"
    model.graph.doc_string = "a graph"
    helper.set_model_props(model, {"author": "me"})
    result = _optimize(model).model
    assert (result.producer_name, result.model_version, result.doc_string) == ("somebody", 3, "a model")
    assert result.graph.doc_string == "a graph"
    assert [(p.key, p.value) for p in result.metadata_props] == [("author", "me")]
    assert result.graph.node[0].doc_string == "kept"


def test_result_goes_through_again_unchanged() -> None:
    """A model that carries our operators is input like any other."""
    gemm, weights = _gemm("x", "h", 512, 512)
    nodes = [gemm, helper.make_node("Relu", ["h"], ["y"])]
    once = _optimize(_model(nodes, [_value("x", ["n", 512])], [_value("y", ["n", 512])], weights)).model
    twice = _optimize(once)
    assert not twice.report.modified
    assert twice.model.SerializeToString(deterministic=True) == once.SerializeToString(deterministic=True)


def test_empty_graph_and_pass_through() -> None:
    model = parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> g (float[2] x) => (float[2] x) {}')
    result = scalpel_graph.optimize(model, target="cpu")
    assert result.model.SerializeToString(deterministic=True) == model.SerializeToString(deterministic=True)
