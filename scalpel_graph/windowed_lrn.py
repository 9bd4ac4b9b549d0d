"""`WindowedLrn` of domain ``ai.scalpel``: its contract, and the operator as a function of standard operators.

Local response normalisation (Krizhevsky et al., 2012; ONNX's LRN), of which each channel says at which others
it looks: neighbours stay neighbours, whatever was removed between them.

    Y[:, c] = X[:, c] / (bias[c] + alpha · Σ X[:, j]²)^beta,    window_begin[c] <= j < window_end[c]

==  ============  ==================================================================
0   X             ``[N, C, ...]`` float32, with at least one spatial dimension
1   window_begin  ``[C]`` int32, an initializer
2   window_end    ``[C]`` int32, an initializer; an empty window has the sum 0
3   bias          ``[C]`` float32, an initializer
==  ============  ==================================================================

Output ``Y``: of the shape of X, float32.

Attributes: ``alpha`` (float, of one channel: what ONNX divides by the size of the window), ``beta`` (float:
0.5, 0.75 or 1), and ``weight_shape`` (ints, ``[C, C, 1, ...]``: of the 1×1 Conv that adds up squares in the
function body).

All channels have one bias in ONNX's LRN. Here each has its own, because a removed channel that was constant
lives on in the sums of its neighbours.
"""

from onnx import AttributeProto, TensorProto, helper

from scalpel_graph.function_body import FunctionBody, branch

OP_TYPE = "WindowedLrn"
INPUTS = ("X", "window_begin", "window_end", "bias")
ATTRIBUTE_TYPES = {
    "weight_shape": AttributeProto.INTS,
    "alpha": AttributeProto.FLOAT,
    "beta": AttributeProto.FLOAT,
}


def write_body(body: FunctionBody) -> None:
    """Writes the function's nodes; the band folds into a constant, the powers to one."""
    s = body("Conv", [body("Mul", ["X", "X"], "squares"), _band(body), "bias"], "s")
    body("Div", ["X", _power(body, s)], "Y")


def _band(body: FunctionBody) -> str:
    """The Conv's weight: ``alpha`` where a channel looks at another, else 0."""
    zero, one = body.ints("ints_0", [0]), body.ints("ints_1", [1])
    body.from_attribute("weight_shape", "value_ints")
    body.from_attribute("alpha", "value_float")
    begin, end = (
        body(
            "Unsqueeze", [body("Cast", [name], f"{name}_int64", to=TensorProto.INT64), one], f"{name}_column"
        )
        for name in INPUTS[1:3]
    )
    first, step = body("Squeeze", [zero], "first"), body("Squeeze", [one], "step")
    C = body("Squeeze", [body("Slice", ["weight_shape", zero, one], "channels_1d")], "channels")
    j = body("Range", [first, C, step], "j")
    # Not GreaterOrEqual, which ONNX Runtime takes apart only when it is done with folding constants.
    not_before = body("Not", [body("Less", [j, begin], "before")], "not_before")
    inside = body("And", [not_before, body("Less", [j, end], "not_after")], "inside")
    nothing = body("Constant", [], "nothing", value_float=0.0)
    return body("Reshape", [body("Where", [inside, "alpha", nothing], "matrix"), "weight_shape"], "band")


def _power(body: FunctionBody, s: str) -> str:
    """``s ^ beta``, of square roots."""
    body.from_attribute("beta", "value_float")
    is_one, is_half = (
        body("Equal", ["beta", body("Constant", [], name, value_float=value)], f"is_{name}")
        for name, value in (("one", 1.0), ("half", 0.5))
    )
    half = branch("half", helper.make_node("Sqrt", [s], ["half_out"]))
    three_quarters = branch(
        "three_quarters",
        helper.make_node("Sqrt", [s], ["root"]),
        helper.make_node("Sqrt", ["root"], ["fourth_root"]),
        helper.make_node("Mul", ["root", "fourth_root"], ["three_quarters_out"]),
    )
    one = branch("one", helper.make_node("Identity", [s], ["one_out"]))
    rooted = branch(
        "rooted",
        helper.make_node("If", [is_half], ["rooted_out"], then_branch=half, else_branch=three_quarters),
    )
    return body("If", [is_one], "power", then_branch=one, else_branch=rooted)
