"""The 8-bit operators of domain ``ai.scalpel`` for CPUs, each also as a function of standard ones.

They multiply 8-bit activations by an int8 group-CSR matrix (`scalpel_graph.group_csr`) and rescale in
float32, as ONNX's QLinearConv does; `scalpel_graph.quantized_ops` has those of microcontrollers, which
rescale by integers. ``T`` is uint8 or int8, the same for all activations of a node.

==========================  ==============================================================================
QLinearGroupCsrConv         X, weight, bias and Y quantized; Conv of 1-D and 2-D images
QLinearGroupCsrConvAdd      the same, then the sum with a quantized residual
QLinearGroupCsrGemm         X, weight, bias and Y quantized; a product over the last dimension
QLinearGroupCsrGemmAdd      the same, then the sum with a quantized residual
GroupCsrConvIntegerToFloat  X quantized, perhaps while the model runs, Y float32; Conv
GroupCsrGemmIntegerToFloat  the same; a product
==========================  ==============================================================================

Inputs; those that are no tensors of activations are initializers, if it is not said otherwise:

==================================  ========================================================================
X                                   ``T``. Gemm: ``[..., K]``. Conv: ``[N, C, W]`` or ``[N, C, H, W]``
x_scale, x_zero_point               scalars, float32 and ``T``. IntegerToFloat: perhaps computed
values                              ``[n_groups, r, c]`` int8
row_offsets, column_indices         as in `scalpel_graph.ops`
w_scale                             ``[M]`` float32, one for each row of the weight, or a scalar
bias                                ``[M]`` int32, at the scale ``x_scale * w_scale``;
                                    IntegerToFloat: ``[M]`` float32
product_scale, product_zero_point   Add only: scalars; what the product is quantized to at first, if it is
residual                            Add: ``T``, of the output's shape; IntegerToFloat: float32, likewise, or a
                                    scalar 0 for none
residual_scale,                     Add only: scalars
residual_zero_point
y_scale, y_zero_point               scalars, float32 and ``T``; not of IntegerToFloat
==================================  ========================================================================

What they compute, every operation that is not of integers in float32, rounding to even where a number becomes
an integer, and saturating where it becomes ``T``::

    acc     = Σ W · (X − x_zero_point) + bias                             in int32, and wraps around
    Y       = quantize(acc · (x_scale · w_scale / y_scale), y_zero_point)
    Add, rounds_product = 1:
    product = quantize(acc · (x_scale · w_scale / product_scale), product_zero_point)
    sum     = (product − product_zero_point) · (product_scale / y_scale)
              + (residual − residual_zero_point) · (residual_scale / y_scale)
    Y       = quantize(sum, y_zero_point)
    Add, rounds_product = 0:
    sum     = acc · (x_scale · w_scale / y_scale)
              + (residual − residual_zero_point) · (residual_scale / y_scale)
    Y       = quantize(sum, y_zero_point)
    IntegerToFloat:
    Y       = (Σ W · (X − x_zero_point)) · (x_scale · w_scale) + bias + residual

    quantize(v, zero_point) = saturate(round(v) + zero_point)

There is no activation: a Relu is what saturation does where ``y_zero_point`` is the least number of ``T``.

A Conv pads with ``x_zero_point``. Attributes, all required: ``weight_shape`` (ints), for Conv ``strides``,
``pads``, ``dilations`` (ints) and ``group`` (int), and for Add ``rounds_product`` (int) and
``residual_first`` (int: 1 if the residual was the first operand of the addition; ONNX Runtime's kernels round
by that order).

The bodies are what ONNX Runtime recognises as its own quantized operators, once the weight is a constant;
that of GroupCsrConvIntegerToFloat, for which it has a slow one and only for uint8, is a Conv of real numbers.
"""

from onnx import AttributeProto, TensorProto, helper

from scalpel_graph.function_body import FunctionBody, branch

CONV = "QLinearGroupCsrConv"
CONV_ADD = "QLinearGroupCsrConvAdd"
CONV_TO_FLOAT = "GroupCsrConvIntegerToFloat"
GEMM = "QLinearGroupCsrGemm"
GEMM_ADD = "QLinearGroupCsrGemmAdd"
GEMM_TO_FLOAT = "GroupCsrGemmIntegerToFloat"
CONVS = (CONV, CONV_ADD, CONV_TO_FLOAT)
OPERATORS = (*CONVS, GEMM, GEMM_ADD, GEMM_TO_FLOAT)
ADDS = (CONV_ADD, GEMM_ADD)
#: What can be added to a residual of integers.
ADDING = (CONV, GEMM)
TO_FLOAT = (CONV_TO_FLOAT, GEMM_TO_FLOAT)

_X = ("X", "x_scale", "x_zero_point", "values", "row_offsets", "column_indices", "w_scale", "bias")
_Y = ("y_scale", "y_zero_point")
_SUM = ("product_scale", "product_zero_point", "residual", "residual_scale", "residual_zero_point")
_INPUTS = {
    **dict.fromkeys(ADDING, (*_X, *_Y)),
    **dict.fromkeys(ADDS, (*_X, *_SUM, *_Y)),
    **dict.fromkeys(TO_FLOAT, (*_X, "residual")),
}

ATTRIBUTE_TYPES = {
    "weight_shape": AttributeProto.INTS,
    "residual_first": AttributeProto.INT,
    "rounds_product": AttributeProto.INT,
    "strides": AttributeProto.INTS,
    "pads": AttributeProto.INTS,
    "dilations": AttributeProto.INTS,
    "group": AttributeProto.INT,
}
_CONV_ATTRIBUTES = ("strides", "pads", "dilations", "group")


