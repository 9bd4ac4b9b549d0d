"""Models of float16, float64 and bfloat16.

ONNX Runtime has no Conv of float64 for CPUs; ONNX's own reference implementation has.
"""

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import CPU, model, outputs, random, random_feeds, weights_of

C = 8
DEAD = [1, 4, 6]


def half_dead(*shape, dtype, seed=0):
    values = random(*shape, seed=seed, dtype=dtype)
    values[DEAD] = 0
    return values


def shrunk(proto, tolerance):
    graph = ModelGraph(proto)
    graph.infer()
    RemoveChannels().run(graph, PassContext(CPU))
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


def test_bfloat16_is_refused():
    weights = {"W": half_dead(C, 3, 1, 1, dtype=np.float32), "V": random(4, C, 1, 1)}
    proto = helper.make_model(
        helper.make_graph(
            [helper.make_node("Conv", ["X", "W"], ["p"]), helper.make_node("Conv", ["p", "V"], ["Y"])],
            "g",
            [helper.make_tensor_value_info("X", TensorProto.BFLOAT16, ["N", 3, 4, 4])],
            [helper.make_tensor_value_info("Y", TensorProto.BFLOAT16, ["N", 4, 4, 4])],
            [
                numpy_helper.from_array(values.astype(ml_dtypes.bfloat16), name)
                for name, values in weights.items()
            ],
        ),
        opset_imports=[helper.make_opsetid("", 22)],
        ir_version=10,
    )
    graph = ModelGraph(proto)
    graph.infer()
    result = RemoveChannels().run(graph, PassContext(CPU))
    assert not result.modified
    assert graph.to_proto() == proto
