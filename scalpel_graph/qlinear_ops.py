"""The 8-bit operators of domain ``ai.scalpel`` for CPUs, each also as a function of standard ones.

They multiply 8-bit activations by an int8 group-CSR matrix (`scalpel_graph.group_csr`) and rescale in
float32, as ONNX's QLinearConv does; `scalpel_graph.quantized_ops` has those of microcontrollers, which
rescale by integers. ``T`` is uint8 or int8, the same for all activations of a node.

==========================  ==============================================================================
QLinearGroupCsrConv         X, weight, bias and Y quantized; Conv of 1-D and 2-D images
QLinearGroupCsrConvAdd      the same, then the sum with a quantized residual
QLinearGroupCsrGemm         X, weight, bias and Y quantized; a product over the last dimension
GroupCsrIntegerToFloat      X quantized, perhaps while the model runs, Y float32; a product likewise
==========================  ==============================================================================

Inputs; those that are no tensors of activations are initializers, if it is not said otherwise:

==================================  ========================================================================
X                                   ``T``. Gemm: ``[..., K]``. Conv: ``[N, C, W]`` or ``[N, C, H, W]``
x_scale, x_zero_point               scalars, float32 and ``T``. GroupCsrIntegerToFloat: perhaps computed
values                              ``[n_groups, r, c]`` int8
row_offsets, column_indices         as in `scalpel_graph.ops`
w_scale                             ``[M]`` float32, one for each row of the weight, or a scalar
bias                                ``[M]`` int32, at the scale ``x_scale * w_scale``;
                                    GroupCsrIntegerToFloat: ``[M]`` float32
product_scale, product_zero_point   ConvAdd only: scalars; what the convolution is quantized to at first
residual                            ConvAdd: ``T``, of the output's shape; GroupCsrIntegerToFloat: float32,
                                    likewise, or a scalar 0 for none
residual_scale,                     ConvAdd only: scalars
residual_zero_point
y_scale, y_zero_point               scalars, float32 and ``T``; not of GroupCsrIntegerToFloat
==================================  ========================================================================

What they compute, every operation that is not of integers in float32, rounding to even where a number becomes
an integer, and saturating where it becomes ``T``::

    acc     = Σ W · (X − x_zero_point) + bias                             in int32, and wraps around
    Y       = quantize(acc · (x_scale · w_scale / y_scale), y_zero_point)
    ConvAdd:
    product = quantize(acc · (x_scale · w_scale / product_scale), product_zero_point)
    sum     = (product − product_zero_point) · (product_scale / y_scale)
              + (residual − residual_zero_point) · (residual_scale / y_scale)
    Y       = quantize(sum, y_zero_point)
    GroupCsrIntegerToFloat:
    Y       = (Σ W · (X − x_zero_point)) · (x_scale · w_scale) + bias + residual

    quantize(v, zero_point) = saturate(round(v) + zero_point)

There is no activation: a Relu is what saturation does where ``y_zero_point`` is the least number of ``T``.

A Conv pads with ``x_zero_point``. Attributes, all required: ``weight_shape`` (ints), for Conv ``strides``,
``pads``, ``dilations`` (ints) and ``group`` (int), and for ConvAdd ``residual_first`` (int: 1 if the residual
was the first operand of the addition; ONNX Runtime's kernels round by that order).

The bodies are what ONNX Runtime recognises as its own quantized operators, once the weight is a constant.
"""

from onnx import AttributeProto, TensorProto, helper

from scalpel_graph.function_body import FunctionBody, branch

CONV = "QLinearGroupCsrConv"
CONV_ADD = "QLinearGroupCsrConvAdd"
GEMM = "QLinearGroupCsrGemm"
TO_FLOAT = "GroupCsrIntegerToFloat"
OPERATORS = (CONV, CONV_ADD, GEMM, TO_FLOAT)
CONVS = (CONV, CONV_ADD)

_X = ("X", "x_scale", "x_zero_point", "values", "row_offsets", "column_indices", "w_scale", "bias")
_Y = ("y_scale", "y_zero_point")
_SUM = ("product_scale", "product_zero_point", "residual", "residual_scale", "residual_zero_point")
_INPUTS = {CONV: (*_X, *_Y), CONV_ADD: (*_X, *_SUM, *_Y), GEMM: (*_X, *_Y), TO_FLOAT: (*_X, "residual")}

