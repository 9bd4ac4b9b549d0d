"""Layer by layer on activations: what is fitted is what the data says, whatever the graph is made of."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import scalpel_graph as sg
from models.bert import bert
from scalpel_graph.errors import InputError
from scalpel_graph.pruning.stream import Stream
from tests.scalpel_graph.pruning.small_models import (
    answers,
    convolutional,
    make_model,
    matrices,
    normal,
    perceptron,
)

X = normal(300, 12)


def difference(model, pruned, x):
    expected, found = answers(model, x=x), answers(pruned, x=x)
    return float(((expected - found) ** 2).sum() / ((expected - expected.mean(axis=0)) ** 2).sum())


def linear(bias="Gemm"):
    """One layer, whose bias is its own, an Add's, or none."""
    weights = {"w": normal(12, 8) / 3, "b": normal(8, seed=1)}
    if bias == "Gemm":
        nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["y"], "fc", alpha=0.5, beta=2.0)]
    elif bias == "missing":
        nodes = [helper.make_node("Gemm", ["x", "w"], ["y"], "fc")]
    elif bias == "Add":
        nodes = [
            helper.make_node("MatMul", ["x", "w"], ["m"], "fc"),
            helper.make_node("Add", ["m", "b"], ["y"]),
        ]
    else:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")]
    used = {name for node in nodes for name in node.input}
    weights = {name: value for name, value in weights.items() if name in used}
    return make_model(nodes, weights, {"x": ["n", 12]}, ["y"])


@pytest.mark.parametrize("bias", ["Gemm", "missing", "Add", "none"])
def test_what_stays_is_the_least_squares_fit(bias):
    model = linear(bias)
    x = X + np.float32(2)
    fitted = x[:240]
    result = sg.prune(model, method="obs", sparsity=0.5, calibration={"x": x})
    y, found = answers(model, x=fitted).astype(np.float64), answers(result.model, x=fitted)
    before = matrices(result.model)["fc"]
    assert (before == 0).sum() == 48
    for output in range(8):
        columns = fitted[:, before[output] != 0].astype(np.float64)
        if bias != "none":
            columns = np.column_stack([columns, np.ones(len(columns))])
        expected = columns @ np.linalg.lstsq(columns, y[:, output], rcond=None)[0]
        # Damping keeps it from being the very fit.
        assert ((found[:, output] - y[:, output]) ** 2).sum() <= 1.02 * ((expected - y[:, output]) ** 2).sum()
    if bias != "none":
        np.testing.assert_allclose(found.mean(axis=0), y.mean(axis=0), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("bias", ["Gemm", "none"])
def test_the_error_that_is_reported_is_the_output_s(bias):
    model = linear(bias)
    result = sg.prune(model, method="obs", sparsity=0.5, calibration={"x": X})
    y, found = answers(model, x=X[:240]), answers(result.model, x=X[:240])
    centre = y.mean(axis=0) if bias == "Gemm" else 0
    expected = ((y - found) ** 2).sum() / ((y - centre) ** 2).sum()
    assert result.report.layers[0].error == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("method", ["group", "node", "obs", "2:4"])
@pytest.mark.parametrize("build", [perceptron, convolutional, lambda: convolutional(group=2)])
def test_better_than_magnitude_on_inputs_that_were_held_back(build, method):
    model = build()
    size = (12,) if build is perceptron else (4, 8, 8)
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.standard_normal((400, *size)), axis=-1).astype(np.float32) / 2
    amount = {"nodes": 0.4} if method == "node" else {} if ":" in method else {"sparsity": 0.6}
    shape = {"group_shape": (2, 2)} if method == "group" else {}
    fitted = sg.prune(model, method=method, calibration={"x": x[:300]}, **amount, **shape)
    plain = sg.prune(model, method="magnitude" if method == "obs" else method, **amount, **shape)
    held_back = x[300:]
    assert difference(model, fitted.model, held_back) < 0.7 * difference(model, plain.model, held_back)
    densities = [
        [
            layer.weight_density if layer.group_density is None else layer.group_density
            for layer in r.report.layers
        ]
        for r in (fitted, plain)
    ]
    assert densities[0] == densities[1]


