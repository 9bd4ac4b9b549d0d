"""Small networks with zeros in aligned groups, for tests of the whole way."""

from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, TensorProto, helper, numpy_helper


def sparse_weight(rng: np.random.Generator, M: int, K: int, sparsity: float, group: int = 8) -> np.ndarray:
    """``[M, K]`` float32 whose groups of ``1×group`` are zero with probability ``sparsity``."""
    weight = rng.standard_normal((M, K // group, group), dtype=np.float32) / np.sqrt(K)
    weight[rng.random((M, K // group)) < sparsity] = 0
    return weight.reshape(M, K)


def mlp(sparsity: float, batch: int | str = 1, seed: int = 0) -> ModelProto:
    """``x[batch, 512]`` → fc1, Relu, fc2 → ``y[batch, 1024]``, each of 1024 outputs."""
    rng = np.random.default_rng(seed)
    weights = {
        "fc1.weight": sparse_weight(rng, 1024, 512, sparsity),
        "fc1.bias": rng.standard_normal(1024, dtype=np.float32),
        "fc2.weight": sparse_weight(rng, 1024, 1024, sparsity),
        "fc2.bias": rng.standard_normal(1024, dtype=np.float32),
    }
    graph = helper.make_graph(
        [
            helper.make_node("Gemm", ["x", "fc1.weight", "fc1.bias"], ["h"], "fc1", transB=1),
            helper.make_node("Relu", ["h"], ["a"], "relu"),
            helper.make_node("Gemm", ["a", "fc2.weight", "fc2.bias"], ["y"], "fc2", transB=1),
        ],
        "mlp",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, 1024])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def save(model: ModelProto, path: Path) -> Path:
    """Writes a model and returns its path."""
    onnx.save(model, str(path))
    return path
