"""Layers of integer tensors: QLinearConv, QLinearMatMul, ConvInteger, MatMulInteger; QGemm of ONNX Runtime.

They are the rules of Conv, Gemm and MatMul, which are shown the weights less their zero point. What an input
or an output holds counts from its zero point, too. A constant goes into the int32 bias, where there is one to
take it, without any rounding (`fixed_point`).
"""

from dataclasses import dataclass, replace

import numpy as np

from scalpel_graph.channels.constants import Constants, Float64Array, is_float
from scalpel_graph.channels.conv import ConvRule
from scalpel_graph.channels.dequantized import is_integer
from scalpel_graph.channels.fixed_point import (
    INT32_LIMIT,
    depends_only_on,
    fits_int32,
    matrix_blocks,
    products,
)
from scalpel_graph.channels.gemm_matmul import GemmRule, MatMulRule
from scalpel_graph.channels.quantize_linear import LIMITS
from scalpel_graph.channels.rule import Kept, Refusal, Rule, take
from scalpel_graph.channels.slots import Axis, BoolArray
from scalpel_graph.group_csr import Array

_NO_BIAS = "they hold a non-zero constant, and it has no bias that could take it"
_PADDED = "they hold a non-zero constant, but its padding holds zeros"
_TOO_LARGE = "their constant is too large for its int32 bias"


@dataclass(frozen=True)
class _Places:
    """At which inputs an operator has what; None: nowhere. Its data is input 0.

    Attributes:
        weight: the integer weights; their zero point is ``weight_zero``, their scale ``weight_scale``.
        x_zero, x_scale: zero point and scale of the data.
        bias: of int32, in steps of ``x_scale · weight_scale``.
        y_scale, y_zero: of the output.
    """

    weight: int
    weight_zero: int
    x_zero: int
    weight_scale: int | None = None
    x_scale: int | None = None
    bias: int | None = None
    y_scale: int | None = None
    y_zero: int | None = None


_LINEAR = _Places(weight=3, weight_scale=4, weight_zero=5, x_scale=1, x_zero=2, y_scale=6, y_zero=7)
_INTEGER = _Places(weight=1, weight_zero=3, x_zero=2)


