"""Models of one layer, dense or sparse: what is timed to learn how fast a machine runs it."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from scalpel_graph import group_csr, ops
from scalpel_graph.group_csr import Array, GroupShape
from scalpel_graph.value_types import ValueType, dtype

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
        weights: ``[M, K]`` float32.
        attributes: ``weight_shape`` and, of a Conv, ``strides``, ``pads``, ``dilations`` and ``group``, as in
            `scalpel_graph.ops`.
        x_shape: of the input `INPUT`.
        group_shape: of the sparse operator; None for ONNX's own Conv or Gemm.
        value_type: what the sparse operator's values are stored as.
    """
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
        matrix = group_csr.encode(np.ascontiguousarray(weights), group_shape)
        tensors = [
            numpy_helper.from_array(matrix.values.astype(dtype(value_type)), "values"),
            numpy_helper.from_array(matrix.row_offsets, "row_offsets"),
            numpy_helper.from_array(matrix.column_indices, "column_indices"),
            bias,
            numpy_helper.from_array(np.zeros((), np.float32), "residual"),
        ]
        op_type, domain = (ops.CONV if is_conv else ops.GEMM), ops.DOMAIN
        more = {**attributes, "activation_min": -math.inf, "activation_max": math.inf, "activation_gate": 0}
        inputs = list(ops.INPUTS)
    node = helper.make_node(op_type, inputs, ["Y"], name="layer", domain=domain, **more)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, list(x_shape))],
        [helper.make_tensor_value_info("Y", TensorProto.FLOAT, None)],
        tensors,
    )
    imports = [helper.make_opsetid("", _OPSET), helper.make_opsetid(ops.DOMAIN, ops.VERSION)]
    return helper.make_model(graph, opset_imports=imports, ir_version=ops.MIN_IR_VERSION)
