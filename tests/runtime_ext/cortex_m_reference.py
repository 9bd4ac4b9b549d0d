"""Calls of every Cortex-M kernel with what they must give, in int64 arithmetic of numpy."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.kernel_cases import Case
from scalpel_graph.cortex_m_packing import PaddedInput, dense_conv, dense_fc, runs, sparse_conv, sparse_fc
from scalpel_graph.group_csr import GroupShape

Array = npt.NDArray[Any]

INT16 = (-32768, 32767)
INT8 = (-128, 127)
Q15_SHAPES: tuple[GroupShape, ...] = ((1, 2), (2, 2), (4, 2))
W8_SHAPES: tuple[GroupShape, ...] = ((1, 4), (2, 4), (4, 4))


@dataclass(frozen=True)
class Expectation:
    case: Case
    output: Array


@dataclass(frozen=True)
class Requantization:
    """Of int8 weights."""

    multipliers: Array
    shifts: Array
    zero_point: int
    limits: tuple[int, int]
    y_is_int8: bool

    def __call__(self, acc: Array) -> Array:
        """Of ``[..., M]``."""
        y = [scaled(acc[..., i], int(self.multipliers[i]), int(self.shifts[i])) for i in range(acc.shape[-1])]
        clamped = np.clip(np.stack(y, axis=-1) + self.zero_point, *self.limits)
        return clamped.astype(np.int8 if self.y_is_int8 else np.int16)


@dataclass(frozen=True)
class Convolution:
    """Of an input that has its border."""

    kernel: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    dilations: tuple[int, int] = (1, 1)
    groups: int = 1

    def windows(self, x: Array) -> Array:
        """``[H, W, C]`` as ``[output height, output width, kernel_h, kernel_w, C]``, int64."""
        at = []
        for size, kernel, stride, dilation in zip(
            x.shape, self.kernel, self.strides, self.dilations, strict=False
        ):
            count = (size - (kernel - 1) * dilation - 1) // stride + 1
            at.append(np.arange(count)[:, None] * stride + np.arange(kernel) * dilation)
        return x.astype(np.int64)[at[0][:, None, :, None], at[1][None, :, None, :]]

    def sums(self, x: Array, weights: Array) -> Array:
        """``[output height, output width, M]`` for weights ``[M, kernel_h, kernel_w, C / groups]``."""
        windows = np.split(self.windows(x), self.groups, axis=-1)
        filters = np.split(weights.astype(np.int64), self.groups)
        parts = [
            np.einsum("hwijc,mijc->hwm", part, some) for part, some in zip(windows, filters, strict=True)
        ]
        return np.concatenate(parts, axis=-1)


def scaled(values: Array, multiplier: int, shift: int) -> Array:
    """In Python's integers, which never overflow."""
    half = (1 << shift) >> 1
    flat = [(int(value) * multiplier + half) >> shift for value in values.reshape(-1)]
    return np.array(flat, np.int64).reshape(values.shape)


