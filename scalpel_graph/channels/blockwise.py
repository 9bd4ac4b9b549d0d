"""What rules ask about weights, in blocks: no copy of a large weight is made, in float64 or otherwise.

Weights come as views ``[groups, outputs, inputs, kernel...]``, with any number of kernel axes.
"""

import math
from collections.abc import Iterator

import numpy as np

from scalpel_graph.channels.constants import Float64Array
from scalpel_graph.channels.needs import Needs
from scalpel_graph.group_csr import Array

#: Weights of one block: they and their float64 copy stay in the cache.
_BLOCK = 1 << 17


def all_finite(values: Array) -> bool:
    """Whether no element is infinite or NaN."""
    if values.size <= _BLOCK:
        return bool(np.isfinite(values).all())
    step = max(1, _BLOCK // (values.size // len(values)))
    return all(np.isfinite(values[start : start + step]).all() for start in range(0, len(values), step))


def needs(weights: Array) -> Needs:
    """Which weights are not zero at all kernel positions."""
    groups, outputs, inputs = weights.shape[:3]
    bits = np.empty((groups, outputs, -(-inputs // 8)), dtype=np.uint8)
    for g, o, i in _blocks(weights):
        used = _over_kernel(np.logical_or, weights[g, o, i] != 0)
        bits[g, o, i.start // 8 : -(-i.stop // 8)] = np.packbits(used, axis=2)
    return Needs(bits, inputs)


def magnitudes(weights: Array) -> Float64Array:
    """``[groups, outputs]``: for each output the sum of the magnitudes of its weights."""
    sums = np.zeros(weights.shape[:2])
    axes = tuple(range(2, weights.ndim))
    for g, o, i in _blocks(weights):
        sums[g, o] += np.abs(weights[g, o, i]).astype(np.float64).sum(axis=axes)
    return sums


def products(weights: Array, values: Float64Array) -> Float64Array:
    """``[groups, outputs]``: what inputs that hold ``values [groups, inputs]`` everywhere contribute."""
    sums = np.zeros(weights.shape[:2])
    if not values.any():
        return sums
    for g, o, i in _blocks(weights):
        total = _over_kernel(np.add, weights[g, o, i].astype(np.float64))
        sums[g, o] += (total @ values[g, i, None])[..., 0]
    return sums


def _over_kernel(operation: np.ufunc, block: Array) -> Array:
    """Reduces the kernel axes. Without any, or with one position, numpy's reduction would take far longer."""
    if math.prod(block.shape[3:]) == 1:
        return block.reshape(block.shape[:3])
    return np.asarray(operation.reduce(block, axis=tuple(range(3, block.ndim))))


def _blocks(weights: Array) -> Iterator[tuple[slice, slice, slice]]:
    """Cuts weights along the axis that is outermost in memory; inputs at multiples of eight."""
    shape = weights.shape[:3]
    axis = max(range(3), key=lambda index: (shape[index] > 1) * weights.strides[index])
    step = max(8, _BLOCK // max(1, weights.size // shape[axis]) // 8 * 8)
    for start in range(0, shape[axis], step):
        index = [slice(0, size) for size in shape]
        index[axis] = slice(start, min(start + step, shape[axis]))
        yield index[0], index[1], index[2]
