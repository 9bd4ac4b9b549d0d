"""LSTM, GRU and RNN: hidden units, and the features of the input.

A hidden unit goes from every gate at once. It can go where nothing reads its outputs and no unit that stays
reads it, or where it always is zero: its candidate (of an RNN, all of it) sees nothing, has no bias, and its
initial state is zero. Whatever the gates say, a state of zero then stays zero. A constant feature of the
input goes into the bias. Both directions of a bidirectional layer have the same units: one goes where both
can.
"""

import numpy as np

from scalpel_graph.channels.blockwise import magnitudes, needs, products
from scalpel_graph.channels.constants import Constants, numpy_type
from scalpel_graph.channels.rule import Kept, Read, Refusal, Rule, foldable, take
from scalpel_graph.channels.slots import Axis, BoolArray
from scalpel_graph.group_csr import Array

#: Activations that make zero of zero, for candidates and states.
_ZERO_AT_ZERO = ("tanh", "relu")


class RecurrentRule(Rule):
    """Common part. Weights are ``W [D, gates · H, I]``, ``R [D, gates · H, H]``, ``B [D, 2 · gates · H]``.

    Attributes:
        gates: how many blocks of H rows W and R have.
        candidate: the block that makes the new state.
        activations: the default ones of a direction; those of gates come first.
        states: inputs that hold initial states.
    """

    gates: int
    candidate: int
    activations: tuple[str, ...]
    states: tuple[int, ...] = (5,)

    def describe(self) -> None:
        """See the module's docstring."""
        node = self.node
        w, r = self.weight(1, "W"), self.weight(2, "R")
        outputs = [tensor for tensor in node.outputs if tensor.name]
        units = [self.slots.axis(tensor, -1) for tensor in outputs]
        x = self.slots.axis(node.inputs[0], -1)
        if x is None or not units or any(axis is None for axis in units):
            raise Refusal("the number of its features is not known")
        self.x = x
        self.units: list[Axis] = [axis for axis in units if axis is not None]
        size = self.units[0].size
        directions = w.shape[0]
        if w.shape != (directions, self.gates * size, x.size) or r.shape != (
            directions,
            self.gates * size,
            size,
        ):
            raise Refusal("its W and R do not have the shapes of its input and output")
        self.b = np.zeros((directions, 2, self.gates, size), dtype=w.dtype)
        if self.has_input(3):
            self.b = self.weight(3, "B").reshape(self.b.shape)
        if self.has_input(7):
            self.weight(7, "P")
        for axis in self.units[1:]:
            self.couple(self.units[0], axis)
        self._describe_states()
        dtype = numpy_type(self.graph, outputs[0])
        largest = 0.0
        if dtype is not None:
            largest = foldable(magnitudes(w), self.b, dtype)
        why = "their constant is too large for its bias"
        hidden = self.units[0].slots
        # [1, H, inputs, D, gates]: a unit needs what any of its gates does, in either direction.
        w_needs, r_needs = (needs(self._gates(a).transpose(2, 3, 0, 1)[None])[0] for a in (w, r))
        self.reads.append(Read(x.slots, hidden, w_needs, largest=largest, why=why))
        self.reads.append(Read(hidden, hidden, r_needs))

    def _gates(self, weight: Array) -> Array:
        """W or R as ``[D, gates, H, inputs]``."""
        return weight.reshape(len(weight), self.gates, -1, weight.shape[-1])

    def _describe_states(self) -> None:
        for index in self.states:
            if not self.has_input(index):
                continue
            if self.input_constant(index) is not None:
                self.weight(index, "initial state")
                continue
            axis = self.slots.axis(self.node.inputs[index], -1)
            if axis is None or axis.size != self.units[0].size:
                raise Refusal("the size of its initial state is not known")
            self.couple(self.units[0], axis)

    def constants(self, constants: Constants) -> None:
        """The units that always are zero: as many as can be if all of them are at the start."""
        if not self._keeps_zero():
            return
        candidate = self._gates(self.weight(1, "W"))[:, self.candidate]
        seen = ~(constants.known[self.x.slots] & (constants.value[self.x.slots] == 0))
        zero = ~(candidate[:, :, seen] != 0).any(axis=(0, 2)) & self._without_bias().all(axis=0)
        for index in self.states:
            zero &= self._starts_at_zero(index, constants)
        recurrent = (self._gates(self.weight(2, "R"))[:, self.candidate] != 0).any(axis=0)
        while (moved := zero & recurrent[:, ~zero].any(axis=1)).any():
            zero &= ~moved
        for axis in self.units:
            constants.set(axis.slots, zero, np.zeros(axis.size))

    def _keeps_zero(self) -> bool:
        given = self.node.attrs.get("activations") or self.activations
        size = len(self.activations)
        names = [(name.decode() if isinstance(name, bytes) else name).lower() for name in given]
        return all(
            name in _ZERO_AT_ZERO if self.activations[place % size] == "tanh" else name == "sigmoid"
            for place, name in enumerate(names)
        )

    def _without_bias(self) -> BoolArray:
        """``[D, H]``: which candidates have no bias."""
        return np.asarray(self.b[:, 0, self.candidate] + self.b[:, 1, self.candidate] == 0)

    def _starts_at_zero(self, index: int, constants: Constants) -> BoolArray:
        size = self.units[0].size
        if not self.has_input(index):
            return np.ones(size, dtype=np.bool_)
        values = self.input_constant(index)
        if values is not None:
            return np.asarray((values.reshape(-1, size) == 0).all(axis=0))
        axis = self.slots.axis(self.node.inputs[index], -1)
        assert axis is not None
        return np.asarray(constants.known[axis.slots] & (constants.value[axis.slots] == 0))

    def shrink(self, kept: Kept) -> None:
        """Slices the weights and constant states, takes constant features into B."""
        inputs, units = kept.of(self.x), kept.of(self.units[0])
        if inputs is None and units is None:
            return
        node, graph = self.node, self.graph
        w = self.weight(1, "W")
        directions = len(w)
        value = np.where(kept.live[self.x.slots], 0.0, kept.constants.value[self.x.slots])
        delta = products(w, np.tile(value, (directions, 1))).reshape(directions, self.gates, -1)
        if delta[:, :, kept.live[self.units[0].slots]].any() and not self.has_input(3):
            self.add_input(3, "B", self.b.reshape(directions, -1))
        if self.has_input(3):
            b = self.b.astype(np.float64)
            b[:, 0] += delta
            kept.replace(graph, node, 3, take(b.astype(self.b.dtype), units, 3).reshape(directions, -1))
        kept.replace(graph, node, 1, _rows(take(take(self._gates(w), units, 2), inputs, 3)))
        if units is None:
            return
        r = self._gates(self.weight(2, "R"))
        kept.replace(graph, node, 2, _rows(take(take(r, units, 2), units, 3)))
        if self.has_input(7):
            p = self.weight(7, "P").reshape(directions, -1, self.units[0].size)
            kept.replace(graph, node, 7, take(p, units, 2).reshape(directions, -1))
        for index in self.states:
            state = self.input_constant(index)
            if state is not None:
                kept.replace(graph, node, index, take(state, units, state.ndim - 1))
        node.attrs["hidden_size"] = len(units)


