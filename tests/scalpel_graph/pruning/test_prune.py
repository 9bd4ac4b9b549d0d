"""`sg.prune` as a whole: what goes in, what comes out, what is reported, what is refused."""

import json

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import scalpel_graph as sg
from models import NETWORKS
from scalpel_graph.errors import InputError
from scalpel_graph.pruning import report_html
from tests.scalpel_graph.pruning.small_models import (
    answers,
    convolutional,
    matrices,
    normal,
    perceptron,
)

X = {"x": normal(60, 4, 8, 8)}


@pytest.mark.parametrize("target", ["cpu", "avx2", "gpu", "mcu"])
@pytest.mark.parametrize("calibration", [None, X], ids=["magnitude", "calibrated"])
def test_every_target(target, calibration):
    model = convolutional()
    before = model.SerializeToString()
    result = sg.prune(model, target, sparsity=0.5, calibration=calibration)
    assert model.SerializeToString() == before
    onnx.checker.check_model(result.model, full_check=True)
    assert [node.op_type for node in result.model.graph.node] == [node.op_type for node in model.graph.node]
    report = result.report
    assert report.weights.after < 0.7 * report.weights.before
    assert report.weights.after == sum(np.count_nonzero(w) for w in matrices(result.model).values())
    assert report.calibration == (0 if calibration is None else 48)
    assert any("magnitude" in warning for warning in report.warnings) == (calibration is None)


@pytest.mark.parametrize("method", ["magnitude", "optimized", "group", "node", "combined", "obs", "2:4"])
def test_every_method(method):
    sparsity = None if ":" in method else 0.5
    result = sg.prune(convolutional(), method=method, sparsity=sparsity, calibration=X)
    by_name = {layer.name: layer for layer in result.report.layers}
    found = matrices(result.model)
    for name, layer in by_name.items():
        assert layer.weight_density == pytest.approx(np.count_nonzero(found[name]) / found[name].size)
        if layer.technique == "group":
            assert layer.group_density == pytest.approx(0.5, abs=0.05)
        if layer.technique == "2:4":
            assert layer.weight_density == 0.5
    techniques = {layer.technique for layer in by_name.values()} - {"none"}
    assert techniques <= {"group", "node", "2:4"}
    assert techniques or method == "optimized"


