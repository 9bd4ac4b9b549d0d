"""Constant weights of integers, and the real numbers that they stand for."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.graph import ModelGraph
from scalpel_graph.group_csr import Array
from scalpel_graph.passes.base import Refusal
from scalpel_graph.passes.matching import (
    attribute,
    is_quantization,
    is_standard,
    optional_input,
    why_not_constant,
)


@dataclass(frozen=True)
class RealTensor:
    """What a DequantizeLinear makes real numbers of.

    Attributes:
        integers: the tensor.
        scale: of it.
        zero_point: of it; None for 0.
        axis: that a scale for each channel counts along.
    """

    integers: gs.Tensor
    scale: gs.Tensor
    zero_point: gs.Tensor | None
    axis: int = 1


@dataclass(frozen=True)
class Weight:
    """A constant weight.

    Attributes:
        values: int8, zero points subtracted, in the shape that the operator has it.
        scale: ``[M]``, or a scalar, float32.
        key: says which numbers these are.
    """

    values: Array
    scale: Array
    key: tuple[Any, ...]


def real_tensor(tensor: gs.Tensor) -> RealTensor | None:
    """What is behind the DequantizeLinear that makes a tensor; None if it is none."""
    maker = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    if maker is None or not is_quantization(maker, "DequantizeLinear") or attribute(maker, "block_size", 0):
        return None
    axis = int(attribute(maker, "axis", 1))
    return RealTensor(maker.inputs[0], maker.inputs[1], optional_input(maker, 2), axis)


def transposed(tensor: gs.Tensor) -> gs.Tensor | None:
    """What is behind a Transpose of a matrix that was dequantized; None if there is none."""
    maker = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    if (
        maker is None
        or not is_standard(maker, "Transpose")
        or list(attribute(maker, "perm", [1, 0])) != [1, 0]
    ):
        return None
    return maker.inputs[0] if real_tensor(maker.inputs[0]) is not None else None


def matrix_of(graph: ModelGraph, node: gs.Node) -> tuple[Weight, Array]:
    """The constant integers that are the weight of a Gemm or MatMul, and they as ``[M, K]``.

    Raises:
        Refusal: they are something else, or do not fit int8.
    """
    before = transposed(node.inputs[1])
    is_rows = bool(attribute(node, "transB", 0)) != (before is not None)
    weight = weight_of(graph, node.inputs[1] if before is None else before, 0 if is_rows else 1)
    if weight.values.ndim != 2:
        raise Refusal(f"its weight has rank {weight.values.ndim}; only matrices can be sparse")
    return weight, weight.values if is_rows else weight.values.T


def weight_of(graph: ModelGraph, tensor: gs.Tensor, axis: int) -> Weight:
    """The constant integers that a DequantizeLinear makes a weight of.

    Args:
        graph: the model.
        tensor: the weight.
        axis: of the outputs.

    Raises:
        Refusal: it is something else, or does not fit int8.
    """
    real = real_tensor(tensor)
    if real is None:
        raise Refusal("its weight is quantized in blocks, or transposed otherwise than a matrix")
    values = _constant_integers(graph, real.integers)
    if (
        real.axis % max(values.ndim, 1) != axis
        and (scale := graph.constant(real.scale)) is not None
        and scale.size > 1
    ):
        raise Refusal(f"its weight has scales along axis {real.axis}, not one for each output")
    return centred(graph, values, real.integers, scale=real.scale, zero_point=real.zero_point, axis=axis)


def _constant_integers(graph: ModelGraph, tensor: gs.Tensor) -> Array:
    """A constant, or what a QuantizeLinear makes of one: so networks trained with rounded weights are
    written."""
    values = graph.constant(tensor)
    if values is not None:
        return values
    maker = tensor.inputs[0] if len(tensor.inputs) == 1 else None
    if maker is None or not is_quantization(maker, "QuantizeLinear"):
        raise Refusal(why_not_constant(graph, "weight", tensor))
    real, scale = graph.constant(maker.inputs[0]), graph.constant(maker.inputs[1])
    zero_point = optional_input(maker, 2)
    zero = np.zeros((), np.uint8) if zero_point is None else graph.constant(zero_point)
    if real is None or scale is None or zero is None:
        raise Refusal(why_not_constant(graph, "weight", tensor))
    if zero.dtype not in (np.uint8, np.int8):
        raise Refusal(f"its weight is {zero.dtype}, not 8-bit")
    axis = int(attribute(maker, "axis", 1))
    steps = np.rint(real / _along(scale, real.ndim, axis)) + _along(zero, real.ndim, axis).astype(np.float64)
    limits = np.iinfo(zero.dtype)
    return np.asarray(np.clip(steps, limits.min, limits.max).astype(zero.dtype))


def _along(values: Array, rank: int, axis: int) -> Array:
    """One value, or one for each channel, to be broadcast along an axis."""
    if values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if place == axis % rank else 1 for place in range(rank)])


def centred(
    graph: ModelGraph,
    values: Array,
    tensor: gs.Tensor,
    *,
    scale: gs.Tensor,
    zero_point: gs.Tensor | None,
    axis: int,
) -> Weight:
    """Integers less their zero points, along the axis of outputs."""
    if values.dtype not in (np.int8, np.uint8):
        raise Refusal(f"its weight is {values.dtype}, not 8-bit")
    if values.size == 0:
        raise Refusal("weight has no elements")
    steps = graph.constant(scale)
    if steps is None:
        raise Refusal(why_not_constant(graph, "scale of the weight", scale))
    zero = np.zeros((), values.dtype) if zero_point is None else graph.constant(zero_point)
    if zero is None:
        raise Refusal(why_not_constant(graph, "zero point of the weight", zero_point))
    outputs = values.shape[axis]
    if steps.dtype != np.float32:
        raise Refusal(f"its scales are {steps.dtype}, not float32")
    if steps.size not in (1, outputs) or zero.size not in (1, outputs):
        raise Refusal("its weight has neither one scale nor one for each output")
    if zero.any():
        shifted = values.astype(np.int32) - _along(zero, values.ndim, axis)
        if shifted.min() < -128 or shifted.max() > 127:
            raise Refusal("its weight has a zero point other than 0, and does not fit int8 without it")
        values = shifted.astype(np.int8)
    elif values.dtype == np.uint8:
        if values.max() > 127:
            raise Refusal("its weight is uint8, and does not fit int8")
        values = values.astype(np.int8)
    return Weight(values, steps.reshape(()) if steps.size == 1 else steps.reshape(-1), (tensor.name, axis))
