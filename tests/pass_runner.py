"""Runs passes on small models and compares the model before and after in stock ONNX Runtime."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import ModelProto, TensorProto, numpy_helper, parser

from scalpel_graph import ops
from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import Pass, PassContext
from scalpel_graph.passes.manager import PassManager, PassRecord
from scalpel_graph.target import (
    QUANTIZED_DENSE_OPERATIONS,
    QUANTIZED_SPARSE_OPERATIONS,
    Kernel,
    QuantizedPrices,
    Target,
    load_target,
)

#: A machine with sparse kernels.
CPU = replace(load_target("avx2"), round_channels_to=1, round_features_to=1)

#: Every channel that can go goes: what widths and groups the hardware likes has tests of its own.
EXACT = replace(CPU, name="exact", kernels=())

#: A machine on which dense operators are so slow that every sparse form that is smaller pays.
EAGER = replace(
    CPU,
    name="eager",
    margin=0.0,
    min_columns=1,
    dense={name: {1: {"call": ((1.0, 1e6 if name != "reorder" else 0.0),)}} for name in CPU.dense},
    quantized=QuantizedPrices(
        dense={
            name: {1: {"call": ((1.0, 1e6 if name != "quantized_reorder" else 0.0),)}}
            for name in QUANTIZED_DENSE_OPERATIONS
        },
        kernels=tuple(
            Kernel(shape, {name: {1: {"call": ((1.0, 1.0),)}} for name in QUANTIZED_SPARSE_OPERATIONS})
            for shape in ((4, 1), (1, 1))
        ),
        depthwise_kernel={1: {"call": ((1.0, 1.0),)}},
    ),
)


def model(
    text: str, weights: Mapping[str, npt.NDArray[Any]] | None = None, opset: int = 17, ir_version: int = 8
) -> ModelProto:
    """A model from the text form of its graph; ``weights`` become initializers, output types are found."""
    others = ", ".join(f'"{domain}" : 1' for domain in ("ai.scalpel", "com.microsoft", "custom"))
    proto = parser.parse_model(f'<ir_version: {ir_version}, opset_import: ["" : {opset}, {others}]> g {text}')
    for entry in [entry for entry in proto.opset_import if entry.domain]:
        if all(node.domain != entry.domain for node in proto.graph.node):
            proto.opset_import.remove(entry)
    for name, values in (weights or {}).items():
        proto.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
    inferred = onnx.shape_inference.infer_shapes(proto)
    for value, found in zip(proto.graph.output, inferred.graph.output, strict=True):
        if not value.HasField("type"):
            value.CopyFrom(found)
    return proto


def random(*shape: int, seed: int = 0, dtype: Any = np.float32) -> npt.NDArray[Any]:
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def sparse(*shape: int, group_shape: tuple[int, int] = (1, 1), density: float = 0.2, seed: int = 0) -> Any:
    """Weights whose matrix ``[shape[0], rest]`` has this share of its groups non-zero, at least one."""
    rng = np.random.default_rng([seed, *shape])
    M, K = shape[0], int(np.prod(shape[1:]))
    r, c = group_shape
    kept = rng.random((-(-M // r), -(-K // c))) < density
    kept[0, 0] = True
    mask = np.kron(kept, np.ones(group_shape))[:M, :K].reshape(shape)
    return (rng.standard_normal(shape) * mask).astype(np.float32)


def run(
    proto: ModelProto,
    *passes: Pass,
    target: Target = EXACT,
    feeds: Mapping[str, npt.NDArray[Any]] | None = None,
    context: PassContext | None = None,
    rtol: float = 1e-4,
    atol: float = 1e-4,
) -> tuple[ModelProto, dict[str, PassRecord]]:
    """The model after ``passes``, checked, and what each did; fails if any output changed.

    ``feeds`` of random numbers are made for float inputs of known shape (symbols become 2).
    """
    untouched = proto.SerializeToString(deterministic=True)
    graph = ModelGraph(proto)
    records = PassManager(passes).run(graph, context or PassContext(target))
    out = graph.to_proto()
    assert proto.SerializeToString(deterministic=True) == untouched
    onnx.checker.check_model(out, full_check=True)
    assert [v.name for v in out.graph.output] == [v.name for v in proto.graph.output]
    feeds = {**random_feeds(proto), **(feeds or {})}
    for before, after in zip(outputs(proto, feeds), outputs(out, feeds), strict=True):
        assert before.dtype == after.dtype and before.shape == after.shape
        np.testing.assert_allclose(after, before, rtol=rtol, atol=atol)
    return out, {record.name: record for record in records}


def random_feeds(proto: ModelProto) -> dict[str, npt.NDArray[Any]]:
    weights = {tensor.name for tensor in proto.graph.initializer}
    feeds = {}
    for i, value in enumerate(v for v in proto.graph.input if v.name not in weights):
        kind = value.type.tensor_type.elem_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind)
        shape = [dim.dim_value or 2 for dim in value.type.tensor_type.shape.dim]
        if kind in (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE):
            feeds[value.name] = random(*shape, seed=100 + i).astype(dtype)
        else:
            feeds[value.name] = np.ones(shape, dtype=dtype)
    return feeds


def outputs(proto: ModelProto, feeds: Mapping[str, npt.NDArray[Any]]) -> Any:
    return runs(proto, [feeds])[0]


def runs(proto: ModelProto, feeds: Sequence[Mapping[str, npt.NDArray[Any]]]) -> list[Any]:
    """The outputs of a model for each of several inputs."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    options.enable_mem_reuse = False  # it takes some sizes for equal that are not, and then fails
    # With all of them, ONNX Runtime 1.32 does not survive some float16 networks, also as they were.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    session = onnxruntime.InferenceSession(
        proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return [session.run(None, dict(values)) for values in feeds]


def op_types(proto: ModelProto) -> list[str]:
    return [node.op_type for node in proto.graph.node]


def sparse_nodes(proto: ModelProto) -> list[onnx.NodeProto]:
    return [node for node in proto.graph.node if node.domain == ops.DOMAIN]


def weights_of(proto: ModelProto) -> dict[str, npt.NDArray[Any]]:
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}


def reasons(record: PassRecord) -> dict[str, str]:
    return {skip.node: skip.reason for skip in record.skipped}