class _IntegerLayer(Rule):
    """Common part. Inputs 1 and 2 are, for the rule of the plain layer, its weights and its bias."""

    places: _Places
    x: Axis
    y: Axis

    def describe(self) -> None:
        """Reads scales and zero points, then see the plain layer's rule."""
        places = self.places
        self.x_zero = self._zero_of_x()
        if self.has_input(2) and self.input_constant(2) is None:
            raise Refusal("its bias is not constant")
        self.scales = [self._scale(place) for place in (places.x_scale, places.weight_scale, places.y_scale)]
        self.y_zero = 0.0
        if places.y_zero is not None and self._is_given(places.y_zero):
            zero = self._given(places.y_zero)
            if zero is None or zero.size != 1:
                raise Refusal("the zero point of its output is not one constant")
            self.y_zero = float(zero.reshape(()))
        super().describe()
        for scale, most in zip(self.scales, (1, self.y.size, 1), strict=True):
            if scale is not None and scale.size not in (1, most):
                raise Refusal("it has a scale for each row, or one of another shape than its weights")
        why = _PADDED if self.pads_zeros() else _NO_BIAS
        self.reads = [replace(read, largest=0.0, zero=self.x_zero, why=why) for read in self.reads]

    def _zero_of_x(self) -> float:
        """The zero point of the data; 0 where it is computed: slots then hold the difference from it."""
        place = self.places.x_zero
        if not self._is_given(place):
            return 0.0
        zero = self._given(place)
        if zero is not None and zero.size == 1:
            return float(zero.reshape(()))
        x, given = self.node.inputs[0], self.node.inputs[place]
        maker = x.inputs[0] if x.inputs else None
        if maker is None or maker.op != "DynamicQuantizeLinear" or given is not maker.outputs[2]:
            raise Refusal("the zero point of its data is neither one constant nor found with the data")
        return 0.0

    def _scale(self, place: int | None) -> Array | None:
        if place is None or not self._is_given(place):
            return None
        scale = self._given(place)
        if scale is None or not is_float(scale) or not (np.isfinite(scale) & (scale > 0)).all():
            raise Refusal("a scale of it is not a positive constant")
        return scale.reshape(-1)

    def _place(self, index: int) -> int | None:
        return (0, self.places.weight, self.places.bias)[index]

    def _is_given(self, place: int) -> bool:
        return super().has_input(place)

    def _given(self, place: int) -> Array | None:
        """The constant at an input, counted as the operator does."""
        return self.graph.constant(self.node.inputs[place]) if self._is_given(place) else None

    def has_input(self, index: int) -> bool:
        """Whether the data (0), the weights (1) or the bias (2) are given."""
        place = self._place(index)
        return place is not None and self._is_given(place)

    def input_constant(self, index: int) -> Array | None:
        """The weights (1) less their zero point as float32, the bias (2) as float64, if constant."""
        place = self._place(index)
        if place is None or place == 0 or not self._is_given(place):
            return None
        values = self.graph.constant(self.node.inputs[place])
        if values is None or not is_integer(values):
            return None
        if index == 2:
            return values.astype(np.float64)
        zero = self._zero_of_weights(values)
        return None if zero is None else values.astype(np.float32) - zero

    def _zero_of_weights(self, weight: Array) -> Array | None:
        """The zero point of the weights, of a shape broadcast to theirs; None if it is no constant."""
        place = self.places.weight_zero
        if not self._is_given(place):
            return np.zeros((), dtype=np.float32)
        zero = self.graph.constant(self.node.inputs[place])
        if zero is None or zero.size not in (1, weight.shape[self._outputs_axis()]):
            return None
        shape = [1] * weight.ndim if zero.size > 1 else []
        if shape:
            shape[self._outputs_axis()] = zero.size
        return zero.astype(np.float32).reshape(shape)

    def _outputs_axis(self) -> int:
        """The axis of the weights along which scales and zero points may differ."""
        raise NotImplementedError

    def weight_blocks(self) -> Array:
        """The weights less their zero point (`fixed_point`)."""
        raise NotImplementedError

    def pads_zeros(self) -> bool:
        """Whether zeros are put around what it reads."""
        return False

    def _bias_values(self) -> Array:
        bias = self.input_constant(2)
        return np.zeros(self.y.size) if bias is None else np.broadcast_to(bias.reshape(-1), self.y.size)

    def constants(self, constants: Constants) -> None:
        """An output is constant if all the inputs it uses are; which of them the bias can take."""
        known = constants.known[self.x.slots]
        value = np.where(known, constants.value[self.x.slots] - self.x_zero, 0.0)
        blocks, bias = self.weight_blocks(), self._bias_values()
        even = known & (value == 0) if self.pads_zeros() else known
        fixed = depends_only_on(blocks, even)
        if fixed.any():
            total = products(blocks, np.where(even, value, 0.0)) + bias
            found, result = self._output(total)
            constants.set(self.y.slots, fixed & found & (np.abs(total) < INT32_LIMIT), result)
        if self.places.bias is None or self.pads_zeros() or not value.any():
            return
        if fits_int32(blocks, value, bias):
            self.reads = [replace(read, largest=np.inf) for read in self.reads]
        else:
            self.reads = [replace(read, why=_TOO_LARGE) for read in self.reads]

    def _output(self, total: Float64Array) -> tuple[BoolArray, Float64Array]:
        """What outputs hold whose integers are known, and where it is certain; ONNX Runtime's rounding."""
        x_scale, weight_scale, y_scale = self.scales
        everywhere: BoolArray = np.ones(len(total), dtype=np.bool_)
        if x_scale is None or weight_scale is None:
            return everywhere, total
        factor = x_scale * weight_scale * np.float32(self.node.attrs.get("alpha", 1.0))
        if y_scale is None:
            return everywhere, (total.astype(np.float32) * factor).astype(np.float64)
        limits = LIMITS.get(self.graph.type(self.node.outputs[0]) or 0)
        if limits is None:
            return ~everywhere, total
        rounded = np.rint(total.astype(np.float32) * (factor / y_scale)).astype(np.float64)
        return everywhere, np.clip(rounded + self.y_zero, *limits)

    def shrink(self, kept: Kept) -> None:
        """Slices weights, scales, zero points and bias, and takes the constants into the bias."""
        place = self.places.bias
        given = None if place is None else self._given(place)
        bias = self._folded_bias(kept, given)
        outputs = kept.of(self.y)
        weight = self.graph.constant(self.node.inputs[self.places.weight])
        assert weight is not None
        smaller = self.cut_weight(kept, weight)
        if smaller.shape != weight.shape:
            kept.replace(self.graph, self.node, self.places.weight, smaller)
        for scaling in (self.places.weight_scale, self.places.weight_zero):
            values = None if scaling is None else self._given(scaling)
            if scaling is not None and values is not None and values.size > 1:
                kept.replace(self.graph, self.node, scaling, take(values, outputs, values.ndim - 1))
        if bias is None or place is None:
            return
        bias = take(bias, outputs, bias.ndim - 1) if bias.size == self.y.size else bias
        if given is None:
            self.add_input(place, "bias", bias)
        elif bias is not given:
            kept.replace(self.graph, self.node, place, bias)

    def _folded_bias(self, kept: Kept, given: Array | None) -> Array | None:
        """The bias with the constants of the inputs that go; None if there is none and none is needed."""
        value = np.where(kept.live[self.x.slots], 0.0, kept.constants.value[self.x.slots] - self.x_zero)
        if not value.any() or self.places.bias is None or not self.reads:
            return given
        delta = np.where(kept.live[self.y.slots], products(self.weight_blocks(), value), 0.0)
        if not delta.any():
            return given
        if given is None:
            return delta.astype(np.int32)
        return given + delta.astype(np.int32)

    def cut_weight(self, kept: Kept, weight: Array) -> Array:
        """The stored weights with the channels that stay."""
        raise NotImplementedError


