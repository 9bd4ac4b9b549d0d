"""Layers of the 8-bit operators, and what they compute, step by step in numpy."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from scalpel_graph import group_csr, ops, qlinear_ops

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class QLinearLayer:
    """A node of one of `qlinear_ops.OPERATORS` with random weights.

    Attributes:
        op_type: which.
        weight_shape: ``[M, K]`` or ``[M, C / group, kernel...]``.
        group_shape: ``(r, c)``.
        x_shape: of X.
        dtype: of X, Y and the residual.
        single_scale: whether there is one weight scale for all rows.
        scales: x_scale, y_scale (of those that add the product's), and the residual's and the sum's.
        zero_points: likewise.
        geometry: attributes of a Conv that are not the usual.
        residual_first, rounds_product: of those that add.
        adds: whether IntegerToFloat has a residual.
    """

    op_type: str
    weight_shape: tuple[int, ...]
    group_shape: tuple[int, int]
    x_shape: tuple[int, ...]
    dtype: type[Any] = np.uint8
    single_scale: bool = False
    scales: tuple[float, float, float, float] = (0.02, 0.04, 0.03, 0.05)
    zero_points: tuple[int, int, int, int] = (3, 100, 7, 90)
    geometry: dict[str, Any] = field(default_factory=dict)
    residual_first: bool = False
    rounds_product: bool = True
    adds: bool = False

    def arrays(self) -> dict[str, Array]:
        """The constant inputs by name."""
        rng = np.random.default_rng([len(self.x_shape), *self.weight_shape])
        M, K = self.weight_shape[0], int(np.prod(self.weight_shape[1:]))
        r, c = self.group_shape
        kept = rng.random((-(-M // r), -(-K // c))) < 0.4
        mask = np.kron(kept, np.ones(self.group_shape))[:M, :K]
        weight = (rng.integers(-127, 128, (M, K)) * mask).astype(np.int8)
        matrix = group_csr.encode(weight, self.group_shape)
        steps = np.asarray(0.01, np.float32) if self.single_scale else rng.random(M).astype(np.float32) / 50
        bias = rng.standard_normal(M) * 2000
        to_float = self.op_type in qlinear_ops.TO_FLOAT
        x_scale, product_scale, residual_scale, y_scale = (np.float32(scale) for scale in self.scales)
        x_zero, product_zero, residual_zero, y_zero = (self.dtype(zero) for zero in self.zero_points)
        adds = self.op_type in qlinear_ops.ADDS
        every = {
            "x_scale": x_scale, "x_zero_point": x_zero,
            "values": matrix.values, "row_offsets": matrix.row_offsets,
            "column_indices": matrix.column_indices, "w_scale": steps,
            "bias": bias.astype(np.float32 if to_float else np.int32),
            "product_scale": product_scale, "product_zero_point": product_zero,
            "residual_scale": residual_scale, "residual_zero_point": residual_zero,
            "y_scale": y_scale if adds else product_scale, "y_zero_point": y_zero if adds else product_zero,
        }  # fmt: skip
        if to_float and not self.adds:
            every["residual"] = np.zeros((), np.float32)
        names = qlinear_ops.inputs(self.op_type)
        return {name: np.asarray(every[name]) for name in names if name in every}

    def attributes(self) -> dict[str, Any]:
        spatial = len(self.weight_shape) - 2
        every = {
            "weight_shape": list(self.weight_shape), "strides": [1] * spatial, "pads": [0] * 2 * spatial,
            "dilations": [1] * spatial, "group": 1, "residual_first": int(self.residual_first),
            "rounds_product": int(self.rounds_product), **self.geometry,
        }  # fmt: skip
        return {name: every[name] for name in qlinear_ops.attributes(self.op_type)}

    def model(
        self,
        opset: int = 17,
        arrays: dict[str, Array] | None = None,
        attributes: dict[str, Any] | None = None,
        batch: str | int | None = None,
    ) -> onnx.ModelProto:
        """A model of the layer, with its function."""
        arrays = self.arrays() if arrays is None else arrays
        attributes = self.attributes() if attributes is None else attributes
        to_float = self.op_type in qlinear_ops.TO_FLOAT
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))
        names = qlinear_ops.inputs(self.op_type)
        node = helper.make_node(self.op_type, names, ["Y"], name="layer", domain=ops.DOMAIN, **attributes)
        x_dims = list(self.x_shape) if batch is None else [batch, *self.x_shape[1:]]
        inputs = [helper.make_tensor_value_info("X", kind, x_dims)]
        if self.op_type in qlinear_ops.ADDS:
            dims = [batch or self.x_shape[0], *[f"y{axis}" for axis in range(1, len(self.x_shape))]]
            inputs.append(helper.make_tensor_value_info("residual", kind, dims))
        elif self.adds:
            dims = [*x_dims[:-1], self.weight_shape[0]]
            if self.op_type == qlinear_ops.CONV_TO_FLOAT:
                dims = [x_dims[0], *[f"y{axis}" for axis in range(1, len(self.x_shape))]]
            inputs.append(helper.make_tensor_value_info("residual", TensorProto.FLOAT, dims))
        y_dims = [f"out{axis}" for axis in range(len(self.x_shape))]
        output = helper.make_tensor_value_info("Y", TensorProto.FLOAT if to_float else kind, y_dims)
        tensors = [numpy_helper.from_array(value, name) for name, value in arrays.items()]
        graph = helper.make_graph([node], "layer", inputs, [output], tensors)
        imports = [helper.make_opsetid("", opset), helper.make_opsetid(ops.DOMAIN, ops.VERSION)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=8)
        ops.add_functions(model, [self.op_type])
        onnx.checker.check_model(model, full_check=True)
        return model

    def feeds(self) -> dict[str, Array]:
        """X, and the residual where there is one."""
        rng = np.random.default_rng(list(self.x_shape))
        limits = np.iinfo(self.dtype)
        feeds = {"X": rng.integers(limits.min, limits.max + 1, self.x_shape).astype(self.dtype)}
        if self.op_type in qlinear_ops.ADDS:
            shape = self.sums(feeds["X"]).shape
            feeds["residual"] = rng.integers(limits.min, limits.max + 1, shape).astype(self.dtype)
        elif self.adds:
            feeds["residual"] = rng.standard_normal(self.sums(feeds["X"]).shape).astype(np.float32)
        return feeds

    def sums(self, X: Array) -> Array:
        """``Σ W · (X − x_zero_point)``, exactly."""
        arrays = self.arrays()
        shape = (self.weight_shape[0], int(np.prod(self.weight_shape[1:])))
        matrix = group_csr.GroupCsr(arrays["values"], arrays["row_offsets"], arrays["column_indices"], shape)
        W = group_csr.decode(matrix).astype(np.float64)
        centred = X.astype(np.float64) - int(arrays["x_zero_point"])
        if len(self.weight_shape) == 2:
            return np.asarray(centred @ W.T).astype(np.int64)
        conv = {
            key: value
            for key, value in self.attributes().items()
            if key in ("strides", "pads", "dilations", "group")
        }
        graph = helper.make_graph(
            [helper.make_node("Conv", ["X", "W"], ["Y"], **conv)],
            "sums",
            [helper.make_tensor_value_info("X", TensorProto.DOUBLE, list(X.shape))],
            [helper.make_tensor_value_info("Y", TensorProto.DOUBLE, None)],
            [numpy_helper.from_array(W.reshape(self.weight_shape), "W")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        found = ReferenceEvaluator(model).run(None, {"X": centred})[0]
        return np.asarray(np.rint(found)).astype(np.int64)

    def expected(self, feeds: dict[str, Array]) -> Array:
        """Y, by the formulas of `qlinear_ops`, every step rounded to float32."""
        arrays = self.arrays()
        limits = np.iinfo(self.dtype)

        def quantize(scaled: Array, zero_point: Array) -> Array:
            whole = np.rint(scaled).astype(np.int64) + int(zero_point)
            return np.clip(whole, limits.min, limits.max)

        is_conv = len(self.weight_shape) > 2
        by_row = (-1, *[1] * (len(self.weight_shape) - 2)) if is_conv else (-1,)
        M = self.weight_shape[0]
        steps = np.broadcast_to(arrays["w_scale"], (M,)).reshape(by_row)
        bias = arrays["bias"].reshape(by_row)
        sums = self.sums(feeds["X"])
        if self.op_type in qlinear_ops.TO_FLOAT:
            product = sums.astype(np.float32) * (arrays["x_scale"] * steps) + bias
            return np.asarray(product + feeds["residual"] if self.adds else product)
        adds = self.op_type in qlinear_ops.ADDS
        own, own_zero = (arrays[f"{'product' if adds else 'y'}_{what}"] for what in ("scale", "zero_point"))
        scaled = (sums + bias).astype(np.float32) * (arrays["x_scale"] * steps / own)
        Y = quantize(scaled, own_zero)
        if adds:
            product = (Y - int(own_zero)).astype(np.float32) * (own / arrays["y_scale"])
            if not self.rounds_product:
                product = (sums + bias).astype(np.float32) * (arrays["x_scale"] * steps / arrays["y_scale"])
            other = feeds["residual"].astype(np.int64) - int(arrays["residual_zero_point"])
            sum_ = product + other.astype(np.float32) * (arrays["residual_scale"] / arrays["y_scale"])
            Y = quantize(sum_, arrays["y_zero_point"])
        return Y.astype(self.dtype)
