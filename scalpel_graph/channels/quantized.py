"""Layers whose weights DequantizeLinear makes of integers: the QDQ form of a quantized graph.

The weights have slots, which go together with the layer's channels: the layer says which it does not need,
and the rule of DequantizeLinear slices the integers. Only the weights of a grouped Conv, whose second axis
counts other channels in each group, are cut here.

A constant that is not zero goes into the bias. If that is int32, the constant must be a multiple of the
bias's scale divided by the weights', as it is where the bias is quantized by the product of the input's scale
and the weights': then it is exact (`fixed_point`). A layer without bias gets one, of int32 if its input is
quantized.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.constants import Constants, Float64Array, numpy_type
from scalpel_graph.channels.conv import ConvRule, ConvTransposeRule
from scalpel_graph.channels.dequantized import (
    Dequantized,
    constant_value,
    dequantized,
    is_grouped_weight,
    maker,
)
from scalpel_graph.channels.fixed_point import fits_int32, in_steps, matrix_blocks, per_output, products
from scalpel_graph.channels.gemm_matmul import GemmRule, MatMulRule
from scalpel_graph.channels.rule import Kept, Refusal, Rule, take
from scalpel_graph.channels.slots import Axis, Slots
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array

_OTHER_STEPS = "they hold a non-zero constant, which is no multiple of the steps of its quantized bias"
_TOO_LARGE = "their constant is too large for its int32 bias"


class _QuantizedLayer(Rule):
    """Common part of layers with quantized weights."""

    fragile = True
    x: Axis
    y: Axis

    #: What goes into the int32 bias, once it is known that it can take it.
    _into_bias: "_IntoBias | None" = None

    def input_constant(self, index: int) -> Array | None:
        """See `Rule`; also of dequantized constants."""
        return constant_value(self.graph, self.node.inputs[index]) if self.has_input(index) else None

    def blocks_of(self, weight: Array) -> Array:
        """An array of the weights' shape as blocks (`fixed_point`)."""
        raise NotImplementedError

    def connect(self, index: int, *axes: tuple[int, Axis]) -> None:
        """The slots of a computed input go together with channels."""
        for place, channels in axes:
            self.couple(self.slots.axis(self.node.inputs[index], place), channels)

    def plain_bias(self) -> bool:
        """Whether the bias is a constant that is not quantized."""
        return self.has_input(2) and self.graph.constant(self.node.inputs[2]) is not None

    def settle(self, constants: Constants, scaled: bool = False) -> None:
        """Finds out what the constants contribute, and whether an int32 bias can take it.

        Args:
            constants: of the inputs.
            scaled: whether the layer multiplies its products or its bias by yet another factor.
        """
        held = np.where(constants.known[self.x.slots], constants.value[self.x.slots], 0.0)
        if not held.any() or all(np.max(read.largest) <= 0 for read in self.reads):
            return
        weight = dequantized(self.graph, self.node.inputs[self.weight_place()])
        if weight is None:
            return
        found: _IntoBias | str
        if self.takes_integers():
            found = _OTHER_STEPS if scaled else self._settled(weight, held)
        else:
            found = _IntoBias(self.blocks_of(weight.values), held)
        if isinstance(found, str):
            self.reads = [replace(read, largest=0.0, why=found) for read in self.reads]
        else:
            self._into_bias = found

    def weight_place(self) -> int:
        """The input that holds the weights."""
        return 1

    def takes_integers(self) -> bool:
        """Whether the bias is, or is to be, of int32."""
        return not self.plain_bias() and (self.has_input(2) or self._input_scale() is not None)

    def contribution(self, kept: Kept) -> Float64Array:
        """``[outputs]``: what the inputs that go contribute, in steps if that goes into an int32 bias."""
        if self._into_bias is None:
            return np.zeros(self.y.size)
        return products(self._into_bias.blocks, np.where(kept.live[self.x.slots], 0.0, self._into_bias.held))

    def _settled(self, weight: Dequantized, held: Float64Array) -> "_IntoBias | str":
        """What goes into the bias, or why nothing does."""
        blocks = self.blocks_of(weight.integers)
        weight_scale = per_output(self.blocks_of(weight.full_scale))
        bias: Array = np.zeros(self.y.size, dtype=np.int32)
        if weight_scale is None:
            return _OTHER_STEPS
        if self.has_input(2):
            node = maker(self.node.inputs[2], "DequantizeLinear")
            given = None if node is None else self.graph.constant(node.inputs[0])
            found = dequantized(self.graph, self.node.inputs[2])
            if given is None or given.dtype != np.int32 or found is None:
                return _OTHER_STEPS
            bias, scale = found.integers, found.full_scale.reshape(-1)
        else:
            scale = self._input_scale() * weight_scale
        used = products(np.abs(blocks), (held != 0).astype(np.float64)) != 0
        steps = in_steps(held, scale.astype(np.float64)[used] / weight_scale.astype(np.float64)[used])
        if steps is None:
            return _OTHER_STEPS
        return _IntoBias(blocks, steps, scale) if fits_int32(blocks, steps, bias) else _TOO_LARGE

    def _input_scale(self) -> Array | None:
        """The scale of a quantized input, if it has one for all channels."""
        node = maker(self.node.inputs[0], "DequantizeLinear")
        scale = None if node is None else self.graph.constant(node.inputs[1])
        return scale.reshape(()) if scale is not None and scale.size == 1 else None

    def fold(self, kept: Kept, alpha: float = 1.0, beta: float = 1.0) -> None:
        """Takes the constants of the inputs that go into the bias; an int32 bias is sliced by then.

        Args:
            kept: what stays.
            alpha, beta: factors of the products and of a bias of floating-point numbers.
        """
        live = kept.live[self.y.slots]
        delta = self.contribution(kept) * alpha
        needed = bool(delta[live].any())
        if not self.plain_bias() and self.has_input(2) and needed:
            node = self._own_bias()
            bias = self.graph.constant(node.inputs[0])
            assert bias is not None
            self.graph.set_constant(node, 0, bias + delta[live].astype(np.int32))
        elif self.plain_bias():
            self._fold_plain(kept, delta if needed else None, beta)
        elif needed and self._into_bias is not None and self._into_bias.scale is not None:
            self._make_bias(delta[live].astype(np.int32), self._into_bias.scale[live])
        elif needed and self._into_bias is not None:
            self.add_input(2, "bias", delta[live].astype(self._into_bias.blocks.dtype))

    def _fold_plain(self, kept: Kept, delta: Float64Array | None, beta: float) -> None:
        """Slices a bias of floating-point numbers, with what is to be added."""
        given = self.graph.constant(self.node.inputs[2])
        assert given is not None
        values = given
        if delta is not None:
            values = np.asarray(beta * given.astype(np.float64) + delta).astype(given.dtype)
            if "beta" in self.node.attrs:
                self.node.attrs["beta"] = 1.0
        if values.ndim and values.shape[-1] == self.y.size:
            values = take(values, kept.of(self.y), values.ndim - 1)
        if values is not given:
            kept.replace(self.graph, self.node, 2, values)

    def _own_bias(self) -> gs.Node:
        """The DequantizeLinear of the bias; a copy of it if others read it."""
        bias = self.node.inputs[2]
        node: gs.Node = bias.inputs[0]
        if self.graph.sole_consumer(bias) is not None:
            return node
        label = node_label(self.node)
        made = self.graph.add_variable(f"{label}_bias", like=bias)
        name = self.graph.unique_name(f"{label}_dequantize_bias")
        copy = gs.Node(node.op, name, dict(node.attrs), list(node.inputs), [made], domain=node.domain)
        self.graph.insert_before(self.node, copy)
        self.node.inputs[2] = made
        return copy

    def _make_bias(self, values: Array, scale: Array) -> None:
        label = node_label(self.node)
        integers = self.graph.add_constant(f"{label}_bias_quantized", values)
        scales = self.graph.add_constant(f"{label}_bias_scale", scale)
        bias = self.graph.add_variable(f"{label}_bias", like=scales)
        name = self.graph.unique_name(f"{label}_dequantize_bias")
        node = gs.Node("DequantizeLinear", name, {"axis": 0}, [integers, scales], [bias])
        self.graph.insert_before(self.node, node)
        if len(self.node.inputs) > 2:
            self.node.inputs[2] = bias
        else:
            self.node.inputs.append(bias)


