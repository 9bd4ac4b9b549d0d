"""Nodes of the group-CSR operators (`scalpel_graph.ops`): how passes make, recognise and extend them."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph import ops
from scalpel_graph.graph import ModelGraph
from scalpel_graph.ops import Gate

BIAS = ops.INPUTS.index("bias")
RESIDUAL = ops.INPUTS.index("residual")

NO_ACTIVATION = (-math.inf, math.inf, Gate.NONE)


def is_sparse(node: gs.Node) -> bool:
    """Whether a node is one of the group-CSR operators."""
    return node.domain == ops.DOMAIN and node.op in ops.GROUP_CSR_OPERATORS


def may_take_more(graph: ModelGraph, node: gs.Node) -> bool:
    """Whether a sparse node has neither a residual nor an activation yet."""
    return has_no_residual(graph, node) and activation(node) == NO_ACTIVATION


def has_no_residual(graph: ModelGraph, node: gs.Node) -> bool:
    """Whether the residual of a sparse node is the scalar 0 that stands for none."""
    value = graph.constant(node.inputs[RESIDUAL])
    return value is not None and value.ndim == 0 and not value.any()


def activation(node: gs.Node) -> tuple[float, float, Gate]:
    """``(activation_min, activation_max, activation_gate)`` of a sparse node."""
    attributes = node.attrs
    low, high = float(attributes["activation_min"]), float(attributes["activation_max"])
    return low, high, Gate(attributes["activation_gate"])


def set_activation(node: gs.Node, low: float, high: float, gate: Gate) -> None:
    """Gives a sparse node another activation."""
    node.attrs.update(activation_min=low, activation_max=high, activation_gate=int(gate))


def make(
    op_type: str,
    name: str,
    arrays: Mapping[str, gs.Tensor],
    attributes: Mapping[str, Any],
) -> gs.Node:
    """A node of one of our operators, without outputs and with no activation.

    Args:
        op_type: one of `ops.GROUP_CSR_OPERATORS`.
        name: of the node.
        arrays: a tensor for each of its inputs.
        attributes: all others than the activation.
    """
    node = gs.Node(
        op=op_type,
        name=name,
        domain=ops.DOMAIN,
        inputs=[arrays[key] for key in ops.inputs(op_type)],
        attrs=dict(attributes),
    )
    set_activation(node, *NO_ACTIVATION)
    return node


def none(graph: ModelGraph) -> gs.Constant:
    """The scalar 0 that stands for an absent bias or residual; one for the whole graph."""
    for node in graph.nodes:
        if is_sparse(node):
            for tensor in (node.inputs[BIAS], node.inputs[RESIDUAL]):
                value = graph.constant(tensor)
                if value is not None and value.ndim == 0 and not value.any():
                    return tensor
    return graph.add_constant("scalpel_none", np.zeros((), dtype=np.float32))
