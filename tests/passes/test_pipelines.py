"""The whole pipeline on every model of the onnx wheel, with a profile on which every sparse form pays."""

import warnings
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, numpy_helper
from onnx.backend.test.case.node import collect_testcases

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.manager import PassManager
from scalpel_graph.passes.pipelines import pipeline_for
from tests.pass_runner import CPU, EAGER, model, op_types, outputs, random, run, sparse

DATA = Path(onnx.__file__).parent / "backend" / "test" / "data"


def node_cases():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for case in collect_testcases(None):
            if case.model is not None:
                names = [value.name for value in case.model.graph.input]
                yield (
                    case.model,
                    dict(zip(names, case.data_sets[0][0], strict=False)) if case.data_sets else None,
                )


def file_cases():
    for path in sorted(DATA.rglob("*.onnx")):
        proto = onnx.load(path)
        weights = {tensor.name for tensor in proto.graph.initializer}
        inputs = [value for value in proto.graph.input if value.name not in weights]
        feeds = {}
        for i, value in enumerate(inputs):
            file = path.parent / "test_data_set_0" / f"input_{i}.pb"
            if file.exists() and value.type.HasField("tensor_type"):
                feeds[value.name] = numpy_helper.to_array(onnx.TensorProto.FromString(file.read_bytes()))
            elif "light" in str(path):
                feeds[value.name] = random(*(dim.dim_value for dim in value.type.tensor_type.shape.dim))
        yield proto, feeds if len(feeds) == len(inputs) else None


def pruned(proto: ModelProto) -> ModelProto:
    """A copy with four of five weights in its float matrices and kernels zero."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for tensor in copy.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and len(tensor.dims) >= 2:
            weights = numpy_helper.to_array(tensor)
            kept = random(weights.size).reshape(weights.shape) > 0.85
            tensor.CopyFrom(numpy_helper.from_array(np.where(kept, weights, 0), tensor.name))
    return copy


def valid(proto: ModelProto) -> bool:
    try:
        onnx.checker.check_model(proto, full_check=True)
    except Exception:
        return False
    return True


def test_every_model_of_the_onnx_wheel_comes_out_valid_and_equal():
    compared = sparse_layers = 0
    for original, feeds in [*node_cases(), *file_cases()]:
        proto = pruned(original)
        graph = ModelGraph(proto)
        records = PassManager(pipeline_for(EAGER)).run(graph, PassContext(EAGER))
        out = graph.to_proto()
        if not any(record.modified for record in records):
            assert out.SerializeToString(deterministic=True) == proto.SerializeToString(deterministic=True)
            continue
        assert valid(out) or not valid(proto), proto.graph.name
        assert out.ByteSize() < proto.ByteSize() + 50_000, proto.graph.name
        sparse_layers += sum(node.domain == "ai.scalpel" for node in out.graph.node)
        if feeds is None:
            continue
        try:
            before = outputs(proto, feeds)
        except Exception:  # ONNX Runtime does not run every model
            continue
        compared += 1
        for expected, value in zip(before, outputs(out, feeds), strict=True):
            assert_close(value, expected, proto.graph.name)
    assert compared > 250 and sparse_layers > 10


def assert_close(value, expected, name):
    if isinstance(expected, np.ndarray) and expected.dtype.kind == "f":
        assert value.dtype == expected.dtype and value.shape == expected.shape, name
        tolerance = 2e-2 if expected.dtype == np.float16 else 2e-4
        np.testing.assert_allclose(value, expected, rtol=tolerance, atol=tolerance, err_msg=name)
    else:
        np.testing.assert_equal(value, expected, err_msg=name)


def test_a_residual_block_becomes_three_operators():
    weights = {
        "W1": sparse(16, 32, 1, 1), "W2": sparse(16, 16, 3, 3), "W3": sparse(32, 16, 1, 1),
        "b": random(16, 1, 1), **{f"{key}{n}": np.abs(random(n, seed=i)) + 0.5
                                  for n in (16, 32) for i, key in enumerate("sbmv")},
    }  # fmt: skip
    proto = model(
        """(float[N, 32, 6, 6] X) => (Y)
           { a = Conv(X, W1)  b0 = Add(a, b)  c = BatchNormalization(b0, s16, b16, m16, v16)  d = Relu(c)
             e = Conv<pads = [1, 1, 1, 1]>(d, W2)  f = BatchNormalization(e, s16, b16, m16, v16)
             g = Clip(f, zero, six)  h = Conv(g, W3)  i = BatchNormalization(h, s32, b32, m32, v32)
             j = Add(i, X)  k = Relu(j)  l = Dropout(k)  Y = Identity(l) }""",
        {**weights, "zero": np.float32(0), "six": np.float32(6)},
    )
    out, _ = run(proto, *pipeline_for(EAGER), target=EAGER)
    assert op_types(out) == ["GroupCsrConv"] * 3
    again, records = run(out, *pipeline_for(EAGER), target=EAGER)
    assert op_types(again) == op_types(out) and not any(record.modified for record in records.values())


def test_a_transformer_feed_forward_block_becomes_two_operators():
    proto = model(
        """(float[B, S, 16] X) => (Y)
           { a = MatMul(X, W1)  b = Add(a, b1)  c = Relu(b)
             d = MatMul(c, W2)  e = Add(b2, d)  Y = Add(e, X) }""",
        {"W1": sparse(64, 16).T, "b1": random(64), "W2": sparse(16, 64).T, "b2": random(16)},
    )
    out, _ = run(proto, *pipeline_for(EAGER), target=EAGER)
    assert op_types(out)[0] == "GroupCsrGemm" and len(out.graph.node) <= 3
    dense, _ = run(
        model(
            "(float[B, S, 16] X) => (Y) { a = MatMul(X, W1)  Y = Add(a, b1) }",
            {"W1": random(16, 64), "b1": random(64)},
        ),
        *pipeline_for(CPU),
    )
    assert op_types(dense) == ["MatMul", "Add"]


def test_models_without_the_standard_operator_set_pass_through():
    proto = model("(float[2] X) => (float[2] Y) { Y = custom.Foo(X) }")
    del proto.opset_import[:]
    proto.opset_import.append(onnx.helper.make_opsetid("custom", 1))
    graph = ModelGraph(proto)
    records = PassManager(pipeline_for(EAGER)).run(graph, PassContext(EAGER))
    assert not any(record.modified for record in records)
    assert graph.to_proto().SerializeToString() == proto.SerializeToString()
