"""LSTM, GRU and RNN: which hidden units and features go, and that the answers stay."""

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import EXACT, model, op_types, random, reasons, run, weights_of

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
H, I = 7, 5  # noqa: E741
HEAD = {"V": random(H, 3, seed=9), "one": np.array([1])}
READ = "s = Squeeze(y, one) Z = MatMul(s, V)"


def weights(op, directions=1, hidden=H, features=I):
    gates = GATES[op]
    return {
        "W": random(directions, gates * hidden, features, seed=1),
        "R": random(directions, gates * hidden, hidden, seed=2) / 2,
        "B": random(directions, 2 * gates * hidden, seed=3),
    }


def per_unit(values, directions=1, hidden=H):
    """A view ``[D, blocks, H, ...]`` of weights, to be written to."""
    return values.reshape(directions, -1, hidden, *values.shape[2:])


def without_candidate(values, op, units, directions=1):
    """Takes what makes a new state from some units: no input, no unit but each other, no bias."""
    candidate = GATES[op] - 1
    others = [unit for unit in range(H) if unit not in units]
    for unit in units:
        per_unit(values["W"], directions)[:, candidate, unit] = 0
        per_unit(values["R"], directions)[:, candidate, unit, others] = 0
        per_unit(values["B"], directions)[:, [candidate, candidate + GATES[op]], unit] = 0
    return values


def width(out):
    node = next(node for node in out.graph.node if node.op_type in GATES)
    w, r, b = (weights_of(out)[name] for name in node.input[1:4])
    size = next(attribute.i for attribute in node.attribute if attribute.name == "hidden_size")
    assert w.shape[1] == r.shape[1] == size * GATES[node.op_type] and r.shape[2] == size
    assert b.shape[1] == 2 * w.shape[1]
    return size, w.shape[2]


def removed(text, values, inputs=f"float[6, N, {I}] X", outputs="Z"):
    out, records = run(model(f"({inputs}) => ({outputs}) {{ {text} }}", values), RemoveChannels())
    again, again_records = run(out, RemoveChannels())
    assert not again_records["remove-channels"].modified
    size, features = width(again)
    return H - size, records["remove-channels"], features


