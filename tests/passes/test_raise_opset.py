import numpy as np
from onnx import helper, version_converter

from scalpel_graph.passes.fuse_activation import FuseActivation
from scalpel_graph.passes.raise_opset import RaiseOpset
from scalpel_graph.passes.substitute_group_csr import SubstituteGroupCsr
from tests.pass_runner import EAGER, model, op_types, random, reasons, run, sparse, weights_of

PASSES = (RaiseOpset(), SubstituteGroupCsr(), FuseActivation())

OLD = """(float[N, 16] X) => (float[N, 1, 8] Y)
         { a = Gemm<transB = 1>(X, W, b)  c = Clip<min = 0.0, max = 6.0>(a)
           d = Unsqueeze<axes = [1]>(c)  e = Softmax<axis = 2>(d)  Y = Dropout(e) }"""


def old_model(**options):
    return model(OLD, {"W": sparse(8, 16), "b": random(8)}, **{"opset": 9, **options})


def test_an_old_model_with_a_sparse_layer_is_converted():
    out, records = run(old_model(), *PASSES, target=EAGER)
    assert [entry.version for entry in out.opset_import if not entry.domain] == [13]
    assert op_types(out)[0] == "GroupCsrGemm"
    assert records["fuse-activation"].rewritten
    assert records["raise-opset"].rewritten


def test_old_initializers_that_ir_version_3_lists_stay_constants():
    proto = old_model(ir_version=3)
    for name, values in weights_of(proto).items():
        proto.graph.input.append(helper.make_tensor_value_info(name, 1, values.shape))
    out, _ = run(proto, *PASSES, target=EAGER)
    assert op_types(out)[0] == "GroupCsrGemm"
    assert [value.name for value in out.graph.input] == ["X"]


def test_metadata_survives():
    proto = old_model()
    proto.doc_string, proto.producer_name = "model", "somebody"
    helper.set_model_props(proto, {"license": "any"})
    proto.graph.node[0].doc_string, proto.graph.node[0].name = "the layer", "fc"
    proto.graph.node[2].name = "unsqueeze"
    proto.graph.name = "mine"
    out, _ = run(proto, RaiseOpset(), target=EAGER)
    assert (out.doc_string, out.producer_name, out.graph.name) == ("model", "somebody", "mine")
    assert {entry.key: entry.value for entry in out.metadata_props} == {"license": "any"}
    assert out.graph.node[0].name == "fc" and out.graph.node[0].doc_string == "the layer"


def test_nothing_worth_it_leaves_the_opset():
    proto = model(OLD, {"W": random(8, 16), "b": random(8)}, opset=9)
    out, records = run(proto, *PASSES, target=EAGER)
    assert [entry.version for entry in out.opset_import] == [9]
    assert not records["raise-opset"].modified and not records["raise-opset"].skipped


def test_large_weights_do_not_pass_through_the_converter():
    proto = model(
        "(float[1, 128] X) => (float[1, 64] Y) { Y = Gemm<transB = 1>(X, W, b) }",
        {"W": sparse(64, 128), "b": random(64)},
        opset=11,
    )
    proto.graph.input.append(helper.make_tensor_value_info("b", 1, [64]))
    out, _ = run(proto, RaiseOpset(), target=EAGER, feeds={"b": random(64, seed=3)})
    np.testing.assert_array_equal(weights_of(out)["W"], sparse(64, 128))
    assert [value.name for value in out.graph.input] == ["X", "b"]


def test_what_cannot_be_converted_is_left_with_a_reason():
    proto = model(
        """(float[1, 16] X, bool c) => (float[1, 8] Y)
           { a = Gemm<transB = 1>(X, W, b)
             Y = If(c) <then_branch = t () => (float[1, 8] o) { o = Neg(a) },
                        else_branch = e () => (float[1, 8] p) { p = Abs(a) }> }""",
        {"W": sparse(8, 16), "b": random(8)},
        opset=11,
    )
    out, records = run(proto, *PASSES, target=EAGER)
    assert "it has subgraphs" in reasons(records["raise-opset"])["g"]
    assert "opset 11" in reasons(records["substitute-group-csr"])["a"]
    assert out.SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)


def test_an_error_of_the_converter_is_a_reason(monkeypatch):
    def refuse(*_):
        raise RuntimeError("No Adapter\nfor Foo")

    monkeypatch.setattr(version_converter, "convert_version", refuse)
    _, records = run(old_model(), *PASSES, target=EAGER)
    assert reasons(records["raise-opset"])["g"] == "cannot be brought to opset 13: No Adapter for Foo"


def test_local_functions_are_not_risked():
    proto = old_model(opset=12, ir_version=8)
    body = [helper.make_node("Neg", ["x"], ["y"])]
    proto.functions.append(
        helper.make_function("custom", "F", ["x"], ["y"], body, [helper.make_opsetid("", 12)])
    )
    proto.opset_import.append(helper.make_opsetid("custom", 1))
    del proto.graph.node[1:]
    proto.graph.node.append(helper.make_node("F", ["a"], ["Y"], domain="custom"))
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("Y", 1, ["N", 8]))
    _, records = run(proto, *PASSES, target=EAGER)
    assert "local functions" in reasons(records["raise-opset"])["g"]
