"""The steps that the outputs of a quantized network are made in."""

from collections.abc import Mapping

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper


def last_steps(model: ModelProto) -> dict[str, float]:
    """By output, the largest scale of the last integers that it is made of; 0 where there are none.

    Of what lies between them and the output nothing is known: it is right for what passes numbers on, or
    makes no more of a difference than it gets.
    """
    makers = {name: node for node in model.graph.node for name in node.output if name}
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    scales = {
        name: float(np.abs(numpy_helper.to_array(constants[name])).max(initial=0.0))
        for node in makers.values()
        if (name := _scale(node)) in constants
    }
    return {output.name: _last(output.name, makers, scales) for output in model.graph.output}


def _scale(node: NodeProto) -> str:
    return node.input[1] if node.op_type == "DequantizeLinear" else ""


def _last(name: str, makers: Mapping[str, NodeProto], scales: Mapping[str, float]) -> float:
    largest, seen, stack = 0.0, {name}, [name]
    while stack:
        node = makers.get(stack.pop())
        if node is None:
            continue
        if _scale(node):
            largest = max(largest, scales.get(_scale(node), 0.0))
            continue
        stack += [other for other in node.input if other not in seen]
        seen.update(node.input)
    return largest
