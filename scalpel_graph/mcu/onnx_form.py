"""A quantized network as an ONNX file: float32 in and out, and the device's integers in between.

Layers with weights are the operators of `scalpel_graph.quantized_ops`; everything else is standard operators
that are exact on integers of 16 bits.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from scalpel_graph import group_csr, ops, quantized_ops
from scalpel_graph.graph import copy_fields
from scalpel_graph.group_csr import Array
from scalpel_graph.mcu.network import (
    LIMITS,
    Add,
    ArgMax,
    Clip,
    Concat,
    Flatten,
    Layer,
    Lrn,
    Multiply,
    Network,
    Pool,
    Softmax,
    Value,
    Window,
)
from scalpel_graph.mcu.reference import counts

_IR_VERSION = 8


def build(network: Network, source: ModelProto) -> ModelProto:
    """The network as a model.

    Args:
        network: it.
        source: the float model: gives the interface, the metadata and the names.
    """
    return _Builder(network, source).build()


class _Builder:
    def __init__(self, network: Network, source: ModelProto) -> None:
        self.network, self.source = network, source
        self.type = TensorProto.INT16
        self.nodes: list[NodeProto] = []
        self.initializers: dict[str, TensorProto] = {}
        names = [value.name for value in (*source.graph.input, *source.graph.output)]
        self.taken = {*names, *network.values}

    def build(self) -> ModelProto:
        network = self.network
        # The stored input and output have names of their own: those of the model's are its float interface.
        self.stored = {name: name for name in network.values}
        for name in (network.input, network.output):
            self.stored[name] = self.unique(f"{name}_stored")
        self.quantize_input()
        for layer in network.layers:
            self.layer(layer)
        self.dequantize_output()
        model = ModelProto(ir_version=_IR_VERSION)
        copy_fields(self.source, model, skip={"graph", "opset_import", "functions", "ir_version"})
        model.opset_import.append(helper.make_opsetid("", quantized_ops.OPSET))
        model.graph.name = self.source.graph.name
        model.graph.doc_string = self.source.graph.doc_string
        kept = {tensor.name for tensor in self.source.graph.initializer}
        model.graph.input.extend(value for value in self.source.graph.input if value.name not in kept)
        model.graph.output.extend(self.source.graph.output)
        model.graph.node.extend(self.nodes)
        model.graph.initializer.extend(self.initializers.values())
        model.graph.value_info.extend(self.types())
        used = [node.op_type for node in self.nodes if node.domain == ops.DOMAIN]
        ops.add_functions(model, used)
        return model

    def types(self) -> list[ValueInfoProto]:
        """Element types and shapes of stored values, which inference need not find out through functions."""
        batch = self.source.graph.input[0].type.tensor_type.shape.dim[0]
        first: Any = batch.dim_value if batch.HasField("dim_value") else (batch.dim_param or None)
        return [
            helper.make_tensor_value_info(self.stored[value.name], self.type, [first, *value.shape])
            for value in self.network.values.values()
        ]

    # -- nodes ------------------------------------------------------------------------------------------

    def unique(self, hint: str) -> str:
        name, number = hint, 1
        while name in self.taken:
            name, number = f"{hint}_{number}", number + 1
        self.taken.add(name)
        return name

    def constant(self, hint: str, value: npt.ArrayLike) -> str:
        name = self.unique(hint)
        self.initializers[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def node(
        self, op_type: str, inputs: Sequence[str], hint: str, output: str | None = None, **attributes: Any
    ) -> str:
        name = output or self.unique(hint)
        self.nodes.append(helper.make_node(op_type, list(inputs), [name], name=f"{hint}_node", **attributes))
        return name

    def quantize_input(self) -> None:
        name, network = self.network.input, self.network
        form = network.values[name].format
        low, high = LIMITS[network.dtype]
        float32 = np.float32
        scaled = self.node(
            "Mul", [name, self.constant(f"{name}_per_unit", float32(1 / form.scale))], f"{name}_scaled"
        )
        raised = self.node("Add", [scaled, self.constant(f"{name}_half", float32(0.5))], f"{name}_raised")
        rounded = self.node("Floor", [raised], f"{name}_rounded")
        if form.zero_point:
            zero = self.constant(f"{name}_zero_point", float32(form.zero_point))
            rounded = self.node("Add", [rounded, zero], f"{name}_shifted")
        limits = [self.constant(f"{name}_{which}", float32(n)) for which, n in (("min", low), ("max", high))]
        clipped = self.node("Clip", [rounded, *limits], f"{name}_clipped")
        self.node("Cast", [clipped], f"{name}_cast", self.stored[name], to=self.type)

    def dequantize_output(self) -> None:
        name = self.network.output
        form = self.network.values[name].format
        if isinstance(self.network.layers[-1], ArgMax):
            self.node("Cast", [self.stored[name]], f"{name}_cast", name, to=TensorProto.INT64)
            return
        x = self.node("Cast", [self.stored[name]], f"{name}_float", to=TensorProto.FLOAT)
        if form.zero_point:
            zero = self.constant(f"{name}_zero_point", np.float32(form.zero_point))
            x = self.node("Sub", [x, zero], f"{name}_shifted")
        scale = self.constant(f"{name}_scale", np.float32(form.scale))
        self.node("Mul", [x, scale], f"{name}_scaled", name)

    def layer(self, layer: Layer) -> None:
        xs = [self.stored[name] for name in layer.inputs]
        y = self.stored[layer.output]
        match layer:
            case Multiply():
                self.multiply(layer, xs[0], y)
            case Pool():
                self.pool(layer, xs[0], y)
            case Flatten():
                self.flatten(layer, xs[0], y)
            case Concat():
                self.clipped(layer, self.node("Concat", xs, f"{layer.name}_joined", axis=1), y)
            case Clip():
                self.clip(layer, xs[0], y)
            case Add():
                self.add(layer, xs, y)
            case Lrn():
                self.lrn(layer, xs[0], y)
            case Softmax():
                self.softmax(layer, xs[0], y)
            case ArgMax():
                x = self.node("Cast", xs, f"{layer.name}_int32", to=TensorProto.INT32)
                keep = len(self.network.values[layer.output].shape)
                index = self.node("ArgMax", [x], f"{layer.name}_index", axis=1, keepdims=keep)
                self.node("Cast", [index], layer.name, y, to=self.type)

    def zero_point(self, value: str) -> int:
        return self.network.values[value].format.zero_point

    def int64(self, hint: str, number: int | Array) -> str:
        return self.constant(hint, np.asarray(number, np.int64))

    def shifted(self, name: str, x: str, shift: int) -> str:
        """``(x + 2^(shift − 1)) >> shift`` of int64."""
        if shift == 0:
            return x
        half, divisor = self.int64(f"{name}_half", 2**shift >> 1), self.int64(f"{name}_divisor", 2**shift)
        raised = self.node("Add", [x, half], f"{name}_raised")
        rest = self.node("Mod", [raised, divisor], f"{name}_rest")
        return self.node(
            "Div", [self.node("Sub", [raised, rest], f"{name}_multiple"), divisor], f"{name}_shifted"
        )

    def finished(self, layer: Layer, x: str, y: str) -> None:
        """The last nodes of a layer that computed int64: zero point, limits, type."""
        name = layer.name
        if zero := self.zero_point(layer.output):
            x = self.node("Add", [x, self.int64(f"{name}_y_zero", zero)], f"{name}_to_zero")
        limits = [self.int64(f"{name}_min", layer.low), self.int64(f"{name}_max", layer.high)]
        self.node("Cast", [self.node("Clip", [x, *limits], f"{name}_clipped")], name, y, to=self.type)

    def from_zero(self, layer: Layer, index: int, x: str) -> str:
        """An input as int64, less its zero point."""
        name = f"{layer.name}_{index}"
        wide = self.node("Cast", [x], f"{name}_int64", to=TensorProto.INT64)
        if zero := self.zero_point(layer.inputs[index]):
            wide = self.node("Sub", [wide, self.int64(f"{name}_zero", zero)], f"{name}_from_zero")
        return wide

    def add(self, layer: Add, xs: Sequence[str], y: str) -> None:
        parts = [
            self.node(
                "Mul",
                [self.from_zero(layer, i, x), self.int64(f"{layer.name}_{i}_multiplier", multiplier)],
                f"{layer.name}_{i}_part",
            )
            for i, (x, multiplier) in enumerate(zip(xs, layer.multipliers, strict=True))
        ]
        total = self.node("Add", parts, f"{layer.name}_sum")
        self.finished(layer, self.shifted(layer.name, total, layer.shift), y)

    def lrn(self, layer: Lrn, x: str, y: str) -> None:
        """Sums of squares as a product with a band, which doubles hold exactly."""
        name, shape = layer.name, self.network.values[layer.output].shape
        wide = self.from_zero(layer, 0, x)
        squares = self.node(
            "Cast",
            [self.node("Mul", [wide, wide], f"{name}_squares")],
            f"{name}_double",
            to=TensorProto.DOUBLE,
        )
        place = np.arange(shape[0])
        distance = place[None, :] - place[:, None]
        band = ((-layer.before <= distance) & (distance <= layer.after)).astype(np.float64)
        flat = self.node(
            "Reshape", [squares, self.int64(f"{name}_flat", np.array([0, shape[0], -1]))], f"{name}_pixels"
        )
        sums = self.node("MatMul", [self.constant(f"{name}_band", band), flat], f"{name}_sums")
        whole = self.node("Cast", [sums], f"{name}_whole", to=TensorProto.INT64)
        last = (len(layer.table) - 1) << layer.fraction_bits
        unit, one = self.int64(f"{name}_unit", 1 << layer.fraction_bits), self.int64(f"{name}_one", 1)
        q = self.node(
            "Min",
            [
                self.node(
                    "Div", [whole, self.int64(f"{name}_square", 1 << layer.square_shift)], f"{name}_scaled"
                ),
                self.int64(f"{name}_last", last - 1),
            ],
            f"{name}_q",
        )
        i, f = self.node("Div", [q, unit], f"{name}_i"), self.node("Mod", [q, unit], f"{name}_f")
        table = self.int64(f"{name}_table", layer.table)
        here = self.node("Gather", [table, i], f"{name}_here")
        after = self.node("Gather", [table, self.node("Add", [i, one], f"{name}_next")], f"{name}_after")
        fall = self.node("Mul", [self.node("Sub", [here, after], f"{name}_fall"), f], f"{name}_fall_times")
        factor = self.node("Sub", [here, self.node("Div", [fall, unit], f"{name}_fallen")], f"{name}_factor")
        like_x = self.node(
            "Reshape", [factor, self.int64(f"{name}_shape", np.array([-1, *shape]))], f"{name}_factors"
        )
        product = self.node("Mul", [wide, like_x], f"{name}_product")
        self.finished(layer, self.shifted(name, product, layer.shift), y)

    def softmax(self, layer: Softmax, x: str, y: str) -> None:
        name = layer.name
        wide = self.node("Cast", [x], f"{name}_int64", to=TensorProto.INT64)
        largest = self.node("ReduceMax", [wide], f"{name}_largest", axes=[1], keepdims=1)
        below = self.node("Sub", [largest, wide], f"{name}_below")
        unit = self.int64(f"{name}_unit", 1 << layer.index_shift)
        last = self.int64(f"{name}_last", len(layer.table) - 1)
        index = self.node("Min", [self.node("Div", [below, unit], f"{name}_steps"), last], f"{name}_index")
        e = self.node("Gather", [self.int64(f"{name}_table", layer.table), index], f"{name}_e")
        axis = self.int64(f"{name}_axis", np.array([1]))
        total = self.node("ReduceSum", [e, axis], f"{name}_total", keepdims=1)
        half = self.node("Div", [total, self.int64(f"{name}_two", 2)], f"{name}_half")
        scaled = self.node("Mul", [e, self.int64(f"{name}_unity", layer.one)], f"{name}_scaled")
        self.finished(
            layer, self.node("Div", [self.node("Add", [scaled, half], f"{name}_up"), total], f"{name}_y"), y
        )

    def clipped(self, layer: Layer, x: str, y: str) -> None:
        """The last node of a layer: its limits, where they are any."""
        if (layer.low, layer.high) == LIMITS[self.network.dtype]:
            self.node("Identity", [x], layer.name, y)
            return
        wide = self.node("Cast", [x], f"{layer.name}_int32", to=TensorProto.INT32)
        limits = [
            self.constant(f"{layer.name}_{which}", np.int32(n))
            for which, n in (("min", layer.low), ("max", layer.high))
        ]
        self.node(
            "Cast", [self.node("Clip", [wide, *limits], f"{layer.name}_clipped")], layer.name, y, to=self.type
        )

    def clip(self, layer: Clip, x: str, y: str) -> None:
        if (layer.multiplier, layer.shift) == (1, 0):
            self.clipped(layer, x, y)
            return
        factor = self.int64(f"{layer.name}_multiplier", layer.multiplier)
        product = self.node("Mul", [self.from_zero(layer, 0, x), factor], f"{layer.name}_product")
        self.finished(layer, self.shifted(layer.name, product, layer.shift), y)

    def multiply(self, layer: Multiply, x: str, y: str) -> None:
        is_conv = layer.op == "Conv"
        values = self.network.values
        if layer.group_shape is None:
            op_type = quantized_ops.CONV if is_conv else quantized_ops.GEMM
            arrays = {"weight": layer.weights}
        else:
            op_type = quantized_ops.GROUP_CSR_CONV if is_conv else quantized_ops.GROUP_CSR_GEMM
            matrix = group_csr.encode(layer.weights, layer.group_shape)
            arrays = {
                "values": matrix.values,
                "row_offsets": matrix.row_offsets,
                "column_indices": matrix.column_indices,
            }
        arrays["bias"] = layer.bias
        arrays["multiplier"] = layer.multiplier.astype(np.int32)
        arrays["shift"] = layer.shift.astype(np.int32)
        attributes: dict[str, Any] = {
            "weight_shape": list(layer.weights.shape),
            "input_zero_point": values[layer.inputs[0]].format.zero_point,
            "input_min": LIMITS[self.network.dtype][0],
            "input_max": LIMITS[self.network.dtype][1],
            "output_zero_point": values[layer.output].format.zero_point,
            "output_min": layer.low,
            "output_max": layer.high,
        }
        if is_conv:
            x_shape = values[layer.inputs[0]].shape
            attributes |= self.window(layer.window, len(x_shape) - 1)
            M = len(layer.weights)
            kernel = attributes.pop("kernel_shape")
            attributes["weight_shape"] = [M, x_shape[0] // layer.window.group, *kernel]
            attributes["group"] = layer.window.group
        names = [self.constant(f"{layer.name}_{name}", array) for name, array in arrays.items()]
        self.nodes.append(
            helper.make_node(op_type, [x, *names], [y], name=layer.name, domain=ops.DOMAIN, **attributes)
        )

    @staticmethod
    def window(window: Window, spatial: int) -> dict[str, Any]:
        """As attributes, of one or two dimensions."""
        top, left, bottom, right = window.pads
        return {
            "kernel_shape": list(window.kernel[-spatial:]),
            "strides": list(window.strides[-spatial:]),
            "dilations": list(window.dilations[-spatial:]),
            "pads": [left, right] if spatial == 1 else [top, left, bottom, right],
        }

    def pool(self, layer: Pool, x: str, y: str) -> None:
        value, result = (self.network.values[name] for name in (layer.inputs[0], layer.output))
        attributes = self.window(layer.window, len(value.shape) - 1)
        attributes.pop("dilations")
        float_x = self.node("Cast", [x], f"{layer.name}_float", to=TensorProto.FLOAT)
        if layer.op == "MaxPool":
            largest = self.node("MaxPool", [float_x], f"{layer.name}_largest", **attributes)
            self.clipped(layer, self.node("Cast", [largest], f"{layer.name}_cast", to=self.type), y)
            return
        self.clipped(layer, self.average(layer, value, result, float_x, attributes), y)

    def average(self, layer: Pool, value: Value, result: Value, x: str, attributes: dict[str, Any]) -> str:
        """Sums by a Conv with a kernel of ones over each plane, which float32 holds; then whole numbers."""
        name, spatial = layer.name, value.shape[1:]
        zero = value.format.zero_point
        if zero:
            x = self.node("Sub", [x, self.constant(f"{name}_zero", np.float32(zero))], f"{name}_from_zero")
        planes_shape = self.constant(f"{name}_planes_shape", np.array([-1, 1, *spatial], np.int64))
        planes = self.node("Reshape", [x, planes_shape], f"{name}_planes")
        kernel = self.constant(f"{name}_ones", np.ones((1, 1, *attributes["kernel_shape"]), np.float32))
        sums = self.node("Conv", [planes, kernel], f"{name}_sums", **attributes)
        shape = self.constant(f"{name}_shape", np.array([-1, *result.shape], np.int64))
        whole = self.node("Cast", [sums], f"{name}_whole", to=TensorProto.INT64)
        total = self.node("Reshape", [whole, shape], f"{name}_total")
        height, width, _ = value.hwc
        n = counts(layer, height, width).reshape(result.shape[1:])
        count = self.constant(f"{name}_count", n)
        twice = self.constant(f"{name}_twice_count", 2 * n)
        doubled = self.node("Add", [self.node("Add", [total, total], f"{name}_doubled"), count], f"{name}_up")
        rest = self.node("Mod", [doubled, twice], f"{name}_rest")
        mean = self.node(
            "Div", [self.node("Sub", [doubled, rest], f"{name}_multiple"), twice], f"{name}_mean"
        )
        if zero:
            mean = self.node("Add", [mean, self.constant(f"{name}_zero", np.int64(zero))], f"{name}_to_zero")
        return self.node("Cast", [mean], f"{name}_narrow", to=self.type)

    def flatten(self, layer: Flatten, x: str, y: str) -> None:
        rank = len(self.network.values[layer.inputs[0]].shape) + 1
        if not layer.planar:
            perm = [0, *range(2, rank), 1]
            x = self.node("Transpose", [x], f"{layer.name}_channels_last", perm=perm)
        self.node("Flatten", [x], layer.name, y, axis=1)
