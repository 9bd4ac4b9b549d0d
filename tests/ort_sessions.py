"""ONNX Runtime sessions with and without our operators."""

from pathlib import Path
from typing import Any

import onnx
import onnxruntime

from scalpel_graph.library import custom_op_library

onnxruntime.set_default_logger_severity(4)


def session(
    model: onnx.ModelProto, *, library: bool = True, threads: int = 1, save_to: Path | None = None
) -> onnxruntime.InferenceSession:
    """A CPU session; ``save_to`` is where ONNX Runtime writes the graph as it optimized it."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    if library:
        options.register_custom_ops_library(custom_op_library())
    if save_to is not None:
        options.optimized_model_filepath = str(save_to)
        # The level above replaces Conv by one that fits this machine, with changes of layout around it.
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def run(model: onnx.ModelProto, feeds: dict[str, Any], **options: Any) -> Any:
    """The first output of a model."""
    return session(model, **options).run(None, feeds)[0]
