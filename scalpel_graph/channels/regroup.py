"""Where the elements of a tensor come from, behind any chain of Reshape, Transpose and their like.

An axis of the source is cut into *digits*, as a number is: channel ``c = 58 i + j`` of a shuffle with two
groups has the digits ``i`` and ``j``. A chain that only moves elements cuts, orders and joins digits, so that
a list of digits for each axis says what the chain does, whatever the sizes that are not known.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from scalpel_graph.channels.slots import IntArray
from scalpel_graph.graph import Shape

Size = int | str | None


@dataclass(frozen=True)
class Digit:
    """A part of the index along an axis of the source.

    Attributes:
        axis: of the source.
        stride: how far apart, along the axis, neighbours are.
        size: how many there are; a symbol or None for a whole axis of that size.
    """

    axis: int
    stride: int
    size: Size


Digits = tuple[Digit, ...]


@dataclass(frozen=True)
class View:
    """How the axes of a tensor index a source.

    Attributes:
        axes: the digits of each axis, the outermost first; none for an axis of size 1.
        starts: along each axis of the source, where the digits count from.
    """

    axes: tuple[Digits, ...]
    starts: tuple[int, ...]

    @property
    def digits(self) -> Digits:
        """The digits of all axes, in the order in which the elements lie."""
        return tuple(digit for axis in self.axes for digit in axis)

    def transposed(self, order: Sequence[int]) -> "View":
        """With its axes in another order."""
        return replace(self, axes=tuple(self.axes[index] for index in order))

    def without(self, gone: set[int]) -> "View | None":
        """Without some axes of size 1; None if there are others among them."""
        if any(self.axes[index] for index in gone):
            return None
        return replace(self, axes=tuple(axis for i, axis in enumerate(self.axes) if i not in gone))

    def picked(self, index: int, place: int) -> "View | None":
        """At one place along an axis, which is gone; None if it is not cut out of axes of known size."""
        starts = list(self.starts)
        for digit in reversed(self.axes[index]):
            if not isinstance(digit.size, int):
                return None
            place, part = divmod(place, digit.size)
            starts[digit.axis] += part * digit.stride
        if place:
            return None
        return View(tuple(axis for i, axis in enumerate(self.axes) if i != index), tuple(starts))

    def reshaped(self, sizes: Shape) -> "View | None":
        """With the elements, in order, under axes of other sizes; None if it is not certain what these hold.

        Sizes are matched from the left and from the right; one that is unknown takes what is left between.
        """
        digits = self.digits
        before: list[Digits] = []
        behind: list[Digits] = []
        while len(before) < len(sizes):
            found = _front(digits, sizes[len(before)])
            if found is None:
                break
            taken, digits = found
            before.append(taken)
        while len(before) + len(behind) < len(sizes):
            found = _back(digits, sizes[-1 - len(behind)])
            if found is None:
                break
            taken, digits = found
            behind.insert(0, taken)
        missing = len(sizes) - len(before) - len(behind)
        if missing > 1 or (missing == 0 and digits):
            return None
        middle = [digits] if missing else []
        return replace(self, axes=(*before, *middle, *behind))


def whole(sizes: Shape) -> View:
    """A tensor seen as it is."""
    axes = tuple(() if size == 1 else (Digit(i, 1, size),) for i, size in enumerate(sizes))
    return View(axes, (0,) * len(sizes))


def joined(digits: Digits) -> Digits:
    """With neighbours that count on each other made one."""
    result: list[Digit] = []
    for digit in digits:
        last = result[-1] if result else None
        if (
            last is not None
            and last.axis == digit.axis
            and isinstance(last.size, int)
            and isinstance(digit.size, int)
            and last.stride == digit.stride * digit.size
        ):
            result[-1] = replace(digit, size=last.size * digit.size)
        else:
            result.append(digit)
    return tuple(result)


def reordered_axis(view: View, source: View) -> int | None:
    """The only axis of the source that a view has in another order, or in part; None if there is no such."""
    order = joined(view.digits)
    axes = [digit.axis for digit in order]
    moved = [i for i, axis in enumerate(source.axes) if tuple(d for d in order if d.axis == i) != axis]
    if len(moved) != 1 or axes != sorted(axes):
        return None
    return moved[0]


def places(view: View, axis: int) -> IntArray:
    """The indices along an axis of the source, in the order in which a view has them."""
    result: IntArray = np.full(1, view.starts[axis], dtype=np.int64)
    for digit in view.digits:
        if digit.axis == axis:
            assert isinstance(digit.size, int)
            result = (result[:, None] + digit.stride * np.arange(digit.size)).reshape(-1)
    return result


def _front(digits: Digits, size: Size) -> tuple[Digits, Digits] | None:
    """The outermost digits that make up a size, and the others; None if none certainly do."""
    if isinstance(size, str) and digits and digits[0].size == size:
        return digits[:1], digits[1:]
    if not isinstance(size, int):
        return None
    taken: list[Digit] = []
    while size > 1:
        if not digits or not isinstance(digits[0].size, int):
            return None
        first, digits = digits[0], digits[1:]
        assert isinstance(first.size, int)
        if size % first.size == 0:
            taken.append(first)
            size //= first.size
        elif first.size % size == 0:
            inner = first.size // size
            taken.append(Digit(first.axis, first.stride * inner, size))
            digits = (replace(first, size=inner), *digits)
            size = 1
        else:
            return None
    return (tuple(taken), digits) if size == 1 else None


def _back(digits: Digits, size: Size) -> tuple[Digits, Digits] | None:
    """The innermost digits that make up a size, and the others; None if none certainly do."""
    if isinstance(size, str) and digits and digits[-1].size == size:
        return digits[-1:], digits[:-1]
    if not isinstance(size, int):
        return None
    taken: list[Digit] = []
    while size > 1:
        if not digits or not isinstance(digits[-1].size, int):
            return None
        last, digits = digits[-1], digits[:-1]
        assert isinstance(last.size, int)
        if size % last.size == 0:
            taken.insert(0, last)
            size //= last.size
        elif last.size % size == 0:
            taken.insert(0, replace(last, size=size))
            digits = (*digits, Digit(last.axis, last.stride * size, last.size // size))
            size = 1
        else:
            return None
    return (tuple(taken), digits) if size == 1 else None
