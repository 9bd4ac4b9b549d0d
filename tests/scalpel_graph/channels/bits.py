"""Runs models without optimizations, for answers that must be the same to the bit."""

from collections.abc import Mapping
from typing import Any

import numpy.typing as npt
import onnxruntime
from onnx import ModelProto


def bits(proto: ModelProto, feeds: Mapping[str, npt.NDArray[Any]]) -> Any:
    """The outputs of a model as its operators compute them one by one."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(None, dict(feeds))
