"""Folds BatchNormalization in its inference form into the layer before it.

With ``s = scale / sqrt(var + epsilon)``, all per output channel::

    BN(W·x + b) = (s·W)·x + s·(b − mean) + B

for Conv, ConvTranspose, Gemm (``b`` is ``beta·C``, ``s`` also reaches through ``alpha``), and MatMul with or
without an Add of a constant behind it (which then holds the shift; BN becomes that Add where there was none).
The layer must have no other reader, and its weights must be constant. New weights are computed in float64 and
rounded once to the type they had. A weight that another layer reads as well is copied.
"""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.matching import (
    attribute,
    is_standard,
    only_first_output_read,
    optional_constant,
    optional_input,
    per_channel,
    why_not_constant,
    why_not_moved,
)


class FoldBatchNorm(Pass):
    """Merges BatchNormalization into the weights and bias of the layer before it."""

    name = "fold-batchnorm"
    summary = "merge BatchNormalization into the layer before it"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        for node in list(graph.nodes):
            if not is_standard(node, "BatchNormalization"):
                continue
            label = node_label(node)
            try:
                _fold(graph, node)
            except _RefusalError as refusal:
                result.skip(label, str(refusal))
            else:
                result.rewritten.append(label)
        return result


class _RefusalError(Exception):
    """Why a node is left alone."""


@dataclass(frozen=True)
class _Affine:
    """``BN(y) = scale·y + shift``, each ``[channels]`` float64; ``mean`` and ``offset`` make up ``shift``."""

    scale: Array
    mean: Array
    offset: Array

    def bias(self, bias: Array | float) -> Array:
        """The bias of the folded layer."""
        return np.asarray(self.scale * (np.asarray(bias, dtype=np.float64) - self.mean) + self.offset)


def _fold(graph: ModelGraph, node: gs.Node) -> None:
    affine = _affine(graph, node)
    channels = len(affine.scale)
    layer = _maker(graph, node.inputs[0])
    if is_standard(layer, "Conv", "ConvTranspose", "Gemm"):
        _check_layer(graph, layer, channels)
        if is_standard(layer, "Gemm"):
            _fold_into_gemm(graph, layer, affine)
        else:
            _fold_into_conv(graph, layer, affine)
        _take_over(graph, layer, node)
        return
    if is_standard(layer, "MatMul"):
        weight = _matmul_weight(graph, layer, channels)
        shift = affine.bias(0.0).astype(weight.dtype)
        _check_finite(shift)
        graph.set_constant(layer, 1, _rounded(weight * affine.scale, weight))
        add = gs.Node("Add", name=graph.unique_name(f"{node_label(node)}_shift"))
        add.inputs.extend([node.inputs[0], graph.add_constant(f"{node_label(node)}_bias", shift)])
        graph.replace(node, add)
        return
    if is_standard(layer, "Add") and graph.opset >= 7:
        bias_index, matmul = _matmul_and_bias(graph, layer)
        bias = per_channel(_constant(graph, "bias", layer.inputs[bias_index]), channels, 2, -1)
        if bias is None:
            raise _RefusalError(f"{node_label(layer)} does not add one number to each channel")
        weight = _matmul_weight(graph, matmul, channels)
        new_weight = _rounded(weight * affine.scale, weight)
        graph.set_constant(layer, bias_index, _rounded(affine.bias(bias), weight))
        graph.set_constant(matmul, 1, new_weight)
        _take_over(graph, layer, node)
        return
    raise _RefusalError(f"its input comes from {layer.op}, not from a layer with weights")


def _affine(graph: ModelGraph, node: gs.Node) -> _Affine:
    if attribute(node, "training_mode", 0) or not only_first_output_read(graph, node):
        raise _RefusalError("it is in training mode")
    if graph.opset < 7 and not attribute(node, "is_test", 0):
        raise _RefusalError("it is in training mode (is_test is 0)")
    if not attribute(node, "spatial", 1):
        raise _RefusalError("it has statistics for each position (spatial is 0)")
    names = ("scale", "B", "mean", "var")
    values = [
        _constant(graph, name, tensor).astype(np.float64)
        for name, tensor in zip(names, node.inputs[1:5], strict=True)
    ]
    scale, offset, mean, variance = values
    with np.errstate(invalid="ignore", divide="ignore"):
        scale = scale / np.sqrt(variance + float(attribute(node, "epsilon", 1e-5)))
    if not np.isfinite(scale).all():
        raise _RefusalError("its scale / sqrt(var + epsilon) is not finite")
    return _Affine(scale, mean, offset)


def _maker(graph: ModelGraph, tensor: gs.Tensor) -> gs.Node:
    if len(tensor.inputs) != 1:
        raise _RefusalError("its input is an input of the model")
    maker = tensor.inputs[0]
    if graph.sole_consumer(tensor) is None:
        raise _RefusalError(f"{node_label(maker)} is read elsewhere as well")
    return maker


