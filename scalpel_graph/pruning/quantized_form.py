"""Quantized networks as pruning sees them: with weights of real numbers, among activations that stay
quantized.

In QDQ form a weight is integers and the DequantizeLinear behind them. For pruning, each such constant becomes
the float32 tensor that it stands for; what is left of the network computes as it did, so weights are fitted
to what the quantized activations are. Then they become integers again, by the scales that they had: zero
becomes the zero point exactly, and a weight that was not changed the integer that it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from scalpel_graph.group_csr import Array
from scalpel_graph.pruning.integer_operators import real_form
from scalpel_graph.pruning.layers import constant_tensors

_LAYERS = ("Conv", "Gemm", "MatMul")
_INTEGERS = (TensorProto.INT8, TensorProto.UINT8, TensorProto.INT32)


@dataclass(frozen=True)
class _Constant:
    """A DequantizeLinear of constants.

    Attributes:
        node: it.
        scale, zero_point: to be broadcast to the integers.
        dtype: of the integers.
    """

    node: NodeProto
    scale: Array
    zero_point: Array
    dtype: np.dtype[Any]

    def real(self, integers: Array) -> Array:
        return ((integers.astype(np.int64) - self.zero_point) * self.scale).astype(np.float32)

    def integers(self, real: Array) -> Array:
        limits = np.iinfo(self.dtype)
        steps = np.rint(real.astype(np.float64) / self.scale.astype(np.float64)) + self.zero_point
        return np.asarray(np.clip(steps, limits.min, limits.max).astype(self.dtype))


class QuantizedForm:
    """A network whose weights are real numbers, and the way back.

    Args:
        model: any network; it is not changed. One that is not quantized is its own form. Operators of
            integers are written as layers of real numbers first (`scalpel_graph.pruning.integer_operators`).

    Attributes:
        model: the form for pruning.
        layers: names of the layers whose weights are integers.
    """

    def __init__(self, model: ModelProto) -> None:
        self._real = real_form(model)
        model = self._real.model
        tensors = constant_tensors(model.graph)
        read = {
            name
            for node in model.graph.node
            if node.op_type in _LAYERS and node.domain in ("", "ai.onnx")
            for name in node.input[1:]
        }
        self._constants: dict[str, _Constant] = {}
        for node in model.graph.node:
            if node.op_type == "DequantizeLinear" and node.output[0] in read:
                constant = _constant(node, tensors)
                if constant is not None:
                    self._constants[node.output[0]] = constant
        self.model = model
        self.layers = frozenset(
            node.name or node.output[0]
            for node in model.graph.node
            if node.op_type in _LAYERS and len(node.input) > 1 and node.input[1] in self._constants
        )
        if not self._constants:
            return
        self.model = ModelProto()
        self.model.CopyFrom(model)
        graph = self.model.graph
        kept = [node for node in graph.node if node.output[0] not in self._constants]
        del graph.node[:]
        graph.node.extend(kept)
        for name, constant in self._constants.items():
            integers = numpy_helper.to_array(tensors[constant.node.input[0]])
            graph.initializer.append(numpy_helper.from_array(constant.real(integers), name))

    def restore(self, pruned: ModelProto) -> ModelProto:
        """The pruned form with integers for weights; the model itself if it never had any.

        Args:
            pruned: `model` with other numbers in some tensors; a tensor that was read twice may be two.
        """
        if not self._constants:
            return self._real.restore(pruned)
        made: dict[str, _Constant] = {}
        for before, after in zip(self.model.graph.node, pruned.graph.node, strict=True):
            for old, new in zip(before.input, after.input, strict=False):
                if old in self._constants:
                    made[new] = self._constants[old]
        result = ModelProto()
        result.CopyFrom(pruned)
        graph = result.graph
        tensors = {tensor.name: tensor for tensor in graph.initializer}
        taken = {name for node in graph.node for name in (*node.input, *node.output)} | set(tensors)
        nodes = []
        for name, constant in made.items():
            integers = constant.integers(numpy_helper.to_array(tensors[name]))
            node = NodeProto()
            node.CopyFrom(constant.node)
            if name != constant.node.output[0]:
                node.input[0] = _unused(f"{name}_quantized", taken)
                node.name, node.output[0] = "", name
            tensor = numpy_helper.from_array(integers, node.input[0])
            if node.input[0] in tensors:
                tensors[node.input[0]].CopyFrom(tensor)
            else:
                graph.initializer.append(tensor)
            nodes.append(node)
        others = [tensor for tensor in graph.initializer if tensor.name not in made]
        del graph.initializer[:]
        graph.initializer.extend(others)
        nodes.extend(graph.node)
        del graph.node[:]
        graph.node.extend(nodes)
        return self._real.restore(result)


def _constant(node: NodeProto, tensors: Mapping[str, TensorProto]) -> _Constant | None:
    """What a DequantizeLinear makes of constants; None where it is of another kind."""
    given = [tensors[name] for name in node.input if name in tensors]
    attributes = {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
    is_constant = len(given) == sum(bool(name) for name in node.input)
    if not is_constant or given[0].data_type not in _INTEGERS or attributes.get("block_size", 0):
        return None
    integers, scale, *rest = (numpy_helper.to_array(tensor) for tensor in given)
    zero_point = rest[0] if rest else np.zeros(1, integers.dtype)
    if scale.dtype != np.float32:
        return None
    along = [1] * integers.ndim
    if scale.size > 1:
        along[attributes.get("axis", 1)] = -1
    return _Constant(
        node,
        scale.reshape(along),
        zero_point.astype(np.int64).reshape(along if zero_point.size > 1 else [1] * integers.ndim),
        integers.dtype,
    )


def _unused(hint: str, taken: set[str]) -> str:
    name, number = hint, 0
    while name in taken:
        name, number = f"{hint}_{number}", number + 1
    taken.add(name)
    return name
