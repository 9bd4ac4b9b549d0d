"""A graph as the list of layers that a microcontroller can run, or a refusal that names the node.

Relu and Clip become part of the layer before them, where nobody else reads what that makes.
"""

import math
from collections.abc import Callable, Mapping
from math import prod

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.errors import InputError
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.mcu.network import LIMITS, FloatLayer, FloatNetwork, Format, Shape, Window
from scalpel_graph.passes import sparse_layers
from scalpel_graph.passes.base import PassContext, Refusal
from scalpel_graph.passes.fuse_activation import bounds
from scalpel_graph.passes.matching import attribute, is_standard, per_channel
from scalpel_graph.passes.quantized_model import dtype_of, format_of, take_constants

#: Layers that can take an activation over.
_CLIPPING = ("Conv", "Gemm", "Add", "LRN")


def lower(graph: ModelGraph, context: PassContext) -> FloatNetwork:
    """Brings a graph of float32 layers to a list of layers.

    Args:
        graph: constants folded, BatchNormalization in its neighbours.
        context: for assumed sizes.

    Raises:
        InputError: a node has no integer form; the graph has no single input or output; a shape is not known.
    """
    return _Lowering(graph, context).run()


class _Lowering:
    def __init__(self, graph: ModelGraph, context: PassContext) -> None:
        assert context.quantization is not None
        self.graph, self.dtype = graph, dtype_of(graph, context.quantization.dtype)
        self.shapes = graph.assumed_shapes(context.dimensions)
        self.scales = take_constants(graph)
        self.formats: dict[str, Format] = {}
        self.layers: list[FloatLayer] = []
        self.maker: dict[str, FloatLayer] = {}
        self.alias: dict[str, str] = {}

    def run(self) -> FloatNetwork:
        graph = self.graph
        outputs = [tensor.name for tensor in graph.gs.outputs]
        if len(graph.inputs) != 1 or len(outputs) != 1:
            raise InputError(
                f"{graph.name}: has {len(graph.inputs)} inputs and {len(outputs)} outputs; target mcu takes"
                " networks with one of each"
            )
        self.input, self.output = graph.inputs[0].name, outputs[0]
        if graph.type(graph.gs.inputs[0]) not in (1, None):
            raise InputError(f"{graph.name}: input {self.input!r} is not float32, as target mcu needs it")
        batch = self.shapes.get(self.input, (0,))[0]
        if batch != 1:
            raise InputError(
                f"{graph.name}: input {self.input!r} has a first dimension of {batch}; target mcu runs one"
                " sample at a time: leave the batch open or make it 1"
            )
        for node in graph.nodes:
            self.lower_node(node)
        shape_of = {name: shape[1:] for name, shape in self.shapes.items()}
        names = {self.input, *(layer.output for layer in self.layers)}
        if self.output not in names:
            raise InputError(f"{graph.name}: output {self.output!r} is made by no layer")
        shapes = {name: shape_of[name] for name in names}
        return FloatNetwork(self.input, self.output, self.layers, shapes, self.dtype, self.formats)

    def lower_node(self, node: gs.Node) -> None:
        rule = _RULES.get(node.op) if is_standard(node, node.op) else None
        if rule is None:
            domain = f" of domain {node.domain}" if node.domain else ""
            raise self.refusal(
                node,
                f"operator {node.op}{domain} has no integer form; there are: {', '.join(sorted(_RULES))}",
            )
        for tensor in node.outputs:
            if tensor.name and tensor.name not in self.shapes:
                raise self.refusal(node, "the shape of its output is not known; --input-shape may help")
        rule(self, node)

    def refusal(self, node: gs.Node, why: str) -> InputError:
        return InputError(f"node {node_label(node)!r} ({node.op}): {why}")

    def value(self, node: gs.Node, index: int = 0) -> str:
        """The value that an input of a node is."""
        tensor = node.inputs[index]
        name = self.alias.get(tensor.name, str(tensor.name))
        if name != self.input and name not in self.maker:
            raise self.refusal(node, f"its input {tensor.name!r} is not computed from the network's input")
        return name

    def shape(self, tensor: gs.Tensor) -> Shape:
        """Of a value, without the batch."""
        return self.shapes[tensor.name][1:]

    def add(self, layer: FloatLayer) -> None:
        self.layers.append(layer)
        self.maker[layer.output] = layer

    def alias_of(self, node: gs.Node, name: str) -> None:
        """The node changes nothing."""
        output = node.outputs[0]
        if output.name == self.output:
            self.add(FloatLayer("Clip", node_label(node), [name], output.name))
        else:
            self.alias[output.name] = name

    # -- one rule for each operator ---------------------------------------------------------------------

    def multiply(self, node: gs.Node) -> None:
        try:
            layer = sparse_layers.describe(self.graph, node, self.shapes)
        except Refusal as refusal:
            raise self.refusal(node, str(refusal)) from refusal
        if layer.residual is not None:
            raise self.refusal(node, f"its C {layer.residual.name!r} is not constant")
        if not np.isfinite(layer.weights).all() or not (layer.bias is None or np.isfinite(layer.bias).all()):
            raise self.refusal(node, "its weights or bias are not all finite")
        if not layer.work.is_conv and len(self.shapes[node.inputs[0].name]) != 2:
            raise self.refusal(node, "its input is not [batch, features]; a Flatten before it helps")
        window = Window()
        if layer.work.is_conv:
            work = layer.work
            window = _window(work.kernel, work.strides, work.dilations, work.pads, work.group)
        op = "Conv" if layer.work.is_conv else "Gemm"
        weights = np.array(layer.weights, np.float64)
        bias = None if layer.bias is None else np.array(layer.bias, np.float64)
        made = FloatLayer(
            op, node_label(node), [self.value(node)], node.outputs[0].name, weights, bias, window
        )
        made.scales = self.scales.get(node_label(node))
        self.add(made)

    def activation(self, node: gs.Node) -> None:
        limits = bounds(self.graph, node)
        if isinstance(limits, str):
            raise self.refusal(node, limits)
        low, high = limits
        name = self.value(node)
        clipping = self.clipping(node.inputs[0])
        if clipping is None:
            self.add(FloatLayer("Clip", node_label(node), [name], node.outputs[0].name, low=low, high=high))
            return
        clipping.low = min(max(clipping.low, low), high)
        clipping.high = max(min(clipping.high, high), low)
        self.rename(name, node.outputs[0].name)

    def clipping(self, tensor: gs.Tensor) -> FloatLayer | None:
        """The layer that can limit a value that only one node reads: its own, or the one before a MaxPool."""
        layer = self.maker.get(tensor.name)
        if layer is None or self.graph.sole_consumer(tensor) is None:
            return None
        if layer.op == "MaxPool":
            return self.clipping(tensor.inputs[0].inputs[0])
        return layer if layer.op in _CLIPPING else None

    def rename(self, old: str, new: str) -> None:
        """Has the layer that makes a value make what the node after it made."""
        layer = self.maker.pop(old)
        layer.output = new
        self.maker[new] = layer

    def pool(self, node: gs.Node) -> None:
        x, y = self.shape(node.inputs[0]), self.shape(node.outputs[0])
        if len(x) not in (2, 3):
            raise self.refusal(node, f"it pools {len(x) - 1} dimensions; 1 and 2 can be")
        if len(node.outputs) > 1 and node.outputs[1].name:
            raise self.refusal(node, "it gives out indices as well")
        if node.op.startswith("Global"):
            kernel: tuple[int, ...] = x[1:]
            strides, pads = kernel, (0,) * 2 * len(kernel)
        else:
            kernel = tuple(int(n) for n in attribute(node, "kernel_shape", ()))
            strides = tuple(int(n) for n in attribute(node, "strides", [1] * len(kernel)))
            if any(n != 1 for n in attribute(node, "dilations", [1])):
                raise self.refusal(node, "it has dilations")
            given = tuple(int(n) for n in attribute(node, "pads", [0] * 2 * len(kernel)))
            mode = attribute(node, "auto_pad", "NOTSET")
            begins = given[: len(kernel)]
            if mode in ("SAME_UPPER", "SAME_LOWER"):
                total = [
                    max((o - 1) * s + k - i, 0)
                    for o, s, k, i in zip(y[1:], strides, kernel, x[1:], strict=True)
                ]
                begins = tuple((n + (mode == "SAME_LOWER")) // 2 for n in total)
            # What the last window reaches: more than stated with ceil_mode, less where it does not fit.
            ends = tuple(
                (o - 1) * s + k - i - b
                for o, s, k, i, b in zip(y[1:], strides, kernel, x[1:], begins, strict=True)
            )
            pads = (*begins, *(max(end, 0) for end in ends))
            counted = bool(attribute(node, "count_include_pad", 0))
            if counted and any(e > max(g, 0) for e, g in zip(ends, given[len(kernel) :], strict=True)):
                raise self.refusal(node, "it counts padding and rounds its size up (ceil_mode)")
        op = "MaxPool" if "Max" in node.op else "AveragePool"
        layer = FloatLayer(op, node_label(node), [self.value(node)], node.outputs[0].name)
        layer.window = _window(kernel, strides, (1,) * len(kernel), pads)
        layer.attributes["count_pads"] = bool(attribute(node, "count_include_pad", 0))
        if op == "AveragePool" and prod(kernel) > _MOST_AVERAGED:
            raise self.refusal(node, f"it averages {prod(kernel)} elements; at most {_MOST_AVERAGED} can be")
        self.add(layer)

    def flatten(self, node: gs.Node) -> None:
        x, y = self.shape(node.inputs[0]), self.shape(node.outputs[0])
        batch = self.shapes[node.outputs[0].name][0]
        if x == y:
            self.alias_of(node, self.value(node))
            return
        if batch != 1 or len(y) != 1:
            raise self.refusal(
                node,
                f"it makes {list(self.shapes[node.outputs[0].name])} of {[1, *x]}; only flattening to"
                " [batch, features] has an integer form",
            )
        self.add(FloatLayer("Flatten", node_label(node), [self.value(node)], node.outputs[0].name))

    def concat(self, node: gs.Node) -> None:
        rank = len(self.shape(node.outputs[0])) + 1
        if int(attribute(node, "axis", 1)) % rank != 1:
            raise self.refusal(node, "it joins another axis than the channels (1)")
        names = [self.value(node, index) for index in range(len(node.inputs))]
        self.add(FloatLayer("Concat", node_label(node), names, node.outputs[0].name))

    def addition(self, node: gs.Node) -> None:
        constants = [self.graph.constant(tensor) for tensor in node.inputs]
        if any(values is not None for values in constants):
            index = 0 if constants[0] is None else 1
            self.add_bias(node, index, constants[1 - index])
            return
        if self.shape(node.inputs[0]) != self.shape(node.inputs[1]):
            raise self.refusal(node, "its inputs have different shapes")
        names = [self.value(node, 0), self.value(node, 1)]
        self.add(FloatLayer("Add", node_label(node), names, node.outputs[0].name))

    def add_bias(self, node: gs.Node, index: int, values: Array | None) -> None:
        """A constant that is added to what a fully connected layer makes."""
        name = self.value(node, index)
        before, shape = self.maker.get(name), self.shape(node.outputs[0])
        alone = self.is_alone(node.inputs[index], name)
        if values is None or before is None or before.op != "Gemm" or not alone or len(shape) != 1:
            raise self.refusal(node, "it adds a constant to something that is not a layer's only output")
        vector = per_channel(values, shape[0], 2, -1)
        if vector is None or (before.low, before.high) != (-math.inf, math.inf):
            raise self.refusal(node, "the constant that it adds is not one number for each output of a layer")
        before.bias = vector.astype(np.float64) + (0.0 if before.bias is None else before.bias)
        self.formats.pop(name, None)
        self.rename(name, node.outputs[0].name)

    def is_alone(self, tensor: gs.Tensor, name: str) -> bool:
        """Whether a value has one reader, who reads it as this tensor."""
        while self.graph.sole_consumer(tensor) is not None:
            if tensor.name == name:
                return True
            if not tensor.inputs or tensor.name not in self.alias:
                return False
            tensor = tensor.inputs[0].inputs[0]
        return False

    def lrn(self, node: gs.Node) -> None:
        attributes = {
            "size": int(attribute(node, "size", 0)), "alpha": float(attribute(node, "alpha", 1e-4)),
            "beta": float(attribute(node, "beta", 0.75)), "bias": float(attribute(node, "bias", 1.0)),
        }  # fmt: skip
        x = self.shape(node.inputs[0])
        if len(x) not in (2, 3):
            raise self.refusal(node, f"its input has {len(x) - 1} spatial dimensions; 1 and 2 can be")
        if attributes["alpha"] < 0 or attributes["beta"] < 0 or attributes["bias"] <= 0:
            raise self.refusal(node, "its alpha or beta is negative, or its bias is not positive")
        layer = FloatLayer("LRN", node_label(node), [self.value(node)], node.outputs[0].name)
        layer.attributes = attributes
        self.add(layer)

    def last(self, node: gs.Node) -> None:
        """Softmax or ArgMax of a vector, at the end of the network."""
        x, name = self.shape(node.inputs[0]), node.outputs[0].name
        if not self.is_last(node.outputs[0]):
            raise self.refusal(node, "it is not at the end of the network, where alone it can be")
        default = -1 if node.op == "Softmax" else 0
        if len(x) != 1 or int(attribute(node, "axis", default)) % 2 != 1:
            raise self.refusal(node, "it is not over the features of [batch, features]")
        if node.op == "ArgMax" and attribute(node, "select_last_index", 0):
            raise self.refusal(node, "it wants the last of equal ones")
        most_classes = LIMITS[self.dtype][1] + 1  # what the index has to fit
        if node.op == "ArgMax" and x[0] > most_classes:
            raise self.refusal(node, f"it has {x[0]} classes; at most {most_classes} can be")
        self.add(FloatLayer(node.op, node_label(node), [self.value(node)], name))

    def is_last(self, tensor: gs.Tensor) -> bool:
        """Whether a value is the network's output, perhaps quantized."""
        while tensor.name != self.output:
            reader = self.graph.sole_consumer(tensor)
            if reader is None or reader.op not in ("QuantizeLinear", "DequantizeLinear"):
                return False
            tensor = reader.outputs[0]
        return True

    def nothing(self, node: gs.Node) -> None:
        self.alias_of(node, self.value(node))

    def quantize(self, node: gs.Node) -> None:
        """Says how a value is stored; of one that is stored in two ways, the second is a value of its own."""
        name, form = self.value(node), format_of(self.graph, node, self.dtype)
        if self.formats.setdefault(name, form) == form:
            self.alias[node.outputs[0].name] = name
            return
        self.add(FloatLayer("Clip", node_label(node), [name], node.outputs[0].name))
        self.formats[node.outputs[0].name] = form

    def dequantize(self, node: gs.Node) -> None:
        name, output = self.value(node), node.outputs[0].name
        if self.formats.get(name) != format_of(self.graph, node, self.dtype):
            raise self.refusal(node, "what it reads was quantized with another scale or zero point")
        is_read = any(name in layer.inputs for layer in self.layers)
        if output == self.output and name in self.maker and not is_read:
            self.rename(name, output)
            self.formats[output] = self.formats.pop(name)
            return
        self.alias_of(node, name)


#: Elements of int16 whose sum float32 holds exactly: what the ONNX form of an average is computed in.
_MOST_AVERAGED = 511


def _window(
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilations: tuple[int, ...],
    pads: tuple[int, ...],
    group: int = 1,
) -> Window:
    if len(kernel) == 1:
        return Window((1, kernel[0]), (1, strides[0]), (1, dilations[0]), (0, pads[0], 0, pads[1]), group)
    top, left, bottom, right = pads
    return Window(
        (kernel[0], kernel[1]), (strides[0], strides[1]), (dilations[0], dilations[1]),
        (top, left, bottom, right), group,
    )  # fmt: skip


_RULES: Mapping[str, Callable[[_Lowering, gs.Node], None]] = {
    "Conv": _Lowering.multiply,
    "Gemm": _Lowering.multiply,
    "MatMul": _Lowering.multiply,
    "Relu": _Lowering.activation,
    "Clip": _Lowering.activation,
    "MaxPool": _Lowering.pool,
    "GlobalMaxPool": _Lowering.pool,
    "AveragePool": _Lowering.pool,
    "GlobalAveragePool": _Lowering.pool,
    "Flatten": _Lowering.flatten,
    "Reshape": _Lowering.flatten,
    "Squeeze": _Lowering.flatten,
    "Concat": _Lowering.concat,
    "Add": _Lowering.addition,
    "LRN": _Lowering.lrn,
    "Softmax": _Lowering.last,
    "ArgMax": _Lowering.last,
    "Identity": _Lowering.nothing,
    "QuantizeLinear": _Lowering.quantize,
    "DequantizeLinear": _Lowering.dequantize,
}
