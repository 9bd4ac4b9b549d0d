"""How large a model is: the weights it stores and the multiply-accumulates of one run."""

import math
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, helper

from scalpel_graph import ops, qlinear_ops, quantized_ops
from scalpel_graph.assumed_sizes import shapes_with
from scalpel_graph.stand_ins import replace_by_stand_ins

#: Element types of weights.
FLOATS = {TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16}

#: Which inputs of operators on integers hold data, and not a scale or a zero point.
INTEGER_DATA = {
    "DequantizeLinear": (0,),
    "ConvInteger": (1,),
    "MatMulInteger": (0, 1),
    "QLinearConv": (3, 8),
    "QLinearMatMul": (0, 3),
    "QGemm": (3, 6),
    "QLinearAdd": (0, 3),
    "QLinearMul": (0, 3),
}

#: Which input holds the weights, where it is not input 1.
WEIGHT_PLACES = {"QLinearConv": 3, "QLinearMatMul": 3, "QGemm": 3}

_INTEGER_OPERATORS = (*quantized_ops.OPERATORS, *qlinear_ops.OPERATORS, ops.SCALED_GEMM)
#: Those of ours that are convolutions.
_CONVS = (ops.CONV, quantized_ops.CONV, quantized_ops.GROUP_CSR_CONV, *qlinear_ops.CONVS)

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
            their integer forms (QLinearConv, ConvInteger, QGemm and their kin), of LSTM, GRU, RNN, and of the
            operators of `scalpel_graph.ops` that multiply by a matrix. A group-CSR matrix counts the values
            it stores; a node whose shapes cannot be inferred counts nothing.
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
    replace_by_stand_ins(light.graph)
    shapes = shapes_with(light, dimensions)
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
        if tensor.data_type in FLOATS or name in integers:
            yield math.prod(tensor.dims)


def _integer_weights(graph: GraphProto) -> set[str]:
    """The names of what integer operators read as weights, biases or other data."""
    names: set[str] = set()
    for node in graph.node:
        places: Sequence[int] = INTEGER_DATA.get(node.op_type, ())
        if node.domain == ops.DOMAIN and node.op_type in _INTEGER_OPERATORS:
            given = enumerate(ops.inputs(node.op_type))
            places = [place for place, name in given if name in ("values", "weight", "bias")]
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


def _replace_group_csr(graph: GraphProto) -> None:
    """Puts standard operators in the place of ours, which shape inference sees through more surely."""
    for node in graph.node:
        if not ops.is_ours(node) or node.op_type not in ops.GROUP_CSR_OPERATORS:
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
    place = WEIGHT_PLACES.get(node.op_type, 1)
    if node.domain == ops.DOMAIN and node.op_type in qlinear_ops.OPERATORS:
        place = qlinear_ops.inputs(node.op_type).index("values")
    tensors = [*node.input[:1], *node.input[place : place + 1], *node.output[:1]]
    if len(tensors) < 3 or any(name not in shapes for name in tensors):
        return 0
    return macs(node.op_type, *(shapes[name] for name in tensors), domain=node.domain)


def macs(op: str, x: Sequence[int], weight: Sequence[int], y: Sequence[int], *, domain: str = "") -> int:
    """Multiply-accumulates of one node; 0 for operators that are not counted.

    Args:
        op: the operator.
        x, weight, y: the shapes of its data, its weights or second factor, and its output.
        domain: the operator's.
    """
    rules = {
        ("", "Conv"): _conv,
        ("", "ConvTranspose"): _conv_transpose,
        ("", "Gemm"): _gemm,
        ("", "MatMul"): _matmul,
        ("", "ConvInteger"): _conv,
        ("", "MatMulInteger"): _matmul,
        ("", "QLinearConv"): _conv,
        ("", "QLinearMatMul"): _matmul,
        ("com.microsoft", "QGemm"): _gemm,
        **{("", name): _recurrent for name in ("LSTM", "GRU", "RNN")},
        **{(ops.DOMAIN, name): _group_csr_gemm for name in (*ops.GROUP_CSR_OPERATORS, *_INTEGER_OPERATORS)},
        **{(ops.DOMAIN, name): _group_csr_conv for name in _CONVS},
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
