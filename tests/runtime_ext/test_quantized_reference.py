"""The reference of the quantized layers against ONNX Runtime's own integer operators, bit for bit."""

import numpy as np
import onnx
import onnx.helper as oh
import onnxruntime as ort
import pytest

from scalpel_graph import _kernels, group_csr
from tests.runtime_ext.kernel_reference import random_int8_weights

SIGNED = [(np.uint8, np.uint8), (np.int8, np.int8)]


def session(nodes, inputs, outputs, constants):
    graph = oh.make_graph(
        nodes,
        "quantized",
        [oh.make_tensor_value_info(n, oh.np_dtype_to_tensor_dtype(np.dtype(d)), s) for n, d, s in inputs],
        [oh.make_tensor_value_info(n, oh.np_dtype_to_tensor_dtype(np.dtype(d)), None) for n, d in outputs],
        [onnx.numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    domains = [oh.make_opsetid("", 17), oh.make_opsetid("com.microsoft", 1)]
    model = oh.make_model(graph, opset_imports=domains, ir_version=9)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    return ort.InferenceSession(model.SerializeToString(), options)


def weights(rng, M, K, group_shape):
    """So small that ONNX Runtime is exact on machines without VNNI, too."""
    return random_int8_weights(rng, M, K, group_shape, 0.5) // 2


def any_values(rng, dtype, shape):
    limits = np.iinfo(dtype)
    return rng.integers(limits.min, limits.max, shape, endpoint=True, dtype=dtype)


@pytest.mark.parametrize(("x_type", "y_type"), SIGNED)
@pytest.mark.parametrize("group", [1, 2])
def test_conv_equals_qlinearconv(x_type, y_type, group):
    rng = np.random.default_rng(0)
    M, C, kernel = 12, 4, (3, 3)
    W = weights(rng, M, C * 9, (2, 1))
    matrix = group_csr.encode(W, (2, 1))
    X = any_values(rng, x_type, (2, C * group, 11, 9))
    bias = rng.integers(-5000, 5000, M).astype(np.int32)
    x_scale, y_scale = np.float32(0.017), np.float32(0.05)
    w_scale = rng.uniform(0.001, 0.01, M).astype(np.float32)
    zero_points = {"x_zp": x_type(3), "y_zp": y_type(7)}
    model = session(
        [
            oh.make_node(
                "QLinearConv",
                ["X", "x_scale", "x_zp", "W", "w_scale", "w_zp", "y_scale", "y_zp", "bias"],
                ["Y"],
                pads=[1, 0, 2, 1],
                strides=[2, 1],
                dilations=[1, 2],
                group=group,
            )
        ],
        [("X", x_type, X.shape)],
        [("Y", y_type)],
        {
            "W": W.reshape(M, C, *kernel),
            "w_zp": np.zeros(M, np.int8),
            "x_scale": x_scale,
            "y_scale": y_scale,
            "w_scale": w_scale,
            "bias": bias,
            **zero_points,
        },
    )
    conv = _kernels.QuantizedConv(
        matrix.values,
        matrix.row_offsets,
        matrix.column_indices,
        [M, C, *kernel],
        [2, 1],
        [1, 2],
        [1, 0, 2, 1],
        group,
        "scalar",
    )
    output = _kernels.QuantizedOutput(y_type, bias=bias, scale=x_scale * w_scale / y_scale, zero_point=7)
    (expected,) = model.run(None, {"X": X})
    Y = conv.run(X, output, x_zero_point=3)
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(Y, expected)


@pytest.mark.parametrize("isa", ["scalar", *dict.fromkeys(k["set"] for k in _kernels.quantized_kernels())])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (5, 1), (5, 2)])
@pytest.mark.parametrize(("x_type", "y_type"), SIGNED)
def test_depthwise_equals_qlinearconv(x_type, y_type, kernel, stride, isa):
    rng = np.random.default_rng(3)
    C, pad = 13, kernel // 2
    W = any_values(rng, np.int8, (C, kernel * kernel)) // 2
    W[3] = 0
    matrix = group_csr.encode(W, (1, kernel * kernel))
    X = any_values(rng, x_type, (2, C, 17, 14))
    X[0, :5] = np.iinfo(x_type).max
    bias = rng.integers(-5000, 5000, C).astype(np.int32)
    x_scale, y_scale = np.float32(0.017), np.float32(0.05)
    w_scale = rng.uniform(0.002, 0.02, C).astype(np.float32)
    w_scale[3] = 3
    node = oh.make_node(
        "QLinearConv",
        ["X", "x_scale", "x_zp", "W", "w_scale", "w_zp", "y_scale", "y_zp", "bias"],
        ["Y"],
        pads=[pad] * 4,
        strides=[stride] * 2,
        group=C,
    )
    model = session(
        [node],
        [("X", x_type, X.shape)],
        [("Y", y_type)],
        {
            "W": W.reshape(C, 1, kernel, kernel),
            "w_zp": np.zeros(C, np.int8),
            "x_scale": x_scale,
            "y_scale": y_scale,
            "w_scale": w_scale,
            "bias": bias,
            "x_zp": x_type(3),
            "y_zp": y_type(7),
        },
    )
    conv = _kernels.QuantizedConv(
        matrix.values,
        matrix.row_offsets,
        matrix.column_indices,
        [C, 1, kernel, kernel],
        [stride] * 2,
        [1, 1],
        [pad] * 4,
        C,
        isa,
    )
    output = _kernels.QuantizedOutput(y_type, bias=bias, scale=x_scale * w_scale / y_scale, zero_point=7)
    (expected,) = model.run(None, {"X": X})
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(conv.run(X, output, x_zero_point=3), expected)


