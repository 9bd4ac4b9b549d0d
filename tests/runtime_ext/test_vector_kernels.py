"""Every vector kernel against the scalar one: group shapes, remainders, geometry, epilogues, threads."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalpel_graph.cost import DEPTHWISE_KERNELS
from scalpel_graph.ops import Gate
from tests.runtime_ext import instruction_sets
from tests.runtime_ext.kernel_reference import ConvCase, conv_kernel, gemm_kernel, sparse_weights

ISAS = instruction_sets.isas(vector=True)
ON_EVERY_CPU = instruction_sets.isas(vector=True, every_cpu=True)
ALL_ISAS = instruction_sets.isas()
GROUP_SHAPES = [
    (1, 1),
    (1, 8),
    (1, 16),
    (2, 1),
    (4, 1),
    (8, 1),
    (16, 1),
    (1, 3),
    (3, 1),
    (12, 1),
    (2, 8),
    (4, 4),
]
ROWS_OF_X = [*range(1, 71), 96, 97, 127, 128, 129, 200]
ACTIVATIONS = [
    *[(low, high, Gate.NONE) for low, high in ((-np.inf, np.inf), (0.0, np.inf), (-0.5, 0.75))],
    *[(-np.inf, np.inf, gate) for gate in (Gate.HARD_SWISH, Gate.SILU, Gate.GELU)],
    (-0.5, 0.75, Gate.SILU),
]
EPILOGUES = list(itertools.product([False, True], [False, True], ACTIVATIONS))


def normal(rng, *shape):
    return rng.standard_normal(shape).astype(np.float32)


def assert_same(vector, scalar):
    np.testing.assert_allclose(vector, scalar, rtol=1e-4, atol=2e-5)


def epilogue_arguments(rng, M, output_shape, choice):
    has_bias, has_residual, (low, high, gate) = choice
    return {
        "bias": normal(rng, M) if has_bias else None,
        "residual": normal(rng, *output_shape) if has_residual else None,
        "activation_min": low,
        "activation_max": high,
        "activation_gate": gate,
    }


def compare_gemm(isa, W, group_shape, X, epilogue, *, threads=1, wide_columns=False):
    scalar = gemm_kernel(W, group_shape, "scalar").run(X, **epilogue)
    assert_same(gemm_kernel(W, group_shape, isa, wide_columns).run(X, threads=threads, **epilogue), scalar)


def compare_conv(isa, W, group_shape, case, X, *, epilogue_choice, rng):
    scalar = conv_kernel(W, group_shape, case, "scalar")
    output_shape = scalar.run(X).shape
    epilogue = epilogue_arguments(rng, W.shape[0], output_shape, epilogue_choice)
    assert_same(conv_kernel(W, group_shape, case, isa).run(X, **epilogue), scalar.run(X, **epilogue))


@pytest.mark.parametrize("isa", ON_EVERY_CPU)
def test_the_group_shapes_reach_every_kernel(isa):
    reached = {
        name for shape in GROUP_SHAPES for name in instruction_sets.selected_kernels(isa, *shape).values()
    }
    assert reached == {
        kernel["name"] for kernel in instruction_sets.kernels(isa) if kernel["operation"] in ("spmm", "gemv")
    }


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", GROUP_SHAPES)
def test_gemm_of_any_number_of_rows(isa, group_shape):
    rng = np.random.default_rng(2)
    epilogues = itertools.cycle(EPILOGUES)
    for M, K in [(37, 61), (64, 96), (9, 130)]:
        W = sparse_weights(rng, M, K, group_shape, 0.4)
        for N in ROWS_OF_X:
            compare_gemm(
                isa, W, group_shape, normal(rng, N, K), epilogue_arguments(rng, M, (N, M), next(epilogues))
            )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", GROUP_SHAPES)
def test_gemm_of_any_matrix_size(isa, group_shape):
    rng = np.random.default_rng(3)
    epilogues = itertools.cycle(EPILOGUES)
    for M, K in itertools.product([1, 2, 7, 8, 9, 31, 33], [1, 7, 8, 9, 31]):
        for N in (1, 11):
            W = sparse_weights(rng, M, K, group_shape, 0.5)
            compare_gemm(
                isa, W, group_shape, normal(rng, N, K), epilogue_arguments(rng, M, (N, M), next(epilogues))
            )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", [(1, 1), (2, 1), (4, 1), (8, 1), (16, 1)])
def test_gemm_whose_results_share_sets_of_the_cache(isa, group_shape):
    rng = np.random.default_rng(14)
    epilogues = itertools.cycle(EPILOGUES)
    for M in (512, 1536):
        W = sparse_weights(rng, M, 23, group_shape, 0.4)
        for N in (9, 16, 17, 33, 64, 97, 130):
            epilogue = epilogue_arguments(rng, M, (N, M), next(epilogues))
            compare_gemm(isa, W, group_shape, normal(rng, N, 23), epilogue, threads=2)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", [(1, 1), (1, 8), (4, 1), (8, 1)])
def test_columns_beyond_16_bits(isa, group_shape):
    rng = np.random.default_rng(4)
    M, K = 19, 65600 * group_shape[1]
    W = np.zeros((M, K), np.float32)
    kept = rng.integers(0, K, 300)
    W[:, kept[:100]] = normal(rng, M, 100)
    W[:, [0, K - 1]] = 1.0
    for N in (1, 9):
        compare_gemm(isa, W, group_shape, normal(rng, N, K), {})


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", [(1, 1), (1, 8), (4, 1), (8, 1)])
@pytest.mark.parametrize("N", [1, 64])
def test_threads_do_not_change_the_result(isa, group_shape, N):
    rng = np.random.default_rng(5)
    M = K = 1200 if N == 1 else 600
    W = sparse_weights(rng, M, K, group_shape, 0.5)
    X = normal(rng, N, K)
    kernel = gemm_kernel(W, group_shape, isa)
    one = kernel.run(X, threads=1)
    for _ in range(5):
        np.testing.assert_array_equal(kernel.run(X, threads=3), one)
    assert_same(one, gemm_kernel(W, group_shape, "scalar").run(X, threads=2))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("batch", [1, 5])
def test_threads_do_not_change_a_conv(isa, batch):
    rng = np.random.default_rng(6)
    case = ConvCase((1, 1), (1, 1, 1, 1), (1, 1))
    W = sparse_weights(rng, 128, 64 * 9, (4, 1), 0.4).reshape(128, 64, 3, 3)
    X = normal(rng, batch, 64, 28, 28)
    kernel = conv_kernel(W, (4, 1), case, isa)
    one = kernel.run(X, threads=1)
    for _ in range(5):
        np.testing.assert_array_equal(kernel.run(X, threads=3), one)
    assert_same(one, conv_kernel(W, (4, 1), case, "scalar").run(X, threads=2))


@pytest.mark.parametrize("isa", ALL_ISAS)
@pytest.mark.parametrize("group_shape", [(1, 1), (1, 8), (4, 1), (8, 1)])
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (21, 13)])
def test_a_matrix_without_weights_gives_the_bias(isa, group_shape, shape):
    M, K = shape
    kernel = gemm_kernel(np.zeros(shape, np.float32), group_shape, isa)
    bias = np.arange(M, dtype=np.float32) - 3
    for N in (0, 1, 9):
        Y = kernel.run(np.ones((N, K), np.float32), bias=bias, activation_min=0.0)
        np.testing.assert_array_equal(Y, np.tile(np.maximum(bias, 0), (N, 1)))


@pytest.mark.parametrize("isa", ALL_ISAS)
@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 1, 1)])
def test_a_conv_without_weights_gives_the_bias(isa, pads):
    case = ConvCase((1, 1), pads, (1, 1))
    kernel = conv_kernel(np.zeros((6, 4, 3, 3), np.float32), (4, 1), case, isa)
    bias = np.arange(6, dtype=np.float32) - 3
    X = np.ones((2, 4, 7, 7), np.float32)
    Y = kernel.run(X, bias=bias)
    np.testing.assert_array_equal(Y, np.broadcast_to(bias[:, None, None], Y.shape))
    assert kernel.run(X[:0]).shape[0] == 0


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", GROUP_SHAPES)
def test_pointwise_conv_of_any_number_of_pixels(isa, group_shape):
    rng = np.random.default_rng(7)
    case = ConvCase((1, 1), (0, 0, 0, 0), (1, 1))
    epilogues = itertools.cycle(EPILOGUES)
    W = sparse_weights(rng, 21, 19, group_shape, 0.4).reshape(21, 19, 1, 1)
    for pixels in [*range(1, 71), 96, 168, 169, 400]:
        compare_conv(
            isa, W, group_shape, case, normal(rng, 1, 19, 1, pixels), epilogue_choice=next(epilogues), rng=rng
        )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", [(1, 1), (4, 1), (8, 1)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (1, 3)])
def test_conv_of_more_input_than_the_second_cache_holds(isa, group_shape, strides):
    rng = np.random.default_rng(12)
    case = ConvCase(strides, (1, 2, 1, 0), (1, 1))
    W = sparse_weights(rng, 10, 48 * 9, group_shape, 0.2).reshape(10, 48, 3, 3)
    X = normal(rng, 2, 48, 61, 67)
    compare_conv(isa, W, group_shape, case, X, epilogue_choice=EPILOGUES[-1], rng=rng)
    kernel = conv_kernel(W, group_shape, case, isa)
    np.testing.assert_array_equal(kernel.run(X, threads=3), kernel.run(X, threads=1))


GEOMETRIES = [
    ConvCase(strides, pads, dilations)
    for strides, pads, dilations in itertools.product(
        [(1, 1), (2, 2), (3, 1), (1, 2)],
        [(0, 0, 0, 0), (1, 1, 1, 1), (0, 2, 1, 3)],
        [(1, 1), (2, 2), (1, 3)],
    )
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", [(1, 1), (1, 8), (1, 16), (2, 1), (4, 1), (8, 1), (16, 1)])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 3), (2, 5)])
def test_conv_of_any_geometry(isa, group_shape, kernel):
    rng = np.random.default_rng(8)
    epilogues = itertools.cycle(EPILOGUES)
    W = sparse_weights(rng, 11, 5 * kernel[0] * kernel[1], group_shape, 0.4).reshape(11, 5, *kernel)
    for case, spatial in itertools.product(GEOMETRIES, [(14, 14), (7, 13), (8, 30)]):
        compare_conv(
            isa, W, group_shape, case, normal(rng, 2, 5, *spatial), epilogue_choice=next(epilogues), rng=rng
        )


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(
    ("group", "group_shape"), [(2, (8, 1)), (2, (1, 8)), (4, (4, 1)), (16, (1, 1)), (8, (2, 3))]
)
def test_grouped_conv(isa, group, group_shape):
    rng = np.random.default_rng(9)
    W = sparse_weights(rng, 16, 3 * 9, group_shape, 0.4).reshape(16, 3, 3, 3)
    for strides, pads in itertools.product([(1, 1), (2, 2)], [(0, 0, 0, 0), (1, 1, 1, 1)]):
        case = ConvCase(strides, pads, (1, 1), group)
        for spatial in [(7, 7), (12, 16)]:
            compare_conv(
                isa,
                W,
                group_shape,
                case,
                normal(rng, 2, 3 * group, *spatial),
                epilogue_choice=EPILOGUES[0],
                rng=rng,
            )


DEPTHWISE = sorted(DEPTHWISE_KERNELS)


@pytest.mark.parametrize("isa", ISAS)
def test_the_depthwise_kernels_are_those_tested(isa):
    table = instruction_sets.kernels(isa)
    assert {kernel["name"] for kernel in table if kernel["operation"] == "depthwise"} == {
        f"depthwise_{size}x{size}{f'/{stride}' if stride > 1 else ''}" for size, stride in DEPTHWISE
    }


@pytest.mark.parametrize("isa", ON_EVERY_CPU)
@pytest.mark.parametrize(("size", "stride"), [*DEPTHWISE, (3, 3), (2, 1)])
@pytest.mark.parametrize("group_shape", [(1, 1), (1, 3)])
def test_depthwise_conv(isa, size, stride, group_shape):
    rng = np.random.default_rng(13)
    epilogues = itertools.cycle(EPILOGUES)
    W = normal(rng, 6, 1, size, size)
    for pads, spatial in itertools.product(
        [(0, 0, 0, 0), (1, 1, 1, 1), (2, 0, 1, 3), (4, 4, 4, 4)],
        [(5, 5), (7, 7), (14, 14), (9, 17), (6, 31), (8, 33), (5, 40)],
    ):
        case = ConvCase((stride, stride), pads, (1, 1), 6)
        X = normal(rng, 2, 6, *spatial)
        compare_conv(isa, W, group_shape, case, X, epilogue_choice=next(epilogues), rng=rng)


@pytest.mark.parametrize("isa", ISAS)
def test_depthwise_conv_with_empty_channels_and_stored_zeros(isa):
    rng = np.random.default_rng(14)
    W = normal(rng, 5, 1, 3, 3)
    W[1] = 0
    W[2, 0, 1] = 0
    for epilogue in EPILOGUES:
        case = ConvCase((1, 1), (1, 1, 1, 1), (1, 1), 5)
        compare_conv(isa, W, (1, 9), case, normal(rng, 2, 5, 9, 17), epilogue_choice=epilogue, rng=rng)


@pytest.mark.parametrize("isa", ALL_ISAS)
def test_a_missing_weight_of_a_depthwise_conv_does_not_multiply_infinity(isa):
    W = np.ones((2, 1, 3, 3), np.float32)
    W[0, 0, 0, 0] = 0.0
    X = np.ones((1, 2, 8, 8), np.float32)
    X[0, :, 0, 0] = np.inf
    Y = conv_kernel(W, (1, 1), ConvCase((1, 1), (0, 0, 0, 0), (1, 1), 2), isa).run(X)
    assert Y[0, 0, 0, 0] == 8.0
    assert np.isinf(Y[0, 1, 0, 0])


LARGE = [
    # kernel, geometry, size: planes of more than 4 MiB, which are made in bands of rows
    ((3, 3), ConvCase((1, 1), (1, 1, 1, 1), (1, 1)), (243, 245)),
    ((3, 3), ConvCase((1, 1), (1, 1, 1, 1), (1, 1)), (250, 256)),
    ((3, 3), ConvCase((1, 1), (0, 2, 1, 0), (1, 1)), (260, 240)),
    ((3, 3), ConvCase((2, 2), (1, 1, 1, 1), (1, 1)), (351, 349)),
    ((5, 2), ConvCase((1, 2), (2, 0, 2, 1), (2, 1), 2), (500, 409)),
    ((1, 1), ConvCase((3, 2), (0, 0, 0, 0), (1, 1)), (1201, 897)),
]


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("group_shape", "threads"), [((4, 1), 1), ((1, 1), 4), ((8, 1), 4)])
@pytest.mark.parametrize(("kernel", "case", "size"), LARGE)
def test_conv_of_large_pictures(isa, group_shape, threads, kernel, case, size):
    rng = np.random.default_rng(15)
    channels = 6
    W = sparse_weights(rng, 16, channels // case.group * np.prod(kernel), group_shape, 0.3)
    W = W.reshape(16, channels // case.group, *kernel)
    X = normal(rng, 2, channels, *size)
    scalar = conv_kernel(W, group_shape, case, "scalar").run(X, threads=4)
    residual = normal(rng, *scalar.shape)
    Y = conv_kernel(W, group_shape, case, isa).run(X, residual=residual, activation_min=0.0, threads=threads)
    assert_same(Y, np.maximum(scalar + residual, 0))


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("group_shape", [(1, 1), (1, 8), (4, 1), (8, 1)])
def test_1d_conv(isa, group_shape):
    rng = np.random.default_rng(10)
    W = sparse_weights(rng, 13, 6 * 5, group_shape, 0.4).reshape(13, 6, 5)
    for stride, pads, dilation in itertools.product([1, 2, 4], [(0, 0), (2, 2), (3, 0)], [1, 2]):
        case = ConvCase((stride,), pads, (dilation,))
        for width in (9, 17, 40):
            compare_conv(
                isa, W, group_shape, case, normal(rng, 2, 6, width), epilogue_choice=EPILOGUES[-1], rng=rng
            )


@pytest.mark.parametrize("isa", ISAS)
def test_one_plan_serves_many_input_sizes(isa):
    rng = np.random.default_rng(11)
    case = ConvCase((2, 2), (1, 1, 1, 1), (1, 1))
    W = sparse_weights(rng, 8, 4 * 9, (4, 1), 0.5).reshape(8, 4, 3, 3)
    vector, scalar = (conv_kernel(W, (4, 1), case, name) for name in (isa, "scalar"))
    for size in [*range(5, 20), *range(5, 20)]:
        X = normal(rng, 1, 4, size, size + 1)
        assert_same(vector.run(X), scalar.run(X))


@pytest.mark.parametrize("isa", ON_EVERY_CPU)
def test_nan_and_infinity_reach_the_outputs_that_read_them(isa):
    W = np.eye(24, dtype=np.float32)
    for group_shape, N in itertools.product([(1, 1), (1, 8), (4, 1), (8, 1)], [1, 9]):
        X = np.ones((N, 24), np.float32)
        X[0, 5], X[0, 14] = np.nan, np.inf
        Y = gemm_kernel(W, group_shape, isa).run(X, activation_min=0.0, activation_max=6.0)
        assert np.isnan(Y[0, 5])
        assert Y[0, 14] == 6.0
        np.testing.assert_array_equal(Y[1:], 1.0)


@pytest.mark.parametrize("isa", ISAS)
def test_rows_that_a_file_only_claims_take_no_memory(isa):
    M = 2**60
    no_groups = (np.zeros((0, M, 1), np.float32), np.zeros(2, np.int32), np.zeros(0, np.uint16))
    kernel = instruction_sets.Gemm(*no_groups, (M, 8), isa=isa)
    assert kernel.run(np.zeros((0, 8), np.float32)).shape == (0, M)


@pytest.mark.parametrize("isa", ALL_ISAS)
def test_weights_outside_the_matrix_are_ignored(isa):
    group_values = np.full((1, 4, 8), np.nan, np.float32)
    group_values[0, :3, :5] = 1.0
    arrays = (group_values, np.array([0, 1], np.int32), np.zeros(1, np.uint16), (3, 5))
    for N in (1, 9):
        Y = instruction_sets.Gemm(*arrays, isa=isa).run(np.ones((N, 5), np.float32))
        np.testing.assert_array_equal(Y, 5.0)


@st.composite
def conv_problems(draw):
    dims = draw(st.integers(1, 2))
    sizes = st.tuples(*[st.integers(1, 3)] * dims)
    group_shape = draw(st.sampled_from(GROUP_SHAPES))
    group = draw(st.sampled_from([1, 1, 2, 3]))
    kernel, strides, dilations = draw(st.tuples(*[st.integers(1, 4)] * dims)), draw(sizes), draw(sizes)
    pads = draw(st.tuples(*[st.integers(0, 3)] * (2 * dims)))
    smallest = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    spatial = tuple(low + draw(st.integers(0, 20)) for low in smallest)
    rows = draw(st.integers(1, 20)) if group == 1 else group * group_shape[0] * draw(st.integers(1, 2))
    channels = draw(st.integers(1, 5))
    return (rows, channels, *kernel), group_shape, ConvCase(strides, pads, dilations, group), spatial


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(problem=conv_problems(), seed=st.integers(0, 2**32 - 1))
def test_any_conv(isa, problem, seed):
    shape, group_shape, case, spatial = problem
    rng = np.random.default_rng(seed)
    W = sparse_weights(rng, shape[0], int(np.prod(shape[1:])), group_shape, rng.random()).reshape(shape)
    X = normal(rng, int(rng.integers(1, 3)), shape[1] * case.group, *spatial)
    compare_conv(
        isa, W, group_shape, case, X, epilogue_choice=EPILOGUES[int(rng.integers(len(EPILOGUES)))], rng=rng
    )


@pytest.mark.parametrize("isa", ISAS)
@settings(max_examples=300, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(st.integers(1, 100), st.integers(1, 300), st.integers(1, 70)),
    group_shape=st.sampled_from(GROUP_SHAPES),
    seed=st.integers(0, 2**32 - 1),
)
def test_any_gemm(isa, sizes, group_shape, seed):
    M, K, N = sizes
    rng = np.random.default_rng(seed)
    W = sparse_weights(rng, M, K, group_shape, rng.random())
    epilogue = epilogue_arguments(rng, M, (N, M), EPILOGUES[int(rng.integers(len(EPILOGUES)))])
    compare_gemm(
        isa, W, group_shape, normal(rng, N, K), epilogue, threads=2, wide_columns=bool(rng.integers(2))
    )
