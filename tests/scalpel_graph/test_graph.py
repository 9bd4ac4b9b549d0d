"""The graph gives back what it was given, and answers questions about it correctly."""

import gc
import warnings
import weakref
from pathlib import Path

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper, parser
from onnx.backend.test.case.node import collect_testcases

from scalpel_graph import ops
from scalpel_graph.errors import GraphError
from scalpel_graph.graph import ModelGraph, node_label

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


def model(text: str, ir_version: int = 8, opset: int = 17) -> ModelProto:
    return parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}]> {text}')


def same(a: ModelProto, b: ModelProto) -> bool:
    return a.SerializeToString(deterministic=True) == b.SerializeToString(deterministic=True)


def test_every_model_of_the_onnx_wheel_comes_back_byte_for_byte():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        models = [case.model for case in collect_testcases(None) if case.model is not None]
    models += [onnx.load(path) for path in sorted(DATA.rglob("*.onnx"))]
    assert len(models) > 1500
    for proto in models:
        before = proto.SerializeToString(deterministic=True)
        out = ModelGraph(proto).to_proto()
        assert out.SerializeToString(deterministic=True) == before, proto.graph.name
        assert proto.SerializeToString(deterministic=True) == before, proto.graph.name


def test_everything_a_round_trip_can_lose_is_kept():
    proto = model(
        """agraph (float[N, 4] X, float[4] B) => (float[N, 4] Y)
           <float[4] B = {1, 2, 3, 4}, float[4] C = {1, 1, 1, 1}, float[2] unused = {0, 0}, float[N, 4] sum>
           { sum = Add(X, B)  Y = Mul(sum, C) }"""
    )
    proto.doc_string, proto.graph.doc_string, proto.producer_name = "model", "graph", "somebody"
    helper.set_model_props(proto, {"author": "somebody", "license": "any"})
    proto.graph.node[0].doc_string = "node"
    entry = proto.graph.node[0].metadata_props.add()
    entry.key, entry.value = "namespace", "first"
    entry = proto.graph.metadata_props.add()
    entry.key, entry.value = "origin", "here"
    note = proto.graph.quantization_annotation.add()
    note.tensor_name = "sum"
    entry = note.quant_parameter_tensor_names.add()
    entry.key, entry.value = "SCALE_TENSOR", "C"
    proto.graph.value_info.append(helper.make_tensor_value_info("stray", TensorProto.FLOAT, [1]))
    values = numpy_helper.from_array(np.array([1.0], dtype=np.float32), "sparse")
    indices = numpy_helper.from_array(np.array([2], dtype=np.int64), "indices")
    proto.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [4]))
    proto.training_info.add().algorithm.name = "kept"
    assert same(ModelGraph(proto).to_proto(), proto)


def test_a_default_that_callers_may_replace_is_no_constant():
    proto = model("g (float[4] X, float[4] B) => (float[4] Y) <float[4] B = {1, 2, 3, 4}> { Y = Add(X, B) }")
    graph = ModelGraph(proto)
    bias = graph.nodes[0].inputs[1]
    assert graph.constant(bias) is None and graph.is_overridable(bias)
    assert [value.name for value in graph.inputs] == ["X"]


def test_ir_version_3_lists_initializers_as_inputs_and_they_are_constants():
    proto = model(
        "g (float[4] X, float[4] B) => (float[4] Y) <float[4] B = {1, 2, 3, 4}> { Y = Add(X, B) }", 3, 7
    )
    graph = ModelGraph(proto)
    add = graph.nodes[0]
    assert graph.constant(add.inputs[1]).tolist() == [1, 2, 3, 4]
    add.inputs[1] = graph.add_constant("other", np.ones(4, dtype=np.float32))
    out = graph.to_proto()
    onnx.checker.check_model(out, full_check=True)
    assert [value.name for value in out.graph.input] == ["X", "other"]
    assert [tensor.name for tensor in out.graph.initializer] == ["other"]


def test_names_that_subgraphs_read_are_pinned_until_the_subgraph_goes():
    proto = model(
        """g (float[4] X, bool c) => (float[4] Y)
           { a = Neg(X)
             Y = Neg(X)
             dead = If(c) <then_branch = t () => (float[4] o) { o = Identity(a) },
                           else_branch = e () => (float[4] p) { p = Neg(a) }> }"""
    )
    graph = ModelGraph(proto)
    a = graph.nodes[0].outputs[0]
    assert graph.is_pinned(a) and not graph.is_output(a)
    assert graph.sole_consumer(a) is None
    graph.remove(graph.nodes[2])
    assert not graph.is_pinned(a)
    assert graph.is_pinned(graph.nodes[1].outputs[0])


