"""The paper's five networks with nodes removed, on a GPU: in ONNX Runtime, or in PyTorch in its place."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import helper, numpy_helper

from benchmarks.gpu_timing import torch
from models import NETWORKS

#: Percent of the nodes of each layer that node pruning removed (Scalpel, ISCA 2017).
REMOVED: Mapping[str, Mapping[str, float]] = {
    "lenet-300-100": {"fc1": 31, "fc2": 32},
    "lenet-5": {"conv1": 50, "conv2": 68, "fc1": 65},
    "convnet": {"conv1": 28, "conv2": 25, "conv3": 49},
    "nin": {
        "conv1": 28, "cccp1": 20, "cccp2": 5, "conv2": 2, "cccp3": 14, "cccp4": 8, "conv3": 22, "cccp5": 48,
    },
    "alexnet": {"conv1": 3, "conv2": 20, "conv3": 24, "conv4": 18, "fc6": 17, "fc7": 23},
}  # fmt: skip


def node_pruned(name: str, multiple: int = 1) -> onnx.ModelProto:
    """One of `REMOVED` with so many random nodes zero, filters and biases.

    Args:
        name: of the network.
        multiple: what is left of each layer is the multiple of this that is nearest to the paper's count.
    """
    model = NETWORKS[name].build()
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    rng = np.random.default_rng(0)
    for layer, percent in REMOVED[name].items():
        width = tensors[f"{layer}.bias"].dims[0]
        kept = round(width * (1 - percent / 100))
        kept = min(width, max(multiple, round(kept / multiple) * multiple))
        dead = rng.permutation(width)[kept:]
        for part in ("weight", "bias"):
            tensor = tensors[f"{layer}.{part}"]
            values = numpy_helper.to_array(tensor).copy()
            values[dead] = 0
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


class InPyTorch:
    """A sequential network run operator by operator in PyTorch: what cuDNN and cuBLAS make of its layers.

    Args:
        model: of Conv, Gemm, Relu, pools, LRN and Flatten, one after the other.
        device: ``cuda`` or ``cpu``.

    Raises:
        ValueError: it has another operator.
    """

    def __init__(self, model: onnx.ModelProto, device: str) -> None:
        t = torch()
        weights = {
            tensor.name: t.from_numpy(numpy_helper.to_array(tensor).copy()).to(device)
            for tensor in model.graph.initializer
        }
        self._steps: list[Callable[[Any], Any]] = []
        value = next(i.name for i in model.graph.input if i.name not in weights)
        for node in model.graph.node:
            if node.input[0] != value:
                raise ValueError(f"{node.name} does not follow the layer before it")
            attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
            self._steps.append(_step(node, attributes, [weights[name] for name in node.input[1:]]))
            value = node.output[0]

    def __call__(self, x: Any) -> Any:
        """The output for an input, both tensors on the device."""
        with torch().no_grad():
            for step in self._steps:
                x = step(x)
        return x


def _step(node: onnx.NodeProto, attributes: Mapping[str, Any], weights: list[Any]) -> Callable[[Any], Any]:
    f = torch().nn.functional
    if node.op_type == "Relu":
        return f.relu  # type: ignore[no-any-return]
    if node.op_type == "Flatten":
        return lambda x: x.flatten(1)
    if node.op_type == "Gemm" and attributes.get("transB"):
        return lambda x: f.linear(x, *weights)
    if node.op_type == "Conv":
        pads = attributes.get("pads", [0, 0, 0, 0])
        if pads[:2] == pads[2:]:
            options = {
                "stride": tuple(attributes.get("strides", (1, 1))),
                "padding": tuple(pads[:2]),
                "groups": attributes.get("group", 1),
            }
            return lambda x: f.conv2d(x, *weights, **options)
    if node.op_type in ("MaxPool", "AveragePool"):
        pool = f.max_pool2d if node.op_type == "MaxPool" else f.avg_pool2d
        pads = list(attributes.get("pads", [0, 0, 0, 0]))
        if pads[:2] == [0, 0]:
            # One more pixel at the end is what rounding up takes, and leaves out of an average.
            return lambda x: pool(
                x, attributes["kernel_shape"], attributes.get("strides"), 0, ceil_mode=any(pads[2:])
            )
    if node.op_type == "LRN":
        return lambda x: f.local_response_norm(
            x, attributes["size"], attributes["alpha"], attributes["beta"], attributes["bias"]
        )
    raise ValueError(f"{node.name}: {node.op_type} with these attributes has no form in PyTorch here")


def in_pytorch(model: onnx.ModelProto, x: np.ndarray[Any, Any]) -> Callable[[], Any]:
    """A call of a network on the card."""
    network = InPyTorch(model, "cuda")
    on_card = torch().from_numpy(x).to("cuda")
    return lambda: network(on_card)


def in_onnx_runtime(
    model: onnx.ModelProto, x: np.ndarray[Any, Any], library: str | None = None
) -> Callable[[], Any]:
    """A call of a network in ONNX Runtime's CUDA provider, which waits for its output on the card.

    Args:
        model: the network.
        x: its input.
        library: of operators to register; None for none.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if library is not None:
        options.register_custom_ops_library(library)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    binding = session.io_binding()
    binding.bind_ortvalue_input(
        session.get_inputs()[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(x, "cuda", 0)
    )
    binding.bind_output(session.get_outputs()[0].name, "cuda", 0)

    def call() -> None:
        session.run_with_iobinding(binding)

    return call
