import numpy as np
import pytest

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.clean_up import CleanUp
from scalpel_graph.passes.fold_batchnorm import FoldBatchNorm
from scalpel_graph.passes.manager import PassManager
from tests.pass_runner import CPU, model, op_types, random, reasons, run, weights_of

BN = "BatchNormalization<epsilon = 0.01>"


def statistics(channels, dtype=np.float32):
    return {
        "s": random(channels, seed=11, dtype=dtype),
        "o": random(channels, seed=12, dtype=dtype),
        "m": random(channels, seed=13, dtype=dtype),
        "v": np.abs(random(channels, seed=14, dtype=dtype)) + dtype(0.1),
    }


@pytest.mark.parametrize("bias", ["", ", b"])
@pytest.mark.parametrize(
    ("layer", "shape", "x"),
    [
        ("Conv<pads = [1, 1, 1, 1]>", (6, 4, 3, 3), "1, 4, 5, 5"),
        ("Conv<group = 2>", (6, 2, 3), "1, 4, 5"),
        ("ConvTranspose", (4, 6, 2, 2), "1, 4, 5, 5"),
        ("ConvTranspose<group = 2, strides = [2, 2]>", (4, 3, 2, 2), "1, 4, 5, 5"),
        ("Gemm<alpha = 0.5, beta = 2.0>", (4, 6), "3, 4"),
        ("Gemm<transB = 1>", (6, 4), "3, 4"),
    ],
)
def test_layers(layer, shape, x, bias):
    proto = model(
        f"(float[{x}] X) => (Y) {{ a = {layer}(X, W{bias})  Y = {BN}(a, s, o, m, v) }}",
        {"W": random(*shape), "b": random(6, seed=1), **statistics(6)},
    )
    out, _ = run(proto, FoldBatchNorm())
    assert op_types(out) == [layer.split("<")[0]]
    assert out.graph.node[0].output[0] == "Y"
    assert not {"s", "o", "m", "v"} & set(weights_of(out))


@pytest.mark.parametrize("shape", [(), (1,), (6,), (1, 6)])
def test_gemm_biases_that_broadcast(shape):
    proto = model(
        f"(float[3, 4] X) => (Y) {{ a = Gemm<beta = 2.0>(X, W, b)  Y = {BN}(a, s, o, m, v) }}",
        {"W": random(4, 6), "b": random(*shape, seed=1), **statistics(6)},
    )
    out, _ = run(proto, FoldBatchNorm())
    assert op_types(out) == ["Gemm"]


@pytest.mark.parametrize("add", ["", "c = Add(a, b)", "c = Add(b, a)"])
def test_matmul(add):
    proto = model(
        f"(float[3, 4] X) => (Y) {{ a = MatMul(X, W)  {add}  Y = {BN}({'c' if add else 'a'}, s, o, m, v) }}",
        {"W": random(4, 6), "b": random(6, seed=1), **statistics(6)},
    )
    out, _ = run(proto, FoldBatchNorm())
    assert op_types(out) == ["MatMul", "Add"]


def test_double_stays_double():
    proto = model(
        f"(double[3, 4] X) => (Y) {{ a = Gemm(X, W)  Y = {BN}(a, s, o, m, v) }}",
        {"W": random(4, 6, dtype=np.float64), **statistics(6, np.float64)},
    )
    out, _ = run(proto, FoldBatchNorm())
    assert op_types(out) == ["Gemm"]
    assert {values.dtype for values in weights_of(out).values()} == {np.dtype(np.float64)}


def test_float16_is_refused():
    proto = model(
        f"(float16[3, 4] X) => (Y) {{ a = Gemm(X, W)  Y = {BN}(a, s, o, m, v) }}",
        {"W": random(4, 6, dtype=np.float16), **statistics(6, np.float16)},
    )
    _, records = run(proto, FoldBatchNorm())
    assert "is float16" in reasons(records["fold-batchnorm"])["Y"]


def test_a_shared_weight_is_copied_and_zeros_stay_zero():
    weight = random(6, 4, 1, 1) * (random(6, 4, 1, 1, seed=5) > 0)
    proto = model(
        f"(float[1, 4, 5, 5] X) => (Y, Z) {{ a = Conv(X, W)  Y = {BN}(a, s, o, m, v)  Z = Conv(X, W) }}",
        {"W": weight, **statistics(6)},
    )
    out, _ = run(proto, FoldBatchNorm())
    weights = weights_of(out)
    np.testing.assert_array_equal(weights["W"], weight)
    copy = weights[out.graph.node[0].input[1]]
    np.testing.assert_array_equal(copy == 0, weight == 0)


