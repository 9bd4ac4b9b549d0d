"""The integer operators of domain ``ai.scalpel``: their contract, and each as a function of standard ones.

`QGroupCsrGemm` and `QGroupCsrConv` multiply integer activations by an integer group-CSR matrix
(`scalpel_graph.group_csr`), `QGemm` and `QConv` by a dense one; all with the arithmetic of the
microcontroller's kernels (`runtime_ext/cortex_m`), bit for bit::

    acc = bias + Σ W · (clip(X, input_min, input_max) − input_zero_point)      exactly
    Y   = clip(output_zero_point + floor((acc · multiplier + rounding) / 2^shift),
               output_min, output_max)

with ``rounding = 2^(shift − 1)``, or 0 where the shift is 0. Rows of the weight are outputs. Columns of a
Conv's weight run over the kernel first and over the channels last (``kH, kW, C / group``), unlike those of
`GroupCsrConv`: as activations lie in the memory of a microcontroller, so that a group is neighbours there.

Inputs, all but X initializers:

==  =======================================  =========================================================
0   X                                        int16. Gemm: ``[..., K]``; Conv: ``[N, C, W]`` or
                                             ``[N, C, H, W]``
1   values, row_offsets, column_indices      sparse: group-CSR, values int16 or int8
    weight                                   dense: ``[M, K]`` int16 or int8
\\   bias                                     ``[M]`` int64, at the scale of the accumulator
\\   multiplier                               ``[M]`` or ``[1]`` int32, at least 0
\\   shift                                    ``[M]`` or ``[1]`` int32, 0 to 62
==  =======================================  =========================================================

Output: Gemm ``[..., M]``, Conv ``[N, M, ...]``, int16. (Networks of 8 bits are stored so too: their limits
keep every number within 8 bits.)

Attributes: ``weight_shape`` (ints: ``[M, K]``, or ``[M, C / group, kernel...]``), ``input_zero_point``,
``input_min``, ``input_max``, ``output_zero_point``, ``output_min``, ``output_max`` (int), and for Conv
``strides``, ``pads``, ``dilations`` (ints), ``group`` (int). A Conv pads with the input's zero point.

The bodies are exact because doubles hold every sum: ``|acc| < 2^53``. The product with the multiplier is
below 2^63 and computed in int64.
"""

from onnx import AttributeProto, TensorProto, helper

from scalpel_graph.function_body import FunctionBody

GEMM = "QGemm"
CONV = "QConv"
GROUP_CSR_GEMM = "QGroupCsrGemm"
GROUP_CSR_CONV = "QGroupCsrConv"
OPERATORS = (GEMM, CONV, GROUP_CSR_GEMM, GROUP_CSR_CONV)
SPARSE = (GROUP_CSR_GEMM, GROUP_CSR_CONV)

#: The opset that models with these operators have.
OPSET = 17

ATTRIBUTE_TYPES = {
    "weight_shape": AttributeProto.INTS,
    "input_zero_point": AttributeProto.INT,
    "input_min": AttributeProto.INT,
    "input_max": AttributeProto.INT,
    "output_zero_point": AttributeProto.INT,
    "output_min": AttributeProto.INT,
    "output_max": AttributeProto.INT,
    "strides": AttributeProto.INTS,
    "pads": AttributeProto.INTS,
    "dilations": AttributeProto.INTS,
    "group": AttributeProto.INT,
}
_CONV_ATTRIBUTES = ("strides", "pads", "dilations", "group")


def inputs(op_type: str) -> tuple[str, ...]:
    """What the inputs of an operator are called."""
    weight = ("values", "row_offsets", "column_indices") if op_type in SPARSE else ("weight",)
    return ("X", *weight, "bias", "multiplier", "shift")


def attributes(op_type: str) -> tuple[str, ...]:
    """What the attributes of an operator are called."""
    is_conv = op_type in (CONV, GROUP_CSR_CONV)
    return tuple(name for name in ATTRIBUTE_TYPES if is_conv or name not in _CONV_ATTRIBUTES)


def write_body(body: FunctionBody, op_type: str, matrix: str) -> None:
    """Writes the function's nodes.

    Args:
        body: collects them. The attribute ``weight_shape`` must be there as a constant of that name.
        op_type: one of `OPERATORS`.
        matrix: what the weight ``[M, K]`` is called there, of any element type.
    """
    W = body("Cast", [matrix], "weight_double", to=TensorProto.DOUBLE)
    if op_type in (GEMM, GROUP_CSR_GEMM):
        x = _from_zero(body, TensorProto.DOUBLE)
        columns = body("Transpose", [W], "weight_columns", perm=[1, 0])
        _requantize(body, body("MatMul", [x, columns], "products"), ("bias", "multiplier", "shift"), "Y")
    else:
        _conv(body, W)


