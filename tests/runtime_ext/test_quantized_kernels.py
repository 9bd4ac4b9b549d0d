"""Every kernel of quantized layers against this machine's scalar reference, bit for bit."""

import itertools

import numpy as np
import pytest

from scalpel_graph import group_csr
from tests.runtime_ext import emulated_kernels
from tests.runtime_ext.emulated_kernels import QuantizedOutput
from tests.runtime_ext.kernel_reference import random_int8_weights
from tests.runtime_ext.quantized_sets import (
    EMULATED_SETS,
    OTHER_REFERENCES,
    SETS,
    QuantizedConv,
    QuantizedGemm,
    quantized_kernels,
)

GROUP_SHAPES = [(1, 1), (2, 1), (3, 1), (4, 1), (8, 1), (16, 1), (32, 1), (1, 4), (4, 2), (16, 3)]
#: strides, dilations, pads, group
CONVS = [
    ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1),
    ((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1),
    ((1, 1), (2, 2), (1, 1), (0, 0, 0, 0), 2),
    ((3, 3), (2, 2), (1, 1), (1, 1, 1, 1), 1),
    ((3, 2), (1, 3), (2, 1), (0, 2, 3, 1), 2),
    ((5, 3), (1, 1), (1, 2), (2, 2, 4, 2), 1),
    ((2, 2), (3, 2), (1, 1), (1, 0, 0, 1), 1),
]
OUTPUTS = [
    "bytes",
    "clamped",
    "large",
    "empty",
    "residual",
    "first",
    "added",
    "float",
    "floats_added",
    "biased",
    "int32",
]


def any_values(rng, dtype, shape):
    """Of the whole range, with both ends more often than others."""
    limits = np.iinfo(dtype)
    values = rng.integers(limits.min, limits.max, shape, endpoint=True, dtype=dtype)
    kind = rng.integers(0, 8, shape)
    return np.where(kind == 0, limits.min, np.where(kind == 1, limits.max, values)).astype(dtype)


def output(rng, kind, M, shape, signed):
    """A `QuantizedOutput` whose results are spread over the type and saturate now and then."""
    dtype = np.int8 if signed else np.uint8
    limits = np.iinfo(dtype)
    zero_point = int(rng.integers(limits.min, limits.max, endpoint=True))
    bias = rng.integers(-(2**14), 2**14, M).astype(np.int32)
    scale = rng.uniform(0.0005, 0.004, M).astype(np.float32)
    own = {"bias": bias, "scale": scale, "zero_point": zero_point}
    residual = any_values(rng, np.int8 if rng.random() < 0.5 else np.uint8, shape)
    added = {"residual": residual, "residual_scale": 0.31, "residual_offset": -7.3}
    match kind:
        case "bytes":
            return QuantizedOutput(dtype, **own)
        case "clamped":
            return QuantizedOutput(dtype, **own, activation_min=0, activation_max=60.4)
        case "empty":
            scale[::3] = 1.0
            return QuantizedOutput(dtype, **own)
        case "large":
            scale[::3] = 1e12
            return QuantizedOutput(dtype, **own, activation_min=-20.5)
        case "residual" | "first":
            quantization = (float(limits.min - 5), float(limits.max - 5), 5)
            return QuantizedOutput(
                dtype,
                **own,
                **added,
                sum_scale=0.83,
                residual_is_first=kind == "first",
                sum_quantization=quantization,
                activation_min=0,
            )
        case "added":
            return QuantizedOutput(dtype, **own, **added)
        case "float":
            return QuantizedOutput(np.float32, scale=scale, activation_min=0, activation_max=6)
        case "floats_added":
            floats = rng.standard_normal(shape).astype(np.float32)
            return QuantizedOutput(np.float32, bias=bias, scale=scale, residual=floats)
        case "biased":
            floats = rng.standard_normal(M).astype(np.float32)
            return QuantizedOutput(dtype, **own, **added, float_bias=floats)
    return QuantizedOutput(np.int32, bias=bias)


def check(plan, reference, X, made, zero_point, threads=1):
    Y = plan.run(X, made, x_zero_point=zero_point, threads=threads)
    np.testing.assert_array_equal(Y, reference.run(X, made, x_zero_point=zero_point))


