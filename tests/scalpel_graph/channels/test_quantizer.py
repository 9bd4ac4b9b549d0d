"""What ONNX Runtime's quantizer makes of pruned networks gets as narrow as the networks themselves.

Integer operators keep every bit of their answers. Of QDQ graphs ONNX Runtime computes parts in float32, where
a sum in another order may fall on the other side of a border: they are equal within one step of the output.
"""

import numpy as np
import pytest
from onnx import numpy_helper
from onnxruntime.quantization import QuantFormat, QuantType

from models.builder import BATCH, GraphBuilder
from models.mlp import mlp
from models.mobilenet import mobilenet_v1
from models.resnet import resnet50
from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.fold_constants import FoldConstants
from scalpel_graph.passes.manager import PassManager
from scalpel_graph.passes.remove_channels import RemoveChannels
from scalpel_graph.stats import measure
from tests.pass_runner import EXACT, outputs, random_feeds, weights_of
from tests.scalpel_graph.channels import quantizer
from tests.scalpel_graph.channels.bits import bits


def masked():
    """Mask layers, a concatenation, a gate, average pools and a grouped Conv."""
    g = GraphBuilder("masked", seed=0, opset=17)
    rng = np.random.default_rng(0)

    def mask(x, name, channels):
        values = (rng.random((channels, 1, 1)) < 0.8).astype(np.float32)
        return g.node("Mul", name, [x, g.initializer(f"{name}.mask", values)])

    x = g.input("input", [BATCH, 3, 12, 12])
    x = mask(g.relu(g.conv(x, "conv1", 3, 16, 3, pad=1), "relu1"), "mask1", 16)
    a = mask(g.node("LeakyRelu", "leaky", [g.conv(x, "conv2", 16, 8, 3, pad=1)], alpha=0.1), "mask2", 8)
    gate = g.node("Sigmoid", "gate", [g.conv(x, "conv3", 16, 8, 1)])
    b = mask(g.node("Mul", "gated", [g.conv(x, "conv4", 16, 8, 3, pad=1), gate]), "mask4", 8)
    x = g.node("Concat", "concat", [a, b], axis=1)
    x = g.pool("AveragePool", x, "pool", kernel=2, stride=2)
    x = mask(g.relu(g.conv(x, "conv5", 16, 16, 3, pad=1, group=4), "relu5"), "mask5", 16)
    x = g.flatten(g.node("GlobalAveragePool", "gap", [x]))
    return g.model({g.gemm(x, "fc", 16, 5): [BATCH, 5]})


def transformer_block():
    g = GraphBuilder("block", seed=0, opset=17)
    x = g.input("input", [BATCH, 6, 8])
    x = g.relu(g.matmul_add(x, "up", 8, 24), "relu")
    return g.model({g.matmul_add(x, "down", 24, 8): [BATCH, 6, 8]})


NETWORKS = {
    "resnet": lambda: resnet50(blocks=(1, 1), width=8, image=16, classes=5),
    "mobilenet": lambda: mobilenet_v1(width=0.125, image=32, classes=5),
    "mlp": lambda: mlp(layers=4, width=24),
    "masked": masked,
}
#: Activations, weights, symmetric activations.
TYPES = {
    "u8s8": (QuantType.QUInt8, QuantType.QInt8, False),
    "s8s8": (QuantType.QInt8, QuantType.QInt8, False),
    "s8s8-symmetric": (QuantType.QInt8, QuantType.QInt8, True),
    "u8u8": (QuantType.QUInt8, QuantType.QUInt8, False),
}


def shrunk(proto):
    graph = ModelGraph(proto)
    context = PassContext(EXACT)
    PassManager([FoldConstants(), RemoveChannels()]).run(graph, context)
    out = graph.to_proto()
    again = ModelGraph(out)
    again.infer()
    assert not RemoveChannels().run(again, PassContext(EXACT)).modified
    return out, {removed.name: (removed.before, removed.after) for removed in context.removed_nodes}