def test_later_layers_make_up_for_earlier_ones():
    """The last layer is not pruned; fitted to what the pruned ones leave, it would be nearer."""
    model = perceptron((12, 40, 4))
    recipe = {"layers": {"fc1": {"sparsity": 0.8}, "fc2": {"sparsity": 0.0}}}
    result = sg.prune(model, method="obs", sparsity=0.5, recipe=recipe, calibration={"x": X})
    alone = sg.prune(model, method="obs", sparsity=0.8, exclude=["fc2"], calibration={"x": X})
    assert difference(model, result.model, X[:240]) < 0.9 * difference(model, alone.model, X[:240])


def test_a_residual_that_is_no_bias():
    weights = {"w": normal(12, 8)}
    nodes = [
        helper.make_node("Relu", ["r"], ["c"]),
        helper.make_node("Gemm", ["x", "w", "c"], ["y"], "fc"),
    ]
    model = make_model(nodes, weights, {"x": ["n", 12], "r": ["n", 8]}, ["y"])
    r = normal(300, 8, seed=3)
    result = sg.prune(model, method="obs", sparsity=0.5, calibration={"x": X, "r": r})
    w = matrices(result.model)["fc"]
    before = matrices(model)["fc"]
    expected = ((X[:240] @ (w - before).T) ** 2).sum() / ((X[:240] @ before.T) ** 2).sum()
    assert result.report.layers[0].error == pytest.approx(expected, rel=1e-3)
    assert expected < 0.3


def test_an_encoder():
    model = bert(layers=2, hidden=32, intermediate=64, heads=4)
    name = model.graph.input[0].name
    tokens = np.random.default_rng(0).integers(1000, size=(30, 128), dtype=np.int64)
    result = sg.prune(model, method="group", group_shape="1x8", sparsity=0.5, calibration={name: tokens})
    plain = sg.prune(model, method="group", group_shape="1x8", sparsity=0.5, held_back={name: tokens[24:]})
    assert result.report.agreement.outputs[0].cosine > plain.report.agreement.outputs[0].cosine
    assert result.report.agreement.samples == 6


def test_weights_that_two_layers_share():
    weights = {"w": normal(12, 12), "b": normal(12, seed=1)}
    nodes = [
        helper.make_node("Gemm", ["x", "w", "b"], ["h"], "one"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "w"], ["y"], "two"),
    ]
    model = make_model(nodes, weights, {"x": ["n", 12]}, ["y"])
    result = sg.prune(model, method="obs", sparsity=0.5, calibration={"x": X})
    found = matrices(result.model)
    np.testing.assert_array_equal(found["one"], found["two"])
    assert (found["one"] == 0).mean() == 0.5


def test_weights_in_constant_nodes():
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(normal(12, 8), "w")),
        helper.make_node("MatMul", ["x", "w"], ["y"], "fc"),
    ]
    model = make_model(nodes, {}, {"x": ["n", 12]}, ["y"])
    result = sg.prune(model, method="obs", sparsity=0.5, calibration={"x": X})
    value = numpy_helper.to_array(result.model.graph.node[0].attribute[0].t)
    assert (value == 0).mean() == 0.5
    assert result.report.agreement.outputs[0].cosine > 0.8


