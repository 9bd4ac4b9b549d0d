import numpy as np
import pytest
from onnx import ModelProto, TensorProto, helper, numpy_helper

from scalpel_graph import group_csr, ops
from scalpel_graph.stats import Size, measure


def model(nodes, inputs, outputs, weights, opset=17) -> ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def floats(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.mark.parametrize(
    ("node", "x", "weight", "macs"),
    [
        # 4 x 4 outputs of 8 channels, each 3 x 3 x 3 products
        (helper.make_node("Conv", ["x", "w"], ["y"]), [1, 3, 6, 6], (8, 3, 3, 3), 16 * 8 * 27),
        # grouped: each output reads 2 of the 4 channels; stride 2 halves the size
        (
            helper.make_node("Conv", ["x", "w"], ["y"], group=2, strides=[2, 2], pads=[1, 1, 1, 1]),
            [2, 4, 8, 8],
            (6, 2, 3, 3),
            2 * 16 * 6 * 18,
        ),
        (helper.make_node("Conv", ["x", "w"], ["y"]), [1, 3, 10], (8, 3, 3), 8 * 8 * 9),
        # every input element is scattered to 5 x 2 x 2 outputs
        (
            helper.make_node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2]),
            [1, 3, 4, 4],
            (3, 5, 2, 2),
            48 * 20,
        ),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transB=1), [7, 10], (4, 10), 7 * 10 * 4),
        (helper.make_node("Gemm", ["x", "w"], ["y"], transA=1), [10, 7], (10, 4), 7 * 10 * 4),
        (helper.make_node("MatMul", ["x", "w"], ["y"]), [2, 3, 10], (10, 4), 2 * 3 * 10 * 4),
        (helper.make_node("Mul", ["x", "w"], ["y"]), [2, 3], (2, 3), 0),
    ],
)
def test_macs_of_one_node(node, x, weight, macs):
    size = measure(model([node], {"x": x}, ["y"], {"w": floats(*weight)}), {})
    assert size == Size(parameters=int(np.prod(weight)), macs=macs)


@pytest.mark.parametrize(("op", "gates"), [("LSTM", 4), ("GRU", 3), ("RNN", 1)])
@pytest.mark.parametrize(("direction", "directions"), [("forward", 1), ("bidirectional", 2)])
def test_macs_of_recurrent_layers(op, gates, direction, directions):
    """In 7 steps of 2 sequences every gate of 5 units reads 3 features and 5 units."""
    node = helper.make_node(op, ["x", "w", "r"], ["y"], hidden_size=5, direction=direction)
    weights = {"w": floats(directions, gates * 5, 3), "r": floats(directions, gates * 5, 5)}
    size = measure(model([node], {"x": [7, 2, 3]}, ["y"], weights), {})
    assert size.macs == 7 * 2 * directions * gates * 5 * (3 + 5)


def test_symbols_get_the_sizes_given_and_else_one():
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("GlobalAveragePool", ["h"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "v"], ["y"]),
    ]
    proto = model(
        nodes, {"x": ["batch", 3, "side", "side"]}, ["y"], {"w": floats(8, 3, 3, 3), "v": floats(8, 5)}
    )
    assert measure(proto, {}).macs == 1 * 8 * 27 + 8 * 5
    assert measure(proto, {"batch": 2, "side": 10}).macs == 2 * (100 * 8 * 27 + 8 * 5)


def test_a_model_is_measured_without_changing_it():
    proto = model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": ["n", 4]}, ["y"], {"w": floats(4, 2)}
    )
    before = proto.SerializeToString()
    measure(proto, {"n": 3})
    assert proto.SerializeToString() == before


def test_weights_in_constants_and_subgraphs_count_and_integers_do_not():
    then = helper.make_graph(
        [helper.make_node("Add", ["x", "inner"], ["t"])],
        "then",
        [],
        [helper.make_tensor_value_info("t", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(floats(5), "inner")],
    )
    other = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["e"])],
        "else",
        [],
        [helper.make_tensor_value_info("e", TensorProto.FLOAT, None)],
    )
    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(floats(7), "")),
        helper.make_node("If", ["cond"], ["b"], then_branch=then, else_branch=other),
    ]
    weights = {"cond": np.array(True), "half": floats(3).astype(np.float16), "ids": np.arange(100)}
    assert measure(model(nodes, {"x": [5]}, ["b"], weights), {}) == Size(parameters=5 + 7 + 3, macs=0)