def test_unused_initializers_stay_until_they_are_asked_to_go():
    proto = model("g (float[4] X) => (float[4] Y) <float[4] B = {1, 2, 3, 4}> { Y = Neg(X) }")
    graph = ModelGraph(proto)
    assert same(graph.to_proto(), proto)
    assert graph.remove_unused_initializers() == ["B"]
    assert not graph.to_proto().graph.initializer
    assert graph.remove_unused_initializers() == []


def test_set_constant_keeps_the_name_unless_somebody_else_reads_it():
    proto = model(
        """g (float[2] X) => (float[2] Y) <float[2] B = {1, 2}, float[2] C = {3, 4}>
           { a = Add(X, B)  b = Add(a, B)  Y = Mul(b, C) }"""
    )
    graph = ModelGraph(proto)
    first, second, third = graph.nodes
    graph.set_constant(third, 1, np.array([5, 6], dtype=np.float32))
    graph.set_constant(first, 1, np.array([7, 8], dtype=np.float32))
    assert third.inputs[1].name == "C" and first.inputs[1].name != "B"
    assert graph.constant(second.inputs[1]).tolist() == [1, 2]
    weights = {t.name: numpy_helper.to_array(t).tolist() for t in graph.to_proto().graph.initializer}
    assert weights == {"B": [1, 2], "C": [5, 6], first.inputs[1].name: [7, 8]}


def test_set_constant_of_another_shape_gets_another_name():
    """The model states shapes of its constants: as graph inputs up to IR version 3, in value_info later."""
    stated = helper.make_tensor_value_info("B", TensorProto.FLOAT, [1])
    for ir_version in (3, 8):
        proto = model("g (float[4] X) => (float[4] Y) <float[1] B = {1}> { Y = Add(X, B) }", ir_version)
        (proto.graph.input if ir_version == 3 else proto.graph.value_info).append(stated)
        graph = ModelGraph(proto)
        graph.set_constant(graph.nodes[0], 1, np.arange(4, dtype=np.float32))
        graph.infer()
        onnx.checker.check_model(graph.to_proto(), full_check=True)


def test_what_cannot_be_represented_is_said(capfd):
    unknown = model("g (float[4] X) => (float[4] Y) <float[4] B = {1, 2, 3, 4}> { Y = Add(X, B) }")
    unknown.graph.initializer[0].data_type = 77
    with pytest.raises(GraphError, match="'B' has element type 77"):
        ModelGraph(unknown)
    foreign = model("g (float[4] X) => (float[4] Y) { Y = Neg(X) }")
    foreign.graph.node[0].op_type, foreign.graph.node[0].domain = ops.GEMM, ops.DOMAIN
    with pytest.raises(GraphError, match="lacks inputs or attributes"):
        ModelGraph(foreign)
    del foreign.graph.node[:]
    foreign.functions.add(domain=ops.DOMAIN, name=ops.GEMM, input=["X"], output=["Y"])
    with pytest.raises(GraphError, match=r"function ai\.scalpel\.GroupCsrGemm of its own"):
        ModelGraph(foreign)
    bfloat16 = model("g (bfloat16[2] X) => (bfloat16[2] Y) { Y = Add(X, B) }")
    bfloat16.graph.initializer.append(helper.make_tensor("B", TensorProto.BFLOAT16, [2], [1, 2]))
    ModelGraph(bfloat16)
    assert capfd.readouterr() == ("", ""), "graphsurgeon's own messages are no business of the caller"


def test_light_model_comes_back_whole():
    weights = numpy_helper.from_array(np.random.default_rng(0).random((64, 64), dtype=np.float32), "W")
    proto = model("g (float[1, 64] X) => (float[1, 64] Y) <float[64] B = {0}> { Y = Neg(X) }")
    del proto.graph.initializer[:]
    proto.graph.node[0].op_type = "MatMul"
    proto.graph.node[0].input.append("W")
    proto.graph.initializer.append(weights)
    graph = ModelGraph(proto)
    light = graph.to_light()
    assert set(light.weights) == {"W"} and not light.model.graph.initializer
    onnx.checker.check_model(light.model, full_check=True)
    assert same(light.full(), proto)
    assert len(light.model.graph.input) == 2


