"""Models of float16, float64 and bfloat16.

ONNX Runtime has no Conv of float64 for CPUs; ONNX's own reference implementation has.
"""

import re

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import EXACT, model, outputs, random, random_feeds, weights_of

C = 8
DEAD = [1, 4, 6]


def half_dead(*shape, dtype, seed=0):
    values = random(*shape, seed=seed, dtype=dtype)
    values[DEAD] = 0
    return values


def shrunk(proto, tolerance):
    graph = ModelGraph(proto)
    graph.infer()
    RemoveChannels().run(graph, PassContext(EXACT))
    graph.infer()
    out = graph.to_proto()
    feeds = random_feeds(proto)
    for before, after in zip(computed(proto, feeds), computed(out, feeds), strict=True):
        assert before.dtype == after.dtype == feeds["X"].dtype
        np.testing.assert_allclose(after, before, rtol=tolerance, atol=tolerance)
    return out


def computed(proto, feeds):
    if feeds["X"].dtype == np.float64:
        return ReferenceEvaluator(proto).run(None, feeds)
    return outputs(proto, feeds)


@pytest.mark.parametrize(
    ("name", "dtype", "tolerance"), [("float16", np.float16, 2e-2), ("double", np.float64, 1e-12)]
)
class TestTypes:
    @pytest.mark.parametrize(
        ("text", "constant"),
        [
            ("r = Relu(p) Y = Conv<pads = [1, 1, 1, 1]>(r, V)", False),
            ("r = Sigmoid(p) Y = Conv(r, V, k)", True),
            ("r = MaxPool<kernel_shape = [2, 2]>(p) Y = Conv(r, V)", True),
            ("r = Mul(p, p) s = Add(r, p) Y = Conv(s, V, k)", True),
            ("f = GlobalAveragePool(p) g = Flatten(f) Y = Gemm(g, M, k)", True),
            ("r = Transpose<perm = [0, 2, 3, 1]>(p) Y = MatMul(r, M)", True),
        ],
    )
    def test_channels_go(self, name, dtype, tolerance, text, constant):
        weights = {
            "W": half_dead(C, 3, 1, 1, dtype=dtype),
            "b": random(C, seed=4, dtype=dtype) if constant else half_dead(C, dtype=dtype, seed=4),
            "V": random(4, C, 3, 3, seed=1, dtype=dtype) / 8,
            "M": random(C, 4, seed=2, dtype=dtype) / 8,
            "k": random(4, seed=3, dtype=dtype),
        }
        proto = model(f"({name}[N, 3, 6, 6] X) => (Y) {{ p = Conv(X, W, b) {text} }}", weights)
        out = shrunk(proto, tolerance)
        first = weights_of(out)[out.graph.node[0].input[1]]
        assert first.shape[0] == 5
        assert {values.dtype for values in weights_of(out).values()} == {np.dtype(dtype)}

    def test_constants_that_a_bias_cannot_take_stay(self, name, dtype, tolerance):
        """A quarter of what the type holds is the limit."""
        weights = {
            "W": half_dead(C, 3, 1, 1, dtype=dtype),
            "b": np.full(C, 3000, dtype),
            "V": np.ones((4, C, 1, 1), dtype),
        }
        proto = model(f"({name}[N, 3, 6, 6] X) => (Y) {{ p = Conv(X, W, b) Y = Conv(p, V) }}", weights)
        out = shrunk(proto, tolerance)
        left = weights_of(out)[out.graph.node[0].input[1]].shape[0]
        assert left == (C if dtype is np.float16 else 5)


class TestBfloat16:
    """ONNX Runtime has no Conv of bfloat16 for CPUs: the same weights are run in float32 before and after."""

    @pytest.mark.parametrize(
        ("text", "constant"),
        [
            ("r = Relu(p) Y = Conv<pads = [1, 1, 1, 1]>(r, V)", False),
            ("r = Sigmoid(p) Y = Conv(r, V, k)", True),
            ("r = MaxPool<kernel_shape = [2, 2]>(p) Y = Conv(r, V)", True),
            ("r = Mul(p, p) s = Add(r, p) Y = Conv(s, V, k)", True),
            ("f = GlobalAveragePool(p) g = Flatten(f) Y = Gemm(g, M, k)", True),
            ("r = Transpose<perm = [0, 2, 3, 1]>(p) Y = MatMul(r, M)", True),
            ("r = Mul(p, h) Y = Conv(r, V)", False),
        ],
    )
    def test_channels_go(self, text, constant):
        weights = {
            "W": half_dead(C, 3, 1, 1, dtype=np.float32),
            "b": random(C, seed=4) if constant else half_dead(C, dtype=np.float32, seed=4),
            "V": random(4, C, 3, 3, seed=1) / 8,
            "M": random(C, 4, seed=2) / 8,
            "k": random(4, seed=3),
            "h": np.full((C, 1, 1), 1.5, np.float32),
        }
        used = {
            name: w.astype(ml_dtypes.bfloat16)
            for name, w in weights.items()
            if name in re.findall(r"\w+", text + " W b")
        }
        proto = model(f"(bfloat16[N, 3, 6, 6] X) => (Y) {{ p = Conv(X, W, b) {text} }}", used, 22, 10)
        graph = ModelGraph(proto)
        graph.infer()
        RemoveChannels().run(graph, PassContext(EXACT))
        graph.infer()
        out = graph.to_proto()
        stored = weights_of(out)
        assert {values.dtype for values in stored.values()} == {np.dtype(ml_dtypes.bfloat16)}
        assert stored[out.graph.node[0].input[1]].shape[0] == 5
        feeds = {"X": random(2, 3, 6, 6)}
        (before,), (after,) = (outputs(in_float32(given), feeds) for given in (proto, out))
        # What goes into a bias is rounded to 8 bits.
        np.testing.assert_allclose(after, before, rtol=2e-2, atol=2e-2)


def in_float32(proto):
    """The model with all that is bfloat16 as float32."""
    wider = type(proto)()
    wider.CopyFrom(proto)
    for tensor in wider.graph.initializer:
        if tensor.data_type == TensorProto.BFLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for value in (*wider.graph.input, *wider.graph.output, *wider.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.BFLOAT16:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return wider
