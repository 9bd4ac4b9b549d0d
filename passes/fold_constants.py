"""Computes once what does not depend on any input.

``Constant`` nodes become initializers, and every other node whose inputs are all constants is replaced by its
value: ``f(c) = v``, where ONNX Runtime itself computes ``v``, with its graph optimizations off. Sizes that
are known, picked by ``Gather`` from the ``Shape`` of a tensor, are constants too.

Left alone, so that nothing changes but the time it takes:

- operators that may give another result next time (random ones), or that hold subgraphs;
- QuantizeLinear and its kin: they carry the form that integer runtimes look for;
- other domains and model-local functions;
- results much larger than what they come from (``ConstantOfShape``, ``Expand``): the file would grow;
- outputs of the model.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto, helper

from scalpel_graph.evaluate import evaluate
from scalpel_graph.graph import ModelGraph, constant_of_node, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.matching import is_standard

#: A result may be this many bytes larger than the constants it is computed from.
_MAX_GROWTH = 256

_NOT_REPEATABLE = {
    "Bernoulli", "Dropout", "Multinomial",
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike",
}  # fmt: skip
_QUANTIZED = {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"}


class FoldConstants(Pass):
    """Replaces nodes with constant inputs by their values."""

    name = "fold-constants"
    summary = "compute what does not depend on any input"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        constants_to_initializers(graph, result)
        _sizes_to_initializers(graph, result)
        foldable = _foldable(graph, result)
        for node, values in _evaluate(graph, foldable, result):
            label = node_label(node)
            _replace(graph, node, {name: gs.Constant(name, array) for name, array in values.items()})
            result.rewritten.append(label)
        return result


def constants_to_initializers(graph: ModelGraph, result: PassResult) -> None:
    """Turns Constant nodes into initializers of the same name."""
    nodes = [node for node in graph.nodes if is_standard(node, "Constant")]
    for node in nodes:
        constant = constant_of_node(node.outputs[0].name, node.attrs)
        if constant is None:
            result.skip(node_label(node), "holds a sparse or a text value, which stays as it is written")
        elif not graph.is_output(node.outputs[0]):
            result.rewritten.append(node_label(node))
            _replace(graph, node, {node.outputs[0].name: constant})


def _sizes_to_initializers(graph: ModelGraph, result: PassResult) -> None:
    """Replaces what picks sizes that are known from the Shape of a tensor."""
    for node in [node for node in graph.nodes if is_standard(node, "Gather")]:
        maker = node.inputs[0].inputs[0] if node.inputs[0].inputs else None
        indices = graph.constant(node.inputs[1])
        if maker is None or indices is None or not is_standard(maker, "Shape"):
            continue
        shape = graph.shape(maker.inputs[0])
        if shape is None or graph.is_output(node.outputs[0]):
            continue
        sizes = shape[maker.attrs.get("start", 0) : maker.attrs.get("end", len(shape))]
        if any(not -len(sizes) <= index < len(sizes) for index in indices.reshape(-1)):
            continue
        picked = [sizes[index] for index in indices.reshape(-1)]
        if all(isinstance(size, int) for size in picked):
            result.rewritten.append(node_label(node))
            values = np.array(picked, dtype=np.int64).reshape(indices.shape)
            _replace(graph, node, {node.outputs[0].name: gs.Constant(node.outputs[0].name, values)})


@dataclass(frozen=True)
class _Foldable:
    node: gs.Node
    outputs: list[gs.Tensor]


def _replace(graph: ModelGraph, node: gs.Node, constants: dict[str, gs.Constant]) -> None:
    """Takes ``node`` out and gives its readers ``constants``, which have the names of its outputs."""
    for tensor in list(node.outputs):
        if tensor.name in constants:
            graph.redirect(tensor, constants[tensor.name])
            graph.keep(constants[tensor.name])
    graph.remove(node)


def _foldable(graph: ModelGraph, result: PassResult) -> list[_Foldable]:
    """Nodes that depend on constants alone and may be computed, in topological order."""
    known: set[int] = set()
    nodes = []
    for node in graph.nodes:
        inputs = [tensor for tensor in node.inputs if tensor.name]
        if not inputs or not all(id(t) in known or isinstance(t, gs.Constant) for t in inputs):
            continue
        outputs = [tensor for tensor in node.outputs if tensor.name]
        reason = _refusal(graph, node, inputs, outputs)
        if reason:
            result.skip(node_label(node), reason)
            continue
        known.update(id(tensor) for tensor in outputs)
        nodes.append(_Foldable(node, outputs))
    return nodes


def _refusal(graph: ModelGraph, node: gs.Node, inputs: list[gs.Tensor], outputs: list[gs.Tensor]) -> str:
    """Why a node with constant inputs is not computed; empty if it is."""
    if (node.domain or "") not in ("", "ai.onnx"):
        return f"{node.op} is not a standard operator"
    if node.op in _NOT_REPEATABLE:
        return f"{node.op} need not give the same result twice"
    if node.op in _QUANTIZED:
        return f"{node.op} is part of the quantized form"
    if graph.has_subgraph(node):
        return f"{node.op} holds a subgraph"
    if any(graph.is_output(tensor) for tensor in outputs):
        return "its result is an output of the model"
    size = _bytes(graph, outputs)
    if size is None:
        return "the size of its result is not known before it is computed"
    growth = size - sum(_bytes(graph, [tensor]) or 0 for tensor in inputs if len(tensor.outputs) == 1)
    if growth > _MAX_GROWTH:
        return f"its result would make the file {growth:,} bytes larger"
    return ""


def _bytes(graph: ModelGraph, tensors: list[gs.Tensor]) -> int | None:
    total = 0
    for tensor in tensors:
        shape, kind = graph.shape(tensor), graph.type(tensor)
        if kind is None or shape is None or kind == TensorProto.STRING:
            return None
        sizes = [dim for dim in shape if isinstance(dim, int)]
        if len(sizes) != len(shape):
            return None
        total += int(np.prod(sizes, dtype=np.int64)) * helper.tensor_dtype_to_np_dtype(kind).itemsize
    return total


def _evaluate(
    graph: ModelGraph, foldable: Sequence[_Foldable], result: PassResult
) -> list[tuple[gs.Node, dict[str, Array]]]:
    """Computes nodes in one session; one by one where that session cannot run."""
    if not foldable:
        return []
    try:
        values = _run(graph, foldable, {})
        return [(item.node, {t.name: values[t.name] for t in item.outputs}) for item in foldable]
    except Exception:
        computed: dict[str, Array] = {}
        done = []
        for item in foldable:
            try:
                values = _run(graph, [item], computed)
            except Exception as error:
                reason = " ".join(str(error).split())
                result.skip(node_label(item.node), f"ONNX Runtime cannot compute it: {reason[:200]}")
                continue
            computed.update(values)
            done.append((item.node, values))
        return done


def _run(graph: ModelGraph, items: Sequence[_Foldable], computed: dict[str, Array]) -> dict[str, Array]:
    """The outputs of ``items`` by name. ``computed`` holds values of tensors that earlier nodes made."""
    outputs = [tensor.name for item in items for tensor in item.outputs]
    inside = set(outputs)
    feeds: dict[str, Array] = {}
    for item in items:
        for tensor in item.node.inputs:
            if not tensor.name or tensor.name in inside or tensor.name in feeds:
                continue
            value = graph.constant(tensor)
            feeds[tensor.name] = computed[tensor.name] if value is None else value
    values = evaluate(graph, [item.node for item in items], outputs, feeds)
    for name, value in values.items():
        if not isinstance(value, np.ndarray):
            raise TypeError(f"{name} is not a tensor")
    return values
