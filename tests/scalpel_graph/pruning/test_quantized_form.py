"""Pruning networks that are quantized, and quantizing networks that were pruned."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType

import scalpel_graph as sg
from scalpel_graph import group_csr
from scalpel_graph.pruning.quantized_form import QuantizedForm
from tests.ort_sessions import run
from tests.pass_runner import EAGER, model, random
from tests.quantized_networks import convnet, dynamic, inputs, mixer, quantized


def dense_convnet() -> onnx.ModelProto:
    proto = convnet()
    for tensor in proto.graph.initializer:
        if tensor.name.startswith("W"):
            shape = tuple(tensor.dims)
            values = random(*shape, seed=7) / np.sqrt(np.prod(shape[1:]))
            tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    return proto


#: By operator of integers, where its weight and the zero point of that are.
INTEGER_OPERATORS = {
    "QLinearConv": (3, 5), "QLinearMatMul": (3, 5), "QGemm": (3, 5), "ConvInteger": (1, 3),
    "MatMulInteger": (1, 3),
}  # fmt: skip


def integer_weights(proto: onnx.ModelProto) -> dict[str, Any]:
    """By layer, the integers of its weight as they are, and their zero points."""
    tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    makers = {node.output[0]: node for node in proto.graph.node}
    found = {}
    for node in proto.graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            maker = makers[node.input[1]]
            assert maker.op_type == "DequantizeLinear"
            found[node.output[0]] = tensors[maker.input[0]], tensors[maker.input[2]]
        elif node.op_type in INTEGER_OPERATORS:
            found[node.output[0]] = tuple(tensors[node.input[i]] for i in INTEGER_OPERATORS[node.op_type])
    return found


FORMS: dict[str, Any] = {
    "qdq": quantized,
    "qdq-uint8-weights": lambda proto: quantized(proto, weight_type=QuantType.QUInt8, per_channel=False),
    "integers": lambda proto: quantized(proto, quant_format=QuantFormat.QOperator),
    "integers-uint8-weights": lambda proto: quantized(
        proto, quant_format=QuantFormat.QOperator, weight_type=QuantType.QUInt8, per_channel=False
    ),
    "dynamic": lambda proto: dynamic(proto, op_types_to_quantize=["Conv", "MatMul", "Gemm"]),
    "dynamic-per-channel": lambda proto: dynamic(
        proto, op_types_to_quantize=["Conv", "MatMul", "Gemm"], per_channel=True
    ),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("make", [convnet, mixer])
def test_the_way_there_and_back_changes_nothing(make: Any, form: str) -> None:
    before = FORMS[form](make())
    pruning = QuantizedForm(before)
    given = integer_weights(before)
    assert len(pruning.layers) == len(given) >= 4
    assert not any(node.op_type in INTEGER_OPERATORS for node in pruning.model.graph.node)
    after = pruning.restore(pruning.model)
    assert sorted(node.op_type for node in after.graph.node) == sorted(n.op_type for n in before.graph.node)
    for feeds in inputs(before, 2):
        np.testing.assert_array_equal(run(after, feeds, library=False), run(before, feeds, library=False))
    for name, (values, _) in given.items():
        np.testing.assert_array_equal(integer_weights(after)[name][0], values)


def test_a_float_network_is_its_own_form() -> None:
    proto = convnet()
    form = QuantizedForm(proto)
    assert form.model is proto and form.restore(proto) is proto and not form.layers


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("with_inputs", [False, True])
def test_pruning_a_quantized_network_puts_weights_at_their_zero_points(with_inputs: bool, form: str) -> None:
    before = FORMS[form](dense_convnet())
    calibration = {"X": np.concatenate([feeds["X"] for feeds in inputs(before, 12)])} if with_inputs else None
    options: dict[str, Any] = {"sparsity": 0.5, "group_shape": "4x1", "calibration": calibration}
    if with_inputs:
        before.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
        del before.graph.value_info[:]
    result = sg.prune(before, EAGER, **options)
    onnx.checker.check_model(result.model, full_check=True)
    pruned, given = integer_weights(result.model), integer_weights(before)
    assert pruned.keys() == given.keys()
    for name, (values, zero_point) in pruned.items():
        centred = values.astype(int) - int(zero_point.flat[0])
        if values.ndim > 2:  # of the others outputs may be along the second axis
            assert group_csr.density(centred.reshape(len(values), -1), (4, 1)) <= 0.55, name
        assert np.count_nonzero(centred) <= 0.55 * centred.size, name
        assert values.dtype == given[name][0].dtype
    assert result.report.agreement is not None
    assert 0.3 < result.report.agreement.outputs[0].cosine < 1
    if "uint8" in form:  # which do not fit int8 less their zero points
        return
    optimized = sg.optimize(result.model, EAGER)
    assert optimized.report.verified.ok
    assert sum(layer.chosen.group_shape is not None for layer in optimized.report.layers) >= 5


def test_fitting_on_inputs_is_better_than_magnitude_alone() -> None:
    before = quantized(dense_convnet())
    before.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
    del before.graph.value_info[:]
    calibration = {"X": random(64, 3, 16, 16, seed=3)}
    errors = []
    for method in ("magnitude", "obs"):
        result = sg.prune(
            before, EAGER, sparsity=0.5, group_shape="4x1", method=method, calibration=calibration
        )
        assert result.report.agreement is not None
        errors.append(1 - result.report.agreement.outputs[0].cosine)
    assert errors[1] < errors[0]


def test_zeros_of_pruning_stay_zeros_when_it_is_quantized(tmp_path: Path) -> None:
    pruned = sg.prune(dense_convnet(), EAGER, sparsity=0.6, group_shape="4x1").model
    np.savez(tmp_path / "x.npz", X=random(6, 3, 16, 16))
    result = sg.optimize(pruned, EAGER, quantize="int8", calibration=tmp_path / "x.npz")
    assert result.report.verified.ok
    for layer in result.report.layers:
        if layer.chosen.group_shape == (4, 1):
            assert layer.chosen.density <= 0.65
    assert any(layer.chosen.group_shape == (4, 1) for layer in result.report.layers)


def test_a_weight_that_two_layers_read_stays_quantized_in_both() -> None:
    text = """(float[4, 8] X) => (Y) {
      x = QuantizeLinear(X, xs, xz)   xf = DequantizeLinear(x, xs, xz)
      w = DequantizeLinear<axis = 1>(W, ws, wz)
      a = MatMul(xf, w)   b = MatMul(xf, w)   c = Transpose(w)   s = Add(a, b)   Y = MatMul(s, c)
    }"""
    weights = {
        "xs": np.float32(0.02), "xz": np.uint8(120), "wz": np.zeros(16, np.int8),
        "W": np.random.default_rng(0).integers(-127, 128, (8, 16)).astype(np.int8),
        "ws": np.full(16, 0.01, np.float32),
    }  # fmt: skip
    result = sg.prune(model(text, weights), EAGER, sparsity=0.5, group_shape="4x1")
    onnx.checker.check_model(result.model, full_check=True)
    assert all(node.op_type != "MatMul" or node.input[1] != "W" for node in result.model.graph.node)
    kinds = {tensor.data_type for tensor in result.model.graph.initializer if len(tensor.dims) == 2}
    assert kinds == {onnx.TensorProto.INT8}


def test_weights_of_integers_count_a_byte_each() -> None:
    options: dict[str, Any] = {"sparsity": 0.5, "group_shape": "4x1"}
    of_floats = sg.prune(dense_convnet(), EAGER, **options).report.size_bytes
    of_integers = sg.prune(quantized(dense_convnet()), EAGER, **options).report.size_bytes
    assert 4 * of_integers.before == of_floats.before
    assert of_integers.after < of_floats.after / 2
    smaller = sg.prune(quantized(dense_convnet()), EAGER, size=0.6).report.size_bytes
    assert 0.4 * smaller.before < smaller.after <= 0.6 * smaller.before


def test_the_speed_of_a_quantized_network_is_measured_with_its_integers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    timed: list[onnx.ModelProto] = []

    def measured(original: Any, example: Any, profile: Any, threads: int, pruned: onnx.ModelProto) -> float:
        timed.append(pruned)
        return 2.0

    monkeypatch.setattr("scalpel_graph.pruning.api.measured_speed_up", measured)
    before = quantized(dense_convnet())
    sg.prune(before, EAGER, speedup=2.0, measure=True)
    assert timed
    kinds = [node.op_type for node in before.graph.node]
    assert all(sorted(node.op_type for node in proto.graph.node) == sorted(kinds) for proto in timed)
