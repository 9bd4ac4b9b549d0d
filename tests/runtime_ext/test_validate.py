"""Inconsistent arrays and impossible geometry are refused with a reason when a plan is made."""

import numpy as np
import pytest

from scalpel_graph import _kernels, group_csr
from scalpel_graph.errors import GroupCsrError

WEIGHTS = np.where(np.random.default_rng(0).random((12, 20)) < 0.5, 1.0, 0.0).astype(np.float32)
SHAPES = [(1, 1), (1, 8), (4, 1), (8, 1), (2, 3)]


def arrays(group_shape):
    matrix = group_csr.encode(WEIGHTS, group_shape)
    return {
        "values": matrix.values.copy(),
        "row_offsets": matrix.row_offsets.copy(),
        "column_indices": matrix.column_indices.copy(),
        "shape": matrix.shape,
    }


def set_at(name, index, value):
    def corrupt(a):
        a[name][index] = value

    return corrupt


def add_at(name, index, value):
    def corrupt(a):
        a[name] = a[name].astype(np.int32)
        a[name][index] += value

    return corrupt


def swap_columns(a):
    a["column_indices"][[0, 1]] = a["column_indices"][[1, 0]]


def repeat_column(a):
    a["column_indices"][1] = a["column_indices"][0]


def drop_offset(a):
    a["row_offsets"] = a["row_offsets"][:-1].copy()


def drop_group(a):
    a["values"] = a["values"][:-1].copy()
    a["column_indices"] = a["column_indices"][:-1].copy()


def decrease(a):
    a["row_offsets"][1] = a["row_offsets"][-1] + 1


def taller(a):
    a["shape"] = (a["shape"][0] + 8, a["shape"][1])


def narrower(a):
    a["shape"] = (a["shape"][0], a["shape"][1] // 2)


def negative(a):
    a["shape"] = (a["shape"][0], -1)


CORRUPTIONS = {
    "column past K": (add_at("column_indices", -1, 20), "column_indices"),
    "column far past K": (add_at("column_indices", 0, 2**31 - 1 - 20), "column_indices"),
    "negative column": (add_at("column_indices", 0, -21), "column_indices"),
    "unordered columns": (swap_columns, "increase"),
    "repeated column": (repeat_column, "increase"),
    "offset missing": (drop_offset, "row_offsets"),
    "first offset": (set_at("row_offsets", 0, 1), "row_offsets"),
    "last offset": (set_at("row_offsets", -1, 2**31 - 1), "row_offsets"),
    "negative last offset": (set_at("row_offsets", -1, -1), "row_offsets"),
    "decreasing offsets": (decrease, "decrease"),
    "negative offset": (set_at("row_offsets", 1, -5), "decrease"),
    "group missing": (drop_group, "row_offsets"),
    "more rows": (taller, "row_offsets"),
    "fewer columns": (narrower, "column_indices"),
    "negative K": (negative, "negative"),
}


@pytest.mark.parametrize("group_shape", SHAPES)
def test_what_encode_writes_is_valid(group_shape):
    _kernels.validate(**arrays(group_shape))


@pytest.mark.parametrize("group_shape", SHAPES)
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_corrupt_arrays_are_refused(group_shape, name):
    corrupt, message = CORRUPTIONS[name]
    a = arrays(group_shape)
    corrupt(a)
    with pytest.raises(ValueError, match=message):
        _kernels.validate(**a)
    with pytest.raises(ValueError, match=message):
        _kernels.Gemm(**a)
    with pytest.raises(GroupCsrError, match=message):
        group_csr.validate(group_csr.GroupCsr(**a))


def test_empty_matrices_are_valid():
    for shape in [(0, 0), (0, 5), (5, 0), (7, 7)]:
        matrix = group_csr.encode(np.zeros(shape, np.float32), (4, 1))
        _kernels.validate(matrix.values, matrix.row_offsets, matrix.column_indices, shape)


def test_sizes_that_overflow_are_refused_or_harmless():
    no_groups, no_columns = np.zeros((0, 1, 1), np.float32), np.zeros(0, np.int32)
    huge = 2**63 - 1
    with pytest.raises(ValueError, match="row_offsets"):
        _kernels.validate(no_groups, np.zeros(3, np.int32), no_columns, (huge, huge))
    _kernels.validate(no_groups, np.zeros(3, np.int32), no_columns, (2, huge))
    tall = np.zeros((0, 2**40, 2**20), np.float32)
    _kernels.validate(tall, np.zeros(3, np.int32), no_columns, (2**41, huge))


def test_wrong_types_are_refused():
    a = arrays((1, 1))
    for name, dtype in [
        ("values", np.float64),
        ("values", np.uint16),
        ("row_offsets", np.int64),
        ("column_indices", np.int64),
    ]:
        with pytest.raises(ValueError, match=name):
            _kernels.validate(**{**a, name: a[name].astype(dtype)})


def conv(
    *,
    weight_shape=(12, 5, 2, 2),
    strides=(1, 1),
    dilations=(1, 1),
    pads=(0, 0, 0, 0),
    group=1,
    group_shape=(1, 1),
):
    a = arrays(group_shape)
    del a["shape"]
    return _kernels.Conv(
        **a,
        weight_shape=list(weight_shape),
        strides=list(strides),
        dilations=list(dilations),
        pads=list(pads),
        group=group,
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"strides": (0, 1)}, "strides"),
        ({"strides": (1, 2**31)}, "strides"),
        ({"dilations": (1, 0)}, "dilations"),
        ({"pads": (0, -1, 0, 0)}, "pads"),
        ({"pads": (0, 0, 2**62, 0)}, "pads"),
        ({"group": 5}, "group=5"),
        ({"group": 0}, "group=0"),
        ({"group": 2, "group_shape": (4, 1)}, "straddles"),
        ({"weight_shape": (12, 5, 0, 2)}, "K=0"),
        ({"weight_shape": (12, 5, -2, -2)}, "kernel"),
        ({"weight_shape": (11, 5, 2, 2)}, "row_offsets"),
        ({"weight_shape": (12, 20)}, "weight_shape"),
    ],
)
def test_impossible_geometry_is_refused(arguments, message):
    conv()
    with pytest.raises(ValueError, match=message):
        conv(**arguments)


def test_kernel_larger_than_the_padded_input():
    with pytest.raises(ValueError, match="smaller than the kernel"):
        conv().run(np.zeros((1, 5, 1, 3), np.float32))