def _conv(body: FunctionBody, W: str) -> None:
    """Patches of the input, by a Conv whose kernels hold a single one each, then a matrix product.

    float32 holds int16 and int8 less a zero point exactly, and so a sum with one addend that is not 0.
    """
    zero, one, two, end = (
        body.ints(f"int_{name}", [value])
        for name, value in (("zero", 0), ("one", 1), ("two", 2), ("end", 2**31))
    )
    minus_one = body.ints("int_minus_one", [-1])
    kernel = body("Slice", ["weight_shape", two, end], "kernel")
    taps = body("ReduceProd", [kernel], "taps", keepdims=1)
    rows = body("Slice", ["weight_shape", zero, one], "rows")
    channels = body("Slice", ["weight_shape", one, two], "channels_of_group")
    group = body("Unsqueeze", [body.from_attribute("group", "value_int"), zero], "groups")

    x = _from_zero(body, TensorProto.FLOAT)
    x_shape = body("Shape", ["X"], "x_shape")
    batch = body("Slice", [x_shape, zero, one], "batch")
    spatial = body("Slice", [x_shape, two, end], "spatial")
    planes = body(
        "Reshape",
        [x, body("Concat", [minus_one, one, spatial], "planes_shape", axis=0)],
        "planes",
    )
    square = body("Concat", [taps, taps], "square", axis=0)
    none = helper.make_tensor("", TensorProto.FLOAT, [1], [0.0])
    identity = body(
        "EyeLike", [body("ConstantOfShape", [square], "nothing", value=none)], "identity", dtype=1
    )
    ones = body(
        "Reshape", [identity, body("Concat", [taps, one, kernel], "ones_shape", axis=0)], "one_hot_kernels"
    )
    patches = body("Conv", [planes, ones], "patches", refs=("strides", "pads", "dilations"))

    # [N · C, taps, out...] to [N, group, C / group · taps, out]; and the weight to the same order of columns.
    out = body("Slice", [body("Shape", [patches], "patches_shape"), two, end], "out")
    columns = body("Mul", [channels, taps], "patch_columns")
    pixels = body(
        "Reshape",
        [
            body("Cast", [patches], "patches_double", to=TensorProto.DOUBLE),
            body("Concat", [batch, group, columns, minus_one], "pixels_shape", axis=0),
        ],
        "pixels",
    )
    kernels_first = body(
        "Reshape", [W, body("Concat", [rows, taps, channels], "kernels_first_shape", axis=0)], "kernels_first"
    )
    weight = body(
        "Reshape",
        [
            body("Transpose", [kernels_first], "channels_first", perm=[0, 2, 1]),
            body(
                "Concat",
                [group, body("Div", [rows, group], "rows_of_group"), columns],
                "weight_of_groups_shape",
                axis=0,
            ),
        ],
        "weight_of_groups",
    )
    products = body(
        "Reshape",
        [
            body("MatMul", [weight, pixels], "products_of_groups"),
            body("Concat", [batch, rows, minus_one], "rows_shape", axis=0),
        ],
        "products",
    )
    bias, multiplier, shift = (
        body("Unsqueeze", [name, one], f"{name}_column") for name in ("bias", "multiplier", "shift")
    )
    y = _requantize(body, products, (bias, multiplier, shift), "rows_of_y")
    body("Reshape", [y, body("Concat", [batch, rows, out], "y_shape", axis=0)], "Y")


def _from_zero(body: FunctionBody, to: int) -> str:
    """X within its limits, less its zero point."""
    wide = body("Cast", ["X"], "x_wide", to=to)
    low, high, zero_point = (
        body("Cast", [body.from_attribute(name, "value_int")], f"{name}_wide", to=to)
        for name in ("input_min", "input_max", "input_zero_point")
    )
    return body("Sub", [body("Clip", [wide, low, high], "x_limited"), zero_point], "x")


def _requantize(body: FunctionBody, products: str, each: tuple[str, str, str], output: str) -> str:
    """From sums to numbers; ``each`` names bias, multiplier and shift of a row."""
    bias, multiplier, shift = each
    int64 = TensorProto.INT64
    acc = body("Add", [body("Cast", [products], "sums", to=int64), bias], "acc")
    two = body("Constant", [], "two_double", value=helper.make_tensor("", TensorProto.DOUBLE, [], [2.0]))
    exponent = body("Cast", [shift], "shift_double", to=TensorProto.DOUBLE)
    divisor = body("Cast", [body("Pow", [two, exponent], "divisor_double")], "divisor", to=int64)
    half = body("Div", [divisor, body("Constant", [], "int_2", value_int=2)], "rounding")
    scaled = body("Mul", [acc, body("Cast", [multiplier], "multiplier_int64", to=int64)], "scaled")
    rounded = body("Add", [scaled, half], "rounded")
    # Mod has the sign of the divisor: what is left is a multiple of it, and Div rounds nothing.
    multiple = body("Sub", [rounded, body("Mod", [rounded, divisor], "remainder")], "multiple")
    quotient = body("Div", [multiple, divisor], "quotient")
    y = body("Add", [quotient, body.from_attribute("output_zero_point", "value_int")], "y")
    limits = [body.from_attribute(name, "value_int") for name in ("output_min", "output_max")]
    return body("Cast", [body("Clip", [y, *limits], "clipped")], output, to=TensorProto.INT16)
