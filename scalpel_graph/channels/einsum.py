"""Einsum: sums of products of variables and constants, each letter an axis.

A letter of the output goes from all operands together. Along a letter that is summed over, zeros can go.
"""

import numpy as np

from scalpel_graph.channels.constants import Constants, slices
from scalpel_graph.channels.needs import Needs
from scalpel_graph.channels.rule import Kept, Read, Refusal, Rule, take
from scalpel_graph.channels.slots import Axis, BoolArray


class EinsumRule(Rule):
    """Einsum without ellipses, diagonals and broadcasting."""

    def describe(self) -> None:
        """See the module's docstring."""
        equation = str(self.node.attrs["equation"]).replace(" ", "")
        if "." in equation or "->" not in equation:
            raise Refusal("its equation has an ellipsis, or does not state the output")
        left, output = equation.split("->")
        self.terms = left.split(",")
        if len(self.terms) != len(self.node.inputs) or any(
            len(set(t)) < len(t) for t in (*self.terms, output)
        ):
            raise Refusal("its equation names an axis twice")
        made = dict(zip(output, self.axes(self.node.outputs[0]), strict=True))
        self.axes_of: dict[str, list[Axis | None]] = {}
        self.sizes: dict[str, int] = {}
        for index, term in enumerate(self.terms):
            values = self.graph.constant(self.node.inputs[index])
            if values is not None:
                self.weight(index, "operand")
                self.sizes.update(zip(term, values.shape, strict=True))
                continue
            for letter, axis in zip(term, self.axes(self.node.inputs[index]), strict=True):
                self.axes_of.setdefault(letter, []).append(axis)
        self.made = {letter: axis for letter, axis in made.items() if axis is not None}
        if not self.made:
            raise Refusal("no size of its output is known")
        for letter in {*self.axes_of, *self.made}:
            self._describe_letter(letter, letter in made)

    def _describe_letter(self, letter: str, is_made: bool) -> None:
        given = self.axes_of.get(letter, [])
        made = self.made.get(letter)
        axes = [axis for axis in (*given, made) if axis is not None]
        sizes = {axis.size for axis in axes} | {self.sizes.get(letter, axes[0].size if axes else 0)}
        if len(axes) < len(given) + is_made or len(sizes) > 1:
            return  # left unnamed: what has slots here stays
        for axis in axes[1:]:
            self.couple(axes[0], axis)
        if not given:
            self.free.append(axes[0].slots)
        elif not is_made:
            outputs = next(iter(self.made.values())).slots
            used = self._used(letter, given[0].size)  # type: ignore[union-attr]
            needs = Needs.of(np.tile(used, (len(outputs), 1)))
            factors = given[1].slots if len(given) > 1 else None  # type: ignore[union-attr]
            why = "their non-zero constant counts in its sum"
            self.reads.append(Read(axes[0].slots, outputs, needs, why=why, factors=factors))

    def _used(self, letter: str, size: int) -> BoolArray:
        """``[size]``: where no constant operand is zero along a letter."""
        used = np.ones(size, dtype=np.bool_)
        for index, term in enumerate(self.terms):
            values = self.graph.constant(self.node.inputs[index])
            if values is not None and letter in term:
                known, value = slices(values, term.index(letter))
                used &= ~(known & (value == 0))
        return used

    def constants(self, constants: Constants) -> None:
        """A zero in any factor makes zeros."""
        for letter, made in self.made.items():
            axes = self.axes_of.get(letter, [])
            if any(axis is None or axis.size != made.size for axis in axes):
                continue
            zero = ~self._used(letter, made.size)
            for axis in axes:
                assert axis is not None
                zero |= constants.known[axis.slots] & (constants.value[axis.slots] == 0)
            constants.set(made.slots, zero, np.zeros(made.size))

    def shrink(self, kept: Kept) -> None:
        """Slices the operands that are constants."""
        for index, term in enumerate(self.terms):
            values = self.graph.constant(self.node.inputs[index])
            if values is None:
                continue
            smaller = values
            for place, letter in enumerate(term):
                axes = [*self.axes_of.get(letter, []), self.made.get(letter)]
                axis = next((axis for axis in axes if axis is not None), None)
                smaller = take(smaller, kept.of(axis), place)
            if smaller.shape != values.shape:
                kept.replace(self.graph, self.node, index, smaller)


RULES = {"Einsum": EinsumRule}