def _rows(values: Array) -> Array:
    """``[D, gates, H, I]`` as it is stored: ``[D, gates · H, I]``."""
    directions, gates, units, inputs = values.shape
    return values.reshape(directions, gates * units, inputs)


class LstmRule(RecurrentRule):
    """LSTM: gates i, o, f, then the candidate c. With no candidate, ``C = f·C + i·0`` stays zero."""

    gates, candidate = 4, 3
    activations = ("sigmoid", "tanh", "tanh")
    states = (5, 6)


class GruRule(RecurrentRule):
    """GRU: gates z, r, then the candidate h. With no candidate, ``H = (1 - z)·0 + z·H`` stays zero."""

    gates, candidate = 3, 2
    activations = ("sigmoid", "tanh")

    def _without_bias(self) -> BoolArray:
        """With ``linear_before_reset`` one bias is scaled by a gate: both must be zero."""
        if self.node.attrs.get("linear_before_reset", 0):
            return np.asarray((self.b[:, :, self.candidate] == 0).all(axis=1))
        return super()._without_bias()


class RnnRule(RecurrentRule):
    """RNN: the state is the activation of all there is."""

    gates, candidate = 1, 0
    activations = ("tanh",)


RULES = {"LSTM": LstmRule, "GRU": GruRule, "RNN": RnnRule}