def adding(op_type: str) -> str:
    """The operator of the same kind, Conv or product, that adds a residual of integers."""
    return CONV_ADD if op_type in CONVS else GEMM_ADD


def inputs(op_type: str) -> tuple[str, ...]:
    """What the inputs of an operator are called."""
    return _INPUTS[op_type]


def attributes(op_type: str) -> tuple[str, ...]:
    """What the attributes of an operator are called."""
    own = _CONV_ATTRIBUTES if op_type in CONVS else ()
    return ("weight_shape", *own, *(("residual_first", "rounds_product") if op_type in ADDS else ()))


def write_body(body: FunctionBody, op_type: str, matrix: str) -> None:
    """Writes the function's nodes.

    Args:
        body: collects them. The attribute ``weight_shape`` must be there as a constant of that name.
        op_type: one of `OPERATORS`.
        matrix: what the weight ``[M, K]`` is called there, of any element type.
    """
    shaped = body("Reshape", [matrix, "weight_shape"], "weight_any")
    weight = body("Cast", [shaped], "weight", to=TensorProto.INT8)
    if op_type == GEMM_TO_FLOAT:
        _product_to_float(body, weight)
        return
    no_zero_point = helper.make_tensor("", TensorProto.INT8, [1], [0])
    scales_shape = body("Shape", ["w_scale"], "w_scale_shape")
    w_zero_point = body("ConstantOfShape", [scales_shape], "w_zero_point", value=no_zero_point)
    is_conv, x = op_type in CONVS, "X"
    if not is_conv:
        x = body("Flatten", [x], "X_rows", axis=-1)
        weight = body("Transpose", [weight], "weight_columns", perm=[1, 0])
    x = body("DequantizeLinear", [x, "x_scale", "x_zero_point"], "X_float")
    w = body("DequantizeLinear", [weight, "w_scale", w_zero_point], "weight_float", axis=0 if is_conv else 1)
    if op_type == CONV_TO_FLOAT:
        product = body("Conv", [x, w, "bias"], "product", refs=_CONV_ATTRIBUTES)
        body("Add", [product, "residual"], "Y")
        return
    bias_scale = body("Mul", ["x_scale", "w_scale"], "bias_scale")
    bias = body("DequantizeLinear", ["bias", bias_scale], "bias_float", axis=0)
    if is_conv:
        product = body("Conv", [x, w, bias], "product", refs=_CONV_ATTRIBUTES)
    else:
        product = body("Gemm", [x, w, bias], "product")
    if op_type in ADDS:
        body("QuantizeLinear", [_sum(body, product, flat=not is_conv), *_Y], "Y")
    elif is_conv:
        body("QuantizeLinear", [product, *_Y], "Y")
    else:
        _y_shape(body)
        body("Reshape", [body("QuantizeLinear", [product, *_Y], "Y_rows"), "Y_shape"], "Y")


def _sum(body: FunctionBody, product: str, *, flat: bool) -> str:
    """With the residual; which comes first decides how ONNX Runtime rounds.

    What is behind an operator of integers has to be inside the branch with it: it is one only if the next
    DequantizeLinear reads what the last QuantizeLinear made.
    """
    own = ["product_scale", "product_zero_point"]
    rounded = helper.make_node("QuantizeLinear", [product, *own], ["product_rows"])
    shaped = "product_rows"
    as_it_is = helper.make_node("Identity", [product], ["product_as_it_is"])
    reshape = []
    if flat:
        _y_shape(body)
        shaped = "product_shaped"
        reshape = [helper.make_node("Reshape", ["product_rows", "Y_shape"], [shaped])]
        as_it_is = helper.make_node("Reshape", [product, "Y_shape"], ["product_as_it_is"])
    real = helper.make_node("DequantizeLinear", [shaped, *own], ["product_rounded"])
    rounds = body(
        "Cast", [body.from_attribute("rounds_product", "value_int")], "is_rounded", to=TensorProto.BOOL
    )
    product = body(
        "If",
        [rounds],
        "product_to_add",
        then_branch=branch("product_of_integers", rounded, *reshape, real),
        else_branch=branch("product_of_real_numbers", as_it_is),
    )
    other = body("DequantizeLinear", ["residual", "residual_scale", "residual_zero_point"], "residual_float")
    in_order = branch("residual_second", helper.make_node("Add", [product, other], ["sum_in_order"]))
    swapped = branch("residual_first", helper.make_node("Add", [other, product], ["sum_swapped"]))
    first = body.from_attribute("residual_first", "value_int")
    is_first = body("Cast", [first], "is_first", to=TensorProto.BOOL)
    return body("If", [is_first], "sum", then_branch=swapped, else_branch=in_order)


def _y_shape(body: FunctionBody) -> None:
    """``Y_shape``: that of a product, ``[..., M]``."""
    zero, last = body.ints("first_axis", [0]), body.ints("last_axis", [-1])
    batch = body("Slice", [body("Shape", ["X"], "X_shape"), zero, last], "batch")
    M = body("Slice", ["weight_shape", zero, body.ints("second_axis", [1])], "outputs")
    body("Concat", [batch, M], "Y_shape", axis=0)


def _product_to_float(body: FunctionBody, weight: str) -> None:
    columns = body("Transpose", [weight], "weight_columns", perm=[1, 0])
    product = body("MatMulInteger", ["X", columns, "x_zero_point"], "product")
    product = body("Cast", [product], "product_float", to=TensorProto.FLOAT)
    scaled = body("Mul", [product, body("Mul", ["x_scale", "w_scale"], "scale")], "scaled")
    body("Add", [body("Add", [scaled, "bias"], "sum"), "residual"], "Y")
