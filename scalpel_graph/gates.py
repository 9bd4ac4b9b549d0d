"""Activations ``y · gate(y)`` in a graph, however they are written: HardSwish, SiLU and GELU."""

from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.graph import ModelGraph
from scalpel_graph.ops import Gate


@dataclass(frozen=True)
class GatedActivation:
    """Nodes that compute ``y · gate(y)``, of a tensor ``y`` that nothing else reads.

    Attributes:
        gate: which.
        nodes: all of them; the last one makes the result.
    """

    gate: Gate
    nodes: tuple[gs.Node, ...]

    @property
    def output(self) -> gs.Tensor:
        """The result."""
        return self.nodes[-1].outputs[0]


def activation_of(graph: ModelGraph, y: gs.Tensor) -> GatedActivation | None:
    """The activation that is all that reads ``y``; None if there is no such."""
    if graph.is_pinned(y):
        return None
    readers = list(y.outputs)
    if len(readers) == 1:
        gate = _operator(readers[0])
        return None if gate is None else GatedActivation(gate, (readers[0],))
    if len(readers) != 2:
        return None
    for first, last in (readers, readers[::-1]):
        found = _product_with_sigmoid(graph, y, first, last) or _product_with_erf(graph, y, first, last)
        if found is not None:
            return found
    return None


def _is(node: gs.Node | None, op_type: str) -> bool:
    return node is not None and (node.domain or "") in ("", "ai.onnx") and node.op == op_type


def _operator(node: gs.Node) -> Gate | None:
    if _is(node, "HardSwish"):
        return Gate.HARD_SWISH
    if _is(node, "Swish") and node.attrs.get("alpha", 1.0) == 1.0:
        return Gate.SILU
    if _is(node, "Gelu") and node.attrs.get("approximate", "none") == "none":
        return Gate.GELU
    return None


def _product_with_sigmoid(
    graph: ModelGraph, y: gs.Tensor, inner: gs.Node, product: gs.Node
) -> GatedActivation | None:
    """``y · Sigmoid(y)``, ``y · HardSigmoid(y)`` with the slope of HardSwish."""
    if _is(inner, "Sigmoid"):
        gate = Gate.SILU
    elif (
        _is(inner, "HardSigmoid")
        and np.isclose(inner.attrs.get("alpha", 0.2), 1 / 6)
        and inner.attrs.get("beta", 0.5) == 0.5
    ):
        gate = Gate.HARD_SWISH
    else:
        return None
    if not _is(product, "Mul") or graph.sole_consumer(inner.outputs[0]) is not product:
        return None
    return GatedActivation(gate, (inner, product))


def _product_with_erf(
    graph: ModelGraph, y: gs.Tensor, scaled: gs.Node, product: gs.Node
) -> GatedActivation | None:
    """``y · (Erf(y / √2) + 1) · 1/2``, the factors in any order."""
    if _is(scaled, "Div"):
        is_deviation = scaled.inputs[0] is y and _is_number(graph, scaled.inputs[1], 2**0.5)
    else:
        is_deviation = _is(scaled, "Mul") and _has_factors(graph, scaled, y, 0.5**0.5)
    if not is_deviation:
        return None
    erf = graph.sole_consumer(scaled.outputs[0])
    sum_ = graph.sole_consumer(erf.outputs[0]) if erf is not None and _is(erf, "Erf") else None
    if erf is None or sum_ is None or not _is(sum_, "Add"):
        return None
    if not any(_is_number(graph, tensor, 1.0) for tensor in sum_.inputs):
        return None
    twice_gate = sum_.outputs[0]
    next_ = graph.sole_consumer(twice_gate)
    if next_ is None or not _is(next_, "Mul") or not _is(product, "Mul"):
        return None
    if next_ is product:  # (y · (Erf + 1)) · 1/2
        last = graph.sole_consumer(product.outputs[0])
        halves = last is not None and _is(last, "Mul") and _has_factors(graph, last, product.outputs[0], 0.5)
        nodes = (scaled, erf, sum_, product, last)
    elif _has_factors(graph, next_, twice_gate, 0.5):  # y · ((Erf + 1) · 1/2)
        halves = graph.sole_consumer(next_.outputs[0]) is product
        nodes = (scaled, erf, sum_, next_, product)
    else:  # (y · 1/2) · (Erf + 1)
        halves = _has_factors(graph, product, y, 0.5) and graph.sole_consumer(product.outputs[0]) is next_
        nodes = (scaled, erf, sum_, product, next_)
    return GatedActivation(Gate.GELU, nodes) if halves else None


def _has_factors(graph: ModelGraph, product: gs.Node, tensor: gs.Tensor, number: float) -> bool:
    a, b = product.inputs
    return (a is tensor and _is_number(graph, b, number)) or (b is tensor and _is_number(graph, a, number))


def _is_number(graph: ModelGraph, tensor: gs.Tensor, number: float) -> bool:
    value = graph.constant(tensor)
    if value is None or value.size != 1 or value.ndim > 1:
        return False
    return bool(np.isclose(value.item(), number))
