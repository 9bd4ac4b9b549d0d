"""Which outputs of a layer change with which of its inputs, a bit for each pair."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scalpel_graph.channels.slots import BoolArray


@dataclass(frozen=True)
class Needs:
    """A boolean matrix ``[outputs, inputs]``, or one for each group of a layer: an eighth of numpy's.

    Attributes:
        bits: ``[..., outputs, ceil(inputs / 8)]`` uint8, as `numpy.packbits` makes them.
        inputs: how many inputs there are.
    """

    bits: npt.NDArray[np.uint8]
    inputs: int

    @classmethod
    def of(cls, matrix: BoolArray) -> "Needs":
        """Packs ``matrix [..., outputs, inputs]``."""
        return cls(np.packbits(matrix, axis=-1), matrix.shape[-1])

    def __getitem__(self, group: int) -> "Needs":
        """The matrix of one group."""
        return Needs(self.bits[group], self.inputs)

    def inputs_of(self, outputs: BoolArray) -> BoolArray:
        """``[inputs]``: which inputs any of the ``outputs [outputs]`` needs; not for groups."""
        bits = self.bits if outputs.all() else self.bits[outputs]
        return np.unpackbits(np.bitwise_or.reduce(bits, axis=0), count=self.inputs).view(np.bool_)

    def outputs_of(self, inputs: BoolArray) -> BoolArray:
        """``[..., outputs]``: which outputs need any of the ``inputs [..., inputs]``."""
        return np.asarray((self.bits & np.packbits(inputs, axis=-1)[..., None, :]).any(axis=-1))