def arrays(W, group_shape):
    matrix = group_csr.encode(W, group_shape)
    return matrix.values, matrix.row_offsets, matrix.column_indices


@pytest.mark.parametrize("isa", SETS)
def test_every_kernel_is_reached(isa):
    heights = {int(np.gcd(r, 16)) for r, _ in GROUP_SHAPES}
    name = isa.partition("@")[0]
    assert {kernel["name"] for kernel in quantized_kernels(isa)} == {
        f"quads_{height}_{name}" for height in heights
    }


@pytest.mark.parametrize("cpu", EMULATED_SETS)
def test_dot_products_are_used_where_the_processor_has_them(cpu):
    table = emulated_kernels.quantized_kernels(cpu)
    assert tuple(dict.fromkeys(kernel["set"] for kernel in table)) == EMULATED_SETS[cpu]
    server = emulated_kernels.server(cpu)
    assert server.ask("best_quantized_kernels", "neon") == [EMULATED_SETS[cpu][-1].encode()]
    assert server.ask("best_quantized_kernels", "scalar") == []


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("group_shape", GROUP_SHAPES)
def test_gemm(isa, group_shape):
    rng = np.random.default_rng(0)
    kinds = itertools.cycle(OUTPUTS)
    for M, K in [(1, 1), (37, 61), (64, 96), (130, 130), (7, 400)]:
        W = random_int8_weights(rng, M, K, group_shape)
        plan = QuantizedGemm(*arrays(W, group_shape), W.shape, isa)
        reference = QuantizedGemm(*arrays(W, group_shape), W.shape, "scalar")
        for N in (0, 1, 2, 3, 4, 15, 16, 17, 24, 31, 33, 48, 50, 63, 64, 65, 150):
            signed = bool(rng.integers(2))
            X = any_values(rng, np.int8 if signed else np.uint8, (N, K))
            zero_point = int(any_values(rng, X.dtype, ()))
            made = output(rng, next(kinds), M, (N, M), bool(rng.integers(2)))
            check(plan, reference, X, made, zero_point)


@pytest.mark.parametrize("isa", SETS + OTHER_REFERENCES)
@pytest.mark.parametrize("kind", OUTPUTS)
def test_gemm_outputs(isa, kind):
    rng = np.random.default_rng(1)
    M, K = 45, 70
    W = random_int8_weights(rng, M, K, (4, 1))
    plan = QuantizedGemm(*arrays(W, (4, 1)), W.shape, isa)
    reference = QuantizedGemm(*arrays(W, (4, 1)), W.shape, "scalar")
    for N, x_signed, y_signed in itertools.product((1, 5, 40, 64, 77), (False, True), (False, True)):
        X = any_values(rng, np.int8 if x_signed else np.uint8, (N, K))
        check(plan, reference, X, output(rng, kind, M, (N, M), y_signed), 3)


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("group_shape", GROUP_SHAPES)
def test_conv(isa, group_shape):
    rng = np.random.default_rng(2)
    kinds = itertools.cycle(OUTPUTS)
    for kernel, strides, dilations, pads, group in CONVS:
        M, C = group * group_shape[0] * 3, 5
        W = random_int8_weights(rng, M, C * kernel[0] * kernel[1], group_shape, 0.3)
        geometry = ([M, C, *kernel], list(strides), list(dilations), list(pads), group)
        plan = QuantizedConv(*arrays(W, group_shape), *geometry, isa)
        reference = QuantizedConv(*arrays(W, group_shape), *geometry, "scalar")
        for batch, height, width in [(1, 7, 7), (2, 8, 16), (1, 14, 9), (1, 23, 70), (1, 5, 33)]:
            X = any_values(rng, np.int8 if rng.integers(2) else np.uint8, (batch, C * group, height, width))
            zero_point = int(any_values(rng, X.dtype, ()))
            shape = reference.run(X, QuantizedOutput(np.int32)).shape
            made = output(rng, next(kinds), M, shape, bool(rng.integers(2)))
            check(plan, reference, X, made, zero_point)


