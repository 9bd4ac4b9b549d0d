"""Gemm and MatMul: with a constant matrix, and the product of two variables.

An input feature that only dead outputs use, or that always holds zero, can go; so can any other constant
``v``, whose products ``v·w`` then go into the bias (for MatMul an Add behind it).
"""

import numpy as np

from scalpel_graph.channels.blockwise import magnitudes, needs, products
from scalpel_graph.channels.constants import Constants, Float64Array, numpy_type
from scalpel_graph.channels.rule import Kept, Read, Refusal, Rule, foldable, take
from scalpel_graph.group_csr import Array


class GemmRule(Rule):
    """``Y = alpha·A·B + beta·C`` with constant B; C is a constant, a variable, or left out."""

    def describe(self) -> None:
        """See the module's docstring."""
        node = self.node
        weight = self.weight(1, "B")
        self.alpha, self.beta = float(node.attrs.get("alpha", 1.0)), float(node.attrs.get("beta", 1.0))
        self.inputs_axis = 1 if node.attrs.get("transB", 0) else 0
        matrix = self._matrix(weight)
        depth = 0 if node.attrs.get("transA", 0) else 1
        x, y = self.slots.axis(node.inputs[0], depth), self.slots.axis(node.outputs[0], 1)
        if x is None or y is None or (y.size, x.size) != matrix.shape:
            raise Refusal("the number of its features is not known")
        self.x, self.y = x, y
        self.c = self._describe_c()
        # A C that differs from row to row keeps the rows as they are.
        if self.c is None or self.c.ndim < 2 or self.c.shape[0] == 1:
            self.couple(self.slots.axis(node.inputs[0], 1 - depth), self.slots.axis(node.outputs[0], 0))
        largest, why = 0.0, "they hold a non-zero constant, and its C, which would take it, is computed"
        dtype = numpy_type(self.graph, node.outputs[0])
        if dtype is not None and self.c is not None:
            total = magnitudes(matrix[None]) * abs(self.alpha)
            largest, why = foldable(total, self.beta * self.c, dtype), "their constant is too large for its C"
        self.needs = needs(matrix[None])[0]
        self.reads.append(Read(x.slots, y.slots, self.needs, largest=largest, why=why))

    def _matrix(self, weight: Array) -> Array:
        """``[M, K]``."""
        return weight if self.inputs_axis else weight.T

    def _products(self, values: Float64Array) -> Float64Array:
        """``[M]``: ``alpha`` times what inputs that hold ``values [K]`` contribute."""
        if not values.any():
            return np.zeros(self.y.size)
        matrix = self._matrix(self.weight(1, "B"))
        return np.asarray(products(matrix[None], values[None])[0] * self.alpha)

    def _describe_c(self) -> Array | None:
        """C as float64, zero if it is left out, None if it is no constant."""
        if not self.has_input(2):
            return np.zeros(self.y.size)
        if self.input_constant(2) is not None:
            return self.weight(2, "C").astype(np.float64)
        axes = self.axes(self.node.inputs[2])
        if len(axes) != 2 or axes[1] is None or axes[1].size != self.y.size:
            raise Refusal(f"C {self.node.inputs[2].name!r} is not known to have the shape of the output")
        self.couple(axes[1], self.y)
        self.couple(axes[0], self.slots.axis(self.node.outputs[0], 0))
        return None

    def constants(self, constants: Constants) -> None:
        """An output feature is constant if all the inputs it uses are, and its C."""
        dtype = numpy_type(self.graph, self.node.outputs[0])
        if dtype is None or self.c is None:
            return
        bias = self.c if self.c.ndim < 2 else self.c[0]
        if self.c.ndim == 2 and (self.c != self.c[0]).any():
            return
        known, value = constants.known[self.x.slots], constants.value[self.x.slots]
        fixed = ~self.needs.outputs_of(~known)
        if fixed.any():
            total = self._products(np.where(known, value, 0.0))
            with np.errstate(over="ignore"):
                values = (total + self.beta * bias).astype(dtype).astype(np.float64)
            constants.set(self.y.slots, fixed, values)

    def shrink(self, kept: Kept) -> None:
        """Slices B and C, takes the constants into C."""
        node = self.node
        inputs, outputs = kept.of(self.x), kept.of(self.y)
        c = self.input_constant(2)
        if inputs is not None and self.c is not None:
            value = np.where(kept.live[self.x.slots], 0.0, kept.constants.value[self.x.slots])
            delta = self._products(value)
            if delta[kept.live[self.y.slots]].any():
                c = (self.beta * self.c + delta).astype(self.weight(1, "B").dtype)
                if "beta" in node.attrs:
                    node.attrs["beta"] = 1.0
        weight = self.weight(1, "B")
        smaller = take(take(weight, inputs, self.inputs_axis), outputs, 1 - self.inputs_axis)
        if smaller.shape != weight.shape:
            kept.replace(self.graph, node, 1, smaller)
        if c is None:
            return
        if c.ndim > 0 and c.shape[-1] == self.y.size:
            c = take(c, outputs, c.ndim - 1)
        if not self.has_input(2):
            self.add_input(2, "bias", c)
        elif c is not self.input_constant(2):
            kept.replace(self.graph, node, 2, c)


