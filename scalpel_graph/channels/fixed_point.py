"""What layers with integer weights compute.

Weights are blocks ``[group, outputs of a group, inputs of a group, kernel]``.

``integer = (Σ (x - zero of x) · (w - zero of w)) + bias``, all of it in steps of the input's scale times the
weights': a constant input adds a whole number of them, which an int32 bias takes without rounding. Sums are
taken in float64, which is exact far beyond int32.
"""

import numpy as np

from scalpel_graph.channels.constants import Float64Array
from scalpel_graph.channels.slots import BoolArray
from scalpel_graph.group_csr import Array

#: Magnitudes below this fit an int32 bias.
INT32_LIMIT = 2.0**31

#: How far a quotient of products of float32 numbers may be off, relative to itself.
_ROUNDING = 2.0**-20


def matrix_blocks(matrix: Array) -> Array:
    """A matrix ``[outputs, inputs]`` as blocks."""
    return matrix[None, :, :, None]


def products(blocks: Array, value: Float64Array) -> Float64Array:
    """For every output the sum of its weights times what its inputs hold: ``[inputs]`` to ``[outputs]``."""
    groups, _, inputs, _ = blocks.shape
    sums = blocks.sum(axis=3, dtype=np.float64)
    return np.asarray(np.einsum("goc,gc->go", sums, value.reshape(groups, inputs))).reshape(-1)


def depends_only_on(blocks: Array, known: BoolArray) -> BoolArray:
    """``[outputs]``: whether the weights of all inputs but the known ones are zero."""
    groups, _, inputs, _ = blocks.shape
    used = (blocks != 0).any(axis=3)
    return np.asarray(~(used & ~known.reshape(groups, 1, inputs)).any(axis=2)).reshape(-1)


def fits_int32(blocks: Array, value: Float64Array, bias: Array) -> bool:
    """Whether the bias can take any of the inputs' values."""
    return bool((products(np.abs(blocks), np.abs(value)) + np.abs(bias) < INT32_LIMIT).all())


def per_output(blocks: Array) -> Array | None:
    """The one number that the blocks hold for each output: ``[outputs]``; None if they hold several."""
    first = blocks[:, :, 0, 0]
    return first.reshape(-1) if (blocks == first[:, :, None, None]).all() else None


def in_steps(value: Float64Array, step: Float64Array) -> Float64Array | None:
    """The whole numbers of steps that values are, within the rounding of float32; None if they are not.

    Args:
        value: ``[n]``.
        step: ``[m]``, all the same but for rounding.
    """
    if not len(step) or step.max() - step.min() > _ROUNDING * step.max():
        return None
    quotient = value / step[0]
    steps = np.rint(quotient)
    return steps if (np.abs(quotient - steps) <= _ROUNDING * np.abs(steps)).all() else None
