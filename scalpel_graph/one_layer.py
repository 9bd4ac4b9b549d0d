"""Models of one layer, dense or sparse: what is timed to learn how fast a machine runs it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scalpel_graph import group_csr, ops, qlinear_ops
from scalpel_graph.group_csr import Array, GroupShape
from scalpel_graph.value_types import ValueType, storage

_OPSET = 17
INPUT = "X"


def one_layer(
    weights: Array,
    attributes: Mapping[str, Any],
    x_shape: Sequence[int],
    group_shape: GroupShape | None,
    value_type: ValueType = "fp32",
) -> onnx.ModelProto:
    """A model whose one node is the layer, with a bias.

    Args:
        weights: ``[M, K]`` float32; or int8, for a layer of 8-bit integers, of uint8 activations.
        attributes: ``weight_shape`` and, of a Conv, ``strides``, ``pads``, ``dilations`` and ``group``, as in
            `scalpel_graph.ops`.
        x_shape: of the input `INPUT`.
        group_shape: of the sparse operator; None for ONNX's own Conv or Gemm.
        value_type: what the sparse operator's values are stored as.
    """
    if weights.dtype == np.int8:
        return _quantized(weights, attributes, x_shape, group_shape)
    is_conv = "strides" in attributes
    bias = numpy_helper.from_array(np.zeros(weights.shape[0], np.float32), "bias")
    if group_shape is None:
        dense = np.ascontiguousarray(weights.reshape(attributes["weight_shape"]))
        tensors = [numpy_helper.from_array(dense, "W"), bias]
        more = {key: value for key, value in attributes.items() if key != "weight_shape"}
        op_type, domain = ("Conv" if is_conv else "Gemm"), ""
        if not is_conv:
            more = {"transB": 1}
        inputs = [INPUT, "W", "bias"]
    else:
        stored = storage(weights, value_type)
        matrix = group_csr.encode(stored.values(weights), group_shape)
        tensors = [
            numpy_helper.from_array(matrix.values, "values"),
            numpy_helper.from_array(matrix.row_offsets, "row_offsets"),
            numpy_helper.from_array(matrix.column_indices, "column_indices"),
            bias,
            numpy_helper.from_array(np.zeros((), np.float32), "residual"),
        ]
        op_type, domain = (ops.CONV if is_conv else ops.GEMM), ops.DOMAIN
        if stored.scale is not None:
            op_type = ops.SCALED_GEMM
            tensors.append(numpy_helper.from_array(stored.scale, "w_scale"))
        more = {**attributes, "activation_min": -math.inf, "activation_max": math.inf, "activation_gate": 0}
        inputs = list(ops.inputs(op_type))
    node = helper.make_node(op_type, inputs, ["Y"], name="layer", domain=domain, **more)
    return _model([node], tensors, x_shape, TensorProto.FLOAT)


def _quantized(
    weights: Array, attributes: Mapping[str, Any], x_shape: Sequence[int], group_shape: GroupShape | None
) -> onnx.ModelProto:
    """The dense one is written as ONNX Runtime's quantizer does: it makes one operator of it."""
    is_conv = "strides" in attributes
    M = weights.shape[0]
    constants: dict[str, Any] = {
        "x_scale": np.float32(0.02), "x_zero_point": np.uint8(128),
        "w_scale": np.full(M, 0.01, np.float32), "bias": np.zeros(M, np.int32),
        "y_scale": np.float32(0.05), "y_zero_point": np.uint8(128),
    }  # fmt: skip
    if group_shape is None:
        more = {key: value for key, value in attributes.items() if key != "weight_shape"}
        constants["W"] = np.ascontiguousarray(weights.reshape(attributes["weight_shape"]))
        constants["w_zero_point"] = np.zeros(M, np.int8)
        constants["bias_scale"] = constants["x_scale"] * constants["w_scale"]
        nodes = [
            helper.make_node("DequantizeLinear", [INPUT, "x_scale", "x_zero_point"], ["x"]),
            helper.make_node("DequantizeLinear", ["W", "w_scale", "w_zero_point"], ["w"], axis=0),
            helper.make_node("DequantizeLinear", ["bias", "bias_scale"], ["b"], axis=0),
            helper.make_node("Conv", ["x", "w", "b"], ["y"], **more)
            if is_conv
            else helper.make_node("Gemm", ["x", "w", "b"], ["y"], transB=1),
            helper.make_node("QuantizeLinear", ["y", "y_scale", "y_zero_point"], ["Y"]),
        ]
    else:
        matrix = group_csr.encode(np.ascontiguousarray(weights), group_shape)
        constants["values"] = matrix.values
        constants["row_offsets"] = matrix.row_offsets
        constants["column_indices"] = matrix.column_indices
        op_type = qlinear_ops.CONV if is_conv else qlinear_ops.GEMM
        inputs = qlinear_ops.inputs(op_type)
        nodes = [helper.make_node(op_type, inputs, ["Y"], name="layer", domain=ops.DOMAIN, **attributes)]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    return _model(nodes, tensors, x_shape, TensorProto.UINT8)


def _model(
    nodes: list[onnx.NodeProto], tensors: list[TensorProto], x_shape: Sequence[int], kind: int
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info(INPUT, kind, list(x_shape))],
        [helper.make_tensor_value_info("Y", kind, None)],
        tensors,
    )
    imports = [helper.make_opsetid("", _OPSET), helper.make_opsetid(ops.DOMAIN, ops.VERSION)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ops.MIN_IR_VERSION)


def random_input(x_shape: Sequence[int], weights: Array, rng: np.random.Generator) -> Array:
    """Activations for the layer of these weights."""
    if weights.dtype == np.int8:
        return rng.integers(0, 256, x_shape, dtype=np.uint8)
    return rng.standard_normal(x_shape).astype(np.float32)
