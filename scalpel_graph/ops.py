"""The operators of domain ``ai.scalpel``: their contract, and each as a function of standard operators.

`GroupCsrGemm` and `GroupCsrConv` multiply by a group-CSR matrix (`scalpel_graph.group_csr`), and so does
`GroupCsrScaledGemm`, whose values are int8, multiples of a scale for each row; `WindowedLrn` has a file of
its own (`scalpel_graph.windowed_lrn`), and so have those of 8-bit networks (`scalpel_graph.qlinear_ops`) and
of microcontrollers (`scalpel_graph.quantized_ops`). Inputs of the first three:

==  ================  ===========================================================================
0   X                 Gemm: ``[..., K]`` float32. Conv: ``[N, C, W]`` or ``[N, C, H, W]`` float32
1   values            ``[n_groups, r, c]`` float32, float16 or bfloat16, an initializer; ScaledGemm: int8
2   row_offsets       ``[ceil(M / r) + 1]`` int32, an initializer
3   column_indices    ``[n_groups]`` uint16 or int32, an initializer
4   bias              ``[M]`` float32, or a scalar 0 where there is none, an initializer
5   residual          float32 of the output's shape, added before the activation; a scalar 0 for none
6   w_scale           ScaledGemm only: ``[M]`` float32, or a scalar, an initializer
==  ================  ===========================================================================

Output: Gemm ``[..., M]``, Conv ``[N, M, ...]``, float32:
``y · gate(y)`` of ``y = clip(X · Wᵀ + bias + residual, activation_min, activation_max)``; of ScaledGemm
``y = clip((X · Wᵀ) · w_scale + bias + residual, activation_min, activation_max)``.

Attributes: ``weight_shape`` (ints, the dense weight's shape: ``[M, K]``, or ``[M, C / group, kernel...]``),
``activation_min``, ``activation_max`` (floats; −inf/+inf: none, 0/+inf: Relu, 0/6: Relu6),
``activation_gate`` (int, a `Gate`), and for Conv ``strides``, ``pads`` (begins, then ends), ``dilations``
(ints) and ``group`` (int) as in ONNX's Conv.
All attributes are required: a function body cannot give one a default that ONNX Runtime 1.17 honours.

Bias and residual are never absent because a function body cannot ask whether an input is there: adding a
scalar 0 is what every runtime knows how to remove. Every other choice in the body is likewise one that
constant folding settles at load: the weight is scattered back into its dense form, and the activation is
picked by ``If`` on constants, so that stock ONNX Runtime is left with one Conv or Gemm, fused as usual.
"""

import math
from collections.abc import Sequence
from enum import IntEnum
from functools import cache

import onnx
from onnx import AttributeProto, FunctionProto, NodeProto, TensorProto, helper

from scalpel_graph import qlinear_ops, quantized_ops, windowed_lrn
from scalpel_graph.function_body import FunctionBody, branch

DOMAIN = "ai.scalpel"
VERSION = 1
GEMM = "GroupCsrGemm"
CONV = "GroupCsrConv"
SCALED_GEMM = "GroupCsrScaledGemm"
LRN = windowed_lrn.OP_TYPE
GROUP_CSR_OPERATORS = (GEMM, CONV, SCALED_GEMM)
OPERATORS = (*GROUP_CSR_OPERATORS, LRN, *qlinear_ops.OPERATORS, *quantized_ops.OPERATORS)

#: The oldest opset whose operators the function bodies use, and the first IR version with functions.
MIN_OPSET = 13
MIN_IR_VERSION = 8


class Gate(IntEnum):
    """What the bounded result ``y`` is multiplied by."""

    NONE = 0
    #: ``clip(y / 6 + 1/2, 0, 1)``
    HARD_SWISH = 1
    #: ``1 / (1 + exp(−y))``
    SILU = 2
    #: ``(1 + erf(y / √2)) / 2``
    GELU = 3


INPUTS = ("X", "values", "row_offsets", "column_indices", "bias", "residual")
_BOUNDS = ("activation_min", "activation_max")
_GATE = "activation_gate"
_CONV_ATTRIBUTES = ("strides", "pads", "dilations", "group")


