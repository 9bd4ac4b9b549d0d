"""Random networks with a part inside of If or Loop come out equal, and a second run changes nothing."""

import os
from dataclasses import replace

import numpy as np
import pytest

from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import CPU, outputs, random
from tests.scalpel_graph.channels.random_networks import RandomNetwork
from tests.scalpel_graph.channels.with_bodies import with_body

#: A longer run: ``SCALPEL_RANDOM_NETWORKS=50000 python -m pytest tests/scalpel_graph/channels``.
NETWORKS = int(os.environ.get("SCALPEL_RANDOM_NETWORKS", "400")) // 2
CHUNK = 50


@pytest.mark.parametrize("chunk", range(-(-NETWORKS // CHUNK)))
def test_answers_stay_and_nothing_is_left(chunk):
    smaller = inside = 0
    for seed in range(chunk * CHUNK, min((chunk + 1) * CHUNK, NETWORKS)):
        network = RandomNetwork(seed, depth=1 + seed % 15, static=seed % 3 == 0).model()
        proto = with_body(network, seed)
        graph = ModelGraph(proto)
        graph.infer()
        context = PassContext(replace(CPU, round_channels_to=4 if seed % 4 == 1 else 1, round_from=0.0))
        result = RemoveChannels().run(graph, context)
        graph.infer()
        out = graph.to_proto()
        for condition, times in ((True, 1), (False, 3), (False, 0)):
            feeds = {"X": random(2, 4, 6, 6, seed=seed), "c": np.array(condition), "times": np.array(times)}
            for before, after in zip(outputs(proto, feeds), outputs(out, feeds), strict=True):
                assert before.shape == after.shape, f"network {seed}"
                scale = max(float(np.abs(before).max()), 1.0)
                np.testing.assert_allclose(
                    after, before, rtol=1e-3, atol=1e-4 * scale, err_msg=f"network {seed}"
                )
        smaller += result.modified
        inside += any("_branch/" in label or "/body/" in label for label in result.rewritten)
        assert not RemoveChannels().run(graph, context).modified, f"network {seed}"
    assert smaller > CHUNK / 2 and inside > CHUNK / 4
