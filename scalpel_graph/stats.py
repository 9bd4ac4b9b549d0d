"""How large a model is: the weights it stores and the multiply-accumulates of one run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from scalpel_graph import ops
from scalpel_graph.assumed_sizes import shapes_with

_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}

#: Initializers of more elements than this cannot hold a shape.
_SMALL = 1024

_Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Size:
    """How large a model is.

    Attributes:
        parameters: elements of the floating-point tensors it stores, subgraphs included. A group-CSR matrix
            counts the values it stores.
        macs: multiply-accumulates of the Conv, ConvTranspose, Gemm, MatMul, LSTM, GRU, RNN, GroupCsrConv and
            GroupCsrGemm nodes of the main graph. A group-CSR matrix counts the values it stores; a node
            whose shapes cannot be inferred counts nothing.
    """

    parameters: int
    macs: int


def measure(model: ModelProto, dimensions: Mapping[str, int]) -> Size:
    """Measures a model, which is not changed.

    Args:
        model: the model.
        dimensions: sizes of symbolic dimensions; a symbol that is not there counts as 1.
    """
    light = _without_weights(model)
    _replace_group_csr(light.graph)
    shapes = shapes_with(light, dimensions)
    shapes.update((tensor.name, tuple(tensor.dims)) for tensor in model.graph.initializer)
    return Size(
        parameters=sum(_parameters(model.graph)),
        macs=sum(_macs(node, shapes) for node in model.graph.node),
    )


def _parameters(graph: GraphProto) -> Iterator[int]:
    stored = [*graph.initializer, *(sparse.values for sparse in graph.sparse_initializer)]
    yield from (math.prod(tensor.dims) for tensor in stored if tensor.data_type in _FLOATS)
    for node in graph.node:
        for attribute in node.attribute:
            if node.op_type == "Constant" and attribute.type == AttributeProto.TENSOR:
                yield math.prod(attribute.t.dims) if attribute.t.data_type in _FLOATS else 0
            elif attribute.type == AttributeProto.GRAPH:
                yield from _parameters(attribute.g)
            elif attribute.type == AttributeProto.GRAPHS:
                for subgraph in attribute.graphs:
                    yield from _parameters(subgraph)


def _without_weights(model: ModelProto) -> ModelProto:
    """What shape inference needs: large initializers become graph inputs, stated shapes go."""
    light = ModelProto(ir_version=model.ir_version)
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    graph, light.graph.name = model.graph, "shapes"
    light.graph.node.extend(graph.node)
    stored = {tensor.name for tensor in graph.initializer}
    light.graph.input.extend(value for value in graph.input if value.name not in stored)
    for tensor in graph.initializer:
        if math.prod(tensor.dims) <= _SMALL and tensor.data_location != TensorProto.EXTERNAL:
            light.graph.initializer.append(tensor)
        else:
            light.graph.input.append(
                helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            )
    # Symbols that the model states about its outputs would win over the sizes that are inferred.
    for value in graph.output:
        light.graph.output.add(name=value.name)
    return light


def _replace_group_csr(graph: GraphProto) -> None:
    """Puts standard operators in the place of ours, which shape inference sees through more surely."""
    for node in graph.node:
        if not ops.is_ours(node):
            continue
        attributes = {attribute.name: attribute for attribute in node.attribute}
        shape = list(attributes["weight_shape"].ints)
        is_conv = node.op_type == ops.CONV
        weight = f"{node.output[0]}/dense_weight"
        graph.input.append(
            helper.make_tensor_value_info(weight, TensorProto.FLOAT, shape if is_conv else shape[::-1])
        )
        standard = helper.make_node("Conv" if is_conv else "MatMul", [node.input[0], weight], node.output)
        if is_conv:
            standard.attribute.extend(attributes[name] for name in ("strides", "pads", "dilations", "group"))
        node.CopyFrom(standard)


def _macs(node: NodeProto, shapes: _Shapes) -> int:
    """Multiply-accumulates of one node; 0 where it has none or its shapes are unknown."""
    tensors = [*node.input[:2], *node.output[:1]]
    if len(tensors) < 3 or any(name not in shapes for name in tensors):
        return 0
    return macs(node.op_type, *(shapes[name] for name in tensors), domain=node.domain)


def macs(op: str, x: Sequence[int], weight: Sequence[int], y: Sequence[int], *, domain: str = "") -> int:
    """Multiply-accumulates of one node; 0 for operators that are not counted.

    Args:
        op: the operator.
        x, weight, y: the shapes of its first two inputs and of its output.
        domain: the operator's.
    """
    rules = {
        ("", "Conv"): _conv,
        ("", "ConvTranspose"): _conv_transpose,
        ("", "Gemm"): _gemm,
        ("", "MatMul"): _matmul,
        **{("", name): _recurrent for name in ("LSTM", "GRU", "RNN")},
        (ops.DOMAIN, ops.CONV): _group_csr_conv,
        (ops.DOMAIN, ops.GEMM): _group_csr_gemm,
    }
    rule = rules.get(("" if domain == "ai.onnx" else domain, op))
    try:
        return 0 if rule is None else rule(x, weight, y)
    except IndexError:  # a shape that the operator does not take: the model is not valid
        return 0


def _conv(x: Sequence[int], weight: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(y) * math.prod(weight[1:])


def _conv_transpose(x: Sequence[int], weight: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(x) * math.prod(weight[1:])


def _gemm(a: Sequence[int], b: Sequence[int], y: Sequence[int]) -> int:
    return y[0] * math.prod(b)


def _matmul(a: Sequence[int], b: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(y) * a[-1]


def _recurrent(x: Sequence[int], weight: Sequence[int], y: Sequence[int]) -> int:
    """Every step multiplies the input, and the state of each direction, by the rows of all gates."""
    return x[0] * x[1] * weight[0] * weight[1] * (weight[2] + y[-1])


def _group_csr_conv(x: Sequence[int], values: Sequence[int], y: Sequence[int]) -> int:
    return y[0] * math.prod(y[2:]) * math.prod(values)


def _group_csr_gemm(x: Sequence[int], values: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(y[:-1]) * math.prod(values)