@cache
def function(op_type: str, opset: int) -> FunctionProto:
    """The operator as a model-local function.

    Args:
        op_type: one of `OPERATORS`.
        opset: the standard opset of the model it goes into, at least `MIN_OPSET`. ONNX Runtime inlines a
            body only into a model of the same opset.

    Raises:
        ValueError: unknown operator, or an older opset.
    """
    if op_type not in OPERATORS:
        raise ValueError(f"{op_type!r} is not an operator of {DOMAIN}")
    if opset < MIN_OPSET:
        raise ValueError(f"{DOMAIN} functions need opset {MIN_OPSET}, not {opset}")
    body = FunctionBody(_ATTRIBUTE_TYPES)
    if op_type == LRN:
        windowed_lrn.write_body(body)
    elif op_type in qlinear_ops.OPERATORS:
        qlinear_ops.write_body(body, op_type, _dense_matrix(body))
    elif op_type in quantized_ops.SPARSE:
        quantized_ops.write_body(body, op_type, _dense_matrix(body))
    elif op_type in quantized_ops.OPERATORS:
        body.from_attribute("weight_shape", "value_ints")
        quantized_ops.write_body(body, op_type, "weight")
    else:
        _write_group_csr_body(body, op_type)
    return helper.make_function(
        DOMAIN,
        op_type,
        inputs(op_type),
        ["Y"],
        body.nodes,
        [helper.make_opsetid("", opset)],
        attributes=_attributes(op_type),
    )


def inputs(op_type: str) -> tuple[str, ...]:
    """What the inputs of an operator are called."""
    if op_type in qlinear_ops.OPERATORS:
        return qlinear_ops.inputs(op_type)
    if op_type in quantized_ops.OPERATORS:
        return quantized_ops.inputs(op_type)
    if op_type == LRN:
        return windowed_lrn.INPUTS
    return (*INPUTS, "w_scale") if op_type == SCALED_GEMM else INPUTS


def is_ours(node: NodeProto) -> bool:
    """Whether a node is one of these operators, with every input and attribute that the contract asks for."""
    return (
        node.domain == DOMAIN
        and node.op_type in OPERATORS
        and len(node.input) == len(inputs(node.op_type))
        and {a.name: a.type for a in node.attribute}
        == {name: _ATTRIBUTE_TYPES[name] for name in _attributes(node.op_type)}
    )


def _write_group_csr_body(body: FunctionBody, op_type: str) -> None:
    # Shape inference has the weight's shape from here: only an attribute's value does it see at every opset.
    matrix = _dense_matrix(body)
    if op_type == SCALED_GEMM:
        column = body.ints("column", [-1, 1])
        matrix = body("Mul", [matrix, body("Reshape", ["w_scale", column], "row_scales")], "scaled_matrix")
    weight = body("Reshape", [matrix, "weight_shape"], "weight")
    if op_type == CONV:
        bias = body("Expand", ["bias", "M"], "bias_of_each_row")
        product = body("Conv", ["X", weight, bias], "product", refs=_CONV_ATTRIBUTES)
    else:
        weight = body("Transpose", [weight], "weight_transposed", perm=[1, 0])
        product = body("Add", [body("MatMul", ["X", weight], "matmul"), "bias"], "product")
    _gate(body, _bounded(body, body("Add", [product, "residual"], "sum")))


def _attributes(op_type: str) -> tuple[str, ...]:
    if op_type == LRN:
        return tuple(windowed_lrn.ATTRIBUTE_TYPES)
    if op_type in qlinear_ops.OPERATORS:
        return qlinear_ops.attributes(op_type)
    if op_type in quantized_ops.OPERATORS:
        return quantized_ops.attributes(op_type)
    return ("weight_shape", *_BOUNDS, _GATE, *(_CONV_ATTRIBUTES if op_type == CONV else ()))


