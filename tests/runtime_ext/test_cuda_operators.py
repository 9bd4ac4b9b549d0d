"""The operators of the CUDA provider in ONNX Runtime, with the host as their device."""

import numpy as np
import pytest

from scalpel_graph.session import SessionError, run, session
from tests.runtime_ext.emulated_cuda.build import KERNELS, OPERATORS, build
from tests.runtime_ext.test_ort_operators import LAYERS, TOLERANCE
from tests.sparse_layer import assemble, gemm


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("emulated") / "liboperators.so", *KERNELS, *OPERATORS)


#: Integers have no CUDA kernels: passes refuse them for GPUs.
OF_FLOATS = [layer for layer in LAYERS if layer.values[0].value_type != "int8"]


@pytest.mark.parametrize("layer", OF_FLOATS)
def test_operators_agree_with_the_dense_layer(library, layer):
    feeds = layer.feeds()
    (y,) = run(session(layer.model(), library=library), feeds).values()
    np.testing.assert_allclose(y, layer.expected(feeds), **TOLERANCE)


def test_the_node_is_named_when_its_matrix_is_bad(library):
    layer = gemm(8, 16, (1, 8), (1, 16))
    arrays = layer.initializers()
    arrays["column_indices"] = arrays["column_indices"] + np.uint16(2)
    model = assemble(layer.op_type, arrays, layer.attributes(), x_dims=layer.x_shape)
    with pytest.raises(SessionError, match=r"GroupCsrGemm node .*column_indices\[0\] = \d is outside"):
        session(model, library=library)


def test_a_wrong_input_is_an_error(library):
    layer = gemm(8, 16, (1, 8), (1, 16))
    model = layer.model(x_dims=["a", "b"])
    runner = session(model, library=library)
    with pytest.raises(SessionError, match=r"X \[1, 17\] must have the shape \[\.\.\., 16\]"):
        run(runner, {"x": np.zeros((1, 17), np.float32)})
    assert run(runner, {"x": np.zeros((0, 16), np.float32)})["y"].shape == (0, 8)