@dataclass(frozen=True)
class _IntoBias:
    """Constants that a bias can take.

    Attributes:
        blocks: the weights (`fixed_point`), integers if the bias is of int32.
        held: ``[inputs]``: the constants, in steps of the input's scale if the bias is of int32.
        scale: ``[outputs]``: of the bias, if it is of int32.
    """

    blocks: Array
    held: Float64Array
    scale: Array | None = None


class QuantizedConvRule(_QuantizedLayer, ConvRule):
    """Conv."""

    def describe(self) -> None:
        """See the module's docstring."""
        super().describe()
        weight = self.node.inputs[1]
        self.depthwise = self.group > 1 and self.inputs.shape[1] == 1
        self.cuts = is_grouped_weight(self.graph, weight)
        if self.group > 1 and not (self.depthwise or self.cuts):
            raise Refusal("its weights are quantized and in groups, and not made for it alone")
        if self.depthwise:
            self.connect(1, (0, self.x if self.transposed else self.y))
        elif not self.cuts:
            self.connect(1, (int(self.transposed), self.y), (1 - int(self.transposed), self.x))
        if self.has_input(2):
            self.connect(2, (0, self.y))

    def blocks_of(self, weight: Array) -> Array:
        """See `_QuantizedLayer`."""
        return self._blocks(weight)

    def constants(self, constants: Constants) -> None:
        """See `ConvRule`."""
        super().constants(constants)
        self.settle(constants)

    def shrink(self, kept: Kept) -> None:
        """DequantizeLinear has what is to be sliced, but for the weights of groups."""
        self.fold(kept)
        if self.depthwise:
            self.node.attrs["group"] = int(kept.live[self.x.slots].sum())
        elif self.cuts:
            self._cut_groups(kept)

    def _cut_groups(self, kept: Kept) -> None:
        weight = self.node.inputs[1]
        node: gs.Node = weight.inputs[0]
        data = self.graph.constant(node.inputs[0])
        assert data is not None
        groups = self.kept_groups(kept)
        smaller = self.cut(data, groups)
        if smaller.shape == data.shape:
            return
        kept.replace(self.graph, node, 0, smaller)
        for index in (1, 2)[: len(node.inputs) - 1]:
            values = self.graph.constant(node.inputs[index])
            if values is not None and values.size > 1:
                kept.replace(self.graph, node, index, take(values, kept.of(self.y), 0))
        for axis in (0, 1):
            self.graph.resize(weight, axis, smaller.shape[axis])
        self.node.attrs["group"] = len(groups)