def test_half_precision():
    model = make_model(
        [helper.make_node("MatMul", ["x", "w"], ["y"], "fc")],
        {"w": normal(12, 8).astype(np.float16)},
        {},
        ["y"],
    )
    model.graph.input.append(helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n", 12]))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT16
    result = sg.prune(model, method="obs", sparsity=0.5, calibration={"x": X.astype(np.float16)})
    assert matrices(result.model)["fc"].dtype == np.float16
    assert (matrices(result.model)["fc"] == 0).mean() == 0.5


def test_activations_that_are_not_finite():
    nodes = [
        helper.make_node("Log", ["x"], ["l"]),
        helper.make_node("MatMul", ["l", "w"], ["y"], "fc"),
    ]
    model = make_model(nodes, {"w": normal(12, 8)}, {"x": ["n", 12]}, ["y"])
    with pytest.raises(InputError, match="layer 'fc': its inputs or outputs are not finite"):
        sg.prune(model, method="obs", sparsity=0.5, calibration={"x": X})


def test_a_model_that_onnx_runtime_cannot_run():
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["l"], "reshape"),
        helper.make_node("MatMul", ["l", "w"], ["y"], "fc"),
    ]
    shape = numpy_helper.from_array(np.array([7, 12]), "shape")
    model = make_model(nodes, {"w": normal(12, 8)}, {"x": ["n", 12]}, ["y"])
    model.graph.initializer.append(shape)
    with pytest.raises(InputError, match="ONNX Runtime cannot run the model on the calibration inputs"):
        sg.prune(model, method="obs", sparsity=0.5, calibration={"x": X})


class TestStream:
    @pytest.mark.parametrize("memory", [2**30, 0], ids=["in memory", "in files"])
    def test_every_value_is_that_of_the_whole_model(self, memory):
        model = convolutional()
        x = normal(5, 4, 8, 8)
        batches = [{"x": x[:3]}, {"x": x[3:]}]
        with Stream(model, batches, threads=1, memory=memory) as stream:
            for place, node in enumerate(model.graph.node):
                stream.advance(place)
                whole = type(model)()
                whole.CopyFrom(model)
                wanted = node.input[0]
                if wanted == "x":
                    continue
                whole.graph.output.insert(0, helper.make_tensor_value_info(wanted, 1, None))
                expected = answers(whole, x=x)
                found = np.concatenate([stream.value(wanted, 0), stream.value(wanted, 1)])
                np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)

    def test_sees_weights_as_they_are_when_it_gets_there(self):
        model = perceptron()
        with Stream(model, [{"x": X}], threads=1, memory=2**30) as stream:
            stream.advance(2)
            before = stream.value("r1", 0)
            second = next(t for t in model.graph.initializer if t.name == "w2")
            second.CopyFrom(numpy_helper.from_array(np.zeros((20, 16), np.float32), "w2"))
            stream.advance(3, keep="h2")
            bias = numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == "b2"))
            np.testing.assert_array_equal(stream.value("h2", 0), np.tile(bias, (300, 1)))
            assert before.shape == (300, 16)

    def test_forgets_what_nobody_reads(self):
        model = perceptron()
        with Stream(model, [{"x": X}], threads=1, memory=2**30) as stream:
            stream.advance(2)
            assert stream._store.names() == ["r1"]


def test_control_flow_and_sequences_between_layers():
    def branch(name, op):
        made = helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        return helper.make_graph([helper.make_node(op, ["h"], [name])], name, [], [made])

    nodes = [
        helper.make_node("MatMul", ["x", "w1"], ["h"], "one"),
        helper.make_node("SplitToSequence", ["h"], ["parts"], axis=1),
        helper.make_node("ReduceSum", ["x"], ["sum"], keepdims=0),
        helper.make_node("Greater", ["sum", "zero"], ["positive"]),
        helper.make_node(
            "If", ["positive"], ["i"], then_branch=branch("then", "Relu"), else_branch=branch("else", "Tanh")
        ),
        helper.make_node("MatMul", ["i", "w2"], ["m"], "two"),
        helper.make_node("ConcatFromSequence", ["parts"], ["whole"], axis=1),
        helper.make_node("MatMul", ["whole", "w2"], ["n"], "three"),
        helper.make_node("Add", ["m", "n"], ["y"]),
    ]
    weights = {"w1": normal(12, 16), "w2": normal(16, 8, seed=1), "zero": np.zeros((), np.float32)}
    model = make_model(nodes, weights, {"x": ["n", 12]}, ["y"])
    result = sg.prune(model, method="obs", sparsity=0.5, calibration={"x": X})
    for matrix in matrices(result.model).values():
        assert (matrix == 0).mean() == 0.5
    assert result.report.agreement.outputs[0].cosine > 0.8
