"""Layers that are operators of integers, written as the layers of real numbers that they stand for, and back.

``QLinearConv``, ``QLinearMatMul``, ``QGemm``, ``ConvInteger`` and ``MatMulInteger`` with a constant weight
become Conv, Gemm or MatMul among DequantizeLinear and QuantizeLinear, the form that
`scalpel_graph.pruning.quantized_form` knows. The sums of ``ConvInteger`` and ``MatMulInteger`` stay in steps
of their integers: the scale that they are multiplied by is another node's.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from scalpel_graph.group_csr import Array
from scalpel_graph.pruning.layers import constant_tensors

_MICROSOFT = "com.microsoft"
_EIGHT_BITS = (TensorProto.INT8, TensorProto.UINT8)


@dataclass(frozen=True)
class _Kind:
    """What the inputs of an operator are; None where it has none such.

    Attributes:
        op: the operator of real numbers.
        domain: of the operator of integers.
        weight, weight_scale, weight_zero_point, x_scale, x_zero_point, bias, y_scale: places.
    """

    op: str
    domain: str
    weight: int
    weight_scale: int | None
    weight_zero_point: int
    x_scale: int | None
    x_zero_point: int
    bias: int | None = None
    y_scale: int | None = None


_KINDS = {
    "QLinearConv": _Kind("Conv", "", 3, 4, 5, 1, 2, bias=8, y_scale=6),
    "QLinearMatMul": _Kind("MatMul", "", 3, 4, 5, 1, 2, y_scale=6),
    "QGemm": _Kind("Gemm", _MICROSOFT, 3, 4, 5, 1, 2, bias=6, y_scale=7),
    "ConvInteger": _Kind("Conv", "", 1, None, 3, None, 2),
    "MatMulInteger": _Kind("MatMul", "", 1, None, 3, None, 2),
}


@dataclass(frozen=True)
class RealForm:
    """A network without operators of integers whose weights are constant, as far as they can be written so.

    Attributes:
        model: it; the given model where there are none.
        originals: by the name of the layer that took its place, each operator of integers.
        helpers: outputs of the nodes around these layers.
    """

    model: ModelProto
    originals: Mapping[str, NodeProto] = field(default_factory=dict)
    helpers: frozenset[str] = frozenset()

    def restore(self, pruned: ModelProto) -> ModelProto:
        """The network with its operators of integers again.

        Args:
            pruned: `model` with other weights and biases, integers behind DequantizeLinear all of them but
                biases where there were none.
        """
        if not self.originals:
            return pruned
        result = ModelProto()
        result.CopyFrom(pruned)
        graph = result.graph
        tensors = constant_tensors(graph)
        makers = {name: node for node in graph.node for name in node.output}
        nodes = []
        for node in graph.node:
            original = self.originals.get(node.name)
            if original is not None:
                nodes.append(_as_before(original, node, makers, tensors, graph))
            elif node.output[0] not in self.helpers:
                nodes.append(node)
        read = {name for node in nodes for name in node.input} | {value.name for value in graph.output}
        kept = [node for node in nodes if not _is_unread_constant(node, tensors, read)]
        read = _names_read(kept) | {value.name for value in graph.output}
        stay = [tensor for tensor in graph.initializer if tensor.name in read]
        del graph.node[:], graph.initializer[:]
        graph.node.extend(kept)
        graph.initializer.extend(stay)
        return result


def real_form(model: ModelProto) -> RealForm:
    """Writes a network's operators of integers as layers of real numbers; the model is not changed."""
    tensors = constant_tensors(model.graph)
    found = [node for node in model.graph.node if _can_be_written(node, tensors)]
    names = Counter(node.name or node.output[0] for node in model.graph.node)
    found = [node for node in found if names[node.name or node.output[0]] == 1]
    if not found:
        return RealForm(model)
    result = ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    writer = _Writer(graph, tensors)
    outputs = {node.output[0] for node in found}
    originals = {}
    nodes: list[NodeProto] = []
    for node in graph.node:
        if node.output[0] not in outputs:
            nodes.append(node)
            continue
        layer, around = writer.write(node)
        originals[layer.name] = node
        nodes += around
    del graph.node[:]
    graph.node.extend(nodes)
    return RealForm(result, originals, frozenset(writer.helpers))


