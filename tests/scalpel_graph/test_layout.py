"""The choice of sparse Conv layers is the best there is, layout changes included."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scalpel_graph.graph import ModelGraph
from scalpel_graph.layout import ConvTimes, choose_sparse, is_blocked_conv, reads_plain
from tests.pass_runner import model, random

WEIGHT = random(16, 16, 1, 1)


def chosen(proto, times, copy=10.0, block=16, **quantized):
    """Names of the Conv outputs that are made sparse. ``times``: output name to (dense, sparse)."""
    graph = ModelGraph(proto)
    graph.infer()
    conv_times = {
        id(node): ConvTimes(*times[node.outputs[0].name])
        for node in graph.nodes
        if node.outputs[0].name in times
    }
    found = choose_sparse(
        graph, conv_times, block, graph.assumed_shapes({}), lambda nbytes: copy, **quantized
    )
    return {node.outputs[0].name for node in graph.nodes if id(node) in found}


def chain(n, activations=True):
    body = []
    for i in range(n):
        body.append(f"c{i} = Conv({'X' if i == 0 else f'r{i - 1}'}, W)")
        body.append(f"r{i} = {'Relu' if activations else 'Abs'}(c{i})")
    return model(f"(float[1, 16, 4, 4] X) => (Y) {{ {' '.join(body)} Y = Softmax(r{n - 1}) }}", {"W": WEIGHT})


def test_nothing_to_choose():
    assert chosen(chain(2), {}) == set()
    assert chosen(chain(2), {"c0": (50.0, None), "c1": (50.0, None)}) == set()


def test_a_clear_win_is_taken_and_a_clear_loss_is_not():
    assert chosen(chain(1), {"c0": (50.0, 5.0)}) == {"c0"}
    assert chosen(chain(1), {"c0": (50.0, 75.0)}) == set()


def test_without_a_blocked_layout_every_win_is_taken():
    times = {"c0": (50.0, None), "c1": (50.0, 49.0), "c2": (50.0, 51.0)}
    assert chosen(chain(3), times) == set()
    assert chosen(chain(3), times, block=1) == {"c1"}


def test_a_small_win_between_dense_layers_does_not_pay_for_its_borders():
    times = {"c0": (50.0, None), "c1": (50.0, 35.0), "c2": (50.0, None)}
    assert chosen(chain(3), times) == set()
    assert chosen(chain(3), {**times, "c1": (50.0, 25.0)}) == {"c1"}


def test_several_small_wins_in_a_row_pay_together():
    times = {
        "c0": (50.0, None),
        "c1": (50.0, 42.0),
        "c2": (50.0, 42.0),
        "c3": (50.0, 42.0),
        "c4": (50.0, None),
    }
    assert chosen(chain(5), times) == {"c1", "c2", "c3"}


def test_a_small_loss_between_big_wins_is_taken_to_save_layout_changes():
    times = {"c0": (50.0, 10.0), "c1": (50.0, 60.0), "c2": (50.0, 10.0)}
    assert chosen(chain(3), times) == {"c0", "c1", "c2"}
    assert chosen(chain(3), {**times, "c1": (50.0, 80.0)}) == {"c0", "c2"}


def test_operators_that_are_never_blocked_are_borders_anyway():
    times = {"c0": (50.0, None), "c1": (50.0, 35.0), "c2": (50.0, None)}
    assert chosen(chain(3, activations=False), times) == {"c1"}


def test_pooling_stays_blocked():
    proto = model(
        """(float[1, 16, 4, 4] X) => (Y)
           { a = Conv(X, W)  b = MaxPool<kernel_shape = [2, 2]>(a)  c = Conv(b, W)  Y = Softmax(c) }""",
        {"W": WEIGHT},
    )
    times = {"a": (50.0, 35.0), "c": (50.0, 55.0)}
    # A sparse `a` costs one copy before the pool and saves the one before itself.
    assert chosen(proto, times) == {"a"}
    assert chosen(proto, {"a": (50.0, 55.0), "c": (50.0, 55.0)}) == set()


def test_a_plain_operand_keeps_an_add_plain():
    proto = model(
        "(float[1, 16, 4, 4] X) => (Y) { a = Conv(X, W)  b = Add(a, X)  c = Conv(b, W)  Y = Softmax(c) }",
        {"W": WEIGHT},
    )
    assert chosen(proto, {"a": (50.0, 60.0), "c": (50.0, None)}) == {"a"}
    assert chosen(proto, {"a": (50.0, 75.0), "c": (50.0, None)}) == set()


def test_the_stem_reads_the_plain_layout():
    stem = random(16, 3, 3, 3)
    proto = model("(float[1, 3, 6, 6] X) => (Y) { a = Conv(X, W)  Y = Softmax(a) }", {"W": stem})
    assert chosen(proto, {"a": (50.0, 55.0)}) == {"a"}
    assert chosen(proto, {"a": (50.0, 61.0)}) == set()


def test_convolutions_that_onnx_runtime_does_not_block_are_chosen_alone():
    proto = model("(float[1, 16, 6] X) => (Y) { a = Conv(X, W)  Y = Softmax(a) }", {"W": random(16, 16, 3)})
    assert chosen(proto, {"a": (50.0, 49.0)}) == {"a"}
    assert chosen(proto, {"a": (50.0, 51.0)}) == set()


def test_model_outputs_are_plain():
    proto = model("(float[1, 16, 4, 4] X) => (Y) { Y = Conv(X, W) }", {"W": WEIGHT})
    assert chosen(proto, {"Y": (50.0, 65.0)}) == {"Y"}
    assert chosen(proto, {"Y": (50.0, 75.0)}) == set()


@pytest.mark.parametrize(
    ("weight", "group", "blocked", "plain_input"),
    [
        ((64, 64, 3, 3), 1, True, False),
        ((64, 3, 7, 7), 1, True, True),
        ((50, 20, 5, 5), 1, True, False),
        ((64, 18, 1, 1), 1, False, False),
        ((64, 1, 3, 3), 64, True, False),
        ((20, 1, 3, 3), 20, True, False),
        ((18, 1, 3, 3), 18, False, False),
        ((64, 16, 3, 3), 2, True, False),
        ((64, 8, 3, 3), 2, False, False),
        ((64, 64, 3), 1, False, False),
    ],
)
def test_which_convolutions_are_blocked(weight, group, blocked, plain_input):
    assert is_blocked_conv(weight, group, 16) == blocked
    assert not is_blocked_conv(weight, group, 1)
    assert not blocked or reads_plain(weight, group, 16) == plain_input


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_cut_is_the_best_of_all_choices(data):
    """Brute force over both sides of every node of random graphs of Conv, Relu and Add."""
    n = data.draw(st.integers(2, 7))
    body, kinds, inputs = [], [], []
    for i in range(n):
        kind = data.draw(st.sampled_from(["Conv", "Conv", "Relu", "Add", "Abs"]))
        sources = [data.draw(st.integers(-1, i - 1)) for _ in range(2 if kind == "Add" else 1)]
        names = ["X" if s < 0 else f"t{s}" for s in sources]
        arguments = ", ".join([*names, "W"] if kind == "Conv" else names)
        body.append(f"t{i} = {kind}({arguments})")
        kinds.append(kind)
        inputs.append(sources)
    outputs = [f"t{i}" for i in range(n) if not any(i in sources for sources in inputs)]
    proto = model(f"(float[1, 16, 4, 4] X) => ({', '.join(outputs)}) {{ {' '.join(body)} }}", {"W": WEIGHT})
    times = {
        f"t{i}": (float(data.draw(st.integers(1, 60))), float(data.draw(st.integers(1, 60))))
        for i in range(n)
        if kinds[i] == "Conv"
    }
    copy = float(data.draw(st.integers(0, 20)))

    def cost(blocked):
        total = 0.0
        for i, kind in enumerate(kinds):
            if kind == "Conv":
                total += times[f"t{i}"][0 if blocked[i] else 1]
            elif blocked[i] and (kind == "Abs" or not all(s >= 0 and blocked[s] for s in inputs[i])):
                return float("inf")
        for i in range(-1, n):
            side = i >= 0 and blocked[i]
            readers = [blocked[j] for j in range(n) if i in inputs[j]]
            if i >= 0 and f"t{i}" in outputs:
                readers.append(False)
            total += copy * any(reader != side for reader in readers)
        return total

    best = min(cost(sides) for sides in product([False, True], repeat=n))
    sparse = chosen(proto, times, copy)
    possible = [
        cost(sides)
        for sides in product([False, True], repeat=n)
        if all(sides[i] != (f"t{i}" in sparse) for i in range(n) if kinds[i] == "Conv")
    ]
    assert min(possible) == pytest.approx(best)


def test_a_deep_network_is_quick_enough_to_finish():
    n = 400
    rng = np.random.default_rng(0)
    times = {f"c{i}": (50.0, float(rng.integers(20, 80))) for i in range(n)}
    found = chosen(chain(n), times)
    assert 0 < len(found) < n


@pytest.mark.parametrize(
    ("pool", "expected"), [(0.0, {"c0", "c1"}), (25.0, {"c0", "c1"}), (40.0, {"c1"}), (1000.0, {"c1"})]
)
def test_a_pool_of_integers_is_slow_in_the_plain_layout(pool, expected):
    proto = model(
        """(float[1, 16, 4, 4] X) => (Y) {
          c0 = Conv(X, W)   p = MaxPool<kernel_shape = [3, 3], pads = [1, 1, 1, 1]>(c0)   c1 = Conv(p, W)
          Y = Softmax(c1)
        }""",
        {"W": WEIGHT},
    )
    asked = []

    def pool_us(elements):
        asked.append(elements)
        return pool

    times = {"c0": (50.0, 30.0), "c1": (50.0, 5.0)}
    # 50 and two changes of layout against 30 and what the pool takes longer.
    assert chosen(proto, times, quantized=True, pool_us=pool_us) == expected
    assert asked == [16 * 4 * 4 * 9]