class MatMulRule(Rule):
    """MatMul: the constant matrix on the right or on the left, or two variables."""

    def describe(self) -> None:
        """See the module's docstring."""
        constants = [index for index in (0, 1) if self.input_constant(index) is not None]
        if len(constants) == 2:
            raise Refusal("it is a product of constants")
        self.side = constants[0] if constants else None
        if self.side is None:
            self._describe_variables()
        else:
            self._describe_constant(self.side)

    def _describe_constant(self, side: int) -> None:
        weight = self.weight(side, "matrix")
        if weight.ndim != 2:
            raise Refusal(f"its matrix has rank {weight.ndim}")
        matrix = self._matrix(weight, side)
        given, output = self.node.inputs[1 - side], self.node.outputs[0]
        axes, made = self.axes(given), self.axes(output)
        rank = len(axes)
        if rank < 2 or len(made) != rank:
            raise Refusal("its input is a vector")
        self.feature = rank - 1 if side == 1 else rank - 2
        x, y = axes[self.feature], made[self.feature]
        if x is None or y is None or (y.size, x.size) != matrix.shape:
            raise Refusal("the number of its features is not known")
        self.x, self.y = x, y
        for index in range(rank):
            if index != self.feature:
                self.couple(axes[index], made[index])
        dtype = numpy_type(self.graph, output)
        largest = 0.0
        if dtype is not None:
            largest = foldable(magnitudes(matrix[None]), None, dtype)
        why = "their constant is too large for a bias"
        self.needs = needs(matrix[None])[0]
        self.reads.append(Read(x.slots, y.slots, self.needs, largest=largest, why=why))

    @staticmethod
    def _matrix(weight: Array, side: int) -> Array:
        """``[outputs, inputs]``."""
        return weight.T if side == 1 else weight

    def _products(self, side: int, values: Float64Array) -> Float64Array:
        """``[outputs]``: what inputs that hold ``values [inputs]`` contribute."""
        if not values.any():
            return np.zeros(self.y.size)
        matrix = self._matrix(self.weight(side, "matrix"), side)
        return np.asarray(products(matrix[None], values[None])[0])

    def _describe_variables(self) -> None:
        """Batch axes of the same size go together; along the axis that is summed over zeros can go."""
        a, b = (self.axes(tensor) for tensor in self.node.inputs)
        made = self.axes(self.node.outputs[0])
        if len(a) != len(b) or len(a) < 2 or len(made) != len(a):
            raise Refusal("its inputs differ in rank")
        for index in range(len(a) - 2):
            sizes = [axis.size if axis is not None else None for axis in (a[index], b[index])]
            if sizes[0] == sizes[1]:
                self.couple(a[index], made[index])
                self.couple(b[index], made[index])
        self.couple(a[-2], made[-2])
        self.couple(b[-1], made[-1])
        self.factors = list(self.couplings)
        left, right = a[-1], b[-2]
        outputs = next((axis.slots for axis in made[-2:] if axis is not None), None)
        if left is not None and right is not None and left.size == right.size and outputs is not None:
            self.couple(left, right)
            why = "it multiplies their constant by a variable"
            self.reads.append(Read(left.slots, outputs, None, why=why, factors=right.slots))

    def constants(self, constants: Constants) -> None:
        """An output feature is constant if all the inputs it uses are; of variables, a zero makes zeros."""
        dtype = numpy_type(self.graph, self.node.outputs[0])
        if dtype is None:
            return
        if self.side is None:
            for source, target in self.factors:
                zero = constants.known[source] & (constants.value[source] == 0)
                constants.set(target, zero | constants.known[target], constants.value[target])
            return
        known, value = constants.known[self.x.slots], constants.value[self.x.slots]
        fixed = ~self.needs.outputs_of(~known)
        if fixed.any():
            total = self._products(self.side, np.where(known, value, 0.0))
            with np.errstate(over="ignore"):
                constants.set(self.y.slots, fixed, total.astype(dtype).astype(np.float64))

    def shrink(self, kept: Kept) -> None:
        """Slices the matrix; constants that go are added behind the node."""
        if self.side is None:
            return
        inputs, outputs = kept.of(self.x), kept.of(self.y)
        if inputs is None and outputs is None:
            return
        value = np.where(kept.live[self.x.slots], 0.0, kept.constants.value[self.x.slots])
        delta = self._products(self.side, value)
        weight = self.weight(self.side, "matrix")
        smaller = take(take(weight, inputs, 1 - self.side), outputs, self.side)
        kept.replace(self.graph, self.node, self.side, smaller)
        if delta[kept.live[self.y.slots]].any() and not self._add_to_bias(delta):
            self._add_behind(take(delta, outputs, 0).astype(weight.dtype))

    def _add_to_bias(self, delta: Array) -> bool:
        """Takes constants into the bias that an Add behind the node adds, if there is one."""
        add = self.graph.sole_consumer(self.node.outputs[0])
        if add is None or add.op != "Add" or add.domain or self.side != 1:
            return False
        index = 1 if add.inputs[0] is self.node.outputs[0] else 0
        bias = self.graph.constant(add.inputs[index])
        if bias is None or bias.size != self.y.size or bias.shape[-1] != self.y.size:
            return False
        with np.errstate(over="ignore"):
            values = (bias + delta).astype(bias.dtype)
        if not np.isfinite(values).all():
            return False
        # Still of full size: the rule of the Add, which comes later, slices it.
        self.graph.set_constant(add, index, values)
        return True

    def _add_behind(self, bias: Array) -> None:
        """Has an Add behind the node add ``bias [outputs]``."""
        self.put_behind("Add", "bias", bias if self.side == 1 else bias.reshape(-1, 1))
