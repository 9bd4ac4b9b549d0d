import pytest

from scalpel_graph.cost import LayerWork, dense_us
from scalpel_graph.pruning.speed import Speed
from scalpel_graph.target import load_target

TARGET = load_target("avx512")
FC = LayerWork("Gemm", 256, 512, 1)
CONV = LayerWork(
    "Conv", 64, 32 * 9, 196, kernel=(3, 3), strides=(1, 1), dilations=(1, 1), pads=(1, 1, 1, 1),
    in_size=(14, 14), out_size=(14, 14),
)  # fmt: skip
GROUPED = LayerWork(
    "Conv", 64, 16 * 9, 196, group=2, kernel=(3, 3), strides=(1, 1), dilations=(1, 1), pads=(1, 1, 1, 1),
    in_size=(14, 14), out_size=(14, 14),
)  # fmt: skip
DEPTHWISE = LayerWork(
    "Conv", 64, 9, 196, group=64, kernel=(3, 3), strides=(1, 1), dilations=(1, 1), pads=(1, 1, 1, 1),
    in_size=(14, 14), out_size=(14, 14),
)  # fmt: skip
SPEED = Speed(TARGET, {"fc": FC, "conv": CONV, "grouped": GROUPED, "depthwise": DEPTHWISE})


@pytest.mark.parametrize("name", ["fc", "conv", "grouped", "depthwise"])
def test_as_wide_as_before_is_as_slow(name):
    assert SPEED.narrower_us(name, 1.0, 1.0) == SPEED.dense_us(name)


@pytest.mark.parametrize("name", ["fc", "conv", "grouped", "depthwise"])
def test_narrower_is_faster(name):
    assert SPEED.narrower_us(name, 0.5, 0.5) < SPEED.dense_us(name)


def test_widths_are_rounded_as_they_will_be():
    assert TARGET.round_channels_to == 16
    assert SPEED.narrower_us("conv", 17 / 64, 1.0) == SPEED.narrower_us("conv", 0.5, 1.0)
    assert SPEED.narrower_us("fc", 100 / 256, 200 / 512) == pytest.approx(
        dense_us(LayerWork("Gemm", 100, 200, 1), TARGET, 1)
    )


def test_layers_that_are_not_known():
    for found in (SPEED.dense_us("x"), SPEED.narrower_us("x", 1, 1), SPEED.sparse_us("x", (4, 1), 0.1)):
        assert found is None
    assert SPEED.best_shape("x", 0.1) is None
    assert not SPEED.pays("x", (4, 1), 0.1)


def test_shapes_that_a_layer_can_have():
    assert (4, 1) in SPEED.group_shapes("conv")
    assert SPEED.group_shapes("depthwise") == ()
    assert all(32 % shape[0] == 0 for shape in SPEED.group_shapes("grouped"))


@pytest.mark.parametrize("name", ["fc", "conv"])
@pytest.mark.parametrize("density", [0.05, 0.2, 0.5])
def test_the_best_shape_is_nearly_fastest_and_no_larger_than_others(name, density):
    times = {shape: SPEED.sparse_us(name, shape, density) for shape in SPEED.group_shapes(name)}
    best = SPEED.best_shape(name, density)
    near = [shape for shape, time in times.items() if time <= 1.05 * min(times.values())]
    assert best in near
    assert best[0] * best[1] == min(r * c for r, c in near)
