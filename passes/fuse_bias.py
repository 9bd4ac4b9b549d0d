"""Adds a constant to the bias of the layer before it.

``Add(Conv(x, W, b), c) = Conv(x, W, b + c)`` where ``c`` is one number for each output channel (or one for
all), and the same for ConvTranspose, Gemm and the sparse operators. The layer must have no other reader, and
a sparse operator no residual or activation yet: those come after its bias.

A dense MatMul followed by Add stays as it came; it has no bias.
"""

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph import ops
from scalpel_graph.graph import ModelGraph, Shape, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.matching import (
    attribute,
    is_standard,
    optional_input,
    per_channel,
    why_not_constant,
    why_not_moved,
)
from scalpel_graph.passes.sparse_node import BIAS, is_sparse, may_take_more


class FuseBias(Pass):
    """Merges the Add of a constant vector into the bias of the layer that makes its other operand."""

    name = "fuse-bias"
    summary = "merge the Add of a constant per channel into the layer before it"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        for node in list(graph.nodes):
            if not is_standard(node, "Add") or graph.opset < 7:
                continue
            for layer_input, other in (node.inputs, reversed(node.inputs)):
                layer = layer_input.inputs[0] if len(layer_input.inputs) == 1 else None
                values = graph.constant(other)
                if layer is None or values is None or not _is_layer(layer):
                    continue
                reason = _fuse(graph, layer, layer_input, values)
                if reason:
                    result.skip(node_label(node), reason)
                else:
                    result.rewritten.append(node_label(node))
                    layer.outputs.clear()
                    output = node.outputs[0]
                    graph.remove(node)
                    layer.outputs.append(output)
                break
        return result


def _is_layer(node: gs.Node) -> bool:
    return is_standard(node, "Conv", "ConvTranspose", "Gemm") or is_sparse(node)


def _fuse(graph: ModelGraph, layer: gs.Node, product: gs.Tensor, values: Array) -> str:
    """Adds ``values`` to the bias of ``layer``; returns why not, or an empty text."""
    if graph.sole_consumer(product) is None:
        return f"{node_label(layer)} is read elsewhere as well"
    if is_sparse(layer) and not may_take_more(graph, layer):
        return f"{node_label(layer)} already adds a residual or has an activation"
    reason = why_not_moved("what it adds", values)
    if reason:
        return reason
    place = _output_channels(graph, layer, product)
    if place is None:
        return f"the shape of what {node_label(layer)} computes is not known"
    channels, rank, axis = place
    addend = per_channel(values, channels, rank, axis)
    if addend is None:
        return f"{list(values.shape)} is not one number for each of the {channels} output channels"
    index = BIAS if is_sparse(layer) else 2
    bias = optional_input(layer, index)
    if bias is None:
        while len(layer.inputs) <= index:
            layer.inputs.append(gs.Variable.empty())
        layer.inputs[index] = graph.add_constant(f"{node_label(layer)}_bias", addend)
        _forget_beta(layer)
        return ""
    old = graph.constant(bias)
    if old is None:
        return why_not_constant(graph, "bias", bias)
    is_gemm = is_standard(layer, "Gemm")
    vector = per_channel(old, channels, 2 if is_gemm else 1, -1)
    if vector is None:
        return f"C of {node_label(layer)} has shape {list(old.shape)}, not one number for each column"
    beta = float(attribute(layer, "beta", 1.0)) if is_gemm else 1.0
    with np.errstate(over="ignore"):
        total = (beta * vector.astype(np.float64) + addend.astype(np.float64)).astype(old.dtype)
    if not np.isfinite(total).all():
        return f"the sum with the bias of {node_label(layer)} is not finite in {old.dtype}"
    if old.ndim == 0:
        layer.inputs[index] = graph.add_constant(f"{node_label(layer)}_bias", total)
    else:
        graph.set_constant(layer, index, total)
    _forget_beta(layer)
    return ""


def _forget_beta(layer: gs.Node) -> None:
    """The new bias has the factor of Gemm's C in it."""
    if "beta" in layer.attrs:
        layer.attrs["beta"] = 1.0


def _output_channels(graph: ModelGraph, layer: gs.Node, product: gs.Tensor) -> tuple[int, int, int] | None:
    """Number of output channels, rank of the output, and the channel axis counted from the end."""
    if is_sparse(layer):
        shape: Shape | None = tuple(layer.attrs["weight_shape"])
    else:
        shape = graph.shape(layer.inputs[1])
    if shape is None:
        return None
    if is_standard(layer, "Gemm"):
        channels = shape[0] if attribute(layer, "transB", 0) else shape[1]
        rank, axis = 2, -1
    elif layer.op in (ops.GEMM, ops.SCALED_GEMM):
        output = graph.shape(product)
        if output is None:
            return None
        channels, rank, axis = shape[0], len(output), -1
    else:
        channels, rank, axis = shape[0], len(shape), 1 - len(shape)
        if is_standard(layer, "ConvTranspose") and isinstance(shape[1], int):
            channels = shape[1] * int(attribute(layer, "group", 1))
    return (channels, rank, axis) if isinstance(channels, int) else None