def _check_layer(graph: ModelGraph, layer: gs.Node, channels: int) -> None:
    weight = _constant(graph, "weight", layer.inputs[1])
    if layer.op == "Gemm":
        if graph.opset < 7:
            raise _RefusalError(
                f"{node_label(layer)} is of an opset before 7, where Gemm broadcasts differently"
            )
        made = weight.shape[0 if attribute(layer, "transB", 0) else 1]
    elif layer.op == "ConvTranspose":
        made = weight.shape[1] * int(attribute(layer, "group", 1))
    else:
        made = weight.shape[0]
    if made != channels:
        raise _RefusalError(f"{node_label(layer)} makes {made} channels, but it normalises {channels}")
    bias = optional_input(layer, 2)
    if bias is not None:
        _constant(graph, "bias", bias)


def _constant(graph: ModelGraph, what: str, tensor: gs.Tensor) -> Array:
    value = graph.constant(tensor)
    if value is None:
        raise _RefusalError(why_not_constant(graph, what, tensor))
    reason = why_not_moved(f"{what} {tensor.name!r}", value)
    if reason:
        raise _RefusalError(reason)
    return value


def _fold_into_conv(graph: ModelGraph, layer: gs.Node, affine: _Affine) -> None:
    weight = _constant(graph, "weight", layer.inputs[1])
    scale = affine.scale
    if layer.op == "Conv":
        axes = (len(scale),) + (1,) * (weight.ndim - 1)
        scaled = weight * scale.reshape(axes)
    else:
        # W[C, M / group, ...]: output channel g·(M / group) + m comes from the inputs of group g.
        group = int(attribute(layer, "group", 1))
        by_group = weight.reshape(group, weight.shape[0] // group, *weight.shape[1:])
        axes = (group, 1, weight.shape[1]) + (1,) * (weight.ndim - 2)
        scaled = (by_group * scale.reshape(axes)).reshape(weight.shape)
    bias = optional_constant(graph, layer, 2)
    _store(
        graph, layer, _rounded(scaled, weight), _rounded(affine.bias(0.0 if bias is None else bias), weight)
    )


def _fold_into_gemm(graph: ModelGraph, layer: gs.Node, affine: _Affine) -> None:
    weight = _constant(graph, "weight", layer.inputs[1])
    scaled = weight * (affine.scale[:, None] if attribute(layer, "transB", 0) else affine.scale)
    old = optional_constant(graph, layer, 2)
    bias: Array | float = 0.0
    if old is not None:
        vector = per_channel(old, len(affine.scale), 2, -1)
        if vector is None:
            raise _RefusalError(
                f"C of {node_label(layer)} has shape {list(old.shape)}, not one number a column"
            )
        bias = float(attribute(layer, "beta", 1.0)) * vector.astype(np.float64)
    _store(graph, layer, _rounded(scaled, weight), _rounded(affine.bias(bias), weight))
    if "beta" in layer.attrs:
        layer.attrs["beta"] = 1.0


def _store(graph: ModelGraph, layer: gs.Node, weight: Array, bias: Array) -> None:
    graph.set_constant(layer, 1, weight)
    if optional_input(layer, 2) is not None:
        graph.set_constant(layer, 2, bias)
        return
    tensor = graph.add_constant(f"{node_label(layer)}_bias", bias)
    if len(layer.inputs) > 2:
        layer.inputs[2] = tensor
    else:
        layer.inputs.append(tensor)


def _matmul_weight(graph: ModelGraph, layer: gs.Node, channels: int) -> Array:
    weight = _constant(graph, "weight", layer.inputs[1])
    rank = graph.shape(layer.inputs[0])
    if rank is None or len(rank) != 2 or weight.ndim != 2 or weight.shape[1] != channels:
        raise _RefusalError(f"{node_label(layer)} does not have its channels in axis 1")
    return weight


def _matmul_and_bias(graph: ModelGraph, add: gs.Node) -> tuple[int, gs.Node]:
    for index in (0, 1):
        other = add.inputs[1 - index]
        if graph.constant(add.inputs[index]) is not None and len(other.inputs) == 1:
            matmul = other.inputs[0]
            if is_standard(matmul, "MatMul") and graph.sole_consumer(other) is not None:
                return index, matmul
    raise _RefusalError("its input comes from Add, not from a layer with weights")


def _take_over(graph: ModelGraph, layer: gs.Node, node: gs.Node) -> None:
    """``layer`` makes what ``node`` made, and ``node`` goes."""
    output = node.outputs[0]
    layer.outputs.clear()
    graph.remove(node)
    layer.outputs.append(output)


def _rounded(values: Array, like: Array) -> Array:
    with np.errstate(over="ignore"):
        rounded = values.astype(like.dtype)
    _check_finite(rounded)
    return rounded


def _check_finite(values: Array) -> None:
    if not np.isfinite(values).all():
        raise _RefusalError(f"the folded weights are not finite in {values.dtype}")
