"""Embeddings: which features of a table go, and that what is picked stays."""

import numpy as np
import pytest

from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, random, run, weights_of
from tests.scalpel_graph.channels.left import left_of

ROWS, C = 9, 8
DEAD = [1, 4, 6]


def removed(text="e = Gather(E, ids) Y = MatMul(e, V)", ids="N, T", **weights):
    values = {"E": random(ROWS, C), "V": random(C, 3, seed=1), **weights}
    proto = model(f"(int64[{ids}] ids) => (Y) {{ {text} }}", values)
    shape = [int(size) if size.isdigit() else 2 for size in ids.split(", ")]
    feeds = {"ids": np.random.default_rng(3).integers(-ROWS, ROWS, shape)}
    out, _ = run(proto, RemoveChannels(), feeds=feeds)
    again, records = run(out, RemoveChannels(), feeds=feeds)
    assert not records["remove-channels"].modified
    return again


def without(values, axis, fill=0.0):
    values = np.array(values)
    np.moveaxis(values, axis, 0)[DEAD] = fill
    return values


@pytest.mark.parametrize("ids", ["N, T", "N", "3, 4", "N, 4, T"])
@pytest.mark.parametrize("fill", [0.0, 0.5])
def test_features_that_are_the_same_in_all_rows_go(ids, fill):
    left = left_of(removed(ids=ids, E=without(random(ROWS, C), 1, fill)))
    assert left["E"].shape == (ROWS, C - 3) and left["V"].shape == (C - 3, 3)


def test_one_row_that_differs():
    table = without(random(2500, C), 1)
    table[2400, DEAD[0]] = 1
    assert left_of(removed(E=table))["E"].shape == (2500, C - 2)


def test_tables_of_matrices():
    """A matrix for each row: features along both of its axes."""
    rows = np.array(random(3, 5))
    rows[:, 3] = 0
    weights = {"E": random(ROWS, 5, C), "L": rows, "V": without(random(C, 3, seed=1), 0)}
    left = left_of(removed("e = Gather(E, ids) m = MatMul(L, e) Y = MatMul(m, V)", ids="N", **weights))
    assert left["E"].shape == (ROWS, 4, C - 3)


def test_unread_features_go():
    left = left_of(removed(V=without(random(C, 3, seed=1), 0)))
    assert left["E"].shape == (ROWS, C - 3)


def test_tables_that_are_added_go_together():
    """Words and places: BERT. The sum is what is read."""
    weights = {"P": random(4, C, seed=2), "place": np.arange(4)}
    text = "e = Gather(E, ids) q = Gather(P, place) s = Add(e, q) Y = MatMul(s, V)"
    left = left_of(removed(text, ids="N, 4", V=without(random(C, 3, seed=1), 0), **weights))
    assert left["E"].shape == (ROWS, C - 3) and left["V"].shape == (C - 3, 3)
    one_dead = left_of(removed(text, ids="N, 4", E=without(random(ROWS, C), 1), **weights))
    assert one_dead["E"].shape == (ROWS, C)


def test_a_table_of_columns():
    text = "e = Gather<axis = 1>(E, ids) Y = MatMul(L, e)"
    left = left_of(removed(text, ids="N", E=without(random(C, ROWS), 0), L=random(3, C)))
    assert left["E"].shape == (C - 3, ROWS) and left["L"].shape == (3, C - 3)


def test_a_table_that_is_read_again_keeps_its_features_there():
    """Tied weights: the other reader needs all of them."""
    text = "e = Gather(E, ids) y = MatMul(e, V) t = Transpose(E) Y = MatMul(y, t)"
    out = removed(text, V=without(random(C, C, seed=1), 0))
    assert sorted(values.shape for name, values in weights_of(out).items() if name.startswith("E")) == [
        (ROWS, C - 3),
        (ROWS, C),
    ]