def assert_same(quantized, out, message=""):
    """With and without ONNX Runtime's optimizations, which put integer kernels in the place of QDQ groups."""
    feeds = random_feeds(quantized)
    operators = {node.op_type for node in quantized.graph.node}
    tolerance = 0.0
    if operators & {"Conv", "Gemm", "MatMul"}:
        last = next(node for node in quantized.graph.node if node.output[0] == quantized.graph.output[0].name)
        tolerance = 1.001 * float(weights_of(quantized)[last.input[1]])
    for compute in (outputs, bits):
        for before, after in zip(compute(quantized, feeds), compute(out, feeds), strict=True):
            np.testing.assert_allclose(after, before, rtol=0, atol=tolerance, err_msg=message)


def widths(removed):
    """By layer, before and after; the quantizer calls some layers after themselves and ``_quant``."""
    return {name.removesuffix("_quant"): width for name, width in removed.items()}


@pytest.mark.parametrize("types", TYPES)
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("network", NETWORKS)
def test_dead_channels_go(network, form, per_channel, types, tmp_path):
    """Of a channel that holds zero in the network none may be left in the quantized one."""
    proto = quantizer.folded(NETWORKS[network]())
    if network != "masked":
        proto = quantizer.pruned(proto)
    activations, weights, symmetric = TYPES[types]
    quantized = quantizer.static(
        proto, tmp_path, form,
        per_channel=per_channel, activations=activations, weights=weights, symmetric=symmetric,
    )  # fmt: skip
    out, removed = shrunk(quantized)
    assert_same(quantized, out)
    _, expected = shrunk(proto)
    assert expected
    for name, (before, after) in widths(expected).items():
        assert widths(removed)[name][0] == before
        assert widths(removed)[name][1] <= after
    sizes = [measure(model, {BATCH: 1}) for model in (proto, quantized, out)]
    assert sizes[0].macs == sizes[1].macs > sizes[2].macs
    assert sizes[1].parameters > sizes[2].parameters


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
@pytest.mark.parametrize("network", ["resnet", "mobilenet", "mlp"])
def test_constants_go_as_well(network, form, tmp_path):
    """Channels that hold relu(bias): gone wherever they are gone from the network itself."""
    proto = quantizer.pruned(quantizer.folded(NETWORKS[network]()), bias=0.3)
    quantized = quantizer.static(proto, tmp_path, form, per_channel=True)
    out, removed = shrunk(quantized)
    assert_same(quantized, out)
    _, expected = shrunk(proto)
    assert expected
    # At least as many: quantization makes zeros of small weights.
    assert all(widths(removed)[name] <= width for name, width in expected.items())


@pytest.mark.parametrize("network", ["resnet", "mlp", "block"])
def test_dynamic_ranges(network, tmp_path):
    """Zeros can go: they are in the range all the same."""
    make = transformer_block if network == "block" else NETWORKS[network]
    proto = quantizer.pruned(quantizer.folded(make()))
    if network == "block":
        bias = next(tensor for tensor in proto.graph.initializer if tensor.name == "up.bias")
        bias.CopyFrom(numpy_helper.from_array(-np.abs(numpy_helper.to_array(bias)), "up.bias"))
    quantized = quantizer.dynamic(proto, tmp_path)
    out, removed = shrunk(quantized)
    assert_same(quantized, out)
    _, expected = shrunk(proto)
    assert expected
    assert sorted(removed.values()) == sorted(expected.values())
    sizes = [measure(model, {BATCH: 1}).macs for model in (proto, quantized, out)]
    assert sizes[0] == sizes[1] > sizes[2]


@pytest.mark.parametrize("form", [QuantFormat.QDQ, QuantFormat.QOperator])
def test_matrices(form, tmp_path):
    """A constant in front of a MatMul: in QDQ form it is added behind, in integer form nothing takes it."""
    proto = quantizer.pruned(transformer_block())
    quantized = quantizer.static(proto, tmp_path, form)
    out, removed = shrunk(quantized)
    assert_same(quantized, out)
    weights = weights_of(proto)
    dead = ~weights["up.weight"].any(axis=0)
    zero = dead & (weights["up.bias"] <= 0)
    assert 0 < zero.sum() < dead.sum()
    gone = dead if form == QuantFormat.QDQ else zero
    assert next(iter(removed.values())) == (24, 24 - gone.sum())


