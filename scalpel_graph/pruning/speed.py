"""How fast layers are predicted to be when they are sparse: the cost model, asked before there are zeros."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

from scalpel_graph import cost
from scalpel_graph.cost import LayerWork
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.target import CpuTarget


@dataclass(frozen=True)
class Speed:
    """Predictions for the layers of one network on one target.

    Attributes:
        target: the profile.
        works: by name, what each layer has to compute; layers whose sizes are not known are missing.
        threads: intra-op threads.
    """

    target: CpuTarget
    works: Mapping[str, LayerWork]
    threads: int = 1

    def dense_us(self, name: str) -> float | None:
        """Microseconds of a layer as it is; None where that is not known."""
        work = self.works.get(name)
        return None if work is None else cost.dense_us(work, self.target, self.threads)

    def group_shapes(self, name: str) -> Sequence[GroupShape]:
        """The group shapes that a layer can have."""
        work = self.works.get(name)
        if work is None or work.is_depthwise or (work.is_conv and self.target.min_columns > work.K):
            return ()
        shapes = (kernel.group_shape for kernel in cost.kernels(work, self.target))
        return [shape for shape in shapes if work.group == 1 or not (work.M // work.group) % shape[0]]

    def sparse_us(self, name: str, group_shape: GroupShape, density: float) -> float | None:
        """Microseconds of a layer with a fraction of its groups left; None if it cannot have such groups."""
        if group_shape not in self.group_shapes(name):
            return None
        return cost.sparse_us(self.works[name], group_shape, density, self.target, self.threads)

    def narrower_us(self, name: str, outputs: float, inputs: float) -> float | None:
        """Microseconds of a dense layer with parts of its outputs and inputs left; None if not known.

        Widths are rounded up as `scalpel_graph.channels.widths` does.
        """
        work = self.works.get(name)
        if work is None:
            return None
        M = self._width(work, work.M, outputs)
        if work.is_depthwise:
            narrower = replace(work, M=M, group=M)
        else:
            positions = prod(work.kernel)
            channels = self._width(work, work.channels, inputs) if work.is_conv else round(work.K * inputs)
            M, channels = (max(1, n // work.group) for n in (M, channels))
            narrower = replace(work, M=M * work.group, K=channels * positions)
        return cost.dense_us(narrower, self.target, self.threads)

    def _width(self, work: LayerWork, before: int, part: float) -> int:
        multiple = self.target.round_channels_to if work.is_conv else self.target.round_features_to
        return min(before, -(-max(1, round(before * part)) // multiple) * multiple)

    def pays(self, name: str, group_shape: GroupShape, density: float) -> bool:
        """Whether a sparse layer is predicted to be clearly faster than the dense one."""
        sparse, dense = self.sparse_us(name, group_shape, density), self.dense_us(name)
        return sparse is not None and dense is not None and sparse < (1 - self.target.margin) * dense

    def best_shape(self, name: str, density: float) -> GroupShape | None:
        """The group shape to prune a layer in: the smallest groups among those that are nearly fastest.

        Small groups lose less accuracy. None if the layer can have none.
        """
        times = {shape: self.sparse_us(name, shape, density) for shape in self.group_shapes(name)}
        known = {shape: time for shape, time in times.items() if time is not None}
        if not known:
            return None
        enough = (1 + _NEARLY) * min(known.values())
        return min(
            (shape for shape, time in known.items() if time <= enough),
            key=lambda shape: (shape[0] * shape[1], known[shape]),
        )


#: How much longer than the fastest a group shape may take to count as nearly as fast.
_NEARLY = 0.05
