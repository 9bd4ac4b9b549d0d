"""What a model with QuantizeLinear and DequantizeLinear says of its integers.

Activations have one scale; numbers that came unsigned are counted from −128 or −32768 on.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from scalpel_graph.errors import InputError
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.mcu.network import Dtype, Format
from scalpel_graph.passes.matching import attribute, is_standard, optional_input

_OFFSETS: Mapping[int, int] = {
    TensorProto.INT8: 0,
    TensorProto.UINT8: 2**7,
    TensorProto.INT16: 0,
    TensorProto.UINT16: 2**15,
}
_DTYPES: Mapping[int, Dtype] = {
    TensorProto.INT8: "int8",
    TensorProto.UINT8: "int8",
    TensorProto.INT16: "int8x16",
    TensorProto.UINT16: "int8x16",
}


def dtype_of(graph: ModelGraph, wanted: Dtype | None) -> Dtype:
    """What a network is to be computed in.

    Args:
        graph: the model.
        wanted: by the user; None for what the model has.

    Raises:
        InputError: the model is quantized to something else.
    """
    for node in graph.nodes:
        if is_standard(node, "QuantizeLinear") and graph.constant(node.inputs[0]) is None:
            found = _DTYPES[_kind(graph, node)]
            if wanted is not None and wanted != found:
                why = f"the model is quantized already, as --dtype {found}; leave --dtype {wanted} out"
                raise _refusal(node, why)
            return found
    return wanted or "q15"


def format_of(graph: ModelGraph, node: gs.Node, dtype: Dtype) -> Format:
    """How the integers of a QuantizeLinear or DequantizeLinear of an activation are stored.

    Raises:
        InputError: they are not of the model's type with one constant scale.
    """
    scale, zero, _ = _parameters(graph, node)
    if scale.size != 1 or zero.size != 1:
        raise _refusal(node, "it has a scale for each channel of an activation; kernels take one for all")
    kind = _kind(graph, node)
    if _DTYPES[kind] != dtype:
        name = TensorProto.DataType.Name(kind).lower()
        raise _refusal(node, f"it stores {name}, but activations before it have another number of bits")
    stored_zero = int(zero.reshape(())) - _OFFSETS[kind]
    if dtype == "int8x16" and stored_zero != 0:
        raise _refusal(
            node,
            f"its zero point is {int(zero.reshape(()))}; 16-bit activations are taken if they are symmetric"
            f" (zero point {_OFFSETS[kind]}): quantize with symmetric activations",
        )
    return Format(float(scale.reshape(())), stored_zero)


def _kind(graph: ModelGraph, node: gs.Node) -> int:
    """The element type of an activation."""
    _, _, kind = _parameters(graph, node)
    if kind is None or kind not in _DTYPES:
        name = TensorProto.DataType.Name(kind or 0).lower()
        raise _refusal(
            node,
            f"it stores {name}; quantized models are taken with 8 or 16 bits (int8, uint8, int16, uint16)",
        )
    return kind


@dataclass(frozen=True)
class _Stored:
    """A constant as integers: ``(values − zero) · scale``, one of each, or one for each place of an axis."""

    node: gs.Node
    values: Array
    zero: Array
    scale: Array
    axis: int

    def real(self) -> Array:
        along = [-1 if i == self.axis else 1 for i in range(self.values.ndim)] if self.scale.size > 1 else []
        real = (self.values.astype(np.float64) - self.zero.reshape(along)) * self.scale.reshape(along)
        return real.astype(np.float32)


def take_constants(graph: ModelGraph) -> dict[str, Array]:
    """Makes floating-point constants of quantized weights and biases.

    Returns:
        By the label of a layer, ``[M]`` or ``[1]``: the scales of its weights, that give their integers back.

    Raises:
        InputError: weights are not stored as the kernels need them.
    """
    scales: dict[str, Array] = {}
    for node in [node for node in graph.nodes if is_standard(node, "DequantizeLinear")]:
        values, output = graph.constant(node.inputs[0]), node.outputs[0]
        if values is None:
            continue
        scale, zero, _ = _parameters(graph, node)
        stored = _Stored(node, values, zero, scale, int(attribute(node, "axis", 1)) % max(values.ndim, 1))
        real = graph.add_constant(f"{output.name}_value", stored.real())
        for reader in list(output.outputs):
            if is_standard(reader, "Conv", "Gemm", "MatMul") and reader.inputs[1] is output:
                _check_weights(reader, stored)
                scales[node_label(reader)] = scale.reshape(-1)
            for index, tensor in enumerate(reader.inputs):
                if tensor is output:
                    reader.inputs[index] = real
        if not output.outputs and not graph.is_pinned(output):
            graph.remove(node)
    return scales


def _check_weights(reader: gs.Node, stored: _Stored) -> None:
    """Refuses weights that are not symmetric integers of 8 bits with one scale, or one for each output."""
    integers = stored.values.astype(np.int64) - (stored.zero if stored.zero.size == 1 else 0)
    limits, label = np.iinfo(np.int8), node_label(reader)
    uneven = stored.zero.size > 1 and stored.zero.any()
    if uneven or integers.min(initial=0) < limits.min or integers.max(initial=0) > limits.max:
        raise _refusal(stored.node, f"the weights of {label!r} are not symmetric integers of 8 bits (int8)")
    transposed = reader.op == "MatMul" or (reader.op == "Gemm" and not attribute(reader, "transB", 0))
    if stored.scale.size > 1 and stored.axis != int(transposed):
        raise _refusal(stored.node, f"the scales of {label!r} are not one for each of its outputs")
    if reader.op == "Gemm" and float(attribute(reader, "alpha", 1.0)) != 1.0:
        raise _refusal(reader, "it multiplies quantized weights by another number (alpha)")


def _parameters(graph: ModelGraph, node: gs.Node) -> tuple[Array, Array, int | None]:
    """Scale, zero point, element type."""
    scale = graph.constant(node.inputs[1])
    tensor = optional_input(node, 2)
    zero = np.zeros(1, np.int64) if tensor is None else graph.constant(tensor)
    if scale is None or zero is None:
        raise _refusal(node, "its scale or zero point is not constant")
    kind = graph.type(tensor) if tensor is not None else int(attribute(node, "output_dtype", 0)) or None
    if kind is None:
        kind = TensorProto.UINT8 if node.op == "QuantizeLinear" else graph.type(node.inputs[0])
    return scale.astype(np.float64), zero.astype(np.int64), kind


def _refusal(node: gs.Node, why: str) -> InputError:
    return InputError(f"node {node_label(node)!r} ({node.op}): {why}")
