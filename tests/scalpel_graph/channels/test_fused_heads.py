"""Attention whose queries, keys and values come from one layer, as vision transformers are exported."""

import numpy as np
import pytest

from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import model, op_types, random, run, weights_of
from tests.scalpel_graph.channels.left import left_of

HEADS, SIZE, TOKENS, WIDTH = 4, 3, 5, 10

PICKS = {
    "picked": "q = Gather<axis = 0>(T, i0) k = Gather<axis = 0>(T, i1) v = Gather<axis = 0>(T, i2)",
    "split": "a, b, c = Split<axis = 0>(T) q = Squeeze(a, axis) k = Squeeze(b, axis) v = Squeeze(c, axis)",
}


def attention(picks, dead, batch="N"):
    weight = random(WIDTH, 3, HEADS, SIZE)
    weight[:, 2, dead] = 0
    return model(
        f"""(float[{batch}, {TOKENS}, {WIDTH}] X) => (Out) {{
            M = MatMul(X, W) C = Reshape(M, cut) T = Transpose<perm = [2, 0, 3, 1, 4]>(C) {PICKS[picks]}
            t = Transpose<perm = [0, 1, 3, 2]>(k) s = MatMul(q, t) p = Softmax<axis = -1>(s) o = MatMul(p, v)
            x = Transpose<perm = [0, 2, 1, 3]>(o) J = Reshape(x, join) Out = MatMul(J, P) }}""",
        {
            "W": weight.reshape(WIDTH, -1),
            "P": random(HEADS * SIZE, WIDTH, seed=1),
            "cut": np.array([0, TOKENS, 3, HEADS, SIZE]),
            "join": np.array([0, TOKENS, HEADS * SIZE]),
            **{f"i{index}": np.int64(index) for index in range(3)},
            "axis": np.array([0]),
        },
    )


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("picks", PICKS)
def test_heads_go_whole(picks, batch):
    proto = attention(picks, [0, 2], batch)
    out, records = run(proto, RemoveChannels())
    left = left_of(out)
    assert left["W"].shape == (WIDTH, 3 * 2 * SIZE) and left["P"].shape == (2 * SIZE, WIDTH)
    assert op_types(out) == op_types(proto)
    cut = next(node for node in out.graph.node if node.op_type == "Reshape")
    assert weights_of(out)[cut.input[1]].tolist() == [0, TOKENS, 3, 2, SIZE]
    again, records = run(out, RemoveChannels())
    assert not records["remove-channels"].modified
    assert list(again.graph.node) == list(out.graph.node)


@pytest.mark.parametrize("batch", ["N", "1"])
@pytest.mark.parametrize("picks", PICKS)
def test_nothing_changes_where_no_head_is_dead(picks, batch):
    proto = attention(picks, [], batch)
    out, records = run(proto, RemoveChannels())
    assert not records["remove-channels"].modified
    assert list(out.graph.node) == list(proto.graph.node)
