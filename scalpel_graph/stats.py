"""How large a model is: the weights it stores and the multiply-accumulates of one run."""

import contextlib
import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper, shape_inference

from scalpel_graph import ops
from scalpel_graph.stand_ins import replace_by_stand_ins

_FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}

#: Which inputs of operators on integers hold data, and not a scale or a zero point.
_INTEGER_DATA = {
    "DequantizeLinear": (0,),
    "ConvInteger": (1,),
    "MatMulInteger": (0, 1),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (0, 3),
    "QGemm": (3, 6),
    "QLinearAdd": (0, 3),
    "QLinearMul": (0, 3),
}

#: Initializers of more elements than this cannot hold a shape.
_SMALL = 1024

_Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Size:
    """How large a model is.

    Attributes:
        parameters: elements of the floating-point tensors it stores, scales of quantization included, and of
            the integer tensors that DequantizeLinear or an integer layer reads; subgraphs included. A
            group-CSR matrix counts the values it stores.
        macs: multiply-accumulates of the Conv, ConvTranspose, Gemm and MatMul nodes of the main graph, of
            their integer forms (QLinearConv, ConvInteger, QGemm and their kin), and of GroupCsrConv and
            GroupCsrGemm. A group-CSR matrix counts the values it stores; a node whose shapes
            cannot be inferred counts nothing.
    """

    parameters: int
    macs: int


def measure(model: ModelProto, dimensions: Mapping[str, int]) -> Size:
    """Measures a model, which is not changed.

    Args:
        model: the model.
        dimensions: sizes of symbolic dimensions; a symbol that is not there counts as 1.
    """
    shapes = _concrete_shapes(_without_weights(model), dimensions)
    shapes.update((tensor.name, tuple(tensor.dims)) for tensor in model.graph.initializer)
    return Size(
        parameters=sum(_parameters(model.graph, _integer_weights(model.graph))),
        macs=sum(_macs(node, shapes) for node in model.graph.node),
    )


def _parameters(graph: GraphProto, integers: Set[str]) -> Iterator[int]:
    """The size of each tensor that counts: of floating-point numbers, or named in ``integers``."""
    stored = [(tensor.name, tensor) for tensor in graph.initializer]
    stored += [(sparse.values.name, sparse.values) for sparse in graph.sparse_initializer]
    for node in graph.node:
        if node.op_type == "Constant":
            stored += [(node.output[0], a.t) for a in node.attribute if a.type == AttributeProto.TENSOR]
        for subgraph in _subgraphs(node):
            yield from _parameters(subgraph, integers)
    for name, tensor in stored:
        if tensor.data_type in _FLOATS or name in integers:
            yield math.prod(tensor.dims)


def _integer_weights(graph: GraphProto) -> set[str]:
    """The names of what integer operators read as weights, biases or other data."""
    names: set[str] = set()
    for node in graph.node:
        places = _INTEGER_DATA.get(node.op_type, ())
        names.update(node.input[place] for place in places if place < len(node.input))
        for subgraph in _subgraphs(node):
            names |= _integer_weights(subgraph)
    return names


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


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


def _concrete_shapes(model: ModelProto, dimensions: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Every tensor's shape when each symbolic dimension of the inputs has a size. ``model`` is changed."""
    graph = model.graph
    _replace_group_csr(graph)
    replace_by_stand_ins(graph)
    for value in graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = dimensions.get(dim.dim_param, 1)
    with contextlib.suppress(shape_inference.InferenceError, ValueError, RuntimeError):
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return shapes


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
    rules = {
        ("", "Conv"): (_conv, 1),
        ("", "ConvTranspose"): (_conv_transpose, 1),
        ("", "Gemm"): (_gemm, 1),
        ("", "MatMul"): (_matmul, 1),
        ("", "ConvInteger"): (_conv, 1),
        ("", "MatMulInteger"): (_matmul, 1),
        ("", "QLinearConv"): (_conv, 3),
        ("", "QLinearMatMul"): (_matmul, 3),
        ("com.microsoft", "QGemm"): (_gemm, 3),
        (ops.DOMAIN, ops.CONV): (_group_csr_conv, 1),
        (ops.DOMAIN, ops.GEMM): (_group_csr_gemm, 1),
    }
    domain = "" if node.domain == "ai.onnx" else node.domain
    rule, weight = rules.get((domain, node.op_type), (None, 1))
    if rule is None or len(node.input) <= weight or not node.output:
        return 0
    tensors = [node.input[0], node.input[weight], node.output[0]]
    if any(name not in shapes for name in tensors):
        return 0
    try:
        return rule(node, *(shapes[name] for name in tensors))
    except IndexError:  # a shape that the operator does not take: the model is not valid
        return 0


def _conv(_: NodeProto, x: Sequence[int], weight: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(y) * math.prod(weight[1:])


def _conv_transpose(_: NodeProto, x: Sequence[int], weight: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(x) * math.prod(weight[1:])


def _gemm(node: NodeProto, a: Sequence[int], b: Sequence[int], y: Sequence[int]) -> int:
    transposed = next(
        (bool(attribute.i) for attribute in node.attribute if attribute.name == "transA"), False
    )
    return math.prod(y) * a[0 if transposed else 1]


def _matmul(_: NodeProto, a: Sequence[int], b: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(y) * a[-1]


def _group_csr_conv(_: NodeProto, x: Sequence[int], values: Sequence[int], y: Sequence[int]) -> int:
    return y[0] * math.prod(y[2:]) * math.prod(values)


def _group_csr_gemm(_: NodeProto, x: Sequence[int], values: Sequence[int], y: Sequence[int]) -> int:
    return math.prod(y[:-1]) * math.prod(values)