def test_the_same_again():
    first, second = (sg.prune(convolutional(), sparsity=0.5, calibration=X).model for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()


def test_nothing_to_prune():
    result = sg.prune(convolutional(), sparsity=0.5, exclude=["*"])
    assert result.model.SerializeToString() == convolutional().SerializeToString()
    assert {layer.reason for layer in result.report.layers} == {"excluded"}
    assert result.report.weights.before == result.report.weights.after


def test_sparsity_of_nothing_changes_no_weight():
    result = sg.prune(perceptron(), "mcu", sparsity=0.0)
    for name, matrix in matrices(result.model).items():
        np.testing.assert_array_equal(matrix, matrices(perceptron())[name])


def test_magnitude_leaves_the_rest_as_it_was_even_with_inputs():
    result = sg.prune(convolutional(), method="magnitude", sparsity=0.5, calibration=X)
    before = matrices(convolutional())
    for name, matrix in matrices(result.model).items():
        np.testing.assert_array_equal(matrix[matrix != 0], before[name][matrix != 0])


def test_optimize_makes_the_zeros_pay_and_answers_the_same():
    network = NETWORKS["lenet-300-100"]
    result = sg.prune(network.build(), "avx2", sparsity=0.9, calibration={"input": network.sample_input(60)})
    optimized = sg.optimize(result.model, "avx2")
    assert optimized.report.verified.ok
    assert optimized.report.size_bytes.after < 0.25 * optimized.report.size_bytes.before


def test_nodes_of_one_name_are_left_alone():
    model = perceptron()
    model.graph.node[2].name = "fc1"
    layers = sg.prune(model, "mcu", sparsity=0.5).report.layers
    assert [layer.reason for layer in layers[:2]] == ["another node has the same name: name them apart"] * 2
    assert layers[2].technique == "group"


def test_a_model_that_runs_on_no_random_inputs():
    model = perceptron()
    shape = helper.make_node("Reshape", ["x", "shape"], ["seven"])
    model.graph.node.insert(0, shape)
    model.graph.node[1].input[0] = "seven"
    model.graph.initializer.append(numpy_helper.from_array(np.array([7, 12]), "shape"))
    report = sg.prune(model, "mcu", sparsity=0.5).report
    assert report.agreement is None
    assert any("were not compared" in warning for warning in report.warnings)
    with pytest.raises(InputError, match="cannot run the model on the given inputs"):
        sg.prune(model, "mcu", sparsity=0.5, held_back={"x": normal(3, 12)})


@pytest.mark.parametrize("calibrated", [False, True])
def test_an_excluded_layer_keeps_weights_that_it_shares(calibrated):
    model = perceptron((12, 12, 12, 4))
    model.graph.node[2].input[1] = "w1"
    calibration = {"x": normal(30, 12)} if calibrated else None
    result = sg.prune(model, "mcu", sparsity=0.5, exclude=["fc2"], calibration=calibration)
    found = matrices(result.model)
    assert (found["fc1"] == 0).mean() == 0.5
    np.testing.assert_array_equal(found["fc2"], matrices(model)["fc2"])


class TestRecipe:
    def test_of_layers(self):
        recipe = {
            "method": "group", "sparsity": 0.5, "exclude": ["conv1"],
            "layers": {"conv2": {"group_shape": "4x1", "sparsity": 0.75}, "fc": {"method": "magnitude"}},
        }  # fmt: skip
        layers = {layer.name: layer for layer in sg.prune(convolutional(), recipe=recipe).report.layers}
        assert layers["conv1"].reason == "excluded"
        assert (layers["conv2"].group_shape, layers["conv2"].group_density) == ((4, 1), 0.25)
        assert (layers["fc"].group_shape, layers["fc"].group_density) == ((1, 1), 0.5)

    def test_options_win_over_what_it_says_of_all_layers(self):
        report = sg.prune(convolutional(), "mcu", sparsity=0.75, recipe={"sparsity": 0.5}).report
        assert {layer.sparsity for layer in report.layers} == {0.75}


class TestAgreement:
    def test_with_itself(self):
        report = sg.prune(convolutional(), "mcu", sparsity=0.0, held_back=X).report
        (output,) = report.agreement.outputs
        assert (output.top1, output.max_abs_diff) == (1.0, 0.0)
        assert output.cosine == pytest.approx(1)
        assert (report.agreement.samples, report.agreement.inputs) == (60, "given")

    def test_is_that_of_the_two_models(self):
        model = convolutional()
        held_back = {"x": normal(20, 4, 8, 8, seed=9)}
        labels = answers(model, **held_back).argmax(axis=1)
        labels[:5] = (labels[:5] + 1) % 5
        result = sg.prune(model, "mcu", sparsity=0.8, held_back=held_back, labels=labels)
        a, b = answers(model, **held_back), answers(result.model, **held_back)
        (output,) = result.report.agreement.outputs
        assert output.top1 == pytest.approx((a.argmax(1) == b.argmax(1)).mean())
        assert output.max_abs_diff == pytest.approx(np.abs(a - b).max())
        cosine = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
        assert output.cosine == pytest.approx(cosine.mean(), rel=1e-5)
        assert result.report.agreement.accuracy_before == 0.75
        assert result.report.agreement.accuracy_after == pytest.approx((b.argmax(1) == labels).mean())

    def test_labels_of_calibration_inputs(self):
        agreement = sg.prune(
            convolutional(), sparsity=0.5, calibration=X, labels=np.zeros(60, int)
        ).report.agreement
        assert (agreement.samples, agreement.inputs) == (12, "held back")
        assert agreement.accuracy_before is not None

    def test_random_inputs_for_want_of_others(self):
        assert sg.prune(convolutional(), sparsity=0.5).report.agreement.inputs == "random"

    def test_labels_need_inputs(self):
        with pytest.raises(InputError, match="labels need inputs that they belong to"):
            sg.prune(convolutional(), sparsity=0.5, labels=np.zeros(3, int))

    def test_labels_that_do_not_suit_the_output(self):
        with pytest.raises(
            InputError, match=r"labels of shape \[16, 2\] do not suit an output of shape \[16, 5\]"
        ):
            sg.prune(convolutional(), sparsity=0.5, held_back=X, labels=np.zeros((60, 2), int))


@pytest.fixture(scope="module")
def report():
    labels = np.zeros(60, int)
    return sg.prune(convolutional(), "avx2", sparsity=0.5, calibration=X, labels=labels).report


class TestReport:
    def test_json(self, report):
        data = json.loads(json.dumps(report.to_json(), allow_nan=False))
        assert set(data) == {
            "scalpel_graph", "input", "output", "target", "method", "calibration", "asked", "weights",
            "size_bytes", "predicted_us", "layers", "agreement", "warnings", "seconds",
        }  # fmt: skip
        assert set(data["layers"][0]) == {
            "name", "op", "technique", "group_shape", "sparsity", "weight_density", "group_density", "nodes",
            "error", "dense_us", "sparse_us", "reason",
        }  # fmt: skip
        assert set(data["agreement"]) == {"samples", "inputs", "outputs", "accuracy"}
        assert data["target"] == "avx2"

    def test_html_shows_every_layer_and_loads_nothing(self, report):
        page = report_html.render(report)
        for layer in report.layers:
            assert f"<code>{layer.name}</code>" in page
        assert "http" not in page.split("</style>")[1]
        assert "<script" not in page
        assert page.lstrip().startswith("<!doctype html>")

    def test_html_of_little(self):
        page = report_html.render(sg.prune(perceptron(), "mcu", sparsity=0.5).report)
        assert "by magnitude" in page


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "say how (much|many)"),
        ({"sparsity": 1.0}, "sparsity must be at least 0 and less than 1, got 1.0"),
        ({"sparsity": -0.5}, "sparsity must be at least 0 and less than 1"),
        ({"nodes": 2}, "nodes must be at least 0 and less than 1"),
        ({"sparsity": 0.5, "method": "nodes"}, "method 'nodes': did you mean 'node'?"),
        ({"sparsity": 0.5, "method": "obs"}, "method 'obs' goes by what weights do on inputs: give --calib"),
        ({"sparsity": 0.5, "recipe": {"layers": {"fc": {"method": "obs"}}}}, "method 'obs' goes by"),
        ({"sparsity": 0.5, "group_shape": "3by4"}, "group shape must be two positive numbers"),
        ({"sparsity": 0.5, "importance": "l1"}, "importance must be one of rms, mean, max"),
        ({"sparsity": 0.5, "exclude": ["conv3"]}, r"is called 'conv3': did you mean 'conv\d'"),
        ({"sparsity": 0.5, "recipe": {"exclude": ["conv3"]}}, r"recipe: .* is called 'conv3': did you mean"),
        ({"sparsity": 0.5, "recipe": {"layers": {"x9": {}}}}, "is called 'x9'"),
        ({"sparsity": 0.5, "threads": 0}, "threads must be at least 1"),
        ({"sparsity": 0.5, "target": "cpux"}, "target 'cpux': no such profile; did you mean cpu"),
        ({"sparsity": 0.5, "calibration": {"z": normal(4, 4, 8, 8)}}, "no array for input 'x'"),
        ({"sparsity": 0.5, "calibration": {"x": normal(4, 4, 8, 9)}}, "has shape"),
        ({"sparsity": 0.5, "calibration": {"x": normal(4, 4, 8, 8) * np.float32("nan")}}, "holds NaN"),
        ({"method": "optimized", "sparsity": 0.5, "target": "gpu"}, "this target has none"),
    ],
)  # fmt: skip
def test_unusable(options, message):
    with pytest.raises(InputError, match=message) as error:
        sg.prune(convolutional(), **options)
    assert "\n" not in str(error.value)
