"""Networks that come quantized keep their integers and scales."""

import subprocess

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType

import scalpel_graph as sg
from models.builder import BATCH, GraphBuilder
from scalpel_graph.mcu import emit_c, reference
from scalpel_graph.mcu.network import Clip, Multiply, Pool
from tests.mcu_networks import inputs, many_operators, one_dimensional, perceptron, pruned, quantized
from tests.ort_sessions import run
from tests.scalpel_graph.channels.quantizer import static
from tests.scalpel_graph.mcu.test_forms import make, stored_vectors, write_bundle

NETWORKS = {
    "perceptron": perceptron,
    "one-dimensional": one_dimensional,
    "many-operators": many_operators,
    "softmax": lambda: many_operators("Softmax"),
}


def qdq(model, folder, **settings):
    return static(model, folder, QuantFormat.QDQ, **settings)


def constants(model):
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def optimized(model, folder, **options):
    np.savez(folder / "x.npz", **inputs(model, 60))
    return sg.optimize(model, "mcu", calibration=folder / "x.npz", **options)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", [QuantType.QInt8, QuantType.QUInt8])
@pytest.mark.parametrize("name", NETWORKS)
def test_answers_are_those_of_the_quantized_model(name, activations, per_channel, tmp_path):
    """Layers, maxima and means of whole windows give the same integers; what rounds twice is near."""
    model = qdq(NETWORKS[name](), tmp_path, activations=activations, per_channel=per_channel)
    report = optimized(model, tmp_path).report.microcontroller
    assert report.dtype == "int8"
    assert report.same_class > 0.98
    assert report.relative_error <= {"many-operators": 0.04, "softmax": 0.03}.get(name, 0.0)


@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("activations", [QuantType.QInt16, QuantType.QUInt16])
@pytest.mark.parametrize("name", NETWORKS)
def test_models_of_symmetric_16_bits_are_taken_as_they_are(name, activations, per_channel, tmp_path):
    """But for the last place; what the model limits between MatMul and Add, and Softmax, are less near."""
    model = qdq(NETWORKS[name](), tmp_path, activations=activations, per_channel=per_channel, symmetric=True)
    report = optimized(model, tmp_path).report.microcontroller
    assert report.dtype == "int8x16"
    assert report.same_class == 1
    assert report.relative_error < {"many-operators": 0.01, "softmax": 0.02}.get(name, 2e-5)


@pytest.mark.parametrize(
    ("activations", "dtype", "offset"),
    [
        (QuantType.QInt8, "int8", 0),
        (QuantType.QUInt8, "int8", 128),
        (QuantType.QInt16, "int8x16", 0),
        (QuantType.QUInt16, "int8x16", 32768),
    ],
)
def test_scales_and_weights_are_kept(activations, dtype, offset, tmp_path):
    symmetric = dtype == "int8x16"
    model = qdq(perceptron(), tmp_path, activations=activations, per_channel=True, symmetric=symmetric)
    given = constants(model)
    network = quantized(model, dtype)[0].network
    first = network.layers[0]
    np.testing.assert_array_equal(first.weights, given["fc1.weight_quantized"].reshape(first.weights.shape))
    np.testing.assert_array_equal(first.bias, given["fc1.bias_quantized"])
    for name, value in (("x", network.input), ("relu_output", first.output), ("fc2_output", network.output)):
        scale, zero = (
            given[next(n for n in given if n.startswith(name) and n.endswith(end))] for end in _ENDS
        )
        form = network.values[value].format
        assert (form.scale, form.zero_point) == (pytest.approx(float(scale)), int(zero) - offset)


_ENDS = ("_scale", "_zero_point")


def test_pruned_weights_become_sparse(tmp_path):
    model = qdq(pruned(perceptron(64), 0.8, (1, 4)), tmp_path)
    network = quantized(model, "int8")[0].network
    assert network.layers[0].group_shape is not None


def test_the_bundle_gives_the_same_bytes_on_this_machine(tmp_path):
    model = qdq(many_operators(), tmp_path, per_channel=True)
    program, result = quantized(model, "int8")
    assert any(isinstance(layer, Clip) and layer.multiplier != 1 for layer in program.network.layers)
    folder = write_bundle(program, many_operators(), tmp_path / "bundle")
    assert "are right" in make(folder, "host", "CFLAGS=-O1 -fsanitize=address,undefined")
    stored = stored_vectors(program)
    emit_c.channels_last(stored).astype(np.int8).tofile(folder / "in.bin")
    subprocess.run(["build/host", "in.bin", "out.bin"], cwd=folder, check=True)
    expected = reference.run(program.network, stored)
    assert (folder / "out.bin").read_bytes() == emit_c.channels_last(expected).astype(np.int8).tobytes()
    forms = [program.network.values[name].format for name in (program.network.input, program.network.output)]
    floats = ((stored - forms[0].zero_point) * forms[0].scale).astype(np.float32)
    wanted = (expected.astype(np.float32) - np.float32(forms[1].zero_point)) * np.float32(forms[1].scale)
    for library in (True, False):
        np.testing.assert_array_equal(run(result, {program.network.input: floats}, library=library), wanted)


