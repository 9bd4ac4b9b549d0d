"""The cost model of a GPU on a made-up profile: memory is what sparse layers save."""

import numpy as np
import pytest

from scalpel_graph import cost, gpu_cost
from scalpel_graph.cost import LayerWork
from scalpel_graph.errors import InputError
from scalpel_graph.target import GpuKernel, GpuTarget, parse_target
from scalpel_graph.target_toml import to_toml

FLAT = {"call": ((1.0, 2.0),), "byte": ((1.0, 0.001),), "multiply_add": ((1.0, 1e-5),)}
#: Multiply-adds of stored weights cost five hundred times as much as dense ones, bytes the same.
SPARSE = {**FLAT, "multiply_add": ((1.0, 5e-3),)}
GPU = GpuTarget(
    name="made-up",
    kind="gpu",
    description="no real card",
    margin=0.1,
    dense=FLAT,
    kernels=(GpuKernel((8, 1), SPARSE), GpuKernel((1, 8), SPARSE)),
    host={"card": "made up"},
)


def weights(group_shape, sparsity=0.9):
    rng = np.random.default_rng(0)
    r, c = group_shape
    kept = rng.random((512 // r, 512 // c)) >= sparsity
    return np.repeat(np.repeat(kept, r, axis=0), c, axis=1).astype(np.float32)


def chosen(rows, matrix):
    return cost.choose(gpu_cost.candidates(LayerWork("Gemm", 512, 512, rows), matrix, GPU), GPU.margin)


@pytest.mark.parametrize("shape", [(8, 1), (1, 8)])
def test_a_product_of_one_row_is_made_sparse_in_the_shape_of_its_zeros(shape):
    assert chosen(1, weights(shape)).group_shape == shape


def test_with_more_rows_it_stays_dense():
    assert chosen(32, weights((8, 1))).decision == "dense"


def test_a_dense_matrix_has_no_sparse_form():
    assert chosen(1, np.ones((512, 512), np.float32)).decision == "dense"


def test_what_never_becomes_sparse():
    conv = LayerWork("Conv", 8, 72, 49, kernel=(3, 3), in_size=(7, 7), out_size=(7, 7))
    assert "only matrix products" in gpu_cost.why_dense(conv)
    assert "33 rows" in gpu_cost.why_dense(LayerWork("Gemm", 8, 8, 33))
    assert gpu_cost.why_dense(LayerWork("Gemm", 8, 8, 32)) == ""


def test_weights_of_a_large_network_are_priced_as_from_memory():
    small = LayerWork("Gemm", 512, 512, 1)
    large = LayerWork("Gemm", 512, 512, 1, network_bytes=100 * small.weight_bytes)
    amounts = [gpu_cost.sparse_amounts(work, (8, 1), 0.1)["byte"] for work in (small, large)]
    assert amounts[0].count == amounts[1].count
    assert amounts[1].size == pytest.approx(100 * amounts[0].size)


def test_fewer_bytes_for_16_bit_values():
    wide, narrow = (LayerWork("Gemm", 512, 512, 1, value_bytes=size) for size in (4, 2))
    assert gpu_cost.stored_bytes(narrow, (8, 1), 0.1) < 0.6 * gpu_cost.stored_bytes(wide, (8, 1), 0.1)


def test_what_is_written_is_read_back():
    assert parse_target(to_toml(GPU), "made-up", None) == GPU


@pytest.mark.parametrize(
    ("find", "put", "message"),
    [
        ("margin = 0.1", "", "margin is missing"),
        ("[dense]", "[dens]", "dense is missing"),
        ("group_shape = \\[1, 8\\]", "group_shape = [8, 1]", "lists group_shape"),
        ("byte = 0.001", "bytes = 0.001", "bytes is not a known key; did you mean byte?"),
        ("call = 2", "", "call is missing"),
    ],
)
def test_bad_profiles_are_refused_by_the_key(find, put, message):
    text = to_toml(GPU).replace(find.replace("\\", ""), put)
    assert text != to_toml(GPU)
    with pytest.raises(InputError, match=message.replace("?", r"\?")):
        parse_target(text, "mine", None)
