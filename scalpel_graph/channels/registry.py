"""Which rule holds for which operator: the one list of them."""

from collections.abc import Callable

import onnx_graphsurgeon as gs

from scalpel_graph.channels import (
    across_channels,
    along_axis,
    batched_matmul,
    concat_split,
    einsum,
    elementwise,
    embedding,
    normalization,
    pooling,
    quantized,
    recurrent,
    reduce,
    shape,
)
from scalpel_graph.channels.rule import Refusal, Rule
from scalpel_graph.channels.slots import Slots
from scalpel_graph.graph import ModelGraph

RULES: dict[str, Callable[[ModelGraph, gs.Node, Slots], Rule]] = {
    **elementwise.RULES,
    **normalization.RULES,
    **pooling.RULES,
    **shape.RULES,
    **concat_split.RULES,
    **embedding.RULES,
    **reduce.RULES,
    **recurrent.RULES,
    **across_channels.RULES,
    **quantized.RULES,
    **batched_matmul.RULES,
    **along_axis.RULES,
    **einsum.RULES,
}

#: Before this opset broadcasting had other rules.
MIN_OPSET = 7


def rule_for(graph: ModelGraph, node: gs.Node, slots: Slots) -> Rule:
    """The rule of a node.

    Raises:
        Refusal: there is none, or it does not hold here.
    """
    if (node.domain or "") not in ("", "ai.onnx") or node.op not in RULES:
        domain = f" of domain {node.domain}" if node.domain else ""
        raise Refusal(f"there is no rule for {node.op}{domain}")
    if graph.has_subgraph(node):
        raise Refusal(f"{node.op} holds a subgraph")
    return RULES[node.op](graph, node, slots)
