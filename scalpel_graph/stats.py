"""How large a model is: the weights it stores and the multiply-accumulates of one run."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, shape_inference

from scalpel_graph import ops
from scalpel_graph.graph import ModelGraph

_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}

_Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Size:
    """How large a model is.

    Attributes:
        parameters: elements of the floating-point tensors it stores, subgraphs included. A group-CSR matrix
            counts the values it stores.
        macs: multiply-accumulates of the Conv, ConvTranspose, Gemm, MatMul, GroupCsrConv and GroupCsrGemm
            nodes of the main graph. A group-CSR matrix counts the values it stores; a node whose shapes
            cannot be inferred counts nothing.
    """

    parameters: int
    macs: int


def measure(graph: ModelGraph, dimensions: Mapping[str, int]) -> Size:
    """Measures a model.

    Args:
        graph: the model.
        dimensions: sizes of symbolic dimensions; a symbol that is not there counts as 1.
    """
    light = graph.to_proto(weights=False)
    full = graph.to_proto()
    shapes = _concrete_shapes(light, dimensions)
    shapes.update((tensor.name, tuple(tensor.dims)) for tensor in full.graph.initializer)
    return Size(
        parameters=sum(_parameters(full.graph)),
        macs=sum(_macs(node, shapes) for node in full.graph.node),
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


def _concrete_shapes(model: ModelProto, dimensions: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors when every symbolic dimension of the inputs has a size. ``model`` is changed."""
    graph = model.graph
    _replace_group_csr(graph)
    for value in graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = dimensions.get(dim.dim_param, 1)
    # What the model states about the tensors in between may hold symbols, which would win over sizes.
    del graph.value_info[:]
    for value in graph.output:
        if value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    try:
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    except (onnx.shape_inference.InferenceError, ValueError):
        graph = model.graph
    shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return shapes


def _replace_group_csr(graph: GraphProto) -> None:
    """Puts standard operators in the place of ours, which shape inference sees through more surely."""
    for node in graph.node:
        if node.domain != ops.DOMAIN or node.op_type not in ops.OPERATORS:
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
    rules = {
        ("", "Conv"): _conv,
        ("", "ConvTranspose"): _conv_transpose,
        ("", "Gemm"): _gemm,
        ("", "MatMul"): _matmul,
        (ops.DOMAIN, ops.CONV): _group_csr_conv,
        (ops.DOMAIN, ops.GEMM): _group_csr_gemm,
    }
    rule = rules.get(("" if node.domain == "ai.onnx" else node.domain, node.op_type))
    tensors = [*node.input[:2], *node.output[:1]]
    if rule is None or any(name not in shapes for name in tensors):
        return 0
    return rule(node, *(shapes[name] for name in tensors))


def _conv(_: NodeProto, x: Sequence[int], weight: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(y) * math.prod(weight[1:])


def _conv_transpose(_: NodeProto, x: Sequence[int], weight: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(x) * math.prod(weight[1:])


def _gemm(node: NodeProto, a: Sequence[int], b: Sequence[int], y: Sequence[int]) -> int:
    transposed = next((bool(attribute.i) for attribute in node.attribute if attribute.name == "transA"), False)
    return math.prod(y) * a[0 if transposed else 1]


def _matmul(_: NodeProto, a: Sequence[int], b: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(y) * a[-1]


def _group_csr_conv(_: NodeProto, x: Sequence[int], values: Sequence[int], y: Sequence[int]) -> int:
    return y[0] * math.prod(y[2:]) * math.prod(values)


def _group_csr_gemm(_: NodeProto, x: Sequence[int], values: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(y[:-1]) * math.prod(values)
