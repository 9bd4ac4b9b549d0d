"""Pools: each channel by itself; the positions stay."""

import numpy as np

from scalpel_graph.channels.constants import Constants, numpy_type
from scalpel_graph.channels.rule import Rule


class PoolRule(Rule):
    """A pool whose output is constant where its input is zero."""

    why_varied = "they hold a non-zero constant, which its borders change"

    def describe(self) -> None:
        """See the module's docstring."""
        output = self.only_output()
        for index in (0, 1):
            self.couple(self.slots.axis(self.node.inputs[0], index), self.slots.axis(output, index))

    def hands_on(self) -> bool:
        """Whether any constant is handed on, not only zero."""
        return False

    def constants(self, constants: Constants) -> None:
        """Zeros, or all constants, stay what they are."""
        if numpy_type(self.graph, self.node.outputs[0]) is None and not self.hands_on():
            return
        x, y = self.slots.axis(self.node.inputs[0], 1), self.slots.axis(self.node.outputs[0], 1)
        if x is None or y is None or x.size != y.size:
            return
        known, value = constants.known[x.slots], constants.value[x.slots]
        constants.set(y.slots, known if self.hands_on() else known & (value == 0), value)


class MaxPoolRule(PoolRule):
    """MaxPool and GlobalMaxPool: padding never wins."""

    def hands_on(self) -> bool:
        """Always."""
        return True


class AveragePoolRule(PoolRule):
    """AveragePool and GlobalAveragePool: a constant stays, unless zeros are averaged in."""

    def hands_on(self) -> bool:
        """Not where the padding counts."""
        attributes = self.node.attrs
        pads = attributes.get("auto_pad", "NOTSET") not in ("NOTSET", "VALID") or np.any(
            attributes.get("pads", 0)
        )
        extended = pads or attributes.get("ceil_mode", 0)
        return not (attributes.get("count_include_pad", 0) and extended)


RULES = {
    "MaxPool": MaxPoolRule,
    "GlobalMaxPool": MaxPoolRule,
    "AveragePool": AveragePoolRule,
    "GlobalAveragePool": AveragePoolRule,
    "LpPool": PoolRule,
    "GlobalLpPool": PoolRule,
}