class _Writer:
    """Writes layers into a graph.

    Attributes:
        helpers: outputs of nodes beside the layers themselves.
    """

    def __init__(self, graph: GraphProto, tensors: Mapping[str, TensorProto]) -> None:
        self._graph, self._tensors = graph, tensors
        self._taken = {name for node in graph.node for name in (*node.input, *node.output)} | set(tensors)
        self.helpers: set[str] = set()

    def write(self, node: NodeProto) -> tuple[NodeProto, list[NodeProto]]:
        """The layer, and all nodes that take the place of an operator, in order."""
        kind, label = _KINDS[node.op_type], node.name or node.output[0]
        weight = numpy_helper.to_array(self._tensors[node.input[kind.weight]])
        zero_point = _input(node, kind.weight_zero_point)
        x_scale, weight_scale = _input(node, kind.x_scale), _input(node, kind.weight_scale)
        if not x_scale:
            each = numpy_helper.to_array(self._tensors[zero_point]).shape if zero_point else ()
            x_scale = self._constant(f"{label}/x_scale", np.ones((), np.float32))
            weight_scale = self._constant(f"{label}/weight_scale", np.ones(each, np.float32))
        axis = _outputs_axis(node, weight.ndim)
        nodes = [
            self._dequantize(f"{label}/x", node.input[0], x_scale, _input(node, kind.x_zero_point)),
            self._dequantize(f"{label}/weight", node.input[kind.weight], weight_scale, zero_point, axis=axis),
        ]
        given = [nodes[0].output[0], nodes[1].output[0]]
        bias = _input(node, kind.bias)
        if bias:
            steps = self._constant(f"{label}/bias_scale", _bias_scale(node, self._tensors))
            nodes.append(self._dequantize(f"{label}/bias", bias, steps, "", axis=0))
            given.append(nodes[-1].output[0])
        elif node.op_type == "ConvInteger":
            # A bias that is not constant: the scale of these sums may be another each time.
            size = self._constant(f"{label}/outputs", np.array([weight.shape[0]]))
            none = helper.make_node("ConstantOfShape", [size], [self._name(f"{label}/no_bias")])
            nodes.append(none)
            given.append(none.output[0])
        self.helpers.update(made.output[0] for made in nodes)
        layer = helper.make_node(kind.op, given, list(node.output), name=label)
        layer.attribute.extend(node.attribute)
        nodes.append(layer)
        if kind.y_scale is not None and _input(node, kind.y_scale):
            layer.output[0] = self._name(f"{label}/y")
            behind = [layer.output[0], *node.input[kind.y_scale : kind.y_scale + 2]]
            nodes.append(helper.make_node("QuantizeLinear", behind, list(node.output)))
            self.helpers.add(node.output[0])
        return layer, nodes

    def _dequantize(self, hint: str, data: str, scale: str, zero_point: str, *, axis: int = 1) -> NodeProto:
        given = [data, scale, zero_point] if zero_point else [data, scale]
        return helper.make_node("DequantizeLinear", given, [self._name(hint)], axis=axis)

    def _constant(self, hint: str, values: Array) -> str:
        name = self._name(hint)
        self._graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def _name(self, hint: str) -> str:
        name, number = hint, 0
        while name in self._taken:
            name, number = f"{hint}_{number}", number + 1
        self._taken.add(name)
        return name


def _can_be_written(node: NodeProto, tensors: Mapping[str, TensorProto]) -> bool:
    kind = _KINDS.get(node.op_type)
    if kind is None or (node.domain or "").replace("ai.onnx", "") != kind.domain:
        return False
    places = (kind.weight, kind.weight_scale, kind.weight_zero_point, kind.bias)
    if any(name and name not in tensors for name in (_input(node, place) for place in places)):
        return False
    if _input(node, kind.bias) and _input(node, kind.x_scale) not in tensors:
        return False
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    if attributes.get("alpha", 1.0) != 1.0 or attributes.get("transA", 0):
        return False
    return tensors[node.input[kind.weight]].data_type in _EIGHT_BITS


def _input(node: NodeProto, place: int | None) -> str:
    return node.input[place] if place is not None and place < len(node.input) else ""


def _outputs_axis(node: NodeProto, rank: int) -> int:
    """Of the outputs in a weight."""
    if _KINDS[node.op_type].op == "Conv":
        return 0
    is_rows = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return 0 if is_rows else rank - 1


def _bias_scale(node: NodeProto, tensors: Mapping[str, TensorProto]) -> Array:
    """What the integers of a bias are multiples of."""
    kind = _KINDS[node.op_type]
    x, w = (
        numpy_helper.to_array(tensors[_input(node, place)]) for place in (kind.x_scale, kind.weight_scale)
    )
    product = x.reshape(()) * w.reshape(-1)
    return np.asarray(product.reshape(()) if product.size == 1 else product)


def _as_before(
    original: NodeProto,
    layer: NodeProto,
    makers: Mapping[str, NodeProto],
    tensors: Mapping[str, TensorProto],
    graph: GraphProto,
) -> NodeProto:
    """An operator of integers with the weight and bias of a layer."""
    kind = _KINDS[original.op_type]
    node = NodeProto()
    node.CopyFrom(original)
    node.input[kind.weight] = makers[layer.input[1]].input[0]
    bias = layer.input[2] if len(layer.input) > 2 else ""
    if kind.bias is None or not bias:
        return node
    while len(node.input) <= kind.bias:
        node.input.append("")
    if bias in makers:
        node.input[kind.bias] = makers[bias].input[0]
        return node
    limits = np.iinfo(np.int32)
    steps = np.rint(numpy_helper.to_array(tensors[bias]).astype(np.float64) / _bias_scale(original, tensors))
    name = f"{bias}_quantized"
    integers = np.clip(steps, limits.min, limits.max).astype(np.int32)
    graph.initializer.append(numpy_helper.from_array(integers, name))
    node.input[kind.bias] = name
    return node


def _is_unread_constant(node: NodeProto, tensors: Mapping[str, TensorProto], read: set[str]) -> bool:
    is_constant = node.op_type == "DequantizeLinear" and node.input[0] in tensors
    return is_constant and node.output[0] not in read


def _names_read(nodes: list[NodeProto]) -> set[str]:
    names: set[str] = set()
    for node in nodes:
        names.update(node.input)
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                names |= _names_read(list(graph.node)) | {value.name for value in graph.output}
    return names
