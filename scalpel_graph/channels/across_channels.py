"""Operators that normalise across channels: what exactly can go without the others changing.

- LayerNormalization: nothing, for a mean over fewer channels is another one; where its scale is zero its
  output is a constant all the same. MeanVarianceNormalization likewise, along the axes it states.
- RMSNormalization: zeros. They are not in the sum of squares; that it is divided by the number of channels is
  made up for in scale and epsilon.
- LpNormalization: zeros.
- GroupNormalization: whole groups.
- LRN: zeros, but for as many as keep apart the windows of channels that did not see each other. A channel
  that is unread but seen by another one stays, and with it what it sees: only zeros end such a chain.
"""

from itertools import pairwise

import numpy as np

from scalpel_graph.channels.constants import Constants, numpy_type, slices
from scalpel_graph.channels.live import Live
from scalpel_graph.channels.needs import Needs
from scalpel_graph.channels.rule import Kept, Read, Refusal, Rule, take
from scalpel_graph.channels.slots import Axis, BoolArray, IntArray


def zeros(constants: Constants, axis: Axis) -> BoolArray:
    """``[size]``: which slots of an axis always hold zero."""
    return np.asarray(constants.known[axis.slots] & (constants.value[axis.slots] == 0))


class LayerNormRule(Rule):
    """LayerNormalization: normalises over ``axis`` and all behind it."""

    def describe(self) -> None:
        """Couples the axes in front."""
        x, self.made = self.axes(self.node.inputs[0]), self.axes(self.only_output())
        self.first = int(self.node.attrs.get("axis", -1)) % len(x)
        for a, b in zip(x[: self.first], self.made[: self.first], strict=True):
            self.couple(a, b)

    def constants(self, constants: Constants) -> None:
        """With a scale of zero, the bias is left of anything."""
        scale = self.input_constant(1)
        bias = self.input_constant(2) if self.has_input(2) else np.zeros(1)
        rank = len(self.made) - self.first
        if scale is None or bias is None or scale.ndim > rank or bias.ndim > rank:
            return
        shape = np.broadcast_shapes(scale.shape, bias.shape)
        for axis in self.made[self.first :]:
            if axis is None:
                continue
            place = axis.index - len(self.made) + len(shape)
            if place >= 0 and shape[place] == axis.size and numpy_type(self.graph, axis.tensor):
                off, factor = slices(np.broadcast_to(scale, shape), place)
                known, value = slices(np.broadcast_to(bias, shape), place)
                constants.set(axis.slots, off & (factor == 0) & known, value)


class MeanVarianceRule(Rule):
    """MeanVarianceNormalization: the axes that it does not average over.

    ONNX Runtime adds no epsilon: it makes NaN of a constant channel, zeros included.
    """

    fragile = True

    def describe(self) -> None:
        """Couples them."""
        x, y = self.axes(self.node.inputs[0]), self.axes(self.node.outputs[0])
        averaged = {int(axis) % len(x) for axis in self.node.attrs.get("axes", (0, 2, 3))}
        for index, (a, b) in enumerate(zip(x, y, strict=True)):
            if index not in averaged:
                self.couple(a, b)


class LpNormRule(Rule):
    """LpNormalization: divides by a norm, to which zeros contribute nothing."""

    fragile = True

    default_axis = -1

    def describe(self) -> None:
        """Couples the other axes."""
        x, y = self.axes(self.node.inputs[0]), self.axes(self.only_output())
        along = int(self.node.attrs.get("axis", self.default_axis)) % len(x)
        for index, (a, b) in enumerate(zip(x, y, strict=True)):
            if index != along:
                self.couple(a, b)
        a, b = x[along], y[along]
        self.along = (a, b) if a is not None and b is not None and a.size == b.size else None

    def constants(self, constants: Constants) -> None:
        """Zero stays zero, and can go; the others are left unnamed, which keeps them."""
        if self.along is None:
            return
        a, b = self.along
        zero = zeros(constants, a)
        constants.set(b.slots, zero, np.zeros(b.size))
        self.couplings.append((a.slots[zero], b.slots[zero]))


class RmsNormRule(LpNormRule):
    """RMSNormalization along the last axis: ``x / sqrt(mean(x²) + epsilon) · scale``."""

    def describe(self) -> None:
        """See `LpNormRule`."""
        super().describe()
        scale = self.weight(1, "scale")
        if self.along is None or self.along[0].index != len(self.axes(self.node.inputs[0])) - 1:
            raise Refusal("it normalises along several axes at once, or along one of unknown size")
        if scale.shape != (self.along[0].size,):
            raise Refusal("its scale is not one number per channel")

    def shrink(self, kept: Kept) -> None:
        """Of n channels m are left: the mean is n/m of what it was, and so is epsilon to be."""
        assert self.along is not None
        indices = kept.of(self.along[0])
        if indices is None:
            return
        ratio = self.along[0].size / len(indices)
        scale = self.weight(1, "scale")
        wider = (take(scale, indices, 0).astype(np.float64) * np.sqrt(ratio)).astype(scale.dtype)
        kept.replace(self.graph, self.node, 1, wider)
        self.node.attrs["epsilon"] = float(self.node.attrs.get("epsilon", 1e-5)) * ratio


