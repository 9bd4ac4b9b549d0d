"""What a rule is: how the slots of one node hang together, and how to do without some of them."""

import math
from dataclasses import dataclass, field

import ml_dtypes
import numpy as np
import onnx_graphsurgeon as gs

from scalpel_graph.channels.blockwise import all_finite
from scalpel_graph.channels.constants import Constants, Float64Array, is_float
from scalpel_graph.channels.live import Live
from scalpel_graph.channels.needs import Needs
from scalpel_graph.channels.slots import Axis, BoolArray, IntArray, Slots
from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array


class Refusal(Exception):  # noqa: N818
    """Why a rule does not hold for a node: the node keeps every slot it touches."""


@dataclass(frozen=True, slots=True)
class Read:
    """Output slots that are computed from input slots, each of which can go without them.

    Attributes:
        inputs: ``[I]`` slots.
        outputs: ``[O]`` slots.
        needs: whether an output changes with an input; None: every output with every input.
        largest: the largest magnitude of a constant input that the node can do without, by taking it into a
            bias; 0 where only zeros can go, -1 where nothing can. For each input, or one for all.
        why: for a person, why a larger constant stays.
        factors: ``[I]`` slots that the inputs are multiplied by, if these are no constants: a zero in either
            is enough, and they go together.
        zero: what counts as zero among the inputs: of quantized ones their zero point.
    """

    inputs: IntArray
    outputs: IntArray
    needs: Needs | None
    largest: float | Float64Array = 0.0
    why: str = ""
    factors: IntArray | None = None
    zero: float = 0.0

    def required(self, live: BoolArray, constants: Constants) -> IntArray:
        """The input slots that the live outputs (``live [O]``) need and that no constant can stand for."""
        if self.needs is None:
            return self.inputs[~self.takes(constants)] if live.any() else self.inputs[:0]
        return self.inputs[self.needs.inputs_of(live) & ~self.takes(constants)]

    def takes(self, constants: Constants) -> BoolArray:
        """``[I]``: which inputs are constants that the node can do without."""
        takes = constants.known[self.inputs] & (
            np.abs(constants.value[self.inputs] - self.zero) <= self.largest
        )
        if self.factors is not None:
            takes |= constants.known[self.factors] & (constants.value[self.factors] == 0)
        return takes


@dataclass
class Kept:
    """The outcome of the analysis, for rules that shrink their nodes.

    Attributes:
        live: ``[slots]``: what stays.
        constants: what the slots held.
    """

    live: BoolArray
    constants: Constants
    _made: dict[int, list[tuple[gs.Tensor, gs.Constant]]] = field(default_factory=dict)

    def of(self, axis: Axis | None) -> IntArray | None:
        """The indices along an axis that stay; None if all do."""
        if axis is None:
            return None
        live = self.live[axis.start : axis.start + axis.size]
        return None if live.all() else np.flatnonzero(live)

    def replace(self, graph: ModelGraph, node: gs.Node, index: int, values: Array) -> None:
        """Makes a constant input of a node read ``values``; nodes that shared it share equal values again."""
        old = node.inputs[index]
        made = self._made.get(id(old), [])
        for _, constant in made:
            shared = graph.constant(constant)
            if shared is not None and shared.shape == values.shape and np.array_equal(shared, values):
                node.inputs[index] = constant
                return
        is_shared = len(old.outputs) > 1
        graph.set_constant(node, index, values)
        if made or is_shared:  # nobody asks for any other again, and its memory is free by now
            self._made.setdefault(id(old), made).append((old, node.inputs[index]))


