import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from models import NETWORKS
from models.bert import bert
from models.mobilenet import mobilenet_v1
from models.resnet import resnet50
from scalpel_graph import group_csr
from scalpel_graph.errors import InputError
from scalpel_graph.pruning import MagnitudeResult, WeightLayer, prune_magnitude, weight_layers
from scalpel_graph.pruning.importance import zero_least_important

SHAPES = [(1, 8), (8, 1), (4, 1), (1, 1), (3, 5)]


def normal(*shape: int, dtype: type = np.float32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def make_model(nodes, initializers, inputs, outputs) -> onnx.ModelProto:
    """``initializers``: arrays by name; ``inputs``: shapes by name; ``outputs``: names."""
    elem_type = helper.np_dtype_to_tensor_dtype(next(iter(initializers.values())).dtype)
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info(name, elem_type, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(name, elem_type, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in initializers.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def matmul_model(weights: np.ndarray) -> onnx.ModelProto:
    node = helper.make_node("MatMul", ["x", "w"], ["y"], name="fc")
    return make_model([node], {"w": weights}, {"x": ["n", weights.shape[0]]}, ["y"])


def constants(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            found[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return found


def matrices(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """``W[M, K]`` of each layer, by the name of its node."""
    found = constants(model)
    return {
        layer.name: layer.matrix(found[layer.weight])
        for layer in weight_layers(model)
        if isinstance(layer, WeightLayer)
    }


def reasons(result: MagnitudeResult) -> dict[str, str]:
    return {layer.name: layer.reason for layer in result.layers if not layer.pruned}


def pruned_names(result: MagnitudeResult) -> set[str]:
    return {layer.name for layer in result.layers if layer.pruned}


def run(model: onnx.ModelProto, **feeds: np.ndarray) -> list[np.ndarray]:
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


SMALL_NETWORKS = {
    "lenet-5": NETWORKS["lenet-5"].build,
    "nin": NETWORKS["nin"].build,
    "resnet": lambda: resnet50(blocks=(1, 1), width=16, image=32, classes=10),
    "mobilenet": lambda: mobilenet_v1(image=32, classes=10),
    "bert": lambda: bert(layers=2, hidden=32, intermediate=64, heads=4, tokens=8),
}


@pytest.mark.parametrize("group_shape", SHAPES)
@pytest.mark.parametrize("sparsity", [0.5, 0.9, 0.95])
@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_density_of_every_layer_is_exact(name, sparsity, group_shape):
    model = SMALL_NETWORKS[name]()
    result = prune_magnitude(model, sparsity, group_shape)
    before, after = matrices(model), matrices(result.model)
    assert pruned_names(result)
    for layer in result.layers:
        if not layer.pruned:
            assert layer.density is None
            if layer.name in before:
                np.testing.assert_array_equal(before[layer.name], after[layer.name])
            continue
        (M, K), (r, c) = before[layer.name].shape, group_shape
        n_groups = -(-M // r) * -(-K // c)
        kept = n_groups - int(sparsity * n_groups + 1e-6)
        assert group_csr.encode(after[layer.name], group_shape).n_groups == kept
        assert layer.density == pytest.approx(kept / n_groups)
        still = after[layer.name] != 0
        np.testing.assert_array_equal(after[layer.name][still], before[layer.name][still])


def test_model_is_otherwise_the_same_and_the_callers_is_untouched():
    model = SMALL_NETWORKS["resnet"]()
    model.doc_string = "kept"
    model.metadata_props.add(key="author", value="someone")
    model.graph.initializer[0].doc_string = "kept too"
    before = model.SerializeToString()
    pruned = prune_magnitude(model, 0.9, (4, 1)).model
    assert model.SerializeToString() == before
    assert pruned.SerializeToString() != before
    for theirs, ours in zip(pruned.graph.initializer, model.graph.initializer, strict=True):
        theirs.raw_data = ours.raw_data
    assert pruned.SerializeToString() == before
    onnx.checker.check_model(pruned, full_check=True)


def test_is_deterministic():
    model = SMALL_NETWORKS["bert"]()
    first, second = (prune_magnitude(model, 0.8, (1, 8)) for _ in range(2))
    assert first.model.SerializeToString() == second.model.SerializeToString()
    assert first.layers == second.layers


def test_pruning_again_at_the_same_sparsity_changes_nothing():
    once = prune_magnitude(SMALL_NETWORKS["lenet-5"](), 0.9, (1, 8)).model
    assert prune_magnitude(once, 0.9, (1, 8)).model.SerializeToString() == once.SerializeToString()


@pytest.mark.parametrize("importance", ["rms", "mean", "max"])
def test_importance_is_passed_on(importance):
    weights = normal(12, 20)
    pruned = matrices(prune_magnitude(matmul_model(weights), 0.7, (2, 4), importance=importance).model)["fc"]
    np.testing.assert_array_equal(pruned, zero_least_important(weights.T, (2, 4), 0.7, importance))


class TestOrientation:
    """Rows of groups are outputs, whichever way the operator stores them."""

    ROWS = np.array([[1, 2, 3, 4], [9, 9, 9, 9], [5, 6, 7, 8]], np.float32)

    def check(self, model):
        got = matrices(prune_magnitude(model, 0.34, (1, 4)).model)["fc"]
        np.testing.assert_array_equal(got, self.ROWS * [[0], [1], [1]])

    def gemm(self, weights, trans_b):
        node = helper.make_node("Gemm", ["x", "w"], ["y"], name="fc", alpha=0.1, **trans_b)
        return make_model([node], {"w": weights}, {"x": ["n", 4]}, ["y"])

    def test_matmul(self):
        self.check(matmul_model(np.ascontiguousarray(self.ROWS.T)))

    def test_gemm_stores_inputs_by_outputs(self):
        self.check(self.gemm(np.ascontiguousarray(self.ROWS.T), {}))
        self.check(self.gemm(np.ascontiguousarray(self.ROWS.T), {"transB": 0}))

    def test_gemm_with_transb_stores_outputs_by_inputs(self):
        self.check(self.gemm(self.ROWS, {"transB": 1}))

    @pytest.mark.parametrize("shape", [(3, 4, 1), (3, 1, 2, 2), (3, 2, 1, 2), (3, 1, 1, 2, 2)])
    def test_conv_counts_columns_over_channels_and_kernel(self, shape):
        node = helper.make_node("Conv", ["x", "w"], ["y"], name="fc")
        x_shape = ["n", shape[1], *[8] * (len(shape) - 2)]
        self.check(make_model([node], {"w": self.ROWS.reshape(shape)}, {"x": x_shape}, ["y"]))


class TestGroupedConv:
    def model(self, out_channels, in_per_group, group):
        node = helper.make_node("Conv", ["x", "w"], ["y"], name="conv", group=group)
        weights = normal(out_channels, in_per_group, 3, 3)
        return make_model([node], {"w": weights}, {"x": ["n", in_per_group * group, 8, 8]}, ["y"])

    def test_row_blocks_that_divide_a_group(self):
        result = prune_magnitude(self.model(12, 2, 3), 0.5, (4, 1))
        assert result.layers[0].density == 0.5

    def test_row_blocks_that_would_straddle(self):
        model = self.model(12, 2, 3)
        result = prune_magnitude(model, 0.5, (8, 1))
        assert reasons(result) == {"conv": "blocks of 8 rows do not divide the 4 channels of a group"}
        assert result.model.SerializeToString() == model.SerializeToString()

    def test_rows_of_one_group_may_be_padded(self):
        assert prune_magnitude(self.model(10, 2, 1), 0.5, (4, 1)).layers[0].density == 0.5

    def test_depthwise_is_left_unless_asked_for(self):
        model = self.model(6, 1, 6)
        assert reasons(prune_magnitude(model, 0.5, (1, 1))) == {
            "conv": "depthwise: it has few weights to spare"
        }
        assert prune_magnitude(model, 0.5, (1, 1), depthwise=True).layers[0].density == 0.5


@pytest.mark.parametrize(
    "elem_type", [TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BFLOAT16]
)
def test_every_floating_point_type(elem_type):
    dtype = helper.tensor_dtype_to_np_dtype(elem_type)
    weights = normal(16, 16).astype(dtype)
    result = prune_magnitude(matmul_model(weights), 0.75, (1, 8))
    (tensor,) = result.model.graph.initializer
    assert tensor.data_type == elem_type
    expected = zero_least_important(weights.astype(np.float64).T, (1, 8), 0.75).T
    np.testing.assert_array_equal(numpy_helper.to_array(tensor).astype(np.float64), expected)


def test_weights_stored_field_by_field():
    weights = normal(8, 4)
    model = matmul_model(weights)
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, (8, 4), weights.ravel()))
    got = matrices(prune_magnitude(model, 0.5, (1, 1)).model)["fc"]
    np.testing.assert_array_equal(got, zero_least_important(weights.T, (1, 1), 0.5))


def test_weights_in_a_constant_node():
    weights = normal(8, 4)
    nodes = [
        helper.make_node("Constant", [], ["w"], value=numpy_helper.from_array(weights, "w")),
        helper.make_node("MatMul", ["x", "w"], ["y"], name="fc"),
    ]
    result = prune_magnitude(make_model(nodes, {"unused": weights}, {"x": [2, 8]}, ["y"]), 0.5, (1, 1))
    assert result.layers[0].density == 0.5
    pruned = zero_least_important(weights.T, (1, 1), 0.5).T
    np.testing.assert_array_equal(constants(result.model)["w"], pruned)
    x = normal(2, 8)
    np.testing.assert_allclose(run(result.model, x=x)[0], x @ pruned, rtol=1e-5, atol=1e-6)


class TestSharedWeights:
    weights = normal(8, 8)
    x = normal(2, 8, seed=1)
    pruned = zero_least_important(weights, (1, 4), 0.75)

    def model(self, *nodes, extra_outputs=()):
        return make_model(list(nodes), {"w": self.weights}, {"x": [2, 8]}, ["a", "b", *extra_outputs])

    def gemm(self, output):
        return helper.make_node("Gemm", ["x", "w"], [output], name=f"fc_{output}", transB=1)

    def test_all_users_pruned_alike_share_one_tensor(self):
        result = prune_magnitude(self.model(self.gemm("a"), self.gemm("b")), 0.75, (1, 4))
        assert [layer.density for layer in result.layers] == [0.25, 0.25]
        assert set(constants(result.model)) == {"w"}
        for y in run(result.model, x=self.x):
            np.testing.assert_allclose(y, self.x @ self.pruned.T, rtol=1e-5, atol=1e-6)

    def test_an_excluded_user_keeps_its_weights(self):
        result = prune_magnitude(self.model(self.gemm("a"), self.gemm("b")), 0.75, (1, 4), exclude=["fc_b"])
        assert set(constants(result.model)) == {"w", "w_pruned"}
        a, b = run(result.model, x=self.x)
        np.testing.assert_allclose(a, self.x @ self.pruned.T, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(b, self.x @ self.weights.T, rtol=1e-5, atol=1e-6)

    def test_a_copy_is_listed_as_an_input_in_ir_version_3(self):
        model = self.model(self.gemm("a"), helper.make_node("Neg", ["w"], ["b"]))
        model.ir_version = 3
        model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, self.weights.shape))
        model.opset_import[0].version = 8
        model.graph.node[0].input.append("c")  # Gemm's C is required in that version
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(8, np.float32), "c"))
        model.graph.input.append(helper.make_tensor_value_info("c", TensorProto.FLOAT, [8]))
        result = prune_magnitude(model, 0.75, (1, 4))
        for value in result.model.graph.output:
            value.type.tensor_type.shape.SetInParent()
        onnx.checker.check_model(result.model)
        np.testing.assert_allclose(
            run(result.model, x=self.x)[0], self.x @ self.pruned.T, rtol=1e-5, atol=1e-6
        )

    def test_users_that_read_it_both_ways_get_one_each(self):
        matmul = helper.make_node("MatMul", ["x", "w"], ["b"], name="fc_b")
        result = prune_magnitude(self.model(self.gemm("a"), matmul), 0.75, (1, 4))
        a, b = run(result.model, x=self.x)
        np.testing.assert_allclose(a, self.x @ self.pruned.T, rtol=1e-5, atol=1e-6)
        by_columns = zero_least_important(self.weights.T, (1, 4), 0.75).T
        np.testing.assert_allclose(b, self.x @ by_columns, rtol=1e-5, atol=1e-6)

    def test_another_operator_keeps_its_weights(self):
        tied = helper.make_node("Add", ["x", "w_row"], ["b"])
        row = helper.make_node("ReduceSum", ["w", "axis"], ["w_row"])
        model = self.model(self.gemm("a"), row, tied)
        model.graph.initializer.append(numpy_helper.from_array(np.array([0]), "axis"))
        a, b = run(prune_magnitude(model, 0.75, (1, 4)).model, x=self.x)
        np.testing.assert_allclose(a, self.x @ self.pruned.T, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(b, self.x + self.weights.sum(0), rtol=1e-5, atol=1e-6)

    def test_a_subgraph_keeps_its_weights(self):
        def branch(name):
            output = helper.make_tensor_value_info(f"{name}_out", TensorProto.FLOAT, None)
            return helper.make_graph(
                [helper.make_node("MatMul", ["x", "w"], [f"{name}_out"])], name, [], [output]
            )

        condition = helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True)))
        either = helper.make_node(
            "If", ["yes"], ["b"], then_branch=branch("then"), else_branch=branch("else")
        )
        a, b = run(
            prune_magnitude(self.model(self.gemm("a"), condition, either), 0.75, (1, 4)).model, x=self.x
        )
        np.testing.assert_allclose(a, self.x @ self.pruned.T, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(b, self.x @ self.weights, rtol=1e-5, atol=1e-6)

    def test_a_graph_output_keeps_its_weights(self):
        nodes = [self.gemm("a"), helper.make_node("Identity", ["a"], ["b"])]
        a, _, w = run(prune_magnitude(self.model(*nodes, extra_outputs=["w"]), 0.75, (1, 4)).model, x=self.x)
        np.testing.assert_allclose(a, self.x @ self.pruned.T, rtol=1e-5, atol=1e-6)
        np.testing.assert_array_equal(w, self.weights)

    def test_the_name_of_a_copy_is_free(self):
        nodes = [self.gemm("a"), helper.make_node("MatMul", ["x", "w"], ["w_pruned"], name="second")]
        nodes.append(helper.make_node("Identity", ["w_pruned"], ["b"]))
        result = prune_magnitude(self.model(*nodes), 0.75, (1, 4), exclude=["second"])
        assert "w_pruned_1" in constants(result.model)
        _, b = run(result.model, x=self.x)
        np.testing.assert_allclose(b, self.x @ self.weights, rtol=1e-5, atol=1e-6)


class TestSelection:
    model = NETWORKS["lenet-5"].build()

    def test_all_by_default(self):
        assert pruned_names(prune_magnitude(self.model, 0.5, (1, 1))) == {"conv1", "conv2", "fc1", "fc2"}

    def test_patterns(self):
        result = prune_magnitude(self.model, 0.5, (1, 1), layers=["fc*", "conv[2-9]"])
        assert pruned_names(result) == {"conv2", "fc1", "fc2"}
        assert reasons(result) == {"conv1": "not selected"}

    def test_predicate(self):
        result = prune_magnitude(self.model, 0.5, (1, 1), layers=lambda layer: layer.shape[1] >= 500)
        assert pruned_names(result) == {"conv2", "fc1", "fc2"}

    def test_exclude_wins(self):
        result = prune_magnitude(self.model, 0.5, (1, 1), layers=["fc*"], exclude=["fc2"])
        assert reasons(result) == {"conv1": "not selected", "conv2": "not selected", "fc2": "excluded"}

    def test_names_that_look_like_patterns_match_themselves(self):
        model = matmul_model(normal(4, 4))
        model.graph.node[0].name = "/layers[0]/fc"
        assert pruned_names(prune_magnitude(model, 0.5, (1, 1), layers=["/layers[0]/fc"])) == {
            "/layers[0]/fc"
        }

    def test_nodes_without_a_name_go_by_their_output(self):
        model = matmul_model(normal(4, 4))
        model.graph.node[0].name = ""
        assert pruned_names(prune_magnitude(model, 0.5, (1, 1), layers=["y"])) == {"y"}

    def test_unknown_names(self):
        with pytest.raises(InputError, match=r"is called 'conv3': did you mean 'conv\d'\?"):
            prune_magnitude(self.model, 0.5, (1, 1), layers=["conv3"])
        with pytest.raises(InputError, match="is called 'zzz': there are 4, such as conv1, conv2, fc1"):
            prune_magnitude(self.model, 0.5, (1, 1), exclude=["zzz"])
        with pytest.raises(InputError, match="is called 'fc': the model has none"):
            prune_magnitude(make_model([], {"x": normal(2)}, {}, ["x"]), 0.5, (1, 1), layers=["fc"])


class TestUnsuitable:
    def check(self, model, reason):
        result = prune_magnitude(model, 0.5, (1, 1))
        assert list(reasons(result).values()) == [reason]
        assert result.model.SerializeToString() == model.SerializeToString()

    def test_no_constant(self):
        node = helper.make_node("MatMul", ["x", "v"], ["y"])
        model = make_model([node], {"unused": normal(4, 4)}, {"x": [4, 4], "v": [4, 4]}, ["y"])
        self.check(model, "its right side 'v' is not a constant")

    def test_no_matrix(self):
        node = helper.make_node("MatMul", ["x", "w"], ["y"])
        self.check(
            make_model([node], {"w": normal(2, 4, 4)}, {"x": [2, 4, 4]}, ["y"]),
            "its right side [2, 4, 4] is not a matrix",
        )

    def test_integers(self):
        self.check(matmul_model(np.ones((4, 4), np.int32)), "its weights are INT32, not floating point")

    def test_no_weights(self):
        self.check(matmul_model(normal(0, 4)), "its weight shape [0, 4] is empty")

    def test_no_kernel(self):
        node = helper.make_node("Conv", ["x", "w"], ["y"])
        model = make_model([node], {"w": normal(4, 4)}, {"x": ["n", 4, 8]}, ["y"])
        self.check(model, "its weight shape [4, 4] has no kernel")

    def test_no_right_side(self):
        model = matmul_model(normal(4, 4))
        del model.graph.node[0].input[1]
        self.check(model, "its right side '' is not a constant")

    def test_an_operator_of_that_name_in_another_domain_is_no_layer(self):
        model = matmul_model(normal(4, 4))
        model.graph.node[0].domain = "com.example"
        assert prune_magnitude(model, 0.5, (1, 1)).layers == []


@pytest.mark.parametrize("sparsity", [-0.1, 1.1, float("nan")])
def test_sparsity_out_of_range(sparsity):
    with pytest.raises(InputError, match="sparsity must be between 0 and 1"):
        prune_magnitude(matmul_model(normal(4, 4)), sparsity, (1, 1))


@pytest.mark.parametrize("group_shape", [(0, 1), (1, -1), (4,), (1, 1, 1)])
def test_unusable_group_shape(group_shape):
    with pytest.raises(InputError, match="group shape must be two positive numbers"):
        prune_magnitude(matmul_model(normal(4, 4)), 0.5, group_shape)


def test_unknown_importance():
    with pytest.raises(InputError, match="importance must be one of rms, mean, max, got 'l1'"):
        prune_magnitude(matmul_model(normal(4, 4)), 0.5, (1, 1), importance="l1")


def test_external_data_that_is_not_loaded(tmp_path):
    onnx.save(matmul_model(normal(64, 64)), tmp_path / "m.onnx", save_as_external_data=True)
    model = onnx.load(tmp_path / "m.onnx", load_external_data=False)
    with pytest.raises(InputError, match="weights 'w' of 'fc' are external data that is not loaded"):
        prune_magnitude(model, 0.5, (1, 1))
    assert prune_magnitude(onnx.load(tmp_path / "m.onnx"), 0.5, (1, 1)).layers[0].density == 0.5