class QuantizedConvTransposeRule(QuantizedConvRule, ConvTransposeRule):
    """ConvTranspose, likewise."""


class QuantizedGemmRule(_QuantizedLayer, GemmRule):
    """Gemm."""

    def describe(self) -> None:
        """See the module's docstring."""
        super().describe()
        self.connect(1, (self.inputs_axis, self.x), (1 - self.inputs_axis, self.y))
        if self.has_input(2):
            self.connect(2, (-1, self.y))

    def blocks_of(self, weight: Array) -> Array:
        """See `_QuantizedLayer`."""
        return matrix_blocks(weight if self.inputs_axis else weight.T)

    def constants(self, constants: Constants) -> None:
        """See `GemmRule`."""
        super().constants(constants)
        self.settle(constants, scaled=not self.alpha == self.beta == 1)

    def shrink(self, kept: Kept) -> None:
        """DequantizeLinear has what is to be sliced."""
        self.fold(kept, self.alpha, self.beta)


class QuantizedMatMulRule(_QuantizedLayer, MatMulRule):
    """MatMul with a constant matrix; constants are added behind it."""

    def describe(self) -> None:
        """See the module's docstring."""
        super().describe()
        if self.side is not None:
            # [K, M] on the right, [M, K] on the left.
            self.connect(self.side, (self.side, self.y), (1 - self.side, self.x))

    def weight_place(self) -> int:
        """See `_QuantizedLayer`."""
        return self.side or 0

    def takes_integers(self) -> bool:
        """Never: there is no bias."""
        return False

    def blocks_of(self, weight: Array) -> Array:
        """See `_QuantizedLayer`."""
        return matrix_blocks(weight.T if self.side == 1 else weight)

    def constants(self, constants: Constants) -> None:
        """See `MatMulRule`."""
        super().constants(constants)
        if self.side is not None:
            self.settle(constants)

    def shrink(self, kept: Kept) -> None:
        """DequantizeLinear has what is to be sliced."""
        delta = self.contribution(kept) if self._into_bias is not None else np.zeros(0)
        if delta.any() and delta[kept.live[self.y.slots]].any() and not self._add_to_bias(delta):
            dtype = numpy_type(self.graph, self.node.outputs[0])
            self._add_behind(take(delta, kept.of(self.y), 0).astype(dtype))


def _layer(plain: type[Rule], quantized: type[Rule]) -> Callable[[ModelGraph, gs.Node, Slots], Rule]:
    """The rule of a layer, which depends on where its weights come from."""

    def rule(graph: ModelGraph, node: gs.Node, slots: Slots) -> Rule:
        computed = any(dequantized(graph, tensor) is not None for tensor in node.inputs[:2])
        return (quantized if computed else plain)(graph, node, slots)

    return rule


RULES: dict[str, Callable[[ModelGraph, gs.Node, Slots], Rule]] = {
    "Conv": _layer(ConvRule, QuantizedConvRule),
    "ConvTranspose": _layer(ConvTransposeRule, QuantizedConvTransposeRule),
    "Gemm": _layer(GemmRule, QuantizedGemmRule),
    "MatMul": _layer(MatMulRule, QuantizedMatMulRule),
}
