"""Brings QuantizeLinear and DequantizeLinear next to the layers that they belong to.

What moves numbers about or takes the largest of some (Reshape, Flatten, Squeeze, Unsqueeze, Transpose,
MaxPool) makes the same of integers as of the real numbers that they stand for: rounding is monotone, and
there is one scale for all. So ``Quantize(Move(x))`` becomes ``Move(Quantize(x))`` where a quantized layer
makes ``x``, perhaps with a sum, Relu or Clip behind it, and ``Move(Dequantize(q))`` becomes
``Dequantize(Move(q))`` where one reads it. The layer then has integers on both sides, which is not how
PyTorch's exporter always writes it.
"""

import onnx_graphsurgeon as gs

from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.matching import MOVES, is_quantization, is_standard
from scalpel_graph.passes.quantized_layers import is_quantized

#: The first opset whose MaxPool takes integers.
_OPSET = 12


class MoveQuantization(Pass):
    """Moves QuantizeLinear towards the layer before it, DequantizeLinear towards the one behind it."""

    name = "move-quantization"
    summary = "bring QuantizeLinear and DequantizeLinear next to quantized layers"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        if graph.opset < _OPSET:
            return result
        for node in list(graph.nodes):
            quantize: gs.Node | None = node if is_quantization(node, "QuantizeLinear") else None
            while quantize is not None:
                quantize = _quantized_before(graph, quantize)
                if quantize is not None:
                    result.rewritten.append(node_label(quantize))
        for node in list(graph.nodes):
            while is_quantized(node) and (moved := _dequantized_behind(graph, node)) is not None:
                result.rewritten.append(node_label(moved))
        return result


def _quantized_before(graph: ModelGraph, quantize: gs.Node) -> gs.Node | None:
    """Moves a QuantizeLinear before the node whose result it reads; returns it, or None if it stays."""
    move = _maker(quantize.inputs[0])
    if move is None or not _is_move(move) or graph.sole_consumer(move.outputs[0]) is None:
        return None
    if not _has_one_scale(graph, quantize) or not _is_of_layer(graph, move.inputs[0]):
        return None
    integers = graph.add_variable(f"{move.inputs[0].name}_quantized")
    sooner = gs.Node(
        op=quantize.op, name=quantize.name, domain=quantize.domain, attrs=dict(quantize.attrs),
        inputs=[move.inputs[0], *quantize.inputs[1:]], outputs=[integers],
    )  # fmt: skip
    graph.insert_before(move, sooner)
    graph.replace(quantize, _like(move, integers))
    graph.remove(move)
    return sooner


def _dequantized_behind(graph: ModelGraph, layer: gs.Node) -> gs.Node | None:
    """Moves a DequantizeLinear behind the first of the nodes between it and a layer; returns it, or None."""
    move: gs.Node | None = None
    dequantize = _maker(layer.inputs[0])
    while dequantize is not None and _is_move(dequantize):
        move, dequantize = dequantize, _maker(dequantize.inputs[0])
    if move is None or dequantize is None or not is_quantization(dequantize, "DequantizeLinear"):
        return None
    if not _has_one_scale(graph, dequantize):
        return None
    real = dequantize.outputs[0]
    integers = graph.add_variable(f"{move.outputs[0].name}_quantized")
    later = gs.Node(
        op=dequantize.op, name=graph.unique_name(f"{node_label(dequantize)}_moved"), domain=dequantize.domain,
        attrs=dict(dequantize.attrs), inputs=[integers, *dequantize.inputs[1:]],
    )  # fmt: skip
    moved = _like(move, dequantize.inputs[0])
    moved.outputs.append(integers)
    graph.insert_before(move, moved)
    graph.replace(move, later)
    if not real.outputs and not graph.is_pinned(real):
        graph.remove(dequantize)
    return later


def _like(move: gs.Node, data: gs.Tensor) -> gs.Node:
    """The same operation on something else, without an output."""
    return gs.Node(op=move.op, name=move.name, attrs=dict(move.attrs), inputs=[data, *move.inputs[1:]])


def _maker(tensor: gs.Tensor) -> gs.Node | None:
    """The node that makes a tensor, if one does."""
    return tensor.inputs[0] if len(tensor.inputs) == 1 else None


def _is_move(node: gs.Node) -> bool:
    return is_standard(node, *MOVES) and len(node.outputs) == 1


def _has_one_scale(graph: ModelGraph, node: gs.Node) -> bool:
    """Whether a QuantizeLinear or DequantizeLinear has one constant scale for all."""
    scale = graph.constant(node.inputs[1])
    return scale is not None and scale.size == 1


def _is_of_layer(graph: ModelGraph, tensor: gs.Tensor) -> bool:
    """Whether a quantized layer makes a tensor, but for what can be computed with it, and nobody else reads
    what is between."""
    stack = [tensor]
    while stack:
        tensor = stack.pop()
        maker = _maker(tensor)
        if maker is None or graph.sole_consumer(tensor) is None:
            continue
        if is_quantized(maker):
            return True
        if _is_move(maker) or is_standard(maker, "Relu", "Clip"):
            stack.append(maker.inputs[0])
        elif is_standard(maker, "Add"):
            stack.extend(maker.inputs)
    return False
