"""Pruned networks, quantized as an engineer does it: by ONNX Runtime's own quantizer."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import ModelProto, numpy_helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.fold_batchnorm import FoldBatchNorm
from scalpel_graph.passes.manager import PassManager
from tests.pass_runner import EXACT, random_feeds


class _Reader(CalibrationDataReader):
    def __init__(self, feeds: Sequence[Mapping[str, npt.NDArray[Any]]]) -> None:
        self._feeds = iter(feeds)

    def get_next(self) -> Any:
        return next(self._feeds, None)


def static(
    proto: ModelProto,
    path: Any,
    form: QuantFormat,
    *,
    per_channel: bool = False,
    activations: QuantType = QuantType.QUInt8,
    weights: QuantType = QuantType.QInt8,
    symmetric: bool = False,
) -> ModelProto:
    """``proto`` quantized with ranges found on random inputs; ``path`` is a directory to work in."""
    logging.disable(logging.WARNING)
    try:
        onnx.save(proto, path / "in.onnx")
        quantize_static(
            path / "in.onnx",
            path / "out.onnx",
            _Reader([random_feeds(proto)]),
            quant_format=form,
            per_channel=per_channel,
            activation_type=activations,
            weight_type=weights,
            # Kernels without VNNI saturate in the middle of a sum if weights have all 8 bits.
            reduce_range=weights == QuantType.QInt8,
            extra_options={"ActivationSymmetric": symmetric},
        )
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(path / "out.onnx")


def dynamic(proto: ModelProto, path: Any) -> ModelProto:
    """``proto`` with weights of uint8, and ranges of activations found at run time."""
    logging.disable(logging.WARNING)
    try:
        onnx.save(proto, path / "in.onnx")
        quantize_dynamic(path / "in.onnx", path / "out.onnx", weight_type=QuantType.QUInt8)
    finally:
        logging.disable(logging.NOTSET)
    return onnx.load(path / "out.onnx")


def folded(proto: ModelProto) -> ModelProto:
    """Without BatchNormalization, as the quantizer wants it."""
    graph = ModelGraph(proto)
    PassManager([FoldBatchNorm()]).run(graph, PassContext(EXACT))
    return graph.to_proto()


def pruned(proto: ModelProto, bias: float = 0.0, seed: int = 0) -> ModelProto:
    """With some filters and neurons of all layers but the last of zeros, and their biases of ``bias``."""
    rng = np.random.default_rng(seed)
    out = ModelProto()
    out.CopyFrom(proto)
    weights = {tensor.name: tensor for tensor in out.graph.initializer}
    layers = [node for node in out.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    for node in layers[:-1]:
        weight = numpy_helper.to_array(weights[node.input[1]]).copy()
        rows = np.moveaxis(weight, -1 if node.op_type == "MatMul" else 0, 0)
        dead = rng.random(len(rows)) < 0.4
        rows[dead] = 0
        weights[node.input[1]].CopyFrom(numpy_helper.from_array(weight, node.input[1]))
        if len(node.input) > 2:
            values = numpy_helper.to_array(weights[node.input[2]]).copy()
            values[dead] = bias
            weights[node.input[2]].CopyFrom(numpy_helper.from_array(values, node.input[2]))
    return out
