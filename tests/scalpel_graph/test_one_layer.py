import numpy as np
import pytest

from scalpel_graph import session
from scalpel_graph.calibration.layers import conv, gemm
from scalpel_graph.library import custom_op_library
from scalpel_graph.node_timing import NodeTimer
from scalpel_graph.one_layer import INPUT, one_layer

LAYERS = [
    conv(16, 24, 3, 9, stride=2),
    conv(16, 16, 1, 7, group=2),
    conv(8, 12, 3, 20, spatial=1),
    gemm(40, 24),
    gemm(40, 24, 5),
]


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("shape", [(1, 1), (4, 1), (1, 8)])
def test_dense_and_sparse_compute_the_same(layer, shape):
    rng = np.random.default_rng(0)
    weights = layer.weights(rng, shape, 0.3)
    feed = {INPUT: rng.standard_normal(layer.x_shape).astype(np.float32)}
    dense, sparse = (
        session.run(
            session.session(
                one_layer(weights, layer.attributes, layer.x_shape, way), library=custom_op_library()
            ),
            feed,
        )["Y"]
        for way in (None, shape)
    )
    assert dense.size == layer.work.M * layer.work.N
    np.testing.assert_allclose(sparse, dense, rtol=1e-5, atol=1e-6)


def test_the_profiler_tells_layout_changes_from_the_layer():
    layer = conv(32, 32, 3, 8)
    weights = layer.weights(np.random.default_rng(0), (1, 1), 1.0)
    model = one_layer(weights, layer.attributes, layer.x_shape, None)
    with NodeTimer(model, {INPUT: np.ones(layer.x_shape, np.float32)}, threads=1) as timer:
        timer.run(0.0)
        assert timer.finish().keys() == {"ReorderInput", "Conv", "ReorderOutput"}


def test_inputs_begin_with_a_cache_line():
    layer = gemm(16, 8)
    weights = layer.weights(np.random.default_rng(0), (1, 1), 1.0)
    model = one_layer(weights, layer.attributes, layer.x_shape, (1, 1))
    for start in range(4):
        x = np.arange(20, dtype=np.float32)[start : start + 16].reshape(1, 16)
        with NodeTimer(model, {INPUT: x}, threads=1) as timer:
            (fed,) = timer._feed.values()
            assert fed.ctypes.data % 64 == 0
            np.testing.assert_array_equal(fed, x)
