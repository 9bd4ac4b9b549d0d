"""The weights and biases of a model's layers, read as matrices and written back into a copy of the model."""

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import onnx
from onnx import NodeProto, external_data_helper, helper, numpy_helper

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array
from scalpel_graph.pruning.layers import WeightLayer, constant_tensors


class Weights:
    """A copy of a model whose weights and biases can be replaced.

    A tensor that something else reads as well keeps its value for that reader: who writes gets a copy.

    Attributes:
        model: the copy.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(model)
        graph = self.model.graph
        self._tensors = constant_tensors(graph)
        inputs = {value.name for value in graph.input}
        # From IR version 4 on, an initializer that is also an input is a default that callers can override.
        self._overridable = inputs & set(self._tensors) if model.ir_version >= 4 else set()
        self._uses = Counter(_names_read(graph))
        self._taken = set(self._uses) | inputs | set(self._tensors)
        self._taken.update(itertools.chain.from_iterable(node.output for node in graph.node))

    def matrix(self, layer: WeightLayer) -> Array:
        """``W[M, K]`` of a layer as it is now, in the model's type; not to be written to.

        Raises:
            InputError: the weights are external data that was not loaded.
        """
        name = self._node(layer).input[1]
        tensor = self._tensors[name]
        if external_data_helper.uses_external_data(tensor):
            raise InputError(
                f"weights {name!r} of {layer.name!r} are external data that is not loaded: "
                "load it with onnx.load or onnx.load_external_data_for_model"
            )
        return layer.matrix(numpy_helper.to_array(tensor))

    def write(self, sharers: Sequence[WeightLayer], matrix: Array) -> None:
        """Gives layers that read one tensor, in one way, other weights.

        Args:
            sharers: the layers.
            matrix: ``[M, K]``; is converted to the model's type.
        """
        nodes = [self._node(layer) for layer in sharers]
        old = self._tensors[nodes[0].input[1]]
        dtype = helper.tensor_dtype_to_np_dtype(old.data_type)
        self._replace([(node, 1) for node in nodes], sharers[0].tensor(matrix.astype(dtype)), "pruned")

    def bias(self, layer: WeightLayer) -> Array | None:
        """``[M]`` float64: what is added to each output of a layer; zeros where nothing is.

        None where that is not one constant number for each output, so that `add_to_bias` cannot change it.
        """
        place = self._bias_place(layer)
        M = layer.shape[0]
        if place is None:
            return None
        node, index, factor = place
        if len(node.input) <= index or not node.input[index]:
            return np.zeros(M)
        tensor = self._tensors.get(node.input[index])
        if tensor is None or node.input[index] in self._overridable:
            return None
        values = numpy_helper.to_array(tensor).astype(np.float64)
        shapes = {(M,)} if node.op_type == "Conv" else {(M,), (1, M), (), (1,), (1, 1)}
        if node.op_type == "Add":
            shapes = {(M,), *((1,) * rank + (M,) for rank in range(1, values.ndim))}
        if values.shape not in shapes:
            return None
        return np.broadcast_to(values.reshape(-1) * factor, (M,)).copy()

    def set_bias(self, layer: WeightLayer, bias: Array) -> None:
        """Replaces what `bias` gives, which must not be None.

        Args:
            layer: the layer.
            bias: ``[M]``.
        """
        place = self._bias_place(layer)
        assert place is not None
        node, index, factor = place
        dtype = helper.tensor_dtype_to_np_dtype(self._tensors[self._node(layer).input[1]].data_type)
        values = (bias / factor).astype(dtype)
        if len(node.input) > index and node.input[index]:
            shape = tuple(self._tensors[node.input[index]].dims)
            values = values.reshape(shape) if values.size == np.prod(shape, dtype=int) else values
            self._replace([(node, index)], values, "pruned")
            return
        while len(node.input) <= index:
            node.input.append("")
        node.input[index] = self._add(f"{layer.name}_bias", values)

    def zero_batchnorm(self, layer: WeightLayer, rows: Array) -> None:
        """Has a BatchNormalization right behind a layer make zeros of some of its outputs.

        Args:
            layer: the layer.
            rows: ``[M]`` bool.
        """
        node = self.batchnorm(layer)
        for index in (1, 2) if node is not None else ():
            assert node is not None
            values = numpy_helper.to_array(self._tensors[node.input[index]])
            self._replace([(node, index)], np.where(rows, values.dtype.type(0), values), "pruned")

    def batchnorm(self, layer: WeightLayer) -> NodeProto | None:
        """The BatchNormalization that alone reads a layer, if its scale and shift are constants."""
        node = self._sole_reader(self._node(layer).output[0])
        if node is None or node.op_type != "BatchNormalization" or node.domain not in ("", "ai.onnx"):
            return None
        shape = [layer.shape[0]]
        fits = all(n in self._tensors and list(self._tensors[n].dims) == shape for n in node.input[1:5])
        return node if fits and not self._overridable.intersection(node.input[1:5]) else None

    def batchnorm_gain(self, layer: WeightLayer) -> Array:
        """``[M]`` float64: what a BatchNormalization right behind a layer multiplies its outputs by."""
        node = self.batchnorm(layer)
        if node is None:
            return np.ones(layer.shape[0])
        scale, variance = (
            numpy_helper.to_array(self._tensors[node.input[index]]).astype(np.float64) for index in (1, 4)
        )
        epsilon = next((a.f for a in node.attribute if a.name == "epsilon"), 1e-5)
        return np.asarray(scale / np.sqrt(variance + epsilon))

    def _node(self, layer: WeightLayer) -> NodeProto:
        node: NodeProto = self.model.graph.node[layer.node]
        return node

    def _bias_place(self, layer: WeightLayer) -> tuple[NodeProto, int, float] | None:
        """The node and input that hold a layer's bias, and what the input is multiplied by."""
        node = self._node(layer)
        if node.op_type == "Conv":
            return node, 2, 1.0
        if node.op_type == "Gemm":
            beta = next((float(a.f) for a in node.attribute if a.name == "beta"), 1.0)
            return (node, 2, beta) if beta else None
        add = self._sole_reader(node.output[0])
        if add is None or add.op_type != "Add" or add.domain not in ("", "ai.onnx"):
            return None
        index = 1 if add.input[0] == node.output[0] else 0
        return (add, index, 1.0) if add.input[index] in self._tensors else None

    def _sole_reader(self, name: str) -> NodeProto | None:
        if self._uses[name] != 1:
            return None
        return next((node for node in self.model.graph.node if name in node.input), None)

    def _replace(self, places: Sequence[tuple[NodeProto, int]], values: Array, suffix: str) -> None:
        """Makes inputs of nodes, which read one tensor, read another value."""
        name = places[0][0].input[places[0][1]]
        old = self._tensors[name]
        if self._uses[name] > len(places) or tuple(old.dims) != values.shape:
            new = self._add(f"{name}_{suffix}", values)
            self._uses[name] -= len(places)
            self._uses[new] += len(places) - 1
            for node, index in places:
                node.input[index] = new
            return
        tensor = numpy_helper.from_array(values, old.name)
        if old.HasField("doc_string"):
            tensor.doc_string = old.doc_string
        old.CopyFrom(tensor)

    def _add(self, hint: str, values: Array) -> str:
        """A new initializer that one node will read."""
        graph = self.model.graph
        names: Iterable[str] = itertools.chain([hint], (f"{hint}_{i}" for i in itertools.count(1)))
        name = next(name for name in names if name not in self._taken)
        self._taken.add(name)
        self._uses[name] = 1
        tensor = graph.initializer.add()
        tensor.CopyFrom(numpy_helper.from_array(values, name))
        self._tensors[name] = tensor
        if self.model.ir_version < 4:  # every initializer is listed as an input as well
            graph.input.append(helper.make_tensor_value_info(name, tensor.data_type, tensor.dims))
        return name


def _names_read(graph: onnx.GraphProto) -> Iterator[str]:
    """Every use of a value by name, in subgraphs too, and the graph's outputs."""
    for node in graph.node:
        yield from node.input
        for attribute in node.attribute:
            for subgraph in (attribute.g, *attribute.graphs):
                yield from _names_read(subgraph)
    yield from (output.name for output in graph.output)