#: kernel, strides, dilations, pads, output channels of each of the input
DEPTHWISE = [
    ((3, 3), (1, 1), (1, 1), (1, 1, 1, 1), 1),
    ((3, 3), (2, 2), (1, 1), (1, 1, 1, 1), 1),
    ((5, 5), (1, 1), (1, 1), (2, 2, 2, 2), 1),
    ((5, 5), (2, 2), (1, 1), (2, 2, 2, 2), 2),
    ((3, 3), (2, 2), (1, 1), (0, 0, 1, 1), 1),
    ((3, 3), (1, 1), (1, 1), (0, 0, 0, 0), 3),
    ((3, 2), (1, 3), (2, 1), (0, 2, 3, 1), 2),
    ((1, 1), (1, 1), (1, 1), (0, 0, 0, 0), 1),
    ((2, 5), (3, 1), (1, 2), (1, 4, 0, 4), 1),
]


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize(("kernel", "strides", "dilations", "pads", "multiplier"), DEPTHWISE)
def test_depthwise(isa, kernel, strides, dilations, pads, multiplier):
    rng = np.random.default_rng(6)
    kinds = itertools.cycle(OUTPUTS)
    taps = kernel[0] * kernel[1]
    for C, density in ((2, 1), (21, 0.4)):
        M = C * multiplier
        W = random_int8_weights(rng, M, taps, (1, 1), density)
        geometry = ([M, 1, *kernel], list(strides), list(dilations), list(pads), C)
        plan = QuantizedConv(*arrays(W, (1, taps)), *geometry, isa)
        reference = QuantizedConv(*arrays(W, (1, taps)), *geometry, "scalar")
        for batch, height, width in [(1, 7, 7), (2, 8, 8), (1, 14, 9), (1, 13, 70), (3, 5, 33), (1, 16, 16)]:
            X = any_values(rng, np.int8 if rng.integers(2) else np.uint8, (batch, C, height, width))
            zero_point = int(any_values(rng, X.dtype, ()))
            shape = reference.run(X, QuantizedOutput(np.int32)).shape
            for _ in range(3):
                made = output(rng, next(kinds), M, shape, bool(rng.integers(2)))
                check(plan, reference, X, made, zero_point, threads=int(rng.integers(1, 3)))


@pytest.mark.parametrize("isa", SETS)
@pytest.mark.parametrize("kind", OUTPUTS)
def test_depthwise_outputs(isa, kind):
    rng = np.random.default_rng(7)
    for C, size in ((8, 16), (5, 9)):
        W = any_values(rng, np.int8, (C, 9))
        geometry = ([C, 1, 3, 3], [1, 1], [1, 1], [1, 1, 1, 1], C)
        plan = QuantizedConv(*arrays(W, (1, 9)), *geometry, isa)
        reference = QuantizedConv(*arrays(W, (1, 9)), *geometry, "scalar")
        for x_signed, y_signed in itertools.product((False, True), (False, True)):
            X = any_values(rng, np.int8 if x_signed else np.uint8, (2, C, size, size))
            check(plan, reference, X, output(rng, kind, C, X.shape, y_signed), -3 if x_signed else 130)


@pytest.mark.parametrize("isa", SETS + OTHER_REFERENCES)
@pytest.mark.parametrize("kind", OUTPUTS)
def test_conv_outputs(isa, kind):
    rng = np.random.default_rng(3)
    for group_shape, (height, width) in itertools.product([(4, 1), (16, 1)], [(7, 7), (16, 16), (5, 9)]):
        W = random_int8_weights(rng, 40, 63, group_shape)
        geometry = ([40, 7, 3, 3], [1, 1], [1, 1], [1, 1, 1, 1], 1)
        plan = QuantizedConv(*arrays(W, group_shape), *geometry, isa)
        reference = QuantizedConv(*arrays(W, group_shape), *geometry, "scalar")
        for x_signed, y_signed in itertools.product((False, True), (False, True)):
            X = any_values(rng, np.int8 if x_signed else np.uint8, (2, 7, height, width))
            check(
                plan,
                reference,
                X,
                output(rng, kind, 40, (2, 40, height, width), y_signed),
                -3 if x_signed else 130,
            )