def test_a_chain_of_two():
    proto = model(
        f"""(float[1, 4, 5, 5] X) => (Y)
            {{ a = Conv(X, W)  b = {BN}(a, s, o, m, v)  Y = {BN}(b, s, o, m, v) }}""",
        {"W": random(6, 4, 1, 1), **statistics(6)},
    )
    out, _ = run(proto, FoldBatchNorm(), CleanUp())
    assert op_types(out) == ["Conv"]


def test_old_opsets():
    for opset, attributes in ((6, "is_test = 1, "), (7, ""), (9, ""), (14, "")):
        proto = model(
            f"(float[1, 4, 5, 5] X) => (Y) {{ a = Conv<kernel_shape = [1, 1]>(X, W)"
            f"  Y = BatchNormalization<{attributes}epsilon = 0.01>(a, s, o, m, v) }}",
            {"W": random(6, 4, 1, 1), **statistics(6)},
            opset=opset,
        )
        out, _ = run(proto, FoldBatchNorm()) if opset >= 7 else (None, None)
        assert out is None or op_types(out) == ["Conv"]


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (f"Y = {BN}(X, s, o, m, v)", "an input of the model"),
        (f"a = Relu(X)  Y = {BN}(a, s, o, m, v)", "comes from Relu"),
        (f"a = Conv(X, W)  Z = Neg(a)  Y = {BN}(a, s, o, m, v)", "read elsewhere"),
        (f"a = Conv(X, X2)  Y = {BN}(a, s, o, m, v)", "not constant"),
        (f"a = Conv(X, W)  Y = {BN}(a, s, o, m, negative)", "not finite"),
        (f"w = Neg(b)  a = Conv(X, W, w)  Y = {BN}(a, s, o, m, v)", "computed by Neg"),
        (f"a = Add(X, b1)  Y = {BN}(a, s, o, m, v)", "comes from Add"),
        ("a = Conv(X, W)  Y, n, k = BatchNormalization<training_mode = 1>(a, s, o, m, v)", "training mode"),
    ],
)
def test_refused_with_a_reason(body, why):
    proto = model(
        f"(float[1, 6, 5, 5] X, float[6, 6, 1, 1] X2) => (Y{', Z' if 'Z =' in body else ''}) {{ {body} }}",
        {
            "W": random(6, 6, 1, 1),
            "b": random(6),
            "b1": random(1),
            "negative": -np.ones(6, np.float32),
            **statistics(6),
        },
    )
    if "training" in body:
        result = FoldBatchNorm().run(ModelGraph(proto), PassContext(CPU))
        assert why in result.skipped[0].reason
        return
    out, records = run(proto, FoldBatchNorm()) if "negative" not in body else _without_running(proto)
    assert "BatchNormalization" in op_types(out)
    assert why in reasons(records["fold-batchnorm"])["Y"]


def _without_running(proto):

    graph = ModelGraph(proto)
    records = PassManager([FoldBatchNorm()]).run(graph, PassContext(CPU))
    return graph.to_proto(), {record.name: record for record in records}


def test_matmul_with_channels_elsewhere_is_refused():
    proto = model(
        f"(float[2, 6, 4] X) => (Y) {{ a = MatMul(X, W)  Y = {BN}(a, s, o, m, v) }}",
        {"W": random(4, 6), **statistics(6)},
    )
    _, records = run(proto, FoldBatchNorm())
    assert "axis 1" in reasons(records["fold-batchnorm"])["Y"]


def test_overflow_is_refused():
    proto = model(
        f"(float[1, 4, 5, 5] X) => (Y) {{ a = Conv(X, W)  Y = {BN}(a, s, o, m, v) }}",
        {"W": np.full((6, 4, 1, 1), 3e37, np.float32), **statistics(6), "s": np.full(6, 1000, np.float32)},
    )
    _, records = _without_running(proto)
    assert "not finite in float32" in reasons(records["fold-batchnorm"])["Y"]
