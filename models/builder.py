"""The layers that the networks are built from, with seeded weights, written as exporters write them."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

OPSET = 17
IR_VERSION = 8

#: Name of the first dimension of every input and output.
BATCH = "batch"

#: Keep the scale of activations: through a layer that a Relu follows, and through one that none does.
RELU_GAIN = math.sqrt(2)
LINEAR_GAIN = 1.0

Dims = Sequence[int | str]


class GraphBuilder:
    """Collects nodes and initializers; each layer method takes and returns names of values.

    The weights of each output have the norm ``gain``, which keeps activations near 1 through any number of
    layers (He et al., 2015). They are cubes of normal numbers: heavy-tailed, as training makes weights, so
    that what magnitude pruning leaves still carries the signal; and independent, so that no group shape is
    favoured.
    """

    def __init__(self, name: str, *, seed: int, opset: int) -> None:
        self._name = name
        self._opset = opset
        self._rng = np.random.default_rng(seed)
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: list[onnx.TensorProto] = []
        self._inputs: list[onnx.ValueInfoProto] = []

    def input(self, name: str, shape: Dims, elem_type: int = TensorProto.FLOAT) -> str:
        """A graph input."""
        self._inputs.append(helper.make_tensor_value_info(name, elem_type, shape))
        return name

    def initializer(self, name: str, value: npt.ArrayLike) -> str:
        """A constant; floats are stored as float32."""
        array = np.asarray(value)
        if array.dtype == np.float64:
            array = array.astype(np.float32)
        self._initializers.append(numpy_helper.from_array(array, name))
        return name

    def normal(self, name: str, shape: Sequence[int], std: float) -> str:
        """An initializer of normal random numbers."""
        return self.initializer(name, self._rng.standard_normal(shape, dtype=np.float32) * np.float32(std))

    def weights(self, name: str, shape: Sequence[int], gain: float, *, outputs_axis: int = 0) -> str:
        """An initializer of seeded weights; ``outputs_axis`` numbers the outputs of the layer."""
        normal = self._rng.standard_normal(shape, dtype=np.float32)
        weights = normal * normal * normal
        inputs = tuple(axis for axis in range(len(shape)) if axis != outputs_axis)
        weights *= np.float32(gain) / np.sqrt(np.square(weights).sum(axis=inputs, keepdims=True))
        return self.initializer(name, weights)

    def node(self, op_type: str, name: str, inputs: Sequence[str], **attributes: Any) -> str:
        """A node with one output, which is named after it."""
        output = f"{name}_output"
        self._nodes.append(helper.make_node(op_type, inputs, [output], name=name, **attributes))
        return output

    def conv(
        self,
        x: str,
        name: str,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        pad: int = 0,
        group: int = 1,
        bias: bool = True,
        gain: float = RELU_GAIN,
    ) -> str:
        """A square 2-D Conv."""
        shape = (out_channels, in_channels // group, kernel, kernel)
        inputs = [x, self.weights(f"{name}.weight", shape, gain)]
        if bias:
            inputs.append(self.normal(f"{name}.bias", (out_channels,), 0.1))
        return self.node(
            "Conv",
            name,
            inputs,
            kernel_shape=[kernel, kernel],
            strides=[stride, stride],
            pads=[pad] * 4,
            dilations=[1, 1],
            group=group,
        )

    def conv_bn(
        self,
        x: str,
        name: str,
        in_channels: int,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        group: int = 1,
        gain: float = RELU_GAIN,
        scale: float = 1.0,
    ) -> str:
        """A square 2-D Conv without bias, padded to keep the size, and BatchNormalization ``{name}.bn``."""
        pad = kernel // 2
        x = self.conv(
            x,
            name,
            in_channels,
            out_channels,
            kernel,
            stride=stride,
            pad=pad,
            group=group,
            bias=False,
            gain=gain,
        )
        return self.batch_norm(x, f"{name}.bn", out_channels, scale=scale)

    def conv_transpose(self, x: str, name: str, in_channels: int, out_channels: int) -> str:
        """A 2-D ConvTranspose that doubles height and width: kernel 2, stride 2."""
        weight = self.weights(f"{name}.weight", (in_channels, out_channels, 2, 2), 2.0, outputs_axis=1)
        bias = self.normal(f"{name}.bias", (out_channels,), 0.1)
        return self.node(
            "ConvTranspose",
            name,
            [x, weight, bias],
            kernel_shape=[2, 2],
            strides=[2, 2],
            pads=[0] * 4,
            group=1,
        )

    def silu(self, x: str, name: str) -> str:
        """``x · sigmoid(x)``, as two nodes."""
        return self.node("Mul", name, [x, self.node("Sigmoid", f"{name}.sigmoid", [x])])

    def batch_norm(self, x: str, name: str, channels: int, *, scale: float = 1.0) -> str:
        """A BatchNormalization with statistics of its own for each channel, and a mean gain of ``scale``."""
        uniform = self._rng.uniform
        inputs = [
            x,
            self.initializer(f"{name}.weight", uniform(0.75, 1.25, channels) * scale),
            self.normal(f"{name}.bias", (channels,), 0.1),
            self.normal(f"{name}.running_mean", (channels,), 0.1),
            self.initializer(f"{name}.running_var", uniform(0.75, 1.25, channels)),
        ]
        return self.node("BatchNormalization", name, inputs, epsilon=1e-5, momentum=0.9)

    def gemm(self, x: str, name: str, in_features: int, out_features: int, *, gain: float = RELU_GAIN) -> str:
        """A fully connected layer on ``[batch, in_features]``: Gemm with ``transB=1``."""
        weight = self.weights(f"{name}.weight", (out_features, in_features), gain)
        bias = self.normal(f"{name}.bias", (out_features,), 0.1)
        return self.node("Gemm", name, [x, weight, bias], alpha=1.0, beta=1.0, transB=1)

    def split(self, x: str, name: str, sizes: Sequence[int]) -> list[str]:
        """A Split of the channels."""
        outputs = [f"{name}_output_{index}" for index in range(len(sizes))]
        inputs = [x, self.initializer(f"{name}.sizes", np.array(sizes, dtype=np.int64))]
        self._nodes.append(helper.make_node("Split", inputs, outputs, name=name, axis=1))
        return outputs

    def matmul_add(self, x: str, name: str, in_features: int, out_features: int) -> str:
        """A fully connected layer on ``[..., in_features]``: MatMul, then Add of the bias."""
        shape = (in_features, out_features)
        weight = self.weights(f"{name}.weight", shape, LINEAR_GAIN, outputs_axis=1)
        bias = self.normal(f"{name}.bias", (out_features,), 0.1)
        return self.node("Add", f"{name}.add", [bias, self.node("MatMul", name, [x, weight])])

    def relu(self, x: str, name: str) -> str:
        """A Relu."""
        return self.node("Relu", name, [x])

    def pool(
        self, op_type: str, x: str, name: str, *, kernel: int, stride: int, pads: Sequence[int] = (0, 0, 0, 0)
    ) -> str:
        """A square MaxPool or AveragePool; ``pads`` (begins, then ends) hold nothing that is counted."""
        return self.node(
            op_type, name, [x], kernel_shape=[kernel, kernel], strides=[stride, stride], pads=list(pads)
        )

    def flatten(self, x: str, name: str = "flatten") -> str:
        """``[batch, ...]`` to ``[batch, features]``."""
        return self.node("Flatten", name, [x], axis=1)

    def model(self, outputs: Mapping[str, Dims]) -> onnx.ModelProto:
        """The model.

        Args:
            outputs: float32 outputs: the value of each, and its shape.
        """
        graph = helper.make_graph(
            self._nodes,
            self._name,
            self._inputs,
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()],
            self._initializers,
        )
        opset = helper.make_opsetid("", self._opset)
        return helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="scalpel_graph.models"
        )
