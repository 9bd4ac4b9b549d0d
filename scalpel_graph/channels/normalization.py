"""BatchNormalization and InstanceNormalization: each channel by itself.

What normalises over channels is in `across_channels`.
"""

import numpy as np

from scalpel_graph.channels.constants import Constants, numpy_type
from scalpel_graph.channels.rule import Kept, Refusal, Rule, take
from scalpel_graph.group_csr import Array


class BatchNormRule(Rule):
    """BatchNormalization in its inference form: ``(x - mean) · scale / sqrt(var + epsilon) + B``."""

    parameters: tuple[str, ...] = ("scale", "B", "mean", "var")

    def describe(self) -> None:
        """See the module's docstring."""
        node = self.node
        output = self.only_output()
        if node.attrs.get("training_mode", 0) or not node.attrs.get("spatial", 1):
            raise Refusal("it is not in its inference form")
        self.values = [
            self.weight(index, name).astype(np.float64) for index, name in enumerate(self.parameters, start=1)
        ]
        x, y = self.slots.axis(node.inputs[0], 1), self.slots.axis(output, 1)
        if x is None or y is None or any(values.shape != (x.size,) for values in self.values):
            raise Refusal("the number of its channels is not known")
        self.x, self.y = x, y
        for a, b in zip(self.axes(node.inputs[0]), self.axes(output), strict=True):
            self.couple(a, b)

    def factor(self) -> Array:
        """What each channel is multiplied by."""
        scale, _, _, variance = self.values
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.asarray(scale / np.sqrt(variance + float(self.node.attrs.get("epsilon", 1e-5))))

    def constants(self, constants: Constants) -> None:
        """A constant is scaled and shifted; with a scale of zero B is left of anything."""
        dtype = numpy_type(self.graph, self.node.outputs[0])
        if dtype is None:
            return
        factor = self.factor()
        known = constants.known[self.x.slots] | (factor == 0)
        _, offset, mean, _ = self.values
        value = np.where(factor == 0, mean, constants.value[self.x.slots])
        with np.errstate(over="ignore", invalid="ignore"):
            result = ((value - mean) * factor + offset).astype(dtype).astype(np.float64)
        constants.set(self.y.slots, known, result)

    def shrink(self, kept: Kept) -> None:
        """Slices the parameters."""
        indices = kept.of(self.x)
        if indices is None:
            return
        for index in range(1, 1 + len(self.parameters)):
            kept.replace(self.graph, self.node, index, take(self.weight(index, "parameter"), indices, 0))


class InstanceNormRule(BatchNormRule):
    """InstanceNormalization; B is what is left of zeros, and of anything with a scale of zero."""

    parameters = ("scale", "B")

    def constants(self, constants: Constants) -> None:
        """Other constants differ from their mean by rounding, which the division by 0 + epsilon enlarges."""
        scale, offset = self.values
        zero = constants.known[self.x.slots] & (constants.value[self.x.slots] == 0)
        constants.set(self.y.slots, zero | (scale == 0), offset)


RULES = {"BatchNormalization": BatchNormRule, "InstanceNormalization": InstanceNormRule}
