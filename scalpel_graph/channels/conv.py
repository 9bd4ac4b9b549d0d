"""Conv and ConvTranspose, with any number of spatial axes and groups.

An input channel that only dead outputs use, or that always holds zero, can go. Any other constant ``v`` can
go from a Conv without padding, whose bias then grows by ``v`` times the sum of the channel's weights; with
padding the border sees fewer of them. In a grouped layer every group keeps the same number of channels. One
with a single input channel per group (depthwise) loses an input together with the outputs made of it.
"""

from itertools import pairwise

import numpy as np

from scalpel_graph.channels.blockwise import magnitudes, needs, products
from scalpel_graph.channels.constants import Constants, Float64Array, numpy_type
from scalpel_graph.channels.live import Live
from scalpel_graph.channels.rule import Kept, Read, Refusal, Rule, foldable, take
from scalpel_graph.channels.slots import BoolArray, IntArray
from scalpel_graph.group_csr import Array

_PADDED = "they hold a non-zero constant, but its padding holds zeros"


class ConvRule(Rule):
    """Conv: W ``[M, C / group, kernel...]``."""

    transposed = False
    why_varied = _PADDED

    def describe(self) -> None:
        """See the module's docstring."""
        node = self.node
        weight = self.weight(1, "weight")
        self.group = int(node.attrs.get("group", 1))
        x, y = self.slots.axis(node.inputs[0], 1), self.slots.axis(node.outputs[0], 1)
        blocks = self._blocks(weight)
        _, m, c, _ = blocks.shape
        if x is None or y is None or x.size != self.group * c or y.size != self.group * m:
            raise Refusal("the number of its channels is not known")
        self.x, self.y = x, y
        self.inputs, self.outputs = x.slots.reshape(self.group, c), y.slots.reshape(self.group, m)
        self.used = needs(blocks)
        self.couple(self.slots.axis(node.inputs[0], 0), self.slots.axis(node.outputs[0], 0))
        self.bias = self._bias()
        if self.bias is None:
            bias = self.slots.axis(node.inputs[2], 0)
            if bias is None or bias.size != y.size:
                raise Refusal("the size of its bias is not known")
            self.couple(bias, y)
        if self.group > 1 and c == 1:
            self.couplings.append((np.repeat(x.slots, m), y.slots))
            return
        largest, why = self._largest(blocks)
        for group in range(self.group):
            self.reads.append(
                Read(self.inputs[group], self.outputs[group], self.used[group], largest=largest, why=why)
            )

    def _blocks(self, weight: Array) -> Array:
        """``[group, outputs of a group, inputs of a group, kernel positions]``."""
        if weight.ndim < 3:
            raise Refusal("its weight has no kernel axes")
        if weight.shape[0] % self.group:
            raise Refusal("its groups do not divide its channels")
        blocks = weight.reshape(self.group, weight.shape[0] // self.group, weight.shape[1], -1)
        return blocks.transpose(0, 2, 1, 3) if self.transposed else blocks

    def _bias(self) -> Array | None:
        if not self.has_input(2):
            return np.zeros(self.y.size)
        if self.input_constant(2) is None:
            return None
        return self.weight(2, "bias")

    @property
    def _is_padded(self) -> bool:
        attributes = self.node.attrs
        return attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or any(
            attributes.get("pads", ())
        )

    def _largest(self, blocks: Array) -> tuple[float, str]:
        if self.transposed:
            return 0.0, "they hold a non-zero constant, of which the borders of its output see less"
        if self._is_padded:
            return 0.0, _PADDED
        dtype = numpy_type(self.graph, self.node.outputs[0])
        if self.bias is None or dtype is None:
            return 0.0, "they hold a non-zero constant, and its bias, which would take it, is computed"
        return foldable(magnitudes(blocks), self.bias, dtype), "their constant is too large for its bias"

    def constants(self, constants: Constants) -> None:
        """An output is constant if all the inputs it uses are (zeros, where the border sees fewer)."""
        dtype = numpy_type(self.graph, self.node.outputs[0])
        if self.bias is None or dtype is None:
            return
        known, value = constants.known[self.inputs], constants.value[self.inputs]
        if self.transposed or self._is_padded:
            known = known & (value == 0)
        fixed = ~self.used.outputs_of(~known)
        if not fixed.any():
            return
        total = self.products(np.where(known, value, 0.0))[fixed]
        bias = self.bias.reshape(fixed.shape)[fixed]
        with np.errstate(over="ignore"):
            values = (total + bias).astype(dtype).astype(np.float64)
        constants.set(self.outputs[fixed], np.ones(len(values), dtype=np.bool_), values)

    def products(self, values: Float64Array) -> Float64Array:
        """``[group, outputs of a group]``: what inputs that hold ``values`` add, away from the border."""
        if not values.any():
            return np.zeros(self.outputs.shape)
        return products(self._blocks(self.weight(1, "weight")), values)

    def widths(self, live: Live) -> IntArray:
        """Every group that stays keeps as many inputs, and as many outputs, as the largest one."""
        if self.group == 1 or self.inputs.shape[1] == 1:
            return np.zeros(0, dtype=np.int64)
        rows_in, rows_out = live[self.inputs], live[self.outputs]
        staying: BoolArray = np.logical_or(rows_in.any(axis=1), rows_out.any(axis=1))
        wanted = [_fill(rows_in, staying, self.inputs), _fill(rows_out, staying, self.outputs)]
        return np.concatenate(wanted)

    def shrink(self, kept: Kept) -> None:
        """Slices weight and bias, takes the constants into the bias."""
        node = self.node
        live_in, live_out = kept.live[self.inputs], kept.live[self.outputs]
        if live_in.all() and live_out.all():
            return
        bias = self.folded_bias(kept, live_in)
        groups = self.kept_groups(kept)
        kept.replace(self.graph, node, 1, self.cut(self.weight(1, "weight"), groups))
        if bias is not None:
            kept.replace(self.graph, node, 2, bias[live_out.reshape(-1)])
        if self.group > 1:
            node.attrs["group"] = len(groups)

    def kept_groups(self, kept: Kept) -> list[tuple[int, IntArray, IntArray]]:
        """Number, inputs and outputs (counted within the group) of every group that stays."""
        live_in, live_out = kept.live[self.inputs], kept.live[self.outputs]
        if self.group > 1 and self.inputs.shape[1] == 1:
            live_in = np.ones_like(live_in)
        pairs = enumerate(zip(live_in, live_out, strict=True))
        groups = [(g, np.flatnonzero(i), np.flatnonzero(o)) for g, (i, o) in pairs if o.any()]
        assert all(len(a[1]) == len(b[1]) and len(a[2]) == len(b[2]) for a, b in pairwise(groups))
        return groups

    def cut(self, weight: Array, groups: list[tuple[int, IntArray, IntArray]]) -> Array:
        """An array of the weight's shape, with only what `kept_groups` has."""
        return np.concatenate([self._part(weight, *group) for group in groups])

    def folded_bias(self, kept: Kept, live_in: BoolArray) -> Array | None:
        """The bias, with the constants of the inputs that go; None if there is none and none is needed."""
        given = self.input_constant(2)
        value = np.where(live_in, 0.0, kept.constants.value[self.inputs])
        if self.group > 1 and self.inputs.shape[1] == 1:
            return given
        delta = self.products(value).reshape(-1)
        if not delta.any():
            return given
        if given is None:
            given = np.zeros(self.y.size, dtype=self.weight(1, "weight").dtype)
            self.add_input(2, "bias", given)
        with np.errstate(over="ignore"):
            return np.asarray(given + delta, dtype=given.dtype)

    def _part(self, weight: Array, group: int, inputs: IntArray, outputs: IntArray) -> Array:
        """One group of the weight, as it is stored."""
        rows: Array = weight.reshape(self.group, -1, *weight.shape[1:])[group]
        first, second = (inputs, outputs) if self.transposed else (outputs, inputs)
        return take(take(rows, first, 0), second, 1)


class ConvTransposeRule(ConvRule):
    """ConvTranspose: W ``[C, M / group, kernel...]``."""

    transposed = True


def _fill(live: BoolArray, staying: BoolArray, slots: IntArray) -> IntArray:
    """For ``live [groups, n]``, the dead slots of the groups that stay which make them all as wide."""
    counts = live.sum(axis=1)
    width = max(int(counts.max(initial=0)), 1)
    missing = [slots[g][~live[g]][: width - counts[g]] for g in np.flatnonzero(staying) if counts[g] < width]
    return np.concatenate(missing) if missing else np.zeros(0, dtype=np.int64)
