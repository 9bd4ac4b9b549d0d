"""The nodes of a function of standard operators, as they are written."""

from collections.abc import Mapping, Sequence
from typing import Any

from onnx import AttributeProto, GraphProto, NodeProto, TensorProto, helper


class FunctionBody:
    """Collects the nodes of a function body; each call appends a node and returns its output's name.

    Args:
        attribute_types: of the function's attributes.
    """

    def __init__(self, attribute_types: Mapping[str, AttributeProto.AttributeType]) -> None:
        self.nodes: list[NodeProto] = []
        self._types = attribute_types

    def __call__(
        self, op_type: str, inputs: list[str], output: str, refs: Sequence[str] = (), **attributes: Any
    ) -> str:
        """Appends a node; ``refs`` are attributes whose values are the function's own of the same names."""
        node = helper.make_node(op_type, inputs, [output], **attributes)
        node.attribute.extend(self._reference(name, name) for name in refs)
        self.nodes.append(node)
        return output

    def ints(self, output: str, values: list[int]) -> str:
        """A Constant of int64 ``[len(values)]``."""
        return self("Constant", [], output, value_ints=values)

    def from_attribute(self, name: str, constant_field: str) -> str:
        """A Constant that holds the value of one of the operator's attributes."""
        node = helper.make_node("Constant", [], [name])
        node.attribute.append(self._reference(constant_field, name))
        self.nodes.append(node)
        return name

    def _reference(self, name: str, to: str) -> AttributeProto:
        return AttributeProto(name=name, ref_attr_name=to, type=self._types[to])


def branch(name: str, *nodes: NodeProto) -> GraphProto:
    """A branch of If, whose output is the last node's, a float32 tensor."""
    output = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    return helper.make_graph(nodes, name, [], [output])
