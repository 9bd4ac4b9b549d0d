"""Which technique each layer gets."""

import pytest

import scalpel_graph as sg
from models import NETWORKS
from scalpel_graph.channels_last import ChannelsLast
from scalpel_graph.errors import InputError
from scalpel_graph.pruning.layers import WeightLayer
from scalpel_graph.pruning.settings import Settings
from scalpel_graph.pruning.structure import Groups, NofM
from scalpel_graph.pruning.techniques import Facts, nodes_for, plan

FC = WeightLayer("fc", "Gemm", 0, "w", (64, 128))
CONV = WeightLayer("conv", "Conv", 1, "w", (64, 32, 3, 3))
DEPTHWISE = WeightLayer("dw", "Conv", 2, "w", (64, 1, 3, 3), group=64, depthwise=True)
GROUPED = WeightLayer("grouped", "Conv", 3, "w", (12, 4, 3, 3), group=2)

#: In which targets store columns: a microcontroller its own, others ONNX's.
ORDERS = {
    kind: dict.fromkeys((FC, CONV, DEPTHWISE, GROUPED), order)
    for kind, order in (("cpu", ChannelsLast()), ("gpu", ChannelsLast()), ("mcu", ChannelsLast(4, 2)))
}


class Speed:
    """Sparse layers take twice their density, more with larger groups where ``prefers`` says nothing."""

    def __init__(self, prefers=(4, 1)):
        self.prefers = prefers

    def dense_us(self, name):
        return 100.0

    def sparse_us(self, name, shape, density):
        return 200.0 * density

    def pays(self, name, shape, density):
        return self.sparse_us(name, shape, density) < 100

    def best_shape(self, name, density):
        return self.prefers


def planned(layer, kind="cpu", *, speed=None, group_loss=0.5, node_loss=0.5, why_no_nodes="", **settings):
    facts = Facts(
        kind,
        speed,
        lambda _: why_no_nodes,
        lambda *_: group_loss,
        lambda *_: node_loss,
        ORDERS[kind].__getitem__,
    )
    return plan([(layer, Settings(**settings))], facts)[0]


@pytest.mark.parametrize("layer", [FC, CONV], ids=["fc", "conv"])
def test_a_microcontroller_gets_pairs_everywhere(layer):
    chosen = planned(layer, "mcu", sparsity=0.9)
    along_channels = Groups((1, 2), ChannelsLast(4, 2))
    assert (chosen.structure, chosen.sparsity, chosen.nodes) == (along_channels, 0.9, 0)


@pytest.mark.parametrize("layer", [FC, CONV], ids=["fc", "conv"])
def test_a_gpu_loses_nodes(layer):
    chosen = planned(layer, "gpu", nodes=0.3)
    assert (chosen.structure, chosen.nodes) == (None, 0.3)
    assert planned(layer, "gpu", sparsity=0.75).nodes == 0.5


def test_a_cpu_gets_groups_in_fully_connected_layers():
    assert planned(FC, speed=Speed((8, 1)), sparsity=0.9).structure == Groups((8, 1))


class TestConvOnCpu:
    def test_groups_where_they_lose_less(self):
        chosen = planned(CONV, speed=Speed(), sparsity=0.9, group_loss=0.1, node_loss=0.9)
        assert chosen.structure == Groups((4, 1))
        assert chosen.nodes == 0

    def test_nodes_where_they_lose_less(self):
        chosen = planned(CONV, speed=Speed(), sparsity=0.9, group_loss=0.9, node_loss=0.1)
        assert chosen.structure is None
        assert chosen.nodes == pytest.approx(nodes_for(0.9))

    def test_nodes_where_groups_do_not_pay(self):
        chosen = planned(CONV, speed=Speed(), sparsity=0.4, group_loss=0.0, node_loss=0.9)
        assert chosen.structure is None
        assert "not predicted to be faster" in chosen.reason

    def test_groups_where_no_node_can_go(self):
        chosen = planned(CONV, speed=Speed(), sparsity=0.9, node_loss=0, why_no_nodes="y is an output")
        assert chosen.structure == Groups((4, 1))

    def test_nodes_alone(self):
        assert planned(CONV, speed=Speed(), nodes=0.3).nodes == 0.3
        assert planned(FC, speed=Speed(), nodes=0.3).is_idle


class TestMethods:
    def test_single_weights(self):
        for method in ("magnitude", "obs"):
            assert planned(CONV, method=method, sparsity=0.9).structure == Groups((1, 1))

    def test_optimized_only_where_it_pays(self):
        assert planned(FC, speed=Speed(), method="optimized", sparsity=0.9).structure == Groups((1, 1))
        left = planned(FC, speed=Speed(), method="optimized", sparsity=0.3)
        assert left.is_idle
        assert "not predicted" in left.reason
        with pytest.raises(InputError, match="this target has none; use a cpu target"):
            planned(FC, "gpu", method="optimized", sparsity=0.9)

    def test_combined(self):
        assert planned(FC, method="combined", sparsity=0.9).structure == Groups((1, 8))
        assert planned(CONV, method="combined", sparsity=0.9, nodes=0.25).nodes == 0.25

    def test_group_shape_that_is_given(self):
        assert planned(CONV, method="group", sparsity=0.9, group_shape=(1, 4)).structure == Groups((1, 4))

    def test_n_of_m(self):
        chosen = planned(CONV, "gpu", method="2:4")
        assert (chosen.structure, chosen.sparsity) == (NofM(2, 4, 9), 0.5)
        assert planned(DEPTHWISE, "gpu", method="2:4").reason == "1 inputs are fewer than 4"

    def test_none(self):
        assert planned(FC, method="none", sparsity=0.9).is_idle


class TestLeftAlone:
    def test_depthwise(self):
        assert "depthwise" in planned(DEPTHWISE, "mcu", sparsity=0.9).reason
        assert "depthwise" in planned(DEPTHWISE, "gpu", nodes=0.5).reason

    def test_row_blocks_that_straddle_groups(self):
        chosen = planned(GROUPED, method="group", sparsity=0.9, group_shape=(4, 1))
        assert chosen.reason == "blocks of 4 rows do not divide the 6 channels of a group"

    def test_no_nodes(self):
        chosen = planned(FC, "gpu", nodes=0.5, why_no_nodes="y is an output of the model")
        assert chosen.reason == "no nodes can go: y is an output of the model"


@pytest.mark.parametrize("method", ["magnitude", "group", "obs", "combined"])
def test_an_amount_is_needed(method):
    with pytest.raises(InputError, match=r"'fc' is to be pruned: say how much, with a sparsity"):
        planned(FC, method=method)


def test_an_amount_of_nodes_is_needed():
    with pytest.raises(InputError, match="'fc' loses nodes: say how many"):
        planned(FC, method="node")


@pytest.mark.parametrize(("density", "shape"), [(0.1, None), (0.5, None)])
def test_the_shape_for_a_layer_is_one_of_the_profile(density, shape):
    report = sg.prune(NETWORKS["lenet-5"].build(), "avx2", method="group", sparsity=1 - density).report
    for layer in report.layers:
        assert layer.group_shape in {(16, 1), (8, 1), (4, 1), (2, 1), (1, 16), (1, 8), (1, 1)}