class _IntegerConv(_IntegerLayer, ConvRule):
    """Common part of Conv: W ``[M, C / group, kernel...]``."""

    def _outputs_axis(self) -> int:
        return 0

    def pads_zeros(self) -> bool:
        """See `_IntegerLayer`."""
        return self._is_padded

    def weight_blocks(self) -> Array:
        """See `_IntegerLayer`."""
        return self._blocks(self.weight(1, "weight"))

    def shrink(self, kept: Kept) -> None:
        """See `_IntegerLayer`."""
        groups = len(self.kept_groups(kept))
        super().shrink(kept)
        if self.group > 1:
            self.node.attrs["group"] = groups

    def cut_weight(self, kept: Kept, weight: Array) -> Array:
        """See `_IntegerLayer`."""
        return self.cut(weight, self.kept_groups(kept))


class _IntegerMatMul(_IntegerLayer, MatMulRule):
    """Common part of MatMul with constant weights on the right."""

    def describe(self) -> None:
        """See `_IntegerLayer`."""
        if self.input_constant(1) is None or self.graph.constant(self.node.inputs[0]) is not None:
            raise Refusal("its right side is not constant")
        super().describe()

    def _outputs_axis(self) -> int:
        return -1

    def weight_blocks(self) -> Array:
        """See `_IntegerLayer`."""
        return matrix_blocks(self.weight(1, "matrix").T)

    def cut_weight(self, kept: Kept, weight: Array) -> Array:
        """See `_IntegerLayer`."""
        return take(take(weight, kept.of(self.x), 0), kept.of(self.y), 1)


class QLinearConvRule(_IntegerConv):
    """QLinearConv."""

    places = replace(_LINEAR, bias=8)


class ConvIntegerRule(_IntegerConv):
    """ConvInteger."""

    places = _INTEGER


class QLinearMatMulRule(_IntegerMatMul):
    """QLinearMatMul."""

    places = _LINEAR


class MatMulIntegerRule(_IntegerMatMul):
    """MatMulInteger."""

    places = _INTEGER


class QGemmRule(_IntegerLayer, GemmRule):
    """QGemm of ONNX Runtime: ``alpha · (A·B + C)``; without an output scale its output is float32."""

    places = replace(_LINEAR, bias=6, y_scale=7, y_zero=8)

    def _outputs_axis(self) -> int:
        return 1 - self.inputs_axis

    def describe(self) -> None:
        """See `_IntegerLayer`."""
        self.inputs_axis = 1 if self.node.attrs.get("transB", 0) else 0
        super().describe()

    def weight_blocks(self) -> Array:
        """See `_IntegerLayer`."""
        weight = self.weight(1, "B")
        return matrix_blocks(weight if self.inputs_axis else weight.T)

    def cut_weight(self, kept: Kept, weight: Array) -> Array:
        """See `_IntegerLayer`."""
        return take(take(weight, kept.of(self.x), self.inputs_axis), kept.of(self.y), 1 - self.inputs_axis)


RULES = {
    "QLinearConv": QLinearConvRule,
    "QLinearMatMul": QLinearMatMulRule,
    "ConvInteger": ConvIntegerRule,
    "MatMulInteger": MatMulIntegerRule,
}
MICROSOFT_RULES = {"QGemm": QGemmRule}
