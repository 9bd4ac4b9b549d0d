"""Brings an expanded LRN together again, in an operator of ours that reads its input once.

What `expand_lrn` made, with the channels that are left of it:

    s = Conv(x · x)          1×1; its weight is a band of equal numbers, alpha
    y = x · Reciprocal(p)    p = s^beta, of products and square roots: 0.5, 0.75 and 1

becomes ``WindowedLrn`` (`scalpel_graph.windowed_lrn`) of ``x``: the non-zeros of a row of the band say where
the window of a channel begins and ends. Only where there are kernels for it, and nothing else reads what was
in between.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph import ops
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.matching import attribute, is_standard, optional_constant, why_not_constant
from scalpel_graph.target import CpuTarget


class FuseLrn(Pass):
    """Replaces Conv over squares, square roots and a product by WindowedLrn."""

    name = "fuse-lrn"
    summary = "merge an expanded LRN into one operator with kernels of its own"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        target = context.target
        if not isinstance(target, CpuTarget) or not target.kernels:
            return result
        for node in list(graph.nodes):
            for pattern in _patterns(node):
                label = node_label(node)
                reason = _fuse(graph, node, pattern)
                if reason:
                    result.skip(label, reason)
                else:
                    result.rewritten.append(label)
                break
        return result


@dataclass
class _Pattern:
    """An LRN in standard operators; ``between`` are its other nodes, from the last to the first."""

    x: gs.Tensor
    conv: gs.Node
    beta: float
    between: list[gs.Node] = field(default_factory=list)


def _patterns(node: gs.Node) -> Iterator[_Pattern]:
    """The LRN that ends in a Mul, if one does."""
    if not is_standard(node, "Mul"):
        return
    for x, factor in (node.inputs, reversed(node.inputs)):
        reciprocal = _maker(factor, "Reciprocal")
        if reciprocal is None:
            continue
        for beta, roots, s in _powers(reciprocal.inputs[0]):
            conv = _maker(s, "Conv")
            square = None if conv is None else _maker(conv.inputs[0], "Mul")
            if conv is not None and square is not None and all(tensor is x for tensor in square.inputs):
                yield _Pattern(x, conv, beta, [reciprocal, *roots, conv, square])


def _powers(power: gs.Tensor) -> Iterator[tuple[float, list[gs.Node], gs.Tensor]]:
    """What a tensor may be a power of: the exponent, the nodes that raise to it, and the base."""
    yield 1.0, [], power
    root = _maker(power, "Sqrt")
    if root is not None:
        yield 0.5, [root], root.inputs[0]
    product = _maker(power, "Mul")
    for first, second in () if product is None else (product.inputs, reversed(product.inputs)):
        root, fourth_root = _maker(first, "Sqrt"), _maker(second, "Sqrt")
        if root is not None and fourth_root is not None and fourth_root.inputs[0] is first:
            yield 0.75, [product, fourth_root, root], root.inputs[0]


def _maker(tensor: gs.Tensor, op: str) -> gs.Node | None:
    """The node that makes a tensor, if it is one of this standard operator."""
    return tensor.inputs[0] if len(tensor.inputs) == 1 and is_standard(tensor.inputs[0], op) else None


def _fuse(graph: ModelGraph, node: gs.Node, pattern: _Pattern) -> str:
    """Puts the operator in the place of the pattern; gives the reason where that cannot be."""
    conv, label = pattern.conv, node_label(node)
    if graph.opset < ops.MIN_OPSET:
        return f"the model is of opset {graph.opset}; {ops.LRN} needs {ops.MIN_OPSET}"
    inside = {id(one) for one in (node, *pattern.between)}
    for one in pattern.between:
        if graph.is_pinned(one.outputs[0]) or any(
            id(reader) not in inside for reader in one.outputs[0].outputs
        ):
            return f"{one.outputs[0].name!r} is read elsewhere as well"
    weight, bias = optional_constant(graph, conv, 1), optional_constant(graph, conv, 2)
    if weight is None:
        return why_not_constant(graph, "weight", conv.inputs[1])
    shape = graph.shape(pattern.x)
    if shape is None or len(shape) != weight.ndim or weight.ndim < 3:
        return "the rank of its input is not known, or not that of the weight"
    if not _adds_up_channels(conv, weight):
        return f"{node_label(conv)} is no sum over channels alone"
    if bias is None or bias.shape != weight.shape[:1] or {weight.dtype, bias.dtype} != {np.dtype(np.float32)}:
        return f"{node_label(conv)} has no constant float32 bias"
    found = windows(weight.reshape(weight.shape[:2]))
    if found is None:
        return f"the weight of {node_label(conv)} is no band of equal numbers"
    alpha, begin, end = found
    fused = gs.Node(
        ops.LRN,
        node.name,
        domain=ops.DOMAIN,
        inputs=[
            pattern.x,
            graph.add_constant(f"{label}_window_begin", begin),
            graph.add_constant(f"{label}_window_end", end),
            conv.inputs[2],
        ],
        attrs={"weight_shape": list(weight.shape), "alpha": alpha, "beta": pattern.beta},
    )
    graph.replace(node, fused)
    graph.remove(*pattern.between)
    return ""


def _adds_up_channels(conv: gs.Node, weight: Array) -> bool:
    """Whether a Conv is a square matrix over the channels of each pixel."""
    channels, spatial = weight.shape[0], weight.ndim - 2
    return (
        weight.shape == (channels, channels, *[1] * spatial)
        and attribute(conv, "group", 1) == 1
        and attribute(conv, "auto_pad", "NOTSET") == "NOTSET"
        and all(stride == 1 for stride in attribute(conv, "strides", []))
        and not any(attribute(conv, "pads", []))
    )


def windows(band: Array) -> tuple[float, Array, Array] | None:
    """Takes a band matrix apart.

    Args:
        band: ``[C, C]`` float32.

    Returns:
        the number that all its non-zeros are (0 if there are none), and for each row where they begin and
        end, int32 ``[C]`` each; None if the non-zeros differ or those of a row are not next to each other.
    """
    rows, columns = np.nonzero(band)
    values = band[rows, columns]
    alpha = values[0] if values.size else np.float32(0)
    if not np.isfinite(alpha) or (values != alpha).any():
        return None
    channels = len(band)
    counts = np.bincount(rows, minlength=channels)
    begin = np.full(channels, channels)
    np.minimum.at(begin, rows, columns)
    begin[counts == 0] = 0
    end = np.zeros(channels, dtype=np.int64)
    np.maximum.at(end, rows, columns + 1)
    if (end - begin != counts).any():
        return None
    return float(alpha), begin.astype(np.int32), end.astype(np.int32)
