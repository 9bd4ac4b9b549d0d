"""Models of one WindowedLrn, and what they should compute."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from scalpel_graph import ops
from tests.sparse_layer import Dims, Floats

BETAS = (0.5, 0.75, 1.0)


def windows(channels: int, size: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Begin and end of the window of each channel in an ONNX LRN of this size."""
    c = np.arange(channels)
    begin, end = np.maximum(c - (size - 1) // 2, 0), np.minimum(c + size // 2 + 1, channels)
    return begin.astype(np.int32), end.astype(np.int32)


@dataclass(frozen=True)
class LrnLayer:
    """One operator between an input ``x`` and an output ``y``.

    Attributes:
        begin, end: ``[C]``, the windows.
        bias: ``[C]``.
        x_shape: a shape to run it with.
        alpha, beta: see `scalpel_graph.windowed_lrn`.
    """

    begin: npt.NDArray[np.int32]
    end: npt.NDArray[np.int32]
    bias: Floats
    x_shape: tuple[int, ...]
    alpha: float
    beta: float

    def initializers(self) -> dict[str, npt.NDArray[Any]]:
        return {"window_begin": self.begin, "window_end": self.end, "bias": self.bias}

    def attributes(self) -> dict[str, Any]:
        channels = len(self.bias)
        weight_shape = [channels, channels, *[1] * (len(self.x_shape) - 2)]
        return {"weight_shape": weight_shape, "alpha": self.alpha, "beta": self.beta}

    def model(self, opset: int = 17, x_dims: Dims | None = None) -> onnx.ModelProto:
        dims = self.x_shape if x_dims is None else x_dims
        return assemble(self.initializers(), self.attributes(), opset=opset, x_dims=dims)

    def feeds(self, seed: int = 0, batch: int | None = None) -> dict[str, Floats]:
        """A random input; ``batch`` replaces its first dimension."""
        shape = self.x_shape if batch is None else (batch, *self.x_shape[1:])
        return {"x": np.random.default_rng(seed).standard_normal(shape).astype(np.float32)}

    def expected(self, x: Floats) -> npt.NDArray[np.float64]:
        """The definition, in float64."""
        x64 = x.astype(np.float64)
        channel = (slice(None), *[None] * (x.ndim - 2))
        sums = [(x64[:, b:e] ** 2).sum(axis=1) for b, e in zip(self.begin, self.end, strict=True)]
        s = self.bias.astype(np.float64)[channel] + np.float64(np.float32(self.alpha)) * np.stack(
            sums, axis=1
        )
        return np.asarray(x64 / s**self.beta)


def assemble(
    initializers: dict[str, npt.NDArray[Any]],
    attributes: dict[str, Any],
    *,
    opset: int = 17,
    x_dims: Dims | None,
) -> onnx.ModelProto:
    """A model of one operator, whose parts may contradict each other."""
    names = ["x", *ops.inputs(ops.LRN)[1:]]
    node = helper.make_node(ops.LRN, names, ["y"], name="norm", domain=ops.DOMAIN, **attributes)
    graph = helper.make_graph(
        [node],
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x_dims)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in initializers.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
    ops.add_functions(model, [ops.LRN])
    return model


def lrn(x_shape: tuple[int, ...], size: int = 5, *, alpha: float = 0.3, beta: float = 0.75) -> LrnLayer:
    """Windows of ``size`` channels, and random biases."""
    begin, end = windows(x_shape[1], size)
    bias = np.random.default_rng(1).uniform(0.5, 2.0, x_shape[1]).astype(np.float32)
    return LrnLayer(begin, end, bias, x_shape, alpha, beta)


def uneven(x_shape: tuple[int, ...], *, alpha: float = 0.3, beta: float = 0.75, seed: int = 0) -> LrnLayer:
    """Windows of any length anywhere, also empty ones."""
    channels = x_shape[1]
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(0, channels + 1, (2, channels)), axis=0).astype(np.int32)
    bias = rng.uniform(0.5, 2.0, channels).astype(np.float32)
    return LrnLayer(ends[0], ends[1], bias, x_shape, alpha, beta)
