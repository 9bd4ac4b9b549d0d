"""The layers of a model that have a weight matrix, and that matrix as group-CSR sees it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, helper

from scalpel_graph.group_csr import Array

_FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16, TensorProto.DOUBLE}


@dataclass(frozen=True)
class WeightLayer:
    """A Conv, Gemm or MatMul whose weights are a constant floating-point tensor.

    Attributes:
        name: the node's name, or its first output where it has none.
        op: ``Conv``, ``Gemm`` or ``MatMul``.
        node: index of the node in the graph.
        weight: name of the weight tensor.
        weight_shape: shape of the tensor.
        transposed: the tensor is ``[K, M]`` (MatMul, and Gemm without ``transB``).
        group: number of groups of a Conv; 1 for the others.
        depthwise: a Conv with one input channel in each of several groups.
    """

    name: str
    op: str
    node: int
    weight: str
    weight_shape: tuple[int, ...]
    transposed: bool = False
    group: int = 1
    depthwise: bool = False

    @property
    def shape(self) -> tuple[int, int]:
        """``(M, K)``: outputs, and inputs of one output (for Conv: in_channels / group · kernel)."""
        if self.transposed:
            return self.weight_shape[1], self.weight_shape[0]
        return self.weight_shape[0], math.prod(self.weight_shape[1:])

    def matrix(self, tensor: Array) -> Array:
        """The weight tensor as ``W[M, K]``."""
        return tensor.T if self.transposed else tensor.reshape(self.shape)

    def tensor(self, matrix: Array) -> Array:
        """``W[M, K]`` as the weight tensor; the inverse of `matrix`."""
        return np.ascontiguousarray(matrix.T if self.transposed else matrix.reshape(self.weight_shape))


@dataclass(frozen=True)
class UnsuitableLayer:
    """A Conv, Gemm or MatMul without such weights, and why."""

    name: str
    op: str
    reason: str


def weight_layers(model: onnx.ModelProto) -> Iterator[WeightLayer | UnsuitableLayer]:
    """The Conv, Gemm and MatMul nodes of the main graph, in its order.

    Weights are constant if they are an initializer or the value of a Constant node. Subgraphs and model-local
    functions are not looked into.
    """
    constants = constant_tensors(model.graph)
    for index, node in enumerate(model.graph.node):
        if node.domain in ("", "ai.onnx") and node.op_type in ("Conv", "Gemm", "MatMul"):
            yield _layer(index, node, constants)


def constant_tensors(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    """The initializers and the tensors of Constant nodes, by the name of the value."""
    constants = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            constants.update((node.output[0], a.t) for a in node.attribute if a.name == "value")
    return constants


def _layer(index: int, node: NodeProto, constants: dict[str, TensorProto]) -> WeightLayer | UnsuitableLayer:
    name = node.name or node.output[0]
    weight = node.input[1] if len(node.input) > 1 else ""
    tensor = constants.get(weight)
    if tensor is None:
        return UnsuitableLayer(name, node.op_type, f"its right side {weight!r} is not a constant")
    if tensor.data_type not in _FLOATS:
        return UnsuitableLayer(
            name,
            node.op_type,
            f"its weights are {TensorProto.DataType.Name(tensor.data_type)}, not floating point",
        )
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    shape = tuple(tensor.dims)
    if 0 in shape:
        return UnsuitableLayer(name, node.op_type, f"its weight shape {list(shape)} is empty")
    if node.op_type == "Conv":
        if len(shape) < 3:
            return UnsuitableLayer(name, "Conv", f"its weight shape {list(shape)} has no kernel")
        group = attributes.get("group", 1)
        depthwise = group > 1 and shape[1] == 1
        return WeightLayer(name, "Conv", index, weight, shape, group=group, depthwise=depthwise)
    if len(shape) != 2:
        return UnsuitableLayer(name, node.op_type, f"its right side {list(shape)} is not a matrix")
    transposed = node.op_type == "MatMul" or not attributes.get("transB", 0)
    return WeightLayer(name, node.op_type, index, weight, shape, transposed=transposed)