def add_functions(model: onnx.ModelProto, op_types: Sequence[str]) -> None:
    """Makes ``model`` carry the functions and the opset import of the operators it uses, in place.

    A function of the same name that is already there is replaced.
    """
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    kept = [f for f in model.functions if f.domain != DOMAIN or f.name not in op_types]
    del model.functions[:]
    model.functions.extend(kept)
    model.functions.extend(function(op_type, opset) for op_type in sorted(set(op_types)))
    if all(entry.domain != DOMAIN for entry in model.opset_import):
        model.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    model.ir_version = max(model.ir_version, MIN_IR_VERSION)


_ATTRIBUTE_TYPES = {
    "weight_shape": AttributeProto.INTS,
    "activation_min": AttributeProto.FLOAT,
    "activation_max": AttributeProto.FLOAT,
    "activation_gate": AttributeProto.INT,
    "strides": AttributeProto.INTS,
    "pads": AttributeProto.INTS,
    "dilations": AttributeProto.INTS,
    "group": AttributeProto.INT,
    **windowed_lrn.ATTRIBUTE_TYPES,
    **quantized_ops.ATTRIBUTE_TYPES,
    **qlinear_ops.ATTRIBUTE_TYPES,
}


def _dense_matrix(body: FunctionBody) -> str:
    """Decodes the group-CSR inputs into ``W[M, K]``, in time and memory linear in its size."""
    zero, one, two, three = (body.ints(f"ints_{i}", [i]) for i in range(4))
    body.from_attribute("weight_shape", "value_ints")
    M = body("Slice", ["weight_shape", zero, one], "M")
    K_dims = body("Slice", ["weight_shape", one, body.ints("end", [2**31])], "K_dims")
    K = body("ReduceProd", [K_dims], "K", keepdims=1)
    values_shape = body("Shape", ["values"], "values_shape")
    n_groups = body("Slice", [values_shape, zero, one], "n_groups")
    r = body("Slice", [values_shape, one, two], "r")
    c = body("Slice", [values_shape, two, three], "c")
    K_rounded = body("Sub", [body("Add", [K, c], "K_plus_c"), one], "K_rounded")
    column_groups = body("Div", [K_rounded, c], "column_groups")
    row_blocks = body("Sub", [body("Shape", ["row_offsets"], "row_offsets_shape"), one], "row_blocks")

    # The row block of each group: count the row blocks that begin at or before it. Unique gives the counts
    # (ScatterElements cannot add before opset 16). Its unused outputs are named for ONNX Runtime 1.17, which
    # cannot fold a node that leaves one out.
    offsets = body("Cast", ["row_offsets"], "offsets", to=TensorProto.INT64)
    starts = body("Slice", [offsets, one, row_blocks], "starts")
    body.nodes.append(
        helper.make_node(
            "Unique", [starts], ["begins", "begins_first", "begins_inverse", "begins_count"], sorted=1
        )
    )
    n_groups_and_end = body("Add", [n_groups, one], "n_groups_and_end")
    no_begins = body(
        "ConstantOfShape",
        [n_groups_and_end],
        "no_begins",
        value=helper.make_tensor("", TensorProto.INT64, [1], [0]),
    )
    begins_at = body("ScatterElements", [no_begins, "begins", "begins_count"], "begins_at", axis=0)
    axis = body("Constant", [], "axis", value_int=0)
    row_block_or_end = body("CumSum", [begins_at, axis], "row_block_or_end")
    row_block = body("Slice", [row_block_or_end, zero, n_groups], "row_block")

    # Scatter whole groups into zeros, then bring the rows together. Every step from here on writes the whole
    # matrix: loading a model without the operators spends its time here.
    columns = body("Cast", ["column_indices"], "columns", to=TensorProto.INT64)
    minus_one = body.ints("minus_one", [-1])
    place = body(
        "Concat",
        [
            body("Unsqueeze", [row_block, minus_one], "place_row"),
            body("Unsqueeze", [columns, minus_one], "place_column"),
        ],
        "place",
        axis=-1,
    )
    zeros = body(
        "ConstantOfShape",
        [body("Concat", [row_blocks, column_groups, r, c], "blocks_shape", axis=0)],
        "zeros",
        value=helper.make_tensor("", TensorProto.FLOAT, [1], [0.0]),
    )
    values = body("Cast", ["values"], "values_float", to=TensorProto.FLOAT)
    blocks = body("ScatterND", [zeros, place, values], "blocks")
    M_padded = body("Mul", [row_blocks, r], "M_padded")
    K_padded = body("Mul", [column_groups, c], "K_padded")
    joined = body("Transpose", [blocks], "joined", perm=[0, 2, 1, 3])
    padded = body("Reshape", [joined, body("Concat", [M_padded, K_padded], "padded_shape", axis=0)], "padded")
    return body(
        "Slice",
        [
            padded,
            body.ints("origin", [0, 0]),
            body("Concat", [M, K], "shape", axis=0),
            body.ints("both_axes", [0, 1]),
        ],
        "dense_matrix",
    )