ATTRIBUTE_TYPES = {
    "weight_shape": AttributeProto.INTS,
    "residual_first": AttributeProto.INT,
    "strides": AttributeProto.INTS,
    "pads": AttributeProto.INTS,
    "dilations": AttributeProto.INTS,
    "group": AttributeProto.INT,
}
_CONV_ATTRIBUTES = ("strides", "pads", "dilations", "group")


def inputs(op_type: str) -> tuple[str, ...]:
    """What the inputs of an operator are called."""
    return _INPUTS[op_type]


def attributes(op_type: str) -> tuple[str, ...]:
    """What the attributes of an operator are called."""
    if op_type not in CONVS:
        return ("weight_shape",)
    return ("weight_shape", *_CONV_ATTRIBUTES, *(("residual_first",) if op_type == CONV_ADD else ()))


def write_body(body: FunctionBody, op_type: str, matrix: str) -> None:
    """Writes the function's nodes.

    Args:
        body: collects them. The attribute ``weight_shape`` must be there as a constant of that name.
        op_type: one of `OPERATORS`.
        matrix: what the weight ``[M, K]`` is called there, of any element type.
    """
    shaped = body("Reshape", [matrix, "weight_shape"], "weight_any")
    weight = body("Cast", [shaped], "weight", to=TensorProto.INT8)
    if op_type == TO_FLOAT:
        _to_float(body, weight)
        return
    no_zero_point = helper.make_tensor("", TensorProto.INT8, [1], [0])
    scales_shape = body("Shape", ["w_scale"], "w_scale_shape")
    w_zero_point = body("ConstantOfShape", [scales_shape], "w_zero_point", value=no_zero_point)
    bias_scale = body("Mul", ["x_scale", "w_scale"], "bias_scale")
    bias = body("DequantizeLinear", ["bias", bias_scale], "bias_float", axis=0)
    if op_type == GEMM:
        flat = body("Flatten", ["X"], "X_rows", axis=-1)
        x = body("DequantizeLinear", [flat, "x_scale", "x_zero_point"], "X_float")
        columns = body("Transpose", [weight], "weight_columns", perm=[1, 0])
        w = body("DequantizeLinear", [columns, "w_scale", w_zero_point], "weight_float", axis=1)
        product = body("Gemm", [x, w, bias], "product")
        zero, last = body.ints("first_axis", [0]), body.ints("last_axis", [-1])
        batch = body("Slice", [body("Shape", ["X"], "X_shape"), zero, last], "batch")
        M = body("Slice", ["weight_shape", zero, body.ints("second_axis", [1])], "outputs")
        y_shape = body("Concat", [batch, M], "Y_shape", axis=0)
        rows = body("QuantizeLinear", [product, *_Y], "Y_rows")
        body("Reshape", [rows, y_shape], "Y")
        return
    x = body("DequantizeLinear", ["X", "x_scale", "x_zero_point"], "X_float")
    w = body("DequantizeLinear", [weight, "w_scale", w_zero_point], "weight_float", axis=0)
    product = body("Conv", [x, w, bias], "product", refs=_CONV_ATTRIBUTES)
    if op_type == CONV_ADD:
        own = ["product_scale", "product_zero_point"]
        quantized = body("QuantizeLinear", [product, *own], "product_quantized")
        product = body("DequantizeLinear", [quantized, *own], "product_rounded")
        other = body(
            "DequantizeLinear", ["residual", "residual_scale", "residual_zero_point"], "residual_float"
        )
        # Which comes first decides how ONNX Runtime rounds the sum.
        in_order = branch("residual_second", helper.make_node("Add", [product, other], ["sum_in_order"]))
        swapped = branch("residual_first", helper.make_node("Add", [other, product], ["sum_swapped"]))
        first = body.from_attribute("residual_first", "value_int")
        is_first = body("Cast", [first], "is_first", to=TensorProto.BOOL)
        product = body("If", [is_first], "sum", then_branch=swapped, else_branch=in_order)
    body("QuantizeLinear", [product, *_Y], "Y")


def _to_float(body: FunctionBody, weight: str) -> None:
    columns = body("Transpose", [weight], "weight_columns", perm=[1, 0])
    product = body("MatMulInteger", ["X", columns, "x_zero_point"], "product")
    product = body("Cast", [product], "product_float", to=TensorProto.FLOAT)
    scaled = body("Mul", [product, body("Mul", ["x_scale", "w_scale"], "scale")], "scaled")
    body("Add", [body("Add", [scaled, "bias"], "sum"), "residual"], "Y")