def test_assumed_shapes_resolve_symbols_and_leave_the_graph_alone():
    proto = model("g (float[N, 3, H, W] X) => (float[a, b, c, d] Y) { Y = MaxPool<kernel_shape=[2,2]>(X) }")
    graph = ModelGraph(proto)
    assert graph.assumed_shapes({"H": 9, "W": 5})["Y"] == (1, 3, 8, 4)
    assert graph.shape(graph.nodes[0].inputs[0]) == ("N", 3, "H", "W")
    assert same(graph.to_proto(), proto)


def test_assumed_shapes_of_windows_that_do_not_fit():
    """On a negative size, inference of Slice would end the process."""
    text = """g (float[N, 3, H, 9] X, float[3, 3, 3, 3] W) => (float[N, 3, A, B] Y)
        <int64[1] start = {1}, int64[1] end = {4}, int64[1] axis = {2}>
        { c = Conv(X, W) s = Slice(c, start, end, axis) t = Slice(s, start, end, axis) Y = Relu(t) }"""
    graph = ModelGraph(model(text))
    assert set(graph.assumed_shapes({"N": 1, "H": 1})) == {"X", "W", "start", "end", "axis"}
    assert graph.assumed_shapes({"N": 1, "H": 7})["Y"] == (1, 3, 2, 7)


def test_assumed_shapes_where_a_weight_is_an_output():
    proto = model(
        """g (float[N, 2] X) => (float[N, 2] Y, float[2, 2] W) <float[2, 2] W = {1, 2, 3, 4}>
           { Y = MatMul(X, W) }"""
    )
    assert ModelGraph(proto).assumed_shapes({})["Y"] == (1, 2)


def test_infer_raises_on_a_contradiction_only_if_strict():
    proto = model("g (float[4] X) => (float[5] Y) <float[4] B = {1, 2, 3, 4}> { Y = Add(X, B) }")
    with pytest.raises(onnx.shape_inference.InferenceError):
        ModelGraph(proto).infer()
    ModelGraph(proto).infer(strict=False)


def test_types_that_numpy_has_no_name_for_survive_a_rename():
    proto = model("g () => (bfloat16[2] Y) { Y = Identity(W) }")
    proto.graph.initializer.append(helper.make_tensor("W", TensorProto.BFLOAT16, [2], [1.0, 2.5]))
    graph = ModelGraph(proto)
    node = graph.nodes[0]
    assert graph.type(node.inputs[0]) == TensorProto.BFLOAT16 and graph.shape(node.inputs[0]) == (2,)
    assert node_label(node) == "Y"


def test_edits_add_up_in_any_order():
    graph = ModelGraph(
        model("agraph (float[4] X) => (float[4] Y) { a = Relu(X)  b = Neg(a)  c = Abs(b)  Y = Exp(c) }")
    )
    relu, neg, abs_, exp = graph.nodes

    def new(op):
        return gs.Node(op)

    after, before, last = new("After"), new("Before"), new("Last")
    graph.insert_after(relu, after)
    graph.insert_before(relu, before)
    graph.insert_after(relu, last)
    assert [node.op for node in graph.nodes] == ["Before", "Relu", "Last", "After", "Neg", "Abs", "Exp"]
    # A node that was taken out can take another one's place, as can a new one's successor.
    graph.remove(neg, after)
    graph.replace(abs_, neg)
    first = new("First")
    graph.replace(before, first)
    graph.insert_after(first, before)
    expected = [first, before, relu, last, neg, exp]
    assert [id(node) for node in graph.nodes] == [id(node) for node in expected]
    assert neg.outputs[0].name == "c" and not abs_.outputs


def test_a_weight_that_is_replaced_is_given_up_unless_somebody_else_reads_it():
    graph = ModelGraph(
        model("agraph (float[2] X) => (float[2] Y) <float[2] w = {1, 2}> { a = Mul(X, w)  Y = Add(a, w) }")
    )
    mul, add = graph.nodes
    graph.set_constant(mul, 1, np.ones(2, dtype=np.float32))
    assert graph.constant(add.inputs[1]).tolist() == [1, 2]
    values = weakref.ref(mul.inputs[1]._values)
    gc.disable()
    try:
        graph.set_constant(mul, 1, np.zeros(2, dtype=np.float32))
        assert values() is None
    finally:
        gc.enable()
    assert graph.constant(mul.inputs[1]).tolist() == [0, 0]