class GroupNormRule(Rule):
    """GroupNormalization: groups of channels, each by itself."""

    def describe(self) -> None:
        """Couples all channels of a group."""
        node = self.node
        self.groups = int(node.attrs["num_groups"])
        self.scale, self.bias = self.weight(1, "scale"), self.weight(2, "bias")
        x, y = self.slots.axis(node.inputs[0], 1), self.slots.axis(node.outputs[0], 1)
        if x is None or y is None or x.size % self.groups:
            raise Refusal("the number of its channels is not known")
        if not self.scale.shape == self.bias.shape == (x.size,):
            raise Refusal("its scale and bias are not one number per channel")
        self.x, self.y = x, y
        self.couple(self.slots.axis(node.inputs[0], 0), self.slots.axis(node.outputs[0], 0))
        self.couple(x, y)
        first = np.repeat(x.slots.reshape(self.groups, -1)[:, 0], x.size // self.groups)
        self.couplings.append((first, x.slots))

    def constants(self, constants: Constants) -> None:
        """The bias is left of a group of zeros, and of anything with a scale of zero."""
        if numpy_type(self.graph, self.node.outputs[0]) is None:
            return
        zero = zeros(constants, self.x).reshape(self.groups, -1).all(axis=1)
        known = np.repeat(zero, self.x.size // self.groups) | (self.scale == 0)
        constants.set(self.y.slots, known, self.bias)

    def shrink(self, kept: Kept) -> None:
        """Slices scale and bias."""
        indices = kept.of(self.x)
        if indices is None:
            return
        for index, values in ((1, self.scale), (2, self.bias)):
            kept.replace(self.graph, self.node, index, take(values, indices, 0))
        self.node.attrs["num_groups"] = self.groups * len(indices) // self.x.size


class LrnRule(Rule):
    """LRN: ``x / (bias + alpha / size · Σ x²)^beta``, the sum over ``size`` neighbouring channels."""

    why_held = "it keeps apart channels that are not in each other's window"

    def describe(self) -> None:
        """Couples each channel's input and output."""
        node = self.node
        x, y = self.slots.axis(node.inputs[0], 1), self.slots.axis(node.outputs[0], 1)
        if x is None or y is None or float(node.attrs.get("bias", 1.0)) <= 0:
            raise Refusal("the number of its channels is not known, or its bias is not positive")
        self.x, self.y = x, y
        for a, b in zip(self.axes(node.inputs[0])[:2], self.axes(node.outputs[0])[:2], strict=True):
            self.couple(a, b)
        self.size = int(node.attrs["size"])
        self.reach = self.size // 2

    def constants(self, constants: Constants) -> None:
        """Zero stays zero; the others need those in their window."""
        self.zero = zeros(constants, self.x)
        offset = np.arange(self.x.size) - np.arange(self.x.size)[:, None]
        window = (-((self.size - 1) // 2) <= offset) & (offset <= self.reach)
        self.reads.append(Read(self.x.slots, self.y.slots, Needs.of(window & ~self.zero[:, None])))
        constants.set(self.y.slots, self.zero, np.zeros(self.y.size))

    def widths(self, live: Live) -> IntArray:
        """As many zeros between two channels as it takes for neither to come into the other's window.

        Between channels that are further apart than a window reaches, the first ones are zeros: they are
        in a window, and were needed otherwise.
        """
        stays = live[self.x.slots]
        varied = np.flatnonzero(stays & ~self.zero)
        wanted = []
        for a, b in pairwise(varied.tolist()):
            missing = min(b - a, self.reach + 1) - 1 - int(stays[a + 1 : b].sum())
            if missing > 0:
                dead = a + 1 + np.flatnonzero(~stays[a + 1 : b])
                wanted.append(self.x.slots[dead[:missing]])
        return np.concatenate(wanted) if wanted else np.zeros(0, dtype=np.int64)


RULES = {
    "LayerNormalization": LayerNormRule,
    "MeanVarianceNormalization": MeanVarianceRule,
    "LpNormalization": LpNormRule,
    "RMSNormalization": RmsNormRule,
    "GroupNormalization": GroupNormRule,
    "LRN": LrnRule,
}