class Rule:
    """How slots pass through one node. Slots of the node that a rule does not name stay.

    A rule keeps no weights: numpy has them only as copies of what the model holds.

    Attributes:
        couplings: pairs of equally long arrays of slots: the i-th of one and of the other go together.
        reads: see `Read`.
        free: output slots that the node can leave out, and input slots that it does not look at.
        optional_along: axes along which an input may come to nothing, and is then left out.
        fragile: whether outputs that stay though nothing needs them must hold what they held: with other
            inputs they may not be finite, or its constants come from inputs that it cannot make up for.
        optional_outputs: whether an output of which nothing is left is left out.
        why_varied: for a person, why the node makes something that varies of a constant.
        why_held: for a person, why `widths` asks for slots.
        why_left: for a person, why slots stay that the rule does not name.
        can_go: whether the node can be left out if nothing is left of its outputs.
    """

    optional_along: frozenset[int] = frozenset()
    fragile = False
    optional_outputs = False
    why_varied = "it combines them with others that vary"
    why_held = "its groups must stay equally wide"
    why_left = "it depends on all of them"
    can_go = True

    def __init__(self, graph: ModelGraph, node: gs.Node, slots: Slots) -> None:
        """Looks at the node.

        Raises:
            Refusal: the rule does not hold for it.
        """
        self.graph, self.node, self.slots = graph, node, slots
        self.couplings: list[tuple[IntArray, IntArray]] = []
        self.reads: list[Read] = []
        self.free: list[IntArray] = []
        self.describe()

    def describe(self) -> None:
        """Fills in couplings, reads and free slots."""
        raise NotImplementedError

    def constants(self, constants: Constants) -> None:
        """Notes the constants that the outputs hold, given those of the inputs."""

    def wrong(self, constants: Constants) -> IntArray:
        """Slots that `constants` took for constant, until it was known what later nodes make of them."""
        return np.zeros(0, dtype=np.int64)

    def widths(self, live: Live) -> IntArray:
        """Dead slots that must stay all the same, for the node to exist with the rest; none by default."""
        return np.zeros(0, dtype=np.int64)

    def shrink(self, kept: Kept) -> None:
        """Changes the node to make do with what is kept."""

    # -- for rules ------------------------------------------------------------------------------------------

    def couple(self, a: Axis | None, b: Axis | None) -> None:
        """The slots of two axes of the same size go together; no-op where a size is unknown or differs."""
        if a is not None and b is not None and a.size == b.size:
            self.couplings.append((a.slots, b.slots))

    def axes(self, tensor: gs.Tensor) -> list[Axis | None]:
        """The axes of a variable.

        Raises:
            Refusal: its rank is unknown, or it is a constant.
        """
        if isinstance(tensor, gs.Constant):
            raise Refusal(f"its input {tensor.name!r} is a constant")
        axes = self.slots.of(tensor)
        if axes is None:
            raise Refusal(f"the rank of {tensor.name!r} is not known")
        return axes

    def input_constant(self, index: int) -> Array | None:
        """The value of an input if it is there and constant."""
        return self.graph.constant(self.node.inputs[index]) if self.has_input(index) else None

    def weight(self, index: int, what: str) -> Array:
        """The value of an input that must be a constant of finite floating-point numbers.

        Raises:
            Refusal: it is not.
        """
        values = self.input_constant(index)
        if values is None:
            raise Refusal(f"its {what} is not constant")
        if not is_float(values) or not all_finite(values):
            raise Refusal(f"its {what} is {'not finite' if is_float(values) else values.dtype}")
        return values

    def has_input(self, index: int) -> bool:
        """Whether an optional input is given."""
        return index < len(self.node.inputs) and bool(self.node.inputs[index].name)

    def add_input(self, index: int, what: str, values: Array) -> None:
        """Gives the node, which has all inputs before it, an optional constant input that was left out."""
        tensor = self.graph.add_constant(f"{node_label(self.node)}_{what}", values)
        if index < len(self.node.inputs):
            self.node.inputs[index] = tensor
        else:
            self.node.inputs.append(tensor)

    def put_behind(self, op: str, what: str, values: Array) -> None:
        """Has another operator combine the first output, as its first input, with a constant."""
        label, output = node_label(self.node), self.node.outputs[0]
        self.node.outputs[0] = self.graph.add_variable(f"{label}_before_{what}", like=output)
        node = gs.Node(
            op,
            name=self.graph.unique_name(f"{label}_{what}"),
            inputs=[self.node.outputs[0], self.graph.add_constant(f"{label}_{what}", values)],
            outputs=[output],
        )
        self.graph.insert_after(self.node, node)

    def only_output(self) -> gs.Tensor:
        """The first output.

        Raises:
            Refusal: another one is read.
        """
        for tensor in self.node.outputs[1:]:
            if tensor.name and (tensor.outputs or self.graph.is_pinned(tensor)):
                raise Refusal(f"its output {tensor.name!r} is read as well")
        return self.node.outputs[0]


def foldable(total: Float64Array, bias: Array | None, dtype: np.dtype[np.floating]) -> float:
    """The largest constant that can be taken into a bias and leave it far from overflow.

    Args:
        total: for each output the sum of the magnitudes of its weights.
        bias: the bias so far.
        dtype: its type.
    """
    taken = 0.0 if bias is None else float(np.abs(bias).max(initial=0.0))
    largest = float(ml_dtypes.finfo(dtype).max)  # type: ignore[no-untyped-call]
    room = largest / 4 - taken
    most = float(total.max(initial=0.0))
    return max(room, 0.0) / most if most > 0 else math.inf


def take(values: Array, indices: IntArray | None, axis: int) -> Array:
    """``values`` with only some indices of an axis; None keeps all."""
    return values if indices is None else np.take(values, indices, axis=axis)