def averages(*, pad):
    g = GraphBuilder("mean", seed=0, opset=17)
    x = g.conv(g.input("x", [BATCH, 2, 8, 8]), "conv", 2, 4, 3, pad=1)
    x = g.node("AveragePool", "mean", [x], kernel_shape=[4, 4], strides=[4, 4], pads=[pad] * 4)
    size = (8 + 2 * pad - 4) // 4 + 1
    return g.model({g.gemm(g.flatten(x), "fc", 4 * size**2, 3): [BATCH, 3]})


def with_another_scale(model, name, factor):
    """What a node makes is quantized with a scale of its own."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    made = next(node.output[0] for node in changed.graph.node if node.name == name)
    quantizer = next(node for node in changed.graph.node if made in node.input)
    dequantizer = next(node for node in changed.graph.node if quantizer.output[0] in node.input)
    scale = np.float32(factor) * constants(changed)[quantizer.input[1]]
    changed.graph.initializer.append(numpy_helper.from_array(scale, "another_scale"))
    quantizer.input[1] = dequantizer.input[1] = "another_scale"
    return changed


def test_means_of_whole_windows_in_another_scale_are_rounded_once(tmp_path):
    """They are convolutions; windows that padding cuts short are averaged, and then rounded again."""
    whole, cut = (with_another_scale(qdq(averages(pad=pad), tmp_path), "mean", 0.8) for pad in (0, 1))
    network = quantized(whole, "int8")[0].network
    assert [layer.op for layer in network.layers if isinstance(layer, Multiply)] == ["Conv", "Conv", "Gemm"]
    assert optimized(whole, tmp_path).report.microcontroller.relative_error == 0
    network = quantized(cut, "int8")[0].network
    assert [layer.op for layer in network.layers if isinstance(layer, Pool)] == ["AveragePool"]
    assert any(isinstance(layer, Clip) and layer.multiplier != 1 for layer in network.layers)
    assert 0 < optimized(cut, tmp_path).report.microcontroller.relative_error < 0.05


def without_last_quantization(model):
    """The output of the last layer is the network's as it is."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    nodes = list(changed.graph.node)
    last = {node.output[0]: node for node in nodes}[changed.graph.output[0].name]
    quantizer = next(node for node in nodes if node.output[0] == last.input[0])
    made = quantizer.input[0]
    del changed.graph.node[:]
    changed.graph.node.extend(node for node in nodes if node not in (last, quantizer))
    next(node for node in changed.graph.node if made in node.output).output[0] = last.output[0]
    return changed


def with_other_activations(model, dtype):
    """Those of the hidden layer are stored in another type."""
    changed = onnx.ModelProto()
    changed.CopyFrom(model)
    for tensor in changed.graph.initializer:
        if tensor.name == "relu_output_zero_point":
            tensor.CopyFrom(numpy_helper.from_array(np.zeros((), dtype), tensor.name))
    del changed.opset_import[:]
    changed.opset_import.append(helper.make_opsetid("", 21))
    return changed


@pytest.mark.parametrize(
    ("make_model", "says"),
    [
        (
            lambda p: qdq(perceptron(), p, activations=QuantType.QUInt16),
            r"\(QuantizeLinear\): its zero point is \d+; 16-bit activations are taken if they are symmetric"
            r" \(zero point 32768\)",
        ),
        (
            lambda p: with_other_activations(qdq(perceptron(), p), np.int16),
            "it stores int16, but activations before it have another number of bits$",
        ),
        (
            lambda p: with_other_activations(qdq(perceptron(), p), np.int32),
            "it stores int32; quantized models are taken with 8 or 16 bits",
        ),
        (
            lambda p: qdq(perceptron(), p, weights=QuantType.QUInt8),
            r"the weights of 'fc1' are not symmetric integers of 8 bits \(int8\)$",
        ),
        (
            lambda p: static(perceptron(), p, QuantFormat.QOperator),
            "operator QGemm of domain com.microsoft has no integer form",
        ),
        (
            lambda p: without_last_quantization(qdq(perceptron(), p)),
            r"^node 'fc2' \(Gemm\): the model does not say how its output is stored: no QuantizeLinear",
        ),
    ],
)
def test_what_cannot_be_taken_is_refused_by_name(make_model, says, tmp_path):
    with pytest.raises(sg.InputError, match=says) as caught:
        optimized(make_model(tmp_path), tmp_path)
    assert "\n" not in str(caught.value)


def test_other_numbers_than_the_models_are_refused(tmp_path):
    with pytest.raises(sg.InputError, match=r"quantized already, as --dtype int8; leave --dtype q15 out$"):
        optimized(qdq(perceptron(), tmp_path), tmp_path, dtype="q15")
