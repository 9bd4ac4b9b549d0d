"""Standard operators with the shapes of ONNX Runtime's own quantized ones.

Shape inference stops at an operator of a domain it has no schemas for: everything behind it has no shape.
In a copy of the model made for inference only, each such node gives way to what it is defined by:
DequantizeLinear, the operator on real numbers, QuantizeLinear.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from onnx import GraphProto, NodeProto, TensorProto, helper

DOMAIN = "com.microsoft"


def replace_by_stand_ins(graph: GraphProto) -> None:
    """Puts standard operators in the place of those nodes of a graph that have a stand-in."""
    if all(node.domain != DOMAIN for node in graph.node):
        return
    types = {tensor.name: tensor.data_type for tensor in graph.initializer}
    nodes = list(graph.node)
    del graph.node[:]
    for node in nodes:
        make = _STAND_INS.get(node.op_type) if node.domain == DOMAIN else None
        if node.domain == DOMAIN and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            graph.node.append(_conversion(node, types))
        else:
            graph.node.extend([node] if make is None else make(node))


def _conversion(node: NodeProto, types: Mapping[str, int]) -> NodeProto:
    """A Cast, for these take integers that the standard operators of older opsets do not."""
    to: int | None = TensorProto.FLOAT
    if node.op_type == "QuantizeLinear":
        to = types.get(node.input[2]) if len(node.input) > 2 and node.input[2] else TensorProto.UINT8
    return node if to is None else helper.make_node("Cast", node.input[:1], node.output, to=to)


def _linear(node: NodeProto, op: str, data: Sequence[int], made: int) -> Iterator[NodeProto]:
    """``op`` on dequantized data.

    Args:
        node: what it stands for.
        op: the standard operator.
        data: the inputs that hold data, each with scale and zero point behind it.
        made: the input that holds the scale of the output, its zero point behind it.
    """
    real = []
    for place in data:
        real.append(f"{node.output[0]}/real_{place}")
        given = [node.input[index] for index in range(place, place + 3)]
        yield helper.make_node("DequantizeLinear", given, real[-1:])
    output = f"{node.output[0]}/real"
    standard = helper.make_node(op, real, [output])
    standard.attribute.extend(
        attribute for attribute in node.attribute if attribute.name not in ("channels_last",)
    )
    yield standard
    yield helper.make_node("QuantizeLinear", [output, *node.input[made : made + 2]], node.output)


def _binary(op: str) -> Callable[[NodeProto], Iterator[NodeProto]]:
    return lambda node: _linear(node, op, (0, 3), 6)


def _unary(op: str) -> Callable[[NodeProto], Iterator[NodeProto]]:
    return lambda node: _linear(node, op, (0,), 3)


def _concat(node: NodeProto) -> Iterator[NodeProto]:
    return _linear(node, "Concat", range(2, len(node.input), 3), 0)


def _gemm(node: NodeProto) -> Iterator[NodeProto]:
    """Without its bias, which no shape depends on, and with one scale for all weights, likewise."""
    a, b, product = (f"{node.output[0]}/{name}" for name in ("a", "b", "product"))
    requantized = len(node.input) > 7 and bool(node.input[7])
    axis = {attribute.name: attribute.i for attribute in node.attribute}.get("transB", 0)
    yield helper.make_node("DequantizeLinear", node.input[:3], [a])
    yield helper.make_node("DequantizeLinear", node.input[3:6], [b], axis=1 - axis)
    gemm = helper.make_node("Gemm", [a, b], [product] if requantized else node.output)
    gemm.attribute.extend(node.attribute)
    yield gemm
    if requantized:
        yield helper.make_node("QuantizeLinear", [product, *node.input[7:9]], node.output)


def _softmax(node: NodeProto) -> Iterator[NodeProto]:
    first, softmax, last = _linear(node, "Softmax", (0,), 3)
    kept = [attribute for attribute in softmax.attribute if attribute.name == "axis"]
    del softmax.attribute[:]
    softmax.attribute.extend(kept)
    yield from (first, softmax, last)


_STAND_INS: dict[str, Callable[[NodeProto], Iterator[NodeProto]]] = {
    "QGemm": _gemm,
    "QLinearAdd": _binary("Add"),
    "QLinearMul": _binary("Mul"),
    "QLinearSigmoid": _unary("Sigmoid"),
    "QLinearLeakyRelu": _unary("LeakyRelu"),
    "QLinearAveragePool": _unary("AveragePool"),
    "QLinearGlobalAveragePool": _unary("GlobalAveragePool"),
    "QLinearConcat": _concat,
    "QLinearSoftmax": _softmax,
}