@pytest.mark.parametrize("is_conv", [False, True])
def test_a_group_csr_matrix_counts_what_it_stores(is_conv):
    weight = np.zeros((6, 12), np.float32)
    weight[0, 0] = weight[3, 5] = weight[5, 11] = 1
    matrix = group_csr.encode(weight, (1, 4))
    arrays = {
        "values": matrix.values,
        "row_offsets": matrix.row_offsets,
        "column_indices": matrix.column_indices,
        "bias": np.zeros(6, np.float32),
        "residual": np.float32(0),
    }
    attributes = {"activation_min": -np.inf, "activation_max": np.inf, "activation_gate": 0}
    if is_conv:
        attributes |= {
            "weight_shape": [6, 3, 2, 2],
            "strides": [1, 1],
            "pads": [0, 0, 0, 0],
            "dilations": [1, 1],
            "group": 1,
        }
    else:
        attributes |= {"weight_shape": [6, 12]}
    node = helper.make_node(
        ops.CONV if is_conv else ops.GEMM, ["x", *arrays], ["h"], domain=ops.DOMAIN, **attributes
    )
    # The layer after it is counted as well: shapes are known beyond our operators.
    after = helper.make_node("Conv" if is_conv else "MatMul", ["h", "w"], ["y"])
    x, dense, positions, dense_macs = (
        (["n", 3, 5, 5], (2, 6, 1, 1), 16, 2 * 16 * 2 * 6) if is_conv else (["n", 12], (6, 2), 1, 2 * 6 * 2)
    )
    proto = model([node, after], {"x": x}, ["y"], {**arrays, "w": floats(*dense)})
    ops.add_functions(proto, [node.op_type])
    size = measure(proto, {"n": 2})
    assert size.macs == 2 * positions * 3 * 4 + dense_macs
    assert size.parameters == 3 * 4 + 6 + 1 + 12


def test_shapes_that_cannot_be_inferred_count_nothing():
    nodes = [
        helper.make_node("Mystery", ["x"], ["h"], domain="com.example"),
        helper.make_node("MatMul", ["h", "w"], ["y"]),
    ]
    proto = model(nodes, {"x": [1, 4]}, ["y"], {"w": floats(4, 2)})
    proto.opset_import.append(helper.make_opsetid("com.example", 1))
    assert measure(proto, {}) == Size(parameters=8, macs=0)


@pytest.mark.parametrize(
    "node",
    [
        helper.make_node("MatMul", ["scalar", "w"], ["y"]),
        helper.make_node("Conv", ["x"], ["y"]),
        helper.make_node(ops.GEMM, ["x"], ["y"], domain=ops.DOMAIN),
    ],
)
def test_nodes_that_are_not_valid_count_nothing(node):
    proto = model([node], {"x": [1, 4], "scalar": []}, ["y"], {"w": floats(4, 2)})
    proto.graph.output[0].type.tensor_type.shape.dim.add(dim_value=2)
    assert measure(proto, {}) == Size(parameters=8, macs=0)


def test_integer_layers_count_like_those_of_floats():
    """Weights, biases and scales are parameters; zero points are not."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "s", "i", "t", "z", "b"], ["c"]),
        helper.make_node(
            "QLinearAdd", ["c", "t", "z", "c", "t", "z", "t", "z"], ["a"], domain="com.microsoft"
        ),
        helper.make_node("ConvInteger", ["a", "v", "z", "i"], ["d"]),
        helper.make_node("Cast", ["d"], ["e"], to=TensorProto.FLOAT),
        helper.make_node("DequantizeLinear", ["u", "s", "i"], ["f"]),
        helper.make_node("MatMul", ["e", "f"], ["y"]),
    ]
    weights = {
        "s": np.float32(1), "t": np.float32(1), "z": np.uint8(3), "i": np.int8(1),
        "w": np.ones((8, 3, 3, 3), np.int8), "b": np.ones(8, np.int32),
        "v": np.ones((4, 8, 1, 1), np.int8), "u": np.ones((4, 5), np.int8),
    }  # fmt: skip
    proto = model(nodes, {"x": [1, 3, 6, 6]}, ["y"], weights)
    proto.opset_import.add(domain="com.microsoft", version=1)
    assert measure(proto, {}) == Size(
        parameters=8 * 27 + 8 + 4 * 8 + 4 * 5 + 2,
        macs=16 * (8 * 27 + 4 * 8) + 4 * 4 * 4 * 5,
    )


def test_integer_layers_of_microcontrollers_count_weights_and_biases():
    """Not offsets, indices, multipliers and shifts; QGemm of another domain has its inputs elsewhere."""
    sparse = ["x", "values", "offsets", "indices", "bias", "multiplier", "shift"]
    nodes = [
        helper.make_node("QGroupCsrGemm", sparse, ["h"], domain=ops.DOMAIN),
        helper.make_node("QGemm", ["h", "w", "wide", "multiplier", "shift"], ["y"], domain=ops.DOMAIN),
    ]
    weights = {
        "values": np.ones((5, 1, 2), np.int16), "offsets": np.zeros(9, np.int32),
        "indices": np.zeros(5, np.uint16), "bias": np.zeros(8, np.int64), "multiplier": np.ones(1, np.int32),
        "shift": np.zeros(1, np.int32), "w": np.ones((3, 8), np.int16), "wide": np.zeros(3, np.int64),
    }  # fmt: skip
    proto = model(nodes, {"x": [1, 6]}, ["y"], weights)
    proto.opset_import.add(domain=ops.DOMAIN, version=1)
    assert measure(proto, {}).parameters == 5 * 2 + 8 + 3 * 8 + 3