class RandomNetwork:
    """Grows a network of what the quantizer has integer operators for; some channels of it are dead."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.g = GraphBuilder("random", seed=seed, opset=17)
        self.maps = [(self.g.input("X", [BATCH, 3, 8, 8]), 3)]
        grow = ("conv", "conv", "depthwise", "grouped", "mask", "add", "gate", "concat", "pool", "activate")
        for number in range(int(self.rng.integers(3, 14))):
            getattr(self, str(self.rng.choice(grow)))(f"n{number}", *self.a_map())
        x = self.g.flatten(self.g.node("GlobalAveragePool", "gap", [self.maps[-1][0]]))
        y = self.g.gemm(x, "fc", self.maps[-1][1], 5)
        self.proto = self.g.model({y: [BATCH, 5]})

    def a_map(self):
        return self.maps[int(self.rng.integers(max(len(self.maps) - 3, 0), len(self.maps)))]

    def add_map(self, x, channels):
        self.maps.append((x, channels))

    def conv(self, name, x, channels):
        made = int(self.rng.choice([4, 8, 12]))
        kernel = int(self.rng.choice([1, 3]))
        self.add_map(
            self.g.relu(self.g.conv(x, name, channels, made, kernel, pad=kernel // 2), name + "r"), made
        )

    def depthwise(self, name, x, channels):
        self.add_map(self.g.conv(x, name, channels, channels, 3, pad=1, group=channels), channels)

    def grouped(self, name, x, channels):
        if channels % 4 == 0:
            self.add_map(self.g.conv(x, name, channels, 8, 1, group=4), 8)

    def mask(self, name, x, channels):
        values = (self.rng.random((channels, 1, 1)) < 0.6).astype(np.float32)
        self.add_map(self.g.node("Mul", name, [x, self.g.initializer(name + "m", values)]), channels)

    def add(self, name, x, channels):
        other, more = self.a_map()
        y = self.g.conv(other, name, more, channels, 1)
        self.add_map(self.g.relu(self.g.node("Add", name + "a", [x, y]), name + "r"), channels)

    def gate(self, name, x, channels):
        y = self.g.node("Sigmoid", name + "s", [self.g.conv(x, name, channels, channels, 1)])
        self.add_map(self.g.node("Mul", name + "m", [x, y]), channels)

    def concat(self, name, x, channels):
        y, more = self.a_map()
        if channels + more <= 24:
            self.add_map(self.g.node("Concat", name, [x, y], axis=1), channels + more)

    def pool(self, name, x, channels):
        op = str(self.rng.choice(["MaxPool", "AveragePool"]))
        pads = (1, 1, 1, 1)
        self.add_map(self.g.pool(op, x, name, kernel=3, stride=1, pads=pads), channels)

    def activate(self, name, x, channels):
        self.add_map(self.g.node("LeakyRelu", name, [x], alpha=0.1), channels)


@pytest.mark.parametrize("chunk", range(4))
def test_random_networks(chunk, tmp_path):
    smaller = 0
    for seed in range(chunk * 8, chunk * 8 + 8):
        rng = np.random.default_rng(seed)
        proto = quantizer.pruned(RandomNetwork(seed).proto, bias=float(rng.choice([0, 0, 0.4])), seed=seed)
        activations, weights, symmetric = TYPES[str(rng.choice(list(TYPES)))]
        quantized = quantizer.static(
            proto, tmp_path, QuantFormat.QOperator,
            per_channel=bool(rng.integers(2)), activations=activations, weights=weights, symmetric=symmetric,
        )  # fmt: skip
        out, removed = shrunk(quantized)
        smaller += bool(removed)
        assert_same(quantized, out, f"network {seed}")
    assert smaller >= 3
