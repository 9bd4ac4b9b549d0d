"""Which rule holds for which operator: the one list of them."""

from collections.abc import Callable

import onnx_graphsurgeon as gs

from scalpel_graph import bodies
from scalpel_graph.channels import (
    across_channels,
    along_axis,
    batched_matmul,
    concat_split,
    control_flow,
    einsum,
    elementwise,
    embedding,
    integer_elementwise,
    integer_layers,
    normalization,
    pooling,
    quantize_linear,
    quantized,
    recurrent,
    reduce,
    shape,
)
from scalpel_graph.channels.rule import Refusal, Rule
from scalpel_graph.channels.slots import Slots
from scalpel_graph.graph import ModelGraph

_Maker = Callable[[ModelGraph, gs.Node, Slots], Rule]

_STANDARD: dict[str, _Maker] = {
    **elementwise.RULES,
    **normalization.RULES,
    **pooling.RULES,
    **shape.RULES,
    **concat_split.RULES,
    **embedding.RULES,
    **reduce.RULES,
    **recurrent.RULES,
    **across_channels.RULES,
    **quantize_linear.RULES,
    **quantized.RULES,
    **batched_matmul.RULES,
    **integer_layers.RULES,
    **along_axis.RULES,
    **einsum.RULES,
}

#: ONNX Runtime's own operators.
_MICROSOFT: dict[str, _Maker] = {
    **quantize_linear.RULES,
    **integer_layers.MICROSOFT_RULES,
    **integer_elementwise.MICROSOFT_RULES,
}

#: By domain and operator.
RULES: dict[tuple[str, str], _Maker] = {
    **{("", op): make for op, make in _STANDARD.items()},
    **{("com.microsoft", op): make for op, make in _MICROSOFT.items()},
}

#: Before this opset broadcasting had other rules.
MIN_OPSET = 7


def rule_for(graph: ModelGraph, node: gs.Node, slots: Slots) -> Rule:
    """The rule of a node.

    Raises:
        Refusal: there is none, or it does not hold here.
    """
    if node.domain == bodies.DOMAIN:
        return control_flow.RULES[node.op](graph, node, slots)
    if graph.has_subgraph(node):
        raise Refusal(f"{node.op} holds a subgraph that cannot be looked into")
    make = RULES.get(("" if node.domain == "ai.onnx" else node.domain or "", node.op))
    if make is None:
        domain = f" of domain {node.domain}" if node.domain else ""
        raise Refusal(f"there is no rule for {node.op}{domain}")
    return make(graph, node, slots)
