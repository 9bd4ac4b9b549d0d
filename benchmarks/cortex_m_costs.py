"""What each Cortex-M kernel costs, as sums of prices: fitted to exact instruction counts and modelled cycles.

A call costs the sum over its amounts (`Layer.amounts`) of amount times price.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np

from benchmarks.cortex_m_cycles import modelled_cycles
from benchmarks.cortex_m_layers import (
    GROUP_SHAPES,
    ConvShape,
    Family,
    Layer,
    Weights,
    convolution,
    depthwise,
    elementwise,
    fully_connected,
    pool,
)
from benchmarks.kernel_cases import M4, run_in_qemu

#: M, K; share of groups kept. Indices of the second half take 16 bits.
_FC = ((8, 64, 0.1), (32, 64, 0.3), (32, 400, 0.1), (12, 400, 0.5), (16, 96, 1.0))
_WIDE_FC = ((8, 1100, 0.1), (32, 1100, 0.02), (16, 1200, 0.1), (40, 1040, 0.01))
_DENSE_FC = ((8, 64), (32, 64), (8, 400), (32, 200), (4, 1100))
#: Rows, channels, kernel, output; share of groups kept.
_CONV = (
    (ConvShape(8, 8, (3, 3), (4, 4)), 0.1),
    (ConvShape(16, 8, (3, 3), (2, 8)), 0.3),
    (ConvShape(4, 16, (1, 1), (4, 8)), 0.5),
    (ConvShape(8, 32, (1, 3), (1, 12)), 0.2),
    (ConvShape(4, 4, (5, 5), (6, 4)), 1.0),
    (ConvShape(4, 4, (1, 1), (12, 4)), 0.5),
)
_DENSE_CONV = (
    *(shape for shape, _ in _CONV),
    ConvShape(8, 1, (5, 5), (4, 4)),
    ConvShape(4, 3, (3, 3), (6, 4)),
    ConvShape(4, 2, (3, 1), (6, 4)),
)
_DEPTHWISE = (
    ConvShape(8, 8, (3, 3), (4, 4)),
    ConvShape(16, 16, (1, 3), (2, 4)),
    ConvShape(4, 4, (5, 5), (4, 4)),
    ConvShape(12, 12, (1, 1), (5, 5)),
)
#: Channels, kernel, output.
_POOLS = (
    *((8, 2, 4), (16, 3, 2), (4, 2, 5), (24, 1, 4), (16, 4, 1), (48, 2, 3)),
    *((32, 3, 3), (64, 2, 2), (8, 5, 3), (40, 3, 2)),
)
#: Elements, pixels.
_ELEMENTS = ((64, 4), (256, 16), (400, 4), (900, 36), (128, 64))
_ELEMENTWISE = (
    *("pad_16", "pad_8", "pad_8_to_16", "transpose_16", "transpose_8"),
    *("rescale_16", "rescale_8", "rescale_8_to_16", "rescale_16_to_8", "add_16", "add_8"),
    *("lookup_16", "lookup_8", "lrn_16", "softmax_16", "softmax_8", "argmax_16", "argmax_8"),
)
#: Instructions that are none.
_NOTHING = 1e-6


@dataclass(frozen=True)
class Costs:
    """Prices by kernel and amount.

    Attributes:
        instructions: as QEMU counts them.
        cycles: as `modelled_cycles` has them.
    """

    instructions: Mapping[str, Mapping[str, float]]
    cycles: Mapping[str, Mapping[str, float]]

    def toml(self) -> str:
        """As a target's profile has them."""
        tables = []
        for heading, prices in (("instructions", self.instructions), ("cycles", self.cycles)):
            tables.append(f"[{heading}]")
            for kernel, own in prices.items():
                entries = ", ".join(f"{amount} = {price:.4g}" for amount, price in own.items())
                tables.append(f"{kernel} = {{ {entries} }}")
            tables.append("")
        return "\n".join(tables)


def fit(firmware: Path, folder: Path) -> Costs:
    """Measures every kernel and fits its prices.

    Raises:
        InputError: QEMU or the binutils are missing, or failed.
    """
    by_kernel: dict[str, list[Layer]] = {}
    for layer in fitted_layers(np.random.default_rng(0)):
        by_kernel.setdefault(layer.case.kernel, []).append(layer)
    instructions, cycles = {}, {}
    for kernel, layers in by_kernel.items():
        cases = [layer.case for layer in layers]
        counts = [outcome.instructions for outcome in run_in_qemu(M4, firmware, cases, folder)]
        instructions[kernel] = _prices(layers, counts)
        cycles[kernel] = _prices(layers, modelled_cycles(M4, firmware, cases, folder))
    return Costs(instructions, cycles)


def predicted(layer: Layer, prices: Mapping[str, Mapping[str, float]]) -> float:
    """Of a call."""
    own = prices[layer.case.kernel]
    return sum(amount * own.get(name, 0.0) for name, amount in layer.amounts.items())


def fitted_layers(rng: np.random.Generator) -> Iterator[Layer]:
    """Of every kernel, as many sizes as tell its prices apart."""
    for weights in _all_weights():
        if weights.group_shape is None:
            yield from (fully_connected(M, K, weights, rng) for M, K in _DENSE_FC)
            yield from (convolution(shape, weights, rng) for shape in _DENSE_CONV)
            yield from (depthwise(shape, weights, rng) for shape in _DEPTHWISE)
        else:
            for M, K, density in (*_FC, *_WIDE_FC):
                yield fully_connected(M, K * weights.columns // 2, _kept(weights, density), rng)
            for shape, density in _CONV:
                yield convolution(shape, _kept(weights, density), rng)
    for kernel in ("max_pool_16", "max_pool_8", "average_pool_16", "average_pool_8"):
        yield from (pool(kernel, sizes, rng) for sizes in _POOLS)
    for kernel in _ELEMENTWISE:
        yield from (elementwise(kernel, elements, pixels, rng) for elements, pixels in _ELEMENTS)


def _all_weights() -> Iterator[Weights]:
    families: tuple[Family, ...] = ("q15", "w8")
    for family, acc64 in product(families, (False, True)):
        for group_shape in (None, *GROUP_SHAPES[family]):
            yield Weights(family, group_shape, 1.0, acc64)


def _kept(weights: Weights, density: float) -> Weights:
    return Weights(weights.family, weights.group_shape, density, weights.acc64)


def _prices(layers: Sequence[Layer], counts: Sequence[int]) -> dict[str, float]:
    """By least squares of relative errors; a price that comes out negative is none."""
    names = list(layers[0].amounts)
    while True:
        amounts = np.array([[layer.amounts[name] for name in names] for layer in layers], float)
        found, *_ = np.linalg.lstsq(amounts / np.array(counts)[:, None], np.ones(len(counts)))
        if (found > _NOTHING).all():
            return dict(zip(names, found.tolist(), strict=True))
        names = [name for name, price in zip(names, found, strict=True) if price != found.min()]
