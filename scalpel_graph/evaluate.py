"""What nodes of a graph compute from known values, as ONNX Runtime computes it."""

from collections.abc import Mapping, Sequence
from typing import Any

import onnx_graphsurgeon as gs
import onnxruntime as ort
from onnx import helper

from scalpel_graph.graph import ModelGraph
from scalpel_graph.group_csr import Array


def evaluate(
    graph: ModelGraph, nodes: Sequence[gs.Node], outputs: Sequence[str], feeds: Mapping[str, Array]
) -> dict[str, Any]:
    """Runs nodes by themselves, without any graph optimization.

    Args:
        graph: the nodes' graph.
        nodes: in topological order.
        outputs: names of the tensors to compute.
        feeds: by name, every input that none of the nodes makes.

    Returns:
        The value of each output: an array, or what ONNX Runtime has for a type that is no tensor.

    Raises:
        Exception: of ONNX Runtime's own kinds, where it cannot run them.
    """
    model = graph.model_of(nodes, outputs)
    for name, value in feeds.items():
        kind = helper.np_dtype_to_tensor_dtype(value.dtype)
        model.graph.input.append(helper.make_tensor_value_info(name, kind, value.shape))
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"], enable_fallback=0
    )
    return dict(zip(outputs, session.run(list(outputs), dict(feeds)), strict=True))
