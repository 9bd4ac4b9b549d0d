"""Random quantized networks keep every bit of their answers, and a second run changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from scalpel_graph.target import load_target
from tests.pass_runner import EXACT, random
from tests.scalpel_graph.channels.bits import bits

_SIZE = 5
_OPERATIONS = ("conv", "depthwise", "relu", "pool", "add", "concat", "mask", "split")


class QuantizedNetwork:
    """Grows a network whose tensors are all quantized, by scales that are powers of two: sums are exact."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights = [], []
        self.scale = self.weight(np.float32(2**-4))
        self.zero = self.weight(np.uint8(self.rng.integers(90, 160)))
        self.maps = [(self.requantize("X"), 3)]
        for _ in range(int(self.rng.integers(1, 12))):
            getattr(self, self.rng.choice(_OPERATIONS))()
        last = self.node("Conv", [self.maps[-1][0], self.quantized(4, self.maps[-1][1], 1, 1)])
        self.outputs = [(self.requantize(last), 4)]

    def model(self):
        x = helper.make_tensor_value_info("X", TensorProto.FLOAT, ["N", 3, _SIZE, _SIZE])
        made = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", channels, _SIZE, _SIZE])
            for name, channels in self.outputs
        ]
        graph = helper.make_graph(self.nodes, "quantized", [x], made, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)

    def node(self, op, inputs, outputs=1, **attributes):
        names = [f"t{len(self.nodes)}_{i}" for i in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, **attributes))
        return names[0] if outputs == 1 else names

    def weight(self, values):
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def requantize(self, x):
        q = self.node("QuantizeLinear", [x, self.scale, self.zero])
        return self.node("DequantizeLinear", [q, self.scale, self.zero])

    def quantized(self, *shape):
        """Weights of which whole rows and columns are at the zero point of their row."""
        per_channel = bool(self.rng.integers(2))
        count = shape[0] if per_channel else ()
        zero = np.asarray(self.rng.integers(-5, 6, count), np.int8)
        values = self.rng.integers(-60, 61, shape)
        for axis in (0, 1):
            dead = self.rng.random(shape[axis]) < self.rng.choice([0.0, 0.4, 0.8])
            np.moveaxis(values, axis, 0)[dead] = 0
        values = values + (zero.reshape(-1, *[1] * (len(shape) - 1)) if per_channel else zero)
        scale = np.asarray(2.0 ** self.rng.integers(-8, -5, count), np.float32)
        inputs = [self.weight(values.astype(np.int8)), self.weight(scale), self.weight(zero)]
        return self.node("DequantizeLinear", inputs, axis=0)

    def a_map(self):
        return self.maps[int(self.rng.integers(max(len(self.maps) - 3, 0), len(self.maps)))]

    def add_map(self, x, channels):
        self.maps.append((self.requantize(x), channels))

    def conv(self):
        x, channels = self.a_map()
        self.add_map(*self._conv(x, channels, int(self.rng.integers(1, 9))))

    def _conv(self, x, channels, made):
        kernel = int(self.rng.choice([1, 3]))
        inputs = [x, self.quantized(made, channels, kernel, kernel)]
        if self.rng.integers(2):
            bias = self.rng.integers(-900, 900, made).astype(np.int32)
            bias[self.rng.random(made) < 0.6] = 0
            inputs.append(self.node("DequantizeLinear", [self.weight(bias), self.weight(np.float32(2**-11))]))
        return self.node("Conv", inputs, pads=[kernel // 2] * 4), made

    def depthwise(self):
        x, channels = self.a_map()
        inputs = [x, self.quantized(channels, 1, 3, 3)]
        self.add_map(self.node("Conv", inputs, pads=[1] * 4, group=channels), channels)

    def relu(self):
        x, channels = self.a_map()
        self.add_map(self.node("Relu", [x]), channels)

    def pool(self):
        x, channels = self.a_map()
        self.add_map(self.node("MaxPool", [x], kernel_shape=[3, 3], pads=[1] * 4), channels)

    def add(self):
        x, channels = self.a_map()
        y, _ = self._conv(*self.a_map(), channels)
        self.add_map(self.node("Add", [x, self.requantize(y)]), channels)

    def concat(self):
        parts = [self.a_map(), self.a_map()]
        channels = sum(width for _, width in parts)
        if channels <= 16:
            self.add_map(self.node("Concat", [name for name, _ in parts], axis=1), channels)

    def mask(self):
        x, channels = self.a_map()
        values = (self.rng.random((channels, 1, 1)) < 0.6).astype(np.int8)
        mask = self.node("DequantizeLinear", [self.weight(values), self.weight(np.float32(1))])
        self.add_map(self.node("Mul", [x, mask]), channels)

    def split(self):
        x, channels = self.a_map()
        if channels > 1:
            q = self.node("QuantizeLinear", [x, self.scale, self.zero])
            halves = self.node("Split", [q, self.weight(np.array([1, channels - 1]))], outputs=2, axis=1)
            for half, width in zip(halves, (1, channels - 1), strict=True):
                self.maps.append((self.node("DequantizeLinear", [half, self.scale, self.zero]), width))


ROUNDED = replace(load_target("gpu"), round_channels_to=3, round_features_to=3)


@pytest.mark.parametrize(
    ("chunk", "target"), [*((chunk, EXACT) for chunk in range(4)), (4, ROUNDED), (5, ROUNDED)]
)
def test_no_bit_changes(chunk, target):
    smaller = 0
    for seed in range(chunk * 50, chunk * 50 + 50):
        proto = QuantizedNetwork(seed).model()
        graph = ModelGraph(proto)
        graph.infer()
        smaller += RemoveChannels().run(graph, PassContext(target)).modified
        graph.infer()
        feeds = {"X": random(2, 3, _SIZE, _SIZE, seed=seed)}
        for before, after in zip(bits(proto, feeds), bits(graph.to_proto(), feeds), strict=True):
            np.testing.assert_array_equal(after, before, err_msg=f"network {seed}")
        assert not RemoveChannels().run(graph, PassContext(target)).modified, f"network {seed}"
    assert smaller > 25