@pytest.mark.parametrize("op", GATES)
class TestUnits:
    def test_dense_ones_stay(self, op):
        assert removed(f"y = {op}<hidden_size = 7>(X, W, R, B) {READ}", {**weights(op), **HEAD})[0] == 0

    def test_zero_ones_go(self, op):
        values = {**without_candidate(weights(op), op, [1, 4]), **HEAD}
        assert removed(f"y = {op}<hidden_size = 7>(X, W, R, B) {READ}", values)[0] == 2

    def test_ones_with_a_bias_stay(self, op):
        values = {**without_candidate(weights(op), op, [1, 4]), **HEAD}
        per_unit(values["B"])[:, GATES[op] - 1, 4] = 0.5
        # The other one still sees the unit that is not zero.
        assert removed(f"y = {op}<hidden_size = 7>(X, W, R, B) {READ}", values)[0] == 0
        per_unit(values["R"])[:, GATES[op] - 1, 1, 4] = 0
        assert removed(f"y = {op}<hidden_size = 7>(X, W, R, B) {READ}", values)[0] == 1

    def test_ones_that_start_elsewhere_stay(self, op):
        values = {**without_candidate(weights(op), op, [1, 4]), **HEAD, "h": random(1, 2, H, seed=4)}
        text = f"y = {op}<hidden_size = 7>(X, W, R, B, , h) {READ}"
        inputs = f"float[6, 2, {I}] X"
        assert removed(text, values, inputs)[0] == 0
        values["h"] = np.array(values["h"])
        values["h"][:, :, [1, 4]] = 0
        assert removed(text, values, inputs)[0] == 2

    def test_an_initial_state_that_is_masked(self, op):
        values = {**without_candidate(weights(op), op, [1, 4]), **HEAD, "mask": np.ones(H, np.float32)}
        values["mask"][[1, 4]] = 0
        text = f"h = Mul(X0, mask) y = {op}<hidden_size = 7>(X, W, R, B, , h) {READ}"
        # The state is an input of the model, which keeps its size.
        assert removed(text, values, f"float[6, 2, {I}] X, float[1, 2, {H}] X0")[0] == 0
        values["U"] = random(4, H, seed=5)
        text = f"m = MatMul(X0, U) {text.replace('Mul(X0', 'Mul(m')}"
        assert removed(text, values, f"float[6, 2, {I}] X, float[1, 2, 4] X0")[0] == 2

    def test_unread_ones_go(self, op):
        values = {**weights(op), **HEAD, "V": np.array(HEAD["V"])}
        values["V"][[2, 3, 5]] = 0
        text = f"y = {op}<hidden_size = 7>(X, W, R, B) {READ}"
        assert removed(text, values)[0] == 0
        per_unit(values["R"])[:, :, [0, 1, 4, 6], 2:4] = 0
        per_unit(values["R"])[:, :, 5, 2] = 0
        # 5 is read by the others, and reads 3; 2 is read by nobody but itself and 3.
        per_unit(values["R"])[:, :, 3, 2] = 0
        assert removed(text, values)[0] == 1
        per_unit(values["R"])[:, :, 5, 3] = 0
        assert removed(text, values)[0] == 2

    def test_last_state_only(self, op):
        values = {**without_candidate(weights(op), op, [0]), **HEAD, "zero": np.array([0])}
        text = f"y, h = {op}<hidden_size = 7>(X, W, R, B) s = Squeeze(h, zero) Z = MatMul(s, V)"
        assert removed(text, values)[0] == 1
        assert removed(text.replace("y, h", ", h"), values)[0] == 1

    def test_an_output_of_the_model_keeps_them(self, op):
        values = without_candidate(weights(op), op, [1, 4])
        count, record, _ = removed(f"Z = {op}<hidden_size = 7>(X, W, R, B)", values)
        assert count == 0
        assert "output of the model" in reasons(record)["Z"]

    def test_both_directions_go_together(self, op):
        values = {**without_candidate(weights(op, 2), op, [1, 4], directions=2), **HEAD}
        text = f'y = {op}<hidden_size = 7, direction = "bidirectional">(X, W, R, B) Z = MatMul(y, V)'
        assert removed(text, values)[0] == 2
        per_unit(values["W"], 2)[1, GATES[op] - 1, 4, 0] = 1
        per_unit(values["R"], 2)[:, GATES[op] - 1, 1, 4] = 0
        assert removed(text, values)[0] == 1

    def test_other_activations(self, op):
        values = {**without_candidate(weights(op), op, [1, 4]), **HEAD}
        names = {"LSTM": '"Sigmoid", "Tanh", "Relu"', "GRU": '"Sigmoid", "Relu"', "RNN": '"Relu"'}[op]
        values["R"] /= 4
        assert (
            removed(f"y = {op}<hidden_size = 7, activations = [{names}]>(X, W, R, B) {READ}", values)[0] == 2
        )
        names = {"LSTM": '"Sigmoid", "Sigmoid", "Tanh"', "GRU": '"Sigmoid", "Sigmoid"', "RNN": '"Sigmoid"'}[
            op
        ]
        assert (
            removed(f"y = {op}<hidden_size = 7, activations = [{names}]>(X, W, R, B) {READ}", values)[0] == 0
        )

    def test_lengths_of_sequences_and_clipping(self, op):
        values = {**without_candidate(weights(op), op, [1, 4]), **HEAD, "n": np.array([3, 6], np.int32)}
        text = f'y = {op}<hidden_size = 7, clip = 0.5, direction = "reverse">(X, W, R, B, n) {READ}'
        assert removed(text, values, f"float[6, 2, {I}] X")[0] == 2

    def test_constant_features_go_into_the_bias(self, op):
        values = {**weights(op), **HEAD, "U": random(4, I, seed=6), "shift": random(I, seed=7)}
        values["U"][:, [0, 3]] = 0
        values["shift"][3] = 0
        text = f"m = MatMul(X, U) x = Add(m, shift) y = {op}<hidden_size = 7>(X1, W, R, B) {READ}"
        _, _, features = removed(text.replace("X1", "x"), values, "float[6, N, 4] X")
        assert features == I - 2

    def test_unread_features_go(self, op):
        values = {**weights(op), **HEAD, "U": random(4, I, seed=6)}
        values["W"][:, :, 2] = 0
        text = f"x = MatMul(X, U) y = {op}<hidden_size = 7>(x, W, R, B) {READ}"
        assert removed(text, values, "float[6, N, 4] X")[2] == I - 1

    def test_a_bias_comes_where_it_is_needed(self, op):
        values = {**weights(op), **HEAD, "U": random(4, I, seed=6), "shift": random(I, seed=7)}
        values["U"][:, [0, 3]] = 0
        del values["B"]
        text = f"m = MatMul(X, U) x = Add(m, shift) y = {op}<hidden_size = 7>(x, W, R) {READ}"
        assert removed(text, values, "float[6, N, 4] X")[2] == I - 2

    @pytest.mark.parametrize(("made", "axis", "state"), [("y", 2, ""), ("_, y", 1, ""), ("_, y", 1, ", , h")])
    def test_batch_first(self, op, made, axis, state):
        """ONNX Runtime has no such layout; ONNX's own reference implementation has."""
        values = {**without_candidate(weights(op), op, [1, 4]), **HEAD, "h": np.zeros((2, 1, H), np.float32)}
        text = f"{made} = {op}<hidden_size = 7, layout = 1>(X, W, R, B{state}) {READ.replace('one', 'axis')}"
        proto = model(f"(float[2, 6, {I}] X) => (Z) {{ {text} }}", {**values, "axis": np.array([axis])})
        graph = ModelGraph(proto)
        graph.infer()
        RemoveChannels().run(graph, PassContext(EXACT))
        out = graph.to_proto()
        assert width(out)[0] == H - 2
        feeds = {"X": random(2, 6, I)}
        before, after = (ReferenceEvaluator(either).run(None, feeds)[0] for either in (proto, out))
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)

    def test_computed_weights_are_refused(self, op):
        values = {**weights(op), **HEAD}
        text = f"r = Mul(R, X0) y = {op}<hidden_size = 7>(X, W, r, B) {READ}"
        proto = model(f"(float[6, N, {I}] X, float[1] X0) => (Z) {{ {text} }}", values)
        out, _ = run(proto, RemoveChannels())
        assert op_types(out) == op_types(proto)