@pytest.mark.parametrize("isa", SETS)
def test_conv_1d(isa):
    rng = np.random.default_rng(4)
    W = random_int8_weights(rng, 24, 50, (8, 1))
    geometry = ([24, 10, 5], [2], [1], [2, 2], 1)
    plan = QuantizedConv(*arrays(W, (8, 1)), *geometry, isa)
    reference = QuantizedConv(*arrays(W, (8, 1)), *geometry, "scalar")
    for length in (5, 64, 301):
        X = any_values(rng, np.uint8, (1, 10, length))
        shape = (1, 24, (length + 4 - 5) // 2 + 1)
        check(plan, reference, X, output(rng, "bytes", 24, shape, False), 128)


@pytest.mark.parametrize("isa", SETS)
def test_threads_do_not_change_the_result(isa):
    rng = np.random.default_rng(5)
    W = random_int8_weights(rng, 256, 1152, (16, 1), 0.2)
    gemm = QuantizedGemm(*arrays(W, (16, 1)), W.shape, isa)
    for N in (1, 3, 200):
        X = any_values(rng, np.uint8, (N, 1152))
        check(gemm, gemm, X, output(rng, "bytes", 256, (N, 256), False), 7, threads=3)
    for size, stride in [(7, 1), (28, 1), (28, 2), (64, 1)]:
        geometry = ([256, 128, 3, 3], [stride, stride], [1, 1], [1, 1, 1, 1], 1)
        conv = QuantizedConv(*arrays(W, (16, 1)), *geometry, isa)
        X = any_values(rng, np.int8, (3, 128, size, size))
        check(conv, conv, X, output(rng, "bytes", 256, (), False), 7, threads=3)


@pytest.mark.parametrize("isa", SETS)
def test_sums_at_the_ends_of_their_range(isa):
    K = 65000
    W = np.full((4, K), -128, np.int8)
    W[2:] = 127
    for X in (np.full((1, K), 255, np.uint8), np.full((20, K), -128, np.int8)):
        gemm = QuantizedGemm(*arrays(W, (4, 1)), W.shape, isa)
        reference = QuantizedGemm(*arrays(W, (4, 1)), W.shape, "scalar")
        for made in (
            QuantizedOutput(np.int32),
            QuantizedOutput(np.uint8, scale=np.full(4, 0.9, np.float32)),
            QuantizedOutput(np.int8, scale=np.full(4, 1.0, np.float32), zero_point=-128),
        ):
            check(gemm, reference, X, made, 0)


@pytest.mark.parametrize("isa", SETS)
def test_weights_outside_the_matrix_are_ignored(isa):
    values = np.full((1, 4, 8), -128, np.int8)
    values[0, :3, :5] = 1
    encoded = (values, np.array([0, 1], np.int32), np.zeros(1, np.uint16), (3, 5))
    for N in (1, 9):
        X = np.ones((N, 5), np.uint8)
        Y = QuantizedGemm(*encoded, isa).run(X, QuantizedOutput(np.int32))
        np.testing.assert_array_equal(Y, np.full((N, 3), 5))


@pytest.mark.parametrize("isa", SETS)
def test_no_weights_give_the_bias(isa):
    bias = np.arange(21, dtype=np.int32)
    empty = arrays(np.zeros((21, 13), np.int8), (4, 1))
    made = QuantizedOutput(np.int32, bias=bias)
    for N in (1, 9):
        Y = QuantizedGemm(*empty, (21, 13), isa).run(np.ones((N, 13), np.uint8), made)
        np.testing.assert_array_equal(Y, np.tile(bias, (N, 1)))
    for kernels, channels, group in ((empty, 13, 1), (arrays(np.zeros((21, 1), np.int8), (1, 1)), 1, 21)):
        geometry = ([21, channels, 1, 1], [1, 1], [1, 1], [0, 0, 0, 0], group)
        conv = QuantizedConv(*kernels, *geometry, isa)
        Y = conv.run(np.ones((1, channels * group, 3, 5), np.uint8), made)
        np.testing.assert_array_equal(Y, np.broadcast_to(bias[:, None, None], (1, 21, 3, 5)))