def pruned(rng: np.random.Generator, weights: Array, group_shape: GroupShape, density: float) -> Array:
    flat = weights.reshape(len(weights), -1)
    r, c = group_shape
    kept = rng.random((-(-flat.shape[0] // r), -(-flat.shape[1] // c))) < density
    mask = np.kron(kept, np.ones(group_shape))[: flat.shape[0], : flat.shape[1]]
    return (flat * mask).astype(weights.dtype).reshape(weights.shape)


def filled_up(x: Array, c: int) -> Array:
    """With values that no kernel may use."""
    return np.concatenate([x, np.full(-len(x) % c, 32767, x.dtype)])


def past_the_end(x: Array, c: int) -> Array:
    """With what a group may read beyond it, which no kernel may use."""
    return np.concatenate([x.reshape(-1), np.full(c - 1, 32767, x.dtype)])


def expectations() -> Iterator[Expectation]:
    """Of every kernel."""
    rng = np.random.default_rng(0)
    yield from _fully_connected(rng)
    yield from _limits_of_32_bits()
    yield from _limits_of_parts()
    yield from _convolutions(rng)
    yield from _depthwise(rng)
    yield from _copies(rng)
    yield from _elementwise(rng)
    yield from _pools(rng)
    yield from _others(rng)


def _q15_numbers(
    rng: np.random.Generator, rows: int, acc64: bool
) -> tuple[int, tuple[int, int], Array, Array]:
    """Shift, limits, bias, bias with rounding."""
    shift = int(rng.choice([0, 1, 15, 31])) if acc64 else int(rng.choice([0, 1, 7, 14]))
    limits = [INT16, (0, 32767), (-5, 77), (100, 100)][rng.integers(4)]
    reach = 1 << (40 if acc64 else 20)
    bias = rng.integers(-reach, reach, rows)
    return shift, limits, bias, bias + ((1 << shift) >> 1)


def _q15_weights(rng: np.random.Generator, shape: tuple[int, ...], acc64: bool) -> Array:
    """So small, for 32 bits, that their sum with any input fits."""
    reach = 32767 if acc64 else max(1, 30000 // (int(np.prod(shape[1:]))))
    return rng.choice([-reach - int(acc64), -reach, -1, 1, reach], shape).astype(np.int16)


def _inputs(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    return rng.choice([-32768, -32767, -1, 0, 1, 12345, 32767], shape).astype(np.int16)


def _q15(
    name: str, numbers: tuple[int, ...], arrays: list[Array], acc: Array, shift: int, limits: tuple[int, int]
) -> Expectation:
    y = np.clip(acc >> shift, *limits).astype(np.int16)
    return Expectation(Case(name, numbers, arrays, y.nbytes), y)


def _requantization(rng: np.random.Generator, rows: int, acc64: bool = False) -> Requantization:
    """With multipliers whose products with sums of 64 bits (below 2^38) stay below 2^62."""
    shifts = rng.choice([0, 1, 20, 31, 32, 33, 34, 45, 62], rows)
    multipliers = rng.choice([0, 1, 1 << 30, (1 << 31) - 1, 1234567], rows) >> (7 if acc64 else 0)
    y_is_int8 = bool(rng.integers(2))
    limits = [INT8, (3, 90)][rng.integers(2)] if y_is_int8 else [INT16, (0, 3000)][rng.integers(2)]
    return Requantization(
        multipliers.astype(np.int32), shifts.astype(np.uint8), int(rng.integers(-128, 128)), limits, y_is_int8
    )


def _w8_inputs(rng: np.random.Generator, shape: tuple[int, ...], acc64: bool) -> Array:
    """For 32 bits so small that sums fit; else the extremes first, where parts of 32 bits begin."""
    if not acc64:
        return (_inputs(rng, shape) // 64).astype(np.int16)
    x = _inputs(rng, shape)
    x.reshape(-1)[:512] = -32768
    return x


def _w8_bias(rng: np.random.Generator, rows: int, acc64: bool) -> tuple[Array, str]:
    """And which accumulator that is for."""
    reach = 1 << (37 if acc64 else 24)
    bias = rng.integers(-reach, reach, rows)
    return bias.astype(np.int64 if acc64 else np.int32), "acc64" if acc64 else "acc32"


def _w8_numbers(rows: int, inputs: int, by: Requantization) -> tuple[int, ...]:
    return (rows, inputs, by.zero_point, *by.limits, int(by.y_is_int8))


def _fully_connected(rng: np.random.Generator) -> Iterator[Expectation]:
    sizes = [(1, 1), (3, 7), (4, 64), (6, 33), (9, 515), (7, 514)]
    for (M, K), density, acc64 in product(sizes, (0.0, 0.1, 0.4, 1.0), (False, True)):
        for group_shape in (*Q15_SHAPES, None):
            weights = _q15_weights(rng, (M, K), acc64)
            x = _inputs(rng, (K,))
            shift, limits, _, bias = _q15_numbers(rng, M, acc64)
            stored_bias = bias.astype(np.int64 if acc64 else np.int32)
            accumulator = "acc64" if acc64 else "acc32"
            if group_shape is None:
                name = f"dense_fc_q15_{accumulator}"
                arrays = [x, dense_fc(weights, 2), stored_bias]
            else:
                weights = pruned(rng, weights, group_shape, density)
                sparse = sparse_fc(weights, group_shape)
                index = f"u{8 * sparse.columns.itemsize}"
                name = f"fc_q15_{group_shape[0]}x2_{index}_{accumulator}"
                arrays = [filled_up(x, 2), sparse.values, stored_bias, sparse.columns, sparse.counts]
            acc = bias + weights.astype(np.int64) @ x
            yield _q15(name, (M, K, shift, *limits), arrays, acc, shift, limits)
    for (M, K), density, acc64 in product([*sizes, (5, 1030)], (0.0, 0.1, 0.4, 1.0), (False, True)):
        for w8_shape in (*W8_SHAPES, None):
            w = rng.choice([-128, -127, -1, 1, 127], (M, K)).astype(np.int8)
            x = _w8_inputs(rng, (K,), acc64)
            bias, accumulator = _w8_bias(rng, M, acc64)
            by = _requantization(rng, M, acc64)
            tail = [by.multipliers, by.shifts]
            if w8_shape is None:
                name, arrays = "dense_fc_w8", [x, dense_fc(w, 4), bias, *tail]
            else:
                w = pruned(rng, w, w8_shape, density)
                sparse = sparse_fc(w, w8_shape)
                name = f"fc_w8_{w8_shape[0]}x4_u{8 * sparse.columns.itemsize}"
                arrays = [filled_up(x, 4), sparse.values, bias, *tail]
                arrays += [sparse.columns, sparse.counts]
            y = by(bias + w.astype(np.int64) @ x)
            yield Expectation(Case(f"{name}_{accumulator}", _w8_numbers(M, K, by), arrays, y.nbytes), y)


def _limits_of_32_bits() -> Iterator[Expectation]:
    """Sums of -2^31 and 2^31 - 1."""
    K = 8
    weights = np.full((4, K), 8192, np.int16)
    weights[:, 0] -= 1
    x = np.full(K, -32768, np.int16)
    weights[2:] *= -1
    least = -(1 << 31) + 32768
    bias = np.array([-(1 << 31) - least, -(1 << 31) - least + 1, (1 << 31) - 1 + least, 0], np.int32)
    acc = bias + weights.astype(np.int64) @ x
    assert acc.tolist()[:3] == [-(1 << 31), -(1 << 31) + 1, (1 << 31) - 1]
    for group_shape in Q15_SHAPES:
        sparse = sparse_fc(weights, group_shape)
        arrays = [x, sparse.values, bias, sparse.columns, sparse.counts]
        yield _q15(f"fc_q15_{group_shape[0]}x2_u8_acc32", (4, K, 16, *INT16), arrays, acc, 16, INT16)
    yield _q15("dense_fc_q15_acc32", (4, K, 16, *INT16), [x, dense_fc(weights, 2), bias], acc, 16, INT16)


def _limits_of_parts() -> Iterator[Expectation]:
    """The largest sums of int8 weights there are, which 64 bits hold in parts of 32."""
    M, K = 4, 1028
    w, x = np.full((M, K), -128, np.int8), np.full(K, -32768, np.int16)
    by = Requantization(np.full(M, 1 << 24, np.int32), np.full(M, 42, np.uint8), 0, INT16, False)
    bias = np.array([0, 1, -1, 1 << 33])
    y = by(bias + w.astype(np.int64) @ x)
    numbers, scales = _w8_numbers(M, K, by), [by.multipliers, by.shifts]
    for w8_shape in W8_SHAPES:
        sparse = sparse_fc(w, w8_shape)
        arrays = [x, sparse.values, bias, *scales, sparse.columns, sparse.counts]
        yield Expectation(Case(f"fc_w8_{w8_shape[0]}x4_u16_acc64", numbers, arrays, y.nbytes), y)
    yield Expectation(Case("dense_fc_w8_acc64", numbers, [x, dense_fc(w, 4), bias, *scales], y.nbytes), y)


#: Convolution, rows, channels, height and width of the padded input.
_CONVOLUTIONS = (
    (Convolution((3, 3)), 5, 4, (6, 9)),
    (Convolution((1, 1)), 4, 8, (3, 4)),
    (Convolution((3, 2), (2, 3), (1, 2)), 6, 4, (8, 17)),
    (Convolution((1, 5)), 3, 12, (1, 9)),
    (Convolution((2, 2), (1, 1), (2, 1)), 7, 8, (5, 2)),
    (Convolution((3, 3), groups=2), 8, 16, (4, 5)),
    (Convolution((5, 5)), 3, 1, (7, 8)),
    (Convolution((3, 3), (1, 2), (2, 1)), 5, 3, (7, 8)),
)
_DENSE_CONVOLUTIONS = (
    *_CONVOLUTIONS,
    (Convolution((3, 3)), 2, 3, (5, 7)),
    (Convolution((2, 2), groups=3), 9, 9, (3, 4)),
    (Convolution((1, 3), (1, 2), (1, 3)), 4, 5, (1, 12)),
)

#: With more products than 32 bits can add up, in a run and in a window.
_LONG_CONVOLUTIONS = (
    (Convolution((1, 3)), 3, 180, (1, 5)),
    (Convolution((3, 3)), 2, 60, (3, 4)),
)


def _placed(y: Array, step_in_pixel: int, step_in_row: int) -> tuple[Array, tuple[int, int]]:
    """``[H, W, M]`` among zeros, as steps beyond its own size place it; the steps."""
    height, width, rows = y.shape
    pixel = rows + step_in_pixel
    row = width * pixel + step_in_row
    flat = np.zeros(((height - 1) * row + (width - 1) * pixel + rows), y.dtype)
    for h, w in product(range(height), range(width)):
        flat[h * row + w * pixel :][:rows] = y[h, w]
    return flat, (row, pixel)


def _window_numbers(
    convolution: Convolution, x: Array, acc: Array, steps: tuple[int, int]
) -> tuple[int, ...]:
    _, width, channels = x.shape
    down, right = convolution.strides
    return (*acc.shape[:2], down * width * channels, right * channels, *steps)


def _convolutions(rng: np.random.Generator) -> Iterator[Expectation]:
    for (convolution, M, C, size), extra, acc64 in product(
        _DENSE_CONVOLUTIONS, ((0, 0), (3, 5)), (False, True)
    ):
        is_sparse = (convolution, M, C, size) in _CONVOLUTIONS
        for group_shape in (*(Q15_SHAPES if is_sparse else ()), None):
            weights = _q15_weights(rng, (M, *convolution.kernel, C // convolution.groups), acc64)
            x = _inputs(rng, (*size, C))
            padded = PaddedInput(size[1], C, convolution.dilations, convolution.groups)
            shift, limits, _, bias = _q15_numbers(rng, M, acc64)
            stored_bias = bias.astype(np.int64 if acc64 else np.int32)
            accumulator = "acc64" if acc64 else "acc32"
            tail: tuple[int, ...] = ()
            if group_shape is None:
                own = runs(weights.shape, padded)
                name = f"dense_conv_q15_{accumulator}"
                arrays = [x, dense_conv(weights, 2, padded), stored_bias, own.offsets]
                tail = (len(own.offsets), own.length, own.groups, own.group_channels)
            else:
                weights = pruned(rng, weights, group_shape, 0.3)
                sparse = sparse_conv(weights, group_shape, padded)
                name = f"conv_q15_{group_shape[0]}x2_{accumulator}"
                arrays = [past_the_end(x, 2), sparse.values, stored_bias, sparse.columns, sparse.counts]
            acc = bias + convolution.sums(x, weights)
            y, steps = _placed(np.clip(acc >> shift, *limits).astype(np.int16), *extra)
            numbers = (M, 0, shift, *limits, *_window_numbers(convolution, x, acc, steps), *tail)
            yield Expectation(Case(name, numbers, arrays, y.nbytes), y)
    for (convolution, M, C, size), extra, acc64 in product(
        (*_DENSE_CONVOLUTIONS, *_LONG_CONVOLUTIONS), ((0, 0), (3, 5)), (False, True)
    ):
        is_sparse = (convolution, M, C, size) in (*_CONVOLUTIONS, *_LONG_CONVOLUTIONS)
        for group_shape in (*(W8_SHAPES if is_sparse else ()), None):
            w = rng.choice([-128, -3, 5, 127], (M, *convolution.kernel, C // convolution.groups)).astype(
                np.int8
            )
            x = _w8_inputs(rng, (*size, C), acc64)
            padded = PaddedInput(size[1], C, convolution.dilations, convolution.groups)
            bias, accumulator = _w8_bias(rng, M, acc64)
            by = _requantization(rng, M, acc64)
            arrays = [x, w, bias, by.multipliers, by.shifts]
            tail = ()
            if group_shape is None:
                own = runs(w.shape, padded)
                name = "dense_conv_w8"
                arrays[1] = dense_conv(w, 4, padded)
                arrays += [own.offsets]
                tail = (len(own.offsets), own.length, own.groups, own.group_channels)
            else:
                w = pruned(rng, w, group_shape, 0.3)
                sparse = sparse_conv(w, group_shape, padded)
                name = f"conv_w8_{group_shape[0]}x4"
                arrays[:2] = [past_the_end(x, 4), sparse.values]
                arrays += [sparse.columns, sparse.counts]
            acc = bias + convolution.sums(x, w)
            y, steps = _placed(by(acc), *extra)
            numbers = (*_w8_numbers(M, 0, by), *_window_numbers(convolution, x, acc, steps), *tail)
            yield Expectation(Case(f"{name}_{accumulator}", numbers, arrays, y.nbytes), y)


def _depthwise(rng: np.random.Generator) -> Iterator[Expectation]:
    for convolution, C, size in (
        (Convolution((3, 3)), 5, (5, 6)),
        (Convolution((3, 3), (2, 2)), 8, (7, 7)),
        (Convolution((1, 4), (1, 1), (1, 2)), 3, (1, 11)),
    ):
        taps = PaddedInput(size[1], C, convolution.dilations).taps(convolution.kernel).reshape(-1)
        windows = convolution.windows(x := _inputs(rng, (*size, C)))
        for acc64 in (False, True):
            weights = _q15_weights(rng, (C, *convolution.kernel), acc64).transpose(1, 2, 0)
            shift, limits, _, bias = _q15_numbers(rng, C, acc64)
            acc = bias + np.einsum("hwijc,ijc->hwc", windows, weights.astype(np.int64))
            y, steps = _placed(np.clip(acc >> shift, *limits).astype(np.int16), 1, 2)
            numbers = (C, 0, shift, *limits, *_window_numbers(convolution, x, acc, steps))
            stored_bias = bias.astype(np.int64 if acc64 else np.int32)
            name = f"depthwise_q15_{'acc64' if acc64 else 'acc32'}"
            yield Expectation(Case(name, numbers, [x, weights, stored_bias, taps], y.nbytes), y)
        for acc64 in (False, True):
            w = rng.integers(-128, 128, (*convolution.kernel, C)).astype(np.int8)
            by = _requantization(rng, C, acc64)
            bias, accumulator = _w8_bias(rng, C, acc64)
            acc = bias + np.einsum("hwijc,ijc->hwc", windows, w.astype(np.int64))
            y, steps = _placed(by(acc), 0, 0)
            numbers = (*_w8_numbers(C, 0, by), *_window_numbers(convolution, x, acc, steps))
            arrays = [x, w, bias, by.multipliers, by.shifts, taps]
            yield Expectation(Case(f"depthwise_w8_{accumulator}", numbers, arrays, y.nbytes), y)


def _copies(rng: np.random.Generator) -> Iterator[Expectation]:
    for (height, width, channels, y_channels), (top, left, bottom, right), value in product(
        ((3, 4, 2, 2), (2, 3, 3, 4), (1, 1, 7, 8)), ((1, 2, 1, 0), (0, 0, 0, 0), (0, 1, 2, 3)), (0, -7)
    ):
        numbers = (height, width, channels, y_channels, top, left, bottom, right, value)
        for name, x_type, y_type in (
            ("pad_16", np.int16, np.int16),
            ("pad_8", np.int8, np.int8),
            ("pad_8_to_16", np.int8, np.int16),
        ):
            x = rng.integers(-128, 128, (height, width, channels)).astype(x_type)
            around = ((top, bottom), (left, right), (0, y_channels - channels))
            y = np.pad(x.astype(y_type), around, constant_values=value)
            yield Expectation(Case(name, numbers, [x], y.nbytes), y)
    for bits, dtype in ((8, np.int8), (16, np.int16)):
        x = rng.integers(-128, 128, (6, 5)).astype(dtype)
        yield Expectation(Case(f"transpose_{bits}", (6, 5), [x], x.nbytes), np.ascontiguousarray(x.T))


def _elementwise(rng: np.random.Generator) -> Iterator[Expectation]:
    types = {"8": np.int8, "16": np.int16}
    for name, (multiplier, shift) in product(
        ("8", "16", "8_to_16", "16_to_8"), ((1, 0), (1 << 30, 31), (7, 2), ((1 << 31) - 1, 62), (3, 1))
    ):
        x_name, _, y_name = name.partition("_to_")
        low, high = np.iinfo(types[x_name]).min, np.iinfo(types[x_name]).max
        x = (
            np.concatenate([[low, high, 0], rng.integers(low, high + 1, 17)])
            .astype(types[x_name])
            .reshape(4, 5)
        )
        x_zero, y_zero = (int(n) for n in rng.integers(-128, 128, 2))
        limits = INT8 if (y_name or x_name) == "8" else (-3000, 3000)
        y = np.clip(scaled(x.astype(np.int64) - x_zero, multiplier, shift) + y_zero, *limits)
        placed, (_, step) = _placed(y.astype(types[y_name or x_name])[None], 2, 0)
        numbers = (4, 5, 5, step, multiplier, x_zero, y_zero, *limits, shift)
        yield Expectation(Case(f"rescale_{name}", numbers, [x], placed.nbytes), placed)
    for bits, (multipliers, shift) in product(
        ("8", "16"), (((1, 1), 0), ((1 << 30, (1 << 31) - 1), 33), ((2, 8), 3))
    ):
        limits = INT8 if bits == "8" else INT16
        xs = [rng.choice([*limits, 0, 1, -1, 100], 33).astype(types[bits]) for _ in range(2)]
        zeros = [int(n) for n in rng.integers(-128, 128, 3)]
        total = sum((x.astype(object) - z) * m for x, z, m in zip(xs, zeros, multipliers, strict=False))
        y = np.clip(scaled(np.asarray(total), 1, shift) + zeros[2], *limits).astype(types[bits])
        numbers = (33, *multipliers, *zeros, *limits, shift)
        yield Expectation(Case(f"add_{bits}", numbers, xs, y.nbytes), y)
    x = np.arange(-128, 128).astype(np.int8)
    table = rng.integers(-128, 128, 256).astype(np.int8)
    yield Expectation(Case("lookup_8", (256,), [x, table], 256), table)
    wide = rng.integers(-32768, 32768, 513).astype(np.int16)
    x = np.concatenate([np.arange(-32768, 32768, 97), [32767]]).astype(np.int16)
    position = x.astype(np.int64) + 32768
    i, f = position >> 7, position & 127
    y = (wide[i] + (((wide[i + 1].astype(np.int64) - wide[i]) * f + 64) >> 7)).astype(np.int16)
    yield Expectation(Case("lookup_16", (len(x),), [x, wide], y.nbytes), y)


#: Height, width, channels; kernel, strides, dilations; top, left, bottom, right.
_POOLS = (
    ((6, 6, 3), (2, 2), (2, 2), (1, 1), (0, 0, 0, 0)),
    ((5, 7, 2), (3, 3), (2, 2), (1, 1), (1, 1, 1, 1)),
    ((1, 9, 4), (1, 3), (1, 2), (1, 2), (0, 2, 0, 1)),
    ((4, 5, 5), (4, 5), (1, 1), (1, 1), (0, 0, 0, 0)),
    ((7, 6, 1), (3, 2), (1, 3), (2, 3), (3, 1, 2, 2)),
)


def _pools(rng: np.random.Generator) -> Iterator[Expectation]:
    for (size, kernel, strides, dilations, pads), (bits, dtype) in product(
        _POOLS, (("8", np.int8), ("16", np.int16))
    ):
        limits = np.iinfo(dtype)
        x = rng.choice([limits.min, limits.max, -1, 0, 5], size).astype(dtype)
        around = ((pads[0], pads[2]), (pads[1], pads[3]), (0, 0))
        convolution = Convolution(kernel, strides, dilations)
        seen = convolution.windows(np.pad(np.ones(size, np.int64), around)) != 0
        windows = convolution.windows(np.pad(x, around))
        y = np.where(seen, windows, -(1 << 20)).max(axis=(2, 3)).astype(dtype)
        numbers = (*size, *y.shape[:2], *kernel, *strides, *dilations, *pads[:2])
        yield Expectation(Case(f"max_pool_{bits}", numbers, [x], y.nbytes), y)
        for include, value in ((0, 0), (1, 0), (1, -9)):
            valued = np.where(seen, windows, value if include else 0)
            n = np.prod(kernel) if include else seen.sum(axis=(2, 3))
            y = ((2 * valued.sum(axis=(2, 3)) + n) // (2 * n)).astype(dtype)
            yield Expectation(Case(f"average_pool_{bits}", (*numbers, include, value), [x], y.nbytes), y)


def _others(rng: np.random.Generator) -> Iterator[Expectation]:
    for channels, (before, after), square_shift, fraction_bits in product(
        (1, 3, 16), ((1, 1), (2, 3), (0, 0), (2, 0)), (12, 20), (0, 9)
    ):
        table = np.sort(rng.integers(0, 32768, 33))[::-1].astype(np.uint16)
        x = _inputs(rng, (4, channels))
        squares = np.pad(x.astype(np.int64) ** 2, ((0, 0), (before, after)))
        sums = np.lib.stride_tricks.sliding_window_view(squares, before + after + 1, axis=1).sum(axis=-1)
        q = np.minimum(sums >> square_shift, (32 << fraction_bits) - 1)
        i, f = q >> fraction_bits, q & ((1 << fraction_bits) - 1)
        falls = table.astype(np.int64)[:-1] - table[1:]
        factor = table[i] - ((falls[i] * f) >> fraction_bits)
        y = np.clip((x * factor + (1 << 14)) >> 15, -32768, 30000).astype(np.int16)
        numbers = (4, channels, before, after, square_shift, fraction_bits, 15, -32768, 30000)
        yield Expectation(Case("lrn_16", numbers, [x, table], y.nbytes), y)
    for bits, dtype, length in product(("8", "16"), (np.int8, np.int16), (1, 10)):
        if (bits == "8") != (dtype is np.int8):
            continue
        limits = np.iinfo(dtype)
        for x in (
            rng.integers(limits.min, limits.max, length, endpoint=True).astype(dtype),
            np.full(length, limits.min, dtype),
            np.array([limits.min, limits.max] * length, dtype),
        ):
            table = np.round(32767 * np.exp(-np.arange(64) / 8)).astype(np.uint16)
            shift, one, zero, top = (0, 256, -128, 127) if bits == "8" else (6, 32768, 0, 32767)
            e = table[np.minimum((int(x.max()) - x.astype(np.int64)) >> shift, 63)].astype(np.int64)
            y = np.minimum(zero + (e * one + e.sum() // 2) // e.sum(), top).astype(dtype)
            numbers = (len(x), shift, one, zero, top)
            yield Expectation(Case(f"softmax_{bits}", numbers, [x, table], y.nbytes), y)
            index = np.array([np.argmax(x)], np.uint32)
            yield Expectation(Case(f"argmax_{bits}", (len(x),), [x], 4), index)