class TestLstm:
    def test_peepholes_and_cell_states(self):
        values = {**without_candidate(weights("LSTM"), "LSTM", [1, 4]), **HEAD, "zero": np.array([0])}
        values |= {"P": random(1, 3 * H, seed=8), "c": random(1, 2, H, seed=10)}
        text = (
            "y, h, e = LSTM<hidden_size = 7>(X, W, R, B, , , c, P)"
            " a = Add(h, e) s = Squeeze(a, zero) Z = MatMul(s, V)"
        )
        inputs = f"float[6, 2, {I}] X"
        assert removed(text, values, inputs)[0] == 0
        values["c"][:, :, [1, 4]] = 0
        assert removed(text, values, inputs)[0] == 2

    def test_coupled_gates(self):
        values = {**without_candidate(weights("LSTM"), "LSTM", [1, 4]), **HEAD}
        assert removed(f"y = LSTM<hidden_size = 7, input_forget = 1>(X, W, R, B) {READ}", values)[0] == 2


class TestGru:
    @pytest.mark.parametrize("linear", [0, 1])
    def test_biases_that_cancel(self, linear):
        values = {**without_candidate(weights("GRU"), "GRU", [1, 4]), **HEAD}
        per_unit(values["B"])[0, 2, 1], per_unit(values["B"])[0, 5, 1] = 0.5, -0.5
        text = f"y = GRU<hidden_size = 7, linear_before_reset = {linear}>(X, W, R, B) {READ}"
        per_unit(values["R"])[0, 2, 4, 1] = 0
        assert removed(text, values)[0] == (1 if linear else 2)


def test_two_layers_lose_features_with_units():
    first, second = without_candidate(weights("LSTM"), "LSTM", [1, 4, 6]), weights("GRU", features=H)
    values = {**first, **{f"{name}2": value for name, value in second.items()}, **HEAD}
    text = (
        "a = LSTM<hidden_size = 7>(X, W, R, B) t = Squeeze(a, one)"
        f" y = GRU<hidden_size = 7>(t, W2, R2, B2) {READ}"
    )
    assert removed(text, values)[0] == 3


def test_a_bidirectional_tagger():
    """Directions side by side, as exporters put them: of unit 4 only one direction is dead."""
    first = without_candidate(weights("LSTM", 2), "LSTM", [1, 4, 6], directions=2)
    per_unit(first["W"], 2)[1, 3, 4, 0] = 1
    per_unit(first["R"], 2)[:, 3, [1, 6], 4] = 0
    second = without_candidate(weights("LSTM", 2, features=2 * H), "LSTM", [0, 2], directions=2)
    values = {
        **first,
        **{f"{name}2": value for name, value in second.items()},
        "shape": np.array([0, 0, -1]),
        "V": random(2 * H, 3, seed=9),
    }
    text = (
        'a = LSTM<hidden_size = 7, direction = "bidirectional">(X, W, R, B)'
        " b = Transpose<perm = [0, 2, 1, 3]>(a) c = Reshape(b, shape)"
        ' d = LSTM<hidden_size = 7, direction = "bidirectional">(c, W2, R2, B2)'
        " e = Transpose<perm = [0, 2, 1, 3]>(d) f = Reshape(e, shape) Z = MatMul(f, V)"
    )
    proto = model(f"(float[6, N, {I}] X) => (Z) {{ {text} }}", values)
    out, _ = run(proto, RemoveChannels())
    shapes = {name.split("_of_")[0]: value.shape for name, value in weights_of(out).items()}
    assert shapes["W"] == (2, 4 * (H - 2), I)
    assert shapes["W2"] == (2, 4 * (H - 2), 2 * (H - 2))
    assert shapes["V"] == (2 * (H - 2), 3)
