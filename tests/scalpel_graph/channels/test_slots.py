import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from scalpel_graph.channels.slots import Slots, classes
from scalpel_graph.graph import ModelGraph
from tests.pass_runner import model, random


def naive_classes(count, pairs):
    found = list(range(count))
    for _ in range(count):
        for a, b in pairs:
            found[a] = found[b] = min(found[a], found[b])
    return found


@given(
    st.integers(1, 12).flatmap(
        lambda n: st.tuples(st.just(n), st.lists(st.tuples(*[st.integers(0, n - 1)] * 2)))
    )
)
def test_classes_are_what_is_connected(case):
    count, pairs = case
    left, right = (np.array([pair[i] for pair in pairs], dtype=np.int64) for i in (0, 1))
    assert classes(count, left, right).tolist() == naive_classes(count, pairs)


def test_long_chains_in_any_order_are_one_class():
    order = np.random.default_rng(0).permutation(100_000)
    assert not classes(100_000, order[:-1], order[1:]).any()


def test_numbers_of_static_axes_of_variables():
    proto = model("(float[N, 3, 4, 4] X) => (Y) { Y = Conv(X, W) }", {"W": random(2, 3, 1, 1)})
    graph = ModelGraph(proto)
    graph.infer()
    slots = Slots(graph)
    node = graph.nodes[0]
    batch, channels, *_ = slots.of(node.inputs[0])
    assert batch is None
    assert channels.slots.tolist() == [0, 1, 2]
    assert slots.of(node.inputs[1]) == []
    assert slots.axis(node.outputs[0], 1).size == 2
    assert slots.axis(node.outputs[0], 4) is None
    assert slots.count == 3 + 4 + 4 + 2 + 4 + 4
