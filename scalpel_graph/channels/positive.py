"""Which tensors are never zero, whatever goes into the model: denominators that zeros may be divided by."""

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.graph import ModelGraph

#: Operators whose result is not negative.
_NOT_NEGATIVE = (
    "Abs", "Exp", "ReduceL1", "ReduceL2", "ReduceSumSquare", "Relu", "Sigmoid", "Softplus", "Sqrt",
)  # fmt: skip
#: Operators that hand on signs.
_HANDING_ON = ("Expand", "Identity", "Reshape", "Sqrt", "Squeeze", "Transpose", "Unsqueeze")
_REDUCTIONS = ("ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")

#: How many operators back to look: enough for every norm, and never a walk through the model.
_REACH = 8


def is_positive(graph: ModelGraph, tensor: gs.Tensor, reach: int = _REACH) -> bool:
    """Whether every element is certainly larger than zero, NaN aside.

    Exponentials and their like do not count: they underflow. Neither does what takes more than ``reach``
    operators to tell.
    """
    values = graph.constant(tensor)
    if values is not None:
        return bool((values > 0).all())
    node = _maker(tensor)
    if node is None or not reach:
        return False
    inputs = node.inputs
    if node.op in _HANDING_ON:
        return is_positive(graph, inputs[0], reach - 1)
    if node.op == "Max":
        return any(is_positive(graph, operand, reach - 1) for operand in inputs)
    if node.op == "Add":
        larger = [is_positive(graph, operand, reach - 1) for operand in inputs]
        return any(larger) and all(_is_not_negative(graph, operand, reach - 1) for operand in inputs)
    if node.op == "Clip":
        low = graph.constant(inputs[1]) if len(inputs) > 1 else np.asarray(node.attrs.get("min", 0.0))
        high = graph.constant(inputs[2]) if len(inputs) > 2 and inputs[2].name else node.attrs.get("max", 1.0)
        return low is not None and high is not None and bool(np.all(low > 0) and np.all(high > 0))
    return False


def _is_not_negative(graph: ModelGraph, tensor: gs.Tensor, reach: int) -> bool:
    values = graph.constant(tensor)
    if values is not None:
        return bool((values >= 0).all())
    node = _maker(tensor)
    if node is None or not reach:
        return False
    if node.op in _NOT_NEGATIVE or is_positive(graph, tensor, reach - 1):
        return True
    if node.op in (*_HANDING_ON, *_REDUCTIONS):
        return _is_not_negative(graph, node.inputs[0], reach - 1)
    if node.op == "Mul":
        return node.inputs[0] is node.inputs[1]
    if node.op == "Pow":
        exponent = graph.constant(node.inputs[1])
        return exponent is not None and bool((exponent % 2 == 0).all())
    return False


def _maker(tensor: gs.Tensor) -> gs.Node | None:
    """The standard operator that makes a tensor."""
    node = tensor.inputs[0] if tensor.inputs else None
    return node if node is not None and (node.domain or "") in ("", "ai.onnx") else None