def _bounded(body: FunctionBody, x: str) -> str:
    """Nothing, Relu or Clip, by the constants ``activation_min`` and ``activation_max``."""
    low, high = (body.from_attribute(name, "value_float") for name in _BOUNDS)
    infinity = body("Constant", [], "infinity", value_float=float("inf"))
    minus_infinity = body("Constant", [], "minus_infinity", value_float=float("-inf"))
    zero = body("Constant", [], "zero", value_float=0.0)
    no_high = body("Equal", [high, infinity], "no_high")
    no_low = body("Equal", [low, minus_infinity], "no_low")
    low_is_zero = body("Equal", [low, zero], "low_is_zero")
    is_none = body("And", [no_high, no_low], "is_none")
    is_relu = body("And", [no_high, low_is_zero], "is_relu")

    relu = branch("relu", helper.make_node("Relu", [x], ["relu_out"]))
    clip = branch("clip", helper.make_node("Clip", [x, low, high], ["clip_out"]))
    identity = branch("identity", helper.make_node("Identity", [x], ["identity_out"]))
    bounded = branch(
        "bounded", helper.make_node("If", [is_relu], ["bounded_out"], then_branch=relu, else_branch=clip)
    )
    return body("If", [is_none], "y", then_branch=identity, else_branch=bounded)


def _gate(body: FunctionBody, y: str) -> None:
    """Nothing or a product with a `Gate`, by the constant ``activation_gate``; the output is Y."""
    chosen = body.from_attribute(_GATE, "value_int")
    for gate in (Gate.HARD_SWISH, Gate.SILU, Gate.GELU):
        number = body("Constant", [], f"number_{gate.name}", value_int=int(gate))
        body("Equal", [chosen, number], f"is_{gate.name}")
    gelu = branch(
        "gelu",
        helper.make_node("Constant", [], ["root_of_two"], value_float=math.sqrt(2)),
        helper.make_node("Constant", [], ["one"], value_float=1.0),
        helper.make_node("Constant", [], ["half"], value_float=0.5),
        helper.make_node("Div", [y, "root_of_two"], ["deviation"]),
        helper.make_node("Erf", ["deviation"], ["erf"]),
        helper.make_node("Add", ["erf", "one"], ["twice_the_gate"]),
        helper.make_node("Mul", [y, "twice_the_gate"], ["twice"]),
        helper.make_node("Mul", ["twice", "half"], ["gelu_out"]),
    )
    silu = branch(
        "silu",
        helper.make_node("Sigmoid", [y], ["sigmoid"]),
        helper.make_node("Mul", [y, "sigmoid"], ["silu_out"]),
    )
    hard_swish = branch(
        "hard_swish",
        helper.make_node("HardSigmoid", [y], ["hard_sigmoid"], alpha=1 / 6, beta=0.5),
        helper.make_node("Mul", [y, "hard_sigmoid"], ["hard_swish_out"]),
    )
    otherwise = branch("ungated", helper.make_node("Identity", [y], ["ungated_out"]))
    for gate, gated in ((Gate.GELU, gelu), (Gate.SILU, silu)):
        name = f"not_{gate.name}"
        node = helper.make_node(
            "If", [f"is_{gate.name}"], [f"{name}_out"], then_branch=gated, else_branch=otherwise
        )
        otherwise = branch(name, node)
    body("If", ["is_HARD_SWISH"], "Y", then_branch=hard_swish, else_branch=otherwise)
