"""Random networks come out equal to what went in, and a second run changes nothing."""

import os

import numpy as np
import pytest

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import CPU, outputs, random, weights_of
from tests.scalpel_graph.channels.random_networks import RandomNetwork

#: A longer run: ``SCALPEL_RANDOM_NETWORKS=50000 python -m pytest tests/scalpel_graph/channels``.
NETWORKS = int(os.environ.get("SCALPEL_RANDOM_NETWORKS", "400"))
CHUNK = 50


def network(seed):
    return RandomNetwork(seed, depth=1 + seed % 30, static=seed % 3 == 0).model()


@pytest.mark.parametrize("chunk", range(-(-NETWORKS // CHUNK)))
def test_answers_stay_and_nothing_is_left(chunk):
    smaller = 0
    for seed in range(chunk * CHUNK, min((chunk + 1) * CHUNK, NETWORKS)):
        proto = network(seed)
        graph = ModelGraph(proto)
        graph.infer()
        result = RemoveChannels().run(graph, PassContext(CPU))
        graph.infer()
        out = graph.to_proto()
        feeds = {"X": random(2, 4, 6, 6, seed=seed)}
        for before, after in zip(outputs(proto, feeds), outputs(out, feeds), strict=True):
            assert before.shape == after.shape, f"network {seed}"
            scale = max(float(np.abs(before).max()), 1.0)
            np.testing.assert_allclose(after, before, rtol=1e-3, atol=1e-4 * scale, err_msg=f"network {seed}")
        smaller += result.modified
        assert not RemoveChannels().run(graph, PassContext(CPU)).modified, f"network {seed}"
    assert smaller > CHUNK / 2


def test_networks_are_not_trivial():
    protos = [network(seed) for seed in range(60)]
    assert max(len(proto.graph.node) for proto in protos) > 50
    used = {node.op_type for proto in protos for node in proto.graph.node}
    assert len(used) > 40
    assert all(len(weights_of(proto)) >= 2 for proto in protos)
