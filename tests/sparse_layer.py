"""Models of one sparse layer, and what they should compute."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from scalpel_graph import group_csr, ops
from scalpel_graph.value_types import ValueType, dtype

Floats = npt.NDArray[np.float32]
Dims = Sequence[int | str | None]

NO_ACTIVATION = (-inf, inf, ops.Gate.NONE)
RELU = (0.0, inf, ops.Gate.NONE)
RELU6 = (0.0, 6.0, ops.Gate.NONE)

#: The oldest, two common ones, and the newest opset that the operators are made for.
OPSETS = (ops.MIN_OPSET, 17, 18, 25)


@dataclass(frozen=True)
class SparseLayer:
    """One operator between an input ``x`` and an output ``y``.

    Attributes:
        weights: ``[M, K]`` for GroupCsrGemm, ``[M, C / group, kernel...]`` for GroupCsrConv.
        group_shape: ``(r, c)`` of the encoded weights.
        x_shape: a shape to run it with.
        bias: ``[M]`` or none.
        has_residual: add a second input ``residual``.
        activation: ``(min, max)``.
        conv: strides, pads, dilations and group, of a Conv.
        value_type: what the weights are stored as; it has to have each of them.
    """

    weights: Floats
    group_shape: group_csr.GroupShape
    x_shape: tuple[int, ...]
    bias: Floats | None = None
    has_residual: bool = False
    activation: tuple[float, float, ops.Gate] = NO_ACTIVATION
    conv: dict[str, Any] = field(default_factory=dict)
    value_type: ValueType = "fp32"

    @property
    def op_type(self) -> str:
        if self.value_type == "int8":
            return ops.SCALED_GEMM
        return ops.CONV if self.conv else ops.GEMM

    def initializers(self) -> dict[str, npt.NDArray[Any]]:
        weights = self.weights.reshape(self.weights.shape[0], -1)
        if self.value_type == "int8":
            weights = np.rint(weights / _scales(len(weights))[:, np.newaxis])
        matrix = group_csr.encode(weights.astype(dtype(self.value_type)), self.group_shape)
        zero = np.zeros((), np.float32)
        arrays = {
            "values": matrix.values,
            "row_offsets": matrix.row_offsets,
            "column_indices": matrix.column_indices,
            "bias": zero if self.bias is None else self.bias,
        }
        if self.value_type == "int8":
            arrays["w_scale"] = _scales(len(self.weights))
        return arrays if self.has_residual else {**arrays, "residual": zero}

    def attributes(self) -> dict[str, Any]:
        low, high, gate = self.activation
        return {
            "weight_shape": list(self.weights.shape),
            "activation_min": low,
            "activation_max": high,
            "activation_gate": int(gate),
            **self.conv,
        }

    def model(self, opset: int = 17, x_dims: Dims | None = None) -> onnx.ModelProto:
        return assemble(
            self.op_type,
            self.initializers(),
            self.attributes(),
            opset=opset,
            x_dims=self.x_shape if x_dims is None else x_dims,
            has_residual=self.has_residual,
        )

    def dense_model(self, opset: int = 17, elem_type: int = TensorProto.FLOAT) -> onnx.ModelProto:
        """The same layer in standard operators, weights dense."""
        element = helper.tensor_dtype_to_np_dtype(elem_type)
        bias = np.zeros(self.weights.shape[0]) if self.bias is None else self.bias
        weights = self.weights if self.conv else np.ascontiguousarray(self.weights.T)
        tensors = {"weights": weights.astype(element), "bias": bias.astype(element)}
        if self.conv:
            nodes = [helper.make_node("Conv", ["x", "weights", "bias"], ["y0"], **self.conv)]
        else:
            nodes = [helper.make_node("MatMul", ["x", "weights"], ["y0"])]
            if self.bias is not None:
                nodes.append(helper.make_node("Add", ["y0", "bias"], ["y1"]))
        if self.has_residual:
            nodes.append(helper.make_node("Add", [nodes[-1].output[0], "residual"], ["y2"]))
        last = nodes[-1].output[0]
        *bounds, gate = self.activation
        if bounds == [0, inf]:
            nodes.append(helper.make_node("Relu", [last], ["bounded"]))
        elif bounds != [-inf, inf]:
            tensors["low"], tensors["high"] = (np.array(bound, element) for bound in bounds)
            nodes.append(helper.make_node("Clip", [last, "low", "high"], ["bounded"]))
        nodes += _gate(gate, nodes[-1].output[0], tensors, element)
        nodes[-1].output[0] = "y"
        inputs = ["x", "residual"] if self.has_residual else ["x"]
        dims = {"x": self.x_shape, "residual": None}
        return _model(nodes, {name: dims[name] for name in inputs}, tensors, opset, elem_type)

    def feeds(self, seed: int = 0, batch: int | None = None) -> dict[str, Floats]:
        """Random inputs; ``batch`` replaces the first dimension of ``x``."""
        rng = np.random.default_rng(seed)
        shape = self.x_shape if batch is None else (batch, *self.x_shape[1:])
        feeds = {"x": rng.standard_normal(shape).astype(np.float32)}
        if self.has_residual:
            feeds["residual"] = rng.standard_normal(self._output_shape(shape)).astype(np.float32)
        return feeds

    def expected(self, feeds: dict[str, Floats]) -> npt.NDArray[np.float64]:
        """What onnx's reference evaluator computes in float64."""
        evaluator = ReferenceEvaluator(self.dense_model(elem_type=TensorProto.DOUBLE))
        (y,) = evaluator.run(None, {name: value.astype(np.float64) for name, value in feeds.items()})
        return np.asarray(y)

    def _output_shape(self, x_shape: tuple[int, ...]) -> tuple[int, ...]:
        if not self.conv:
            return (*x_shape[:-1], self.weights.shape[0])
        axes = zip(x_shape[2:], self.weights.shape[2:], self._pads_of_axes(), strict=True)
        reaches = [
            (size + pads - dilation * (kernel - 1) - 1, stride)
            for (size, kernel, pads), dilation, stride in zip(
                axes, self.conv["dilations"], self.conv["strides"], strict=True
            )
        ]
        out = [reach // stride + 1 for reach, stride in reaches]
        return (x_shape[0], self.weights.shape[0], *out)

    def _pads_of_axes(self) -> list[int]:
        pads = self.conv["pads"]
        return [
            begin + end for begin, end in zip(pads[: len(pads) // 2], pads[len(pads) // 2 :], strict=True)
        ]


def _gate(
    gate: ops.Gate, y: str, tensors: dict[str, npt.NDArray[Any]], element: npt.DTypeLike
) -> list[onnx.NodeProto]:
    """``y · gate(y)`` in standard operators of every opset; tensors get what they need."""
    if gate == ops.Gate.NONE:
        return []
    if gate == ops.Gate.HARD_SWISH:
        nodes = [helper.make_node("HardSigmoid", [y], ["gate"], alpha=1 / 6, beta=0.5)]
    elif gate == ops.Gate.SILU:
        nodes = [helper.make_node("Sigmoid", [y], ["gate"])]
    else:
        numbers = {"root_of_two": 2**0.5, "one": 1, "half": 0.5}
        tensors |= {name: np.array(number, element) for name, number in numbers.items()}
        nodes = [
            helper.make_node("Div", [y, "root_of_two"], ["deviation"]),
            helper.make_node("Erf", ["deviation"], ["erf"]),
            helper.make_node("Add", ["erf", "one"], ["twice_the_gate"]),
            helper.make_node("Mul", [y, "twice_the_gate"], ["twice"]),
        ]
        return [*nodes, helper.make_node("Mul", ["twice", "half"], ["gated"])]
    return [*nodes, helper.make_node("Mul", [y, "gate"], ["gated"])]


def assemble(
    op_type: str,
    initializers: dict[str, npt.NDArray[Any]],
    attributes: dict[str, Any],
    *,
    opset: int = 17,
    x_dims: Dims | None,
    has_residual: bool = False,
) -> onnx.ModelProto:
    """A model of one operator, whose parts may contradict each other; what is no initializer is an input."""
    names = ["x", *ops.inputs(op_type)[1:]]
    node = helper.make_node(op_type, names, ["y"], name="layer", domain=ops.DOMAIN, **attributes)
    inputs: dict[str, Dims | None] = {"x": x_dims}
    if has_residual:
        inputs["residual"] = None
    model = _model([node], inputs, initializers, opset, TensorProto.FLOAT)
    ops.add_functions(model, [op_type])
    return model


def sparse_weights(shape: tuple[int, ...], group_shape: group_csr.GroupShape, seed: int = 0) -> Floats:
    """Random weights, ``[M, ...]``, with about 30 % of their groups, with empty row blocks."""
    rng = np.random.default_rng(seed)
    (r, c), M, K = group_shape, shape[0], int(np.prod(shape[1:]))
    kept = rng.random((-(-M // r), -(-K // c))) < 0.3
    kept[rng.random(kept.shape[0]) < 0.2] = False
    kept[0, -1] = kept[-1, -1] = True  # the groups that may be padded
    mask = kept.repeat(r, axis=0).repeat(c, axis=1)[:M, :K]
    return np.where(mask, rng.standard_normal((M, K)), 0).astype(np.float32).reshape(shape)


def gemm(
    M: int, K: int, group_shape: group_csr.GroupShape, x_shape: tuple[int, ...], **options: Any
) -> SparseLayer:
    weights = _rounded(sparse_weights((M, K), group_shape), options)
    return SparseLayer(weights, group_shape, x_shape, **_with_bias(M, options))


def conv(
    weight_shape: tuple[int, ...],
    group_shape: group_csr.GroupShape,
    x_shape: tuple[int, ...],
    *,
    strides: Sequence[int] | None = None,
    pads: Sequence[int] | None = None,
    dilations: Sequence[int] | None = None,
    group: int = 1,
    **options: Any,
) -> SparseLayer:
    spatial = len(weight_shape) - 2
    attributes = {
        "strides": list(strides or [1] * spatial),
        "pads": list(pads or [0] * 2 * spatial),
        "dilations": list(dilations or [1] * spatial),
        "group": group,
    }
    weights = _rounded(sparse_weights(weight_shape, group_shape), options)
    return SparseLayer(weights, group_shape, x_shape, conv=attributes, **_with_bias(weight_shape[0], options))


def _scales(M: int) -> Floats:
    """What the weights of each row are multiples of, where they are stored as integers."""
    return (1 + np.arange(M) % 3).astype(np.float32) / 64


def _rounded(weights: Floats, options: dict[str, Any]) -> Floats:
    """The weights as the stored type has them."""
    if options.get("value_type") == "int8":
        scales = _scales(len(weights))[:, np.newaxis]
        return np.clip(np.rint(weights / scales), -127, 127).astype(np.float32) * scales
    return weights.astype(dtype(options.get("value_type", "fp32"))).astype(np.float32)


def _with_bias(M: int, options: dict[str, Any]) -> dict[str, Any]:
    """Replaces ``bias=True`` by a random one."""
    if options.get("bias") is True:
        options["bias"] = np.random.default_rng(1).standard_normal(M).astype(np.float32)
    return options


def _model(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, Dims | None],
    initializers: dict[str, npt.NDArray[Any]],
    opset: int,
    elem_type: int,
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info(name, elem_type, dims) for name, dims in inputs.items()],
        [helper.make_tensor_value_info("y", elem_type, None)],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=helper.find_min_ir_version_for(opsets))
