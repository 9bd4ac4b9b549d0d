"""The integer operators in ONNX Runtime: C kernels against function bodies, and models that are refused."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from scalpel_graph import group_csr, ops, quantized_ops
from tests.ort_sessions import run, session

Arrays = dict[str, Any]


def layer(
    weight_shape: tuple[int, ...],
    group_shape: tuple[int, int],
    x_shape: tuple[int, ...],
    long_sums: bool = False,
    **conv: Any,
) -> tuple[Arrays, dict[str, Any], tuple[int, ...]]:
    """Arrays and attributes of a random layer, and the shape of its input.

    ``long_sums``: int8 weights with 16-bit inputs, whose sums 32 bits do not hold.
    """
    rng = np.random.default_rng(0)
    M, K = weight_shape[0], int(np.prod(weight_shape[1:]))
    is_wide = group_shape[1] == 2
    dtype = np.int16 if is_wide else np.int8
    limit = 300 if is_wide else 127
    weights = rng.integers(-limit, limit + 1, (M, K)).astype(dtype)
    r, c = group_shape
    keep = rng.random((-(-M // r), -(-K // c))) < 0.5
    weights *= np.kron(keep, np.ones((r, c), dtype))[:M, :K].astype(dtype)
    matrix = group_csr.encode(weights, group_shape)
    arrays: Arrays = {
        "values": matrix.values,
        "row_offsets": matrix.row_offsets,
        "column_indices": matrix.column_indices,
        "bias": rng.integers(-(2**20), 2**20, M) if is_wide else rng.integers(-(2**11), 2**11, M),
        "multiplier": np.ones(1, np.int32) if is_wide else rng.integers(2**30, 2**31, M).astype(np.int32),
        "shift": np.array([9], np.int32) if is_wide else rng.integers(36, 41, M).astype(np.int32),
    }
    attributes: dict[str, Any] = {
        "weight_shape": list(weight_shape),
        "input_zero_point": 0 if is_wide else -7,
        "input_min": -(2**15) if is_wide else -128,
        "input_max": 2**15 - 1 if is_wide else 127,
        "output_zero_point": 0 if is_wide else 5,
        "output_min": -(2**15) if is_wide else -100,
        "output_max": 2**15 - 1 if is_wide else 127,
    }
    if len(weight_shape) > 2:
        spatial = len(weight_shape) - 2
        attributes |= {"strides": [1] * spatial, "dilations": [1] * spatial, "pads": [0] * 2 * spatial}
        attributes |= {"group": 1, **conv}
    if long_sums:
        arrays["bias"] = rng.integers(-(2**37), 2**37, M)
        arrays["multiplier"] = rng.integers(2**22, 2**23, M).astype(np.int32)
        attributes |= {"input_zero_point": 0, "input_min": -(2**15), "input_max": 2**15 - 1}
        attributes |= {"output_zero_point": 0, "output_min": -(2**15), "output_max": 2**15 - 1}
        arrays["shift"] = np.full(M, 45, np.int32)
    return arrays, attributes, x_shape


LAYERS = {
    "fc-1x2": layer((9, 31), (1, 2), (3, 31)),
    "fc-2x2": layer((9, 30), (2, 2), (2, 4, 30)),
    "fc-4x2": layer((10, 600), (4, 2), (1, 600)),
    "fc-1x4": layer((9, 31), (1, 4), (3, 31)),
    "fc-2x4": layer((7, 33), (2, 4), (3, 33)),
    "fc-4x4": layer((9, 1200), (4, 4), (2, 1200)),
    "conv-1x2": layer((5, 3, 3, 3), (1, 2), (2, 3, 8, 9), pads=[1, 0, 1, 2]),
    "conv-2x2-strided": layer((5, 4, 3, 2), (2, 2), (1, 4, 9, 8), strides=[2, 3]),
    "conv-4x2-groups": layer((8, 4, 3, 3), (4, 2), (2, 8, 7, 7), group=2, pads=[1, 1, 1, 1]),
    "conv-1x4-dilated": layer((5, 4, 2, 3), (1, 4), (2, 4, 8, 9), dilations=[3, 2], pads=[1, 1, 0, 2]),
    "conv-2x4": layer((6, 5, 3, 3), (2, 4), (1, 5, 6, 6), pads=[1, 1, 1, 1]),
    "fc-1x4-long-sums": layer((3, 2000), (1, 4), (2, 2000), long_sums=True),
    "fc-4x4-long-sums": layer((5, 1400), (4, 4), (2, 1400), long_sums=True),
    "conv-2x4-long-sums": layer((3, 260, 3, 3), (2, 4), (1, 260, 5, 4), long_sums=True, pads=[1, 0, 1, 0]),
    "conv-4x4-1d": layer((6, 8, 3), (4, 4), (2, 8, 20), strides=[2], pads=[1, 1]),
}


def model(arrays: Arrays, attributes: dict[str, Any]) -> onnx.ModelProto:
    rank = len(attributes["weight_shape"])
    op_type = quantized_ops.GROUP_CSR_GEMM if rank == 2 else quantized_ops.GROUP_CSR_CONV
    node = helper.make_node(op_type, ["X", *arrays], ["Y"], name="it", domain=ops.DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "one",
        [helper.make_tensor_value_info("X", TensorProto.INT16, None)],
        [helper.make_tensor_value_info("Y", TensorProto.INT16, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in arrays.items()],
    )
    opset = helper.make_opsetid("", quantized_ops.OPSET)
    proto = helper.make_model(graph, opset_imports=[opset], ir_version=8)
    ops.add_functions(proto, [op_type])
    return proto


@pytest.mark.parametrize("name", LAYERS)
def test_kernels_and_functions_give_the_same_bytes_for_any_int16_input(name):
    arrays, attributes, x_shape = LAYERS[name]
    proto = model(arrays, attributes)
    rng = np.random.default_rng(1)
    for x in (
        rng.integers(-(2**15), 2**15, x_shape),
        rng.integers(-200, 200, x_shape),
        np.full(x_shape, -(2**15)),
        np.full(x_shape, 2**15 - 1),
    ):
        feeds = {"X": x.astype(np.int16)}
        expected, actual = run(proto, feeds, library=False), run(proto, feeds)
        assert actual.dtype == expected.dtype == np.int16
        np.testing.assert_array_equal(actual, expected)
        assert np.abs(x).max() > 10000 or len(np.unique(expected)) > 1


def test_a_batch_of_none_gives_none():
    arrays, attributes, _ = LAYERS["conv-1x2"]
    actual = run(model(arrays, attributes), {"X": np.zeros((0, 3, 8, 9), np.int16)})
    assert actual.shape == (0, 5, 8, 9)


def changed(array: Any, index: int, value: int) -> Any:
    array = array.copy()
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("name", "arrays", "attributes", "message"),
    [
        ("fc-1x2", {"values": np.ones((3, 1, 3), np.int16)}, {}, "groups of 1x3: there are kernels for"),
        ("fc-1x2", {"values": np.ones((3, 1, 2), np.float32)}, {}, "values must be int16 or int8"),
        ("fc-1x2", {"bias": np.zeros(9, np.int32)}, {}, r"bias must be int64 \[9\]"),
        ("fc-1x2", {"bias": np.full(9, 2**62)}, {}, "the sums of output 0 may overflow"),
        ("fc-1x4", {"bias": np.full(9, 2**32)}, {}, "the sums of output 0 may overflow"),
        (
            "fc-4x4-long-sums",
            {"multiplier": np.full(5, 2**26, np.int32)},
            {},
            "the sums of output . may overflow",
        ),
        ("fc-1x2", {"multiplier": np.full(1, 2, np.int32)}, {}, "int16 weights take a multiplier of 1"),
        ("fc-1x4", {"multiplier": np.full(1, -1, np.int32)}, {}, r"multiplier\[0\] = -1 is outside 0 to"),
        ("fc-1x4", {"shift": np.full(9, 63, np.int32)}, {}, r"shift\[0\] = 63 is outside 0 to 62"),
        ("fc-1x4", {"shift": np.full(2, 3, np.int32)}, {}, r"shift must be int32 \[9\] or \[1\]"),
        ("fc-1x2", {}, {"output_min": 5, "output_max": 4}, "a minimum is above its maximum"),
        ("fc-1x2", {}, {"output_max": 2**15}, "output_max is outside of int16"),
        ("fc-1x2", {}, {"input_zero_point": 3}, "int16 weights take zero points of 0"),
        ("fc-1x2", {}, {"weight_shape": [9, 0]}, "all at least 1"),
        ("fc-1x2", {}, {"weight_shape": [9, 29]}, "column_indices"),
        ("conv-1x2", {}, {"group": 2}, "group 2 does not divide M"),
        ("conv-1x2", {}, {"pads": [0, 0, 0]}, "pads must be 4 ints"),
        ("conv-1x2", {}, {"strides": [0, 1]}, "strides must be 2 ints of at least 1"),
    ],
)
def test_bad_models_are_refused_in_words(name, arrays, attributes, message):
    own_arrays, own_attributes, _ = LAYERS[name]
    proto = model({**own_arrays, **arrays}, {**own_attributes, **attributes})
    with pytest.raises(Exception, match=rf"QGroupCsr\w+ node 'it': .*{message}"):
        session(proto)


def test_columns_outside_of_the_weight_are_refused():
    arrays, attributes, _ = LAYERS["fc-1x2"]
    columns = changed(arrays["column_indices"], -1, 99)
    with pytest.raises(Exception, match=r"column_indices\[\d+\] = 99 is outside"):
        session(model({**arrays, "column_indices": columns}, attributes))


def test_inputs_of_the_wrong_shape_fail_the_call():
    for name, shape in (("fc-1x2", (3, 30)), ("conv-1x2", (2, 4, 8, 9)), ("conv-1x2", (2, 3, 1, 1))):
        arrays, attributes, _ = LAYERS[name]
        attributes = {**attributes, "pads": [0, 0, 0, 0]} if "pads" in attributes else attributes
        with pytest.raises(Exception, match=r"X .*(must have the shape|smaller than the kernel)"):
            run(model(arrays, attributes), {"X": np.zeros(shape, np.int16)})