@pytest.mark.parametrize(("x_type", "y_type"), SIGNED)
def test_gemm_equals_qgemm_and_matmulinteger(x_type, y_type):
    rng = np.random.default_rng(1)
    M, K, N = 21, 70, 5
    W = weights(rng, M, K, (1, 1))
    matrix = group_csr.encode(W, (1, 1))
    X = any_values(rng, x_type, (N, K))
    bias = rng.integers(-5000, 5000, M).astype(np.int32)
    x_scale, y_scale = np.float32(0.017), np.float32(0.43)
    w_scale = rng.uniform(0.001, 0.01, M).astype(np.float32)
    constants = {
        "W": W,
        "Wt": W.T.copy(),
        "w_zp": np.zeros(M, np.int8),
        "x_scale": x_scale,
        "w_scale": w_scale,
    }
    constants |= {
        "bias": bias,
        "x_zp": x_type(100),
        "y_scale": y_scale,
        "y_zp": y_type(9),
        "zero": np.int8(0),
    }
    model = session(
        [
            oh.make_node(
                "QGemm",
                ["X", "x_scale", "x_zp", "W", "w_scale", "w_zp", "bias", "y_scale", "y_zp"],
                ["quantized"],
                domain="com.microsoft",
                transB=1,
            ),
            oh.make_node(
                "QGemm",
                ["X", "x_scale", "x_zp", "W", "w_scale", "w_zp", "bias"],
                ["real"],
                domain="com.microsoft",
                transB=1,
            ),
            oh.make_node("MatMulInteger", ["X", "Wt", "x_zp", "zero"], ["sums"]),
        ],
        [("X", x_type, X.shape)],
        [("quantized", y_type), ("real", np.float32), ("sums", np.int32)],
        constants,
    )
    quantized, real, sums = model.run(None, {"X": X})
    gemm = _kernels.QuantizedGemm(
        matrix.values, matrix.row_offsets, matrix.column_indices, matrix.shape, "scalar"
    )
    output = _kernels.QuantizedOutput(y_type, bias=bias, scale=x_scale * w_scale / y_scale, zero_point=9)
    assert len(np.unique(quantized)) > 20
    np.testing.assert_array_equal(gemm.run(X, output, x_zero_point=100), quantized)
    output = _kernels.QuantizedOutput(np.float32, bias=bias, scale=x_scale * w_scale)
    np.testing.assert_array_equal(gemm.run(X, output, x_zero_point=100), real)
    np.testing.assert_array_equal(gemm.run(X, _kernels.QuantizedOutput(np.int32), x_zero_point=100), sums)


@pytest.mark.parametrize("residual_is_first", [False, True])
@pytest.mark.parametrize(("x_type", "y_type"), SIGNED)
def test_residual_equals_qlinearadd(x_type, y_type, residual_is_first):
    rng = np.random.default_rng(2)
    M, K, N = 33, 40, 64
    W = weights(rng, M, K, (1, 1))
    matrix = group_csr.encode(W, (1, 1))
    X, residual = any_values(rng, x_type, (N, K)), any_values(rng, y_type, (N, M))
    scale = rng.uniform(0.003, 0.01, M).astype(np.float32)
    s_sum, s_residual, s_y = np.float32(0.11), np.float32(0.07), np.float32(0.13)
    z_sum, z_residual, z_y = 5, 11, 3
    operands = [("sum", s_sum, z_sum), ("residual", s_residual, z_residual)]
    if residual_is_first:
        operands.reverse()
    gemm = _kernels.QuantizedGemm(
        matrix.values, matrix.row_offsets, matrix.column_indices, matrix.shape, "scalar"
    )
    limits = np.iinfo(y_type)
    own = _kernels.QuantizedOutput(y_type, scale=scale, zero_point=z_sum)
    layer = gemm.run(X, own, x_zero_point=100)
    names = [name for operand, _, _ in operands for name in (operand, f"{operand}_scale", f"{operand}_zp")]
    constants = {f"{operand}_scale": s for operand, s, _ in operands}
    constants |= {f"{operand}_zp": y_type(z) for operand, _, z in operands}
    model = session(
        [oh.make_node("QLinearAdd", [*names, "y_scale", "y_zp"], ["Y"], domain="com.microsoft")],
        [("sum", y_type, layer.shape), ("residual", y_type, layer.shape)],
        [("Y", y_type)],
        {**constants, "y_scale": s_y, "y_zp": y_type(z_y)},
    )
    (expected,) = model.run(None, {"sum": layer, "residual": residual})
    first, second = (s / s_y * np.float32(z) for _, s, z in operands)
    output = _kernels.QuantizedOutput(
        y_type,
        scale=scale,
        residual=residual,
        residual_scale=s_residual / s_y,
        residual_offset=np.float32(z_y) - (first + second),
        residual_is_first=residual_is_first,
        sum_scale=s_sum / s_y,
        sum_quantization=(limits.min - z_sum, limits.max - z_sum, z_sum),
    )
    assert len(np.unique(expected)) > 50
    np.testing.assert_array_equal(gemm.run(X, output, x_zero_point=100), expected)
