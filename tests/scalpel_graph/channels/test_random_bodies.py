"""Random networks with a part inside of If or Loop come out equal, and a second run changes nothing."""

import os
from dataclasses import replace

import numpy as np
import pytest

from scalpel_graph.compare import compare
from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from tests.pass_runner import EXACT, runs
from tests.scalpel_graph.channels.random_network.check import TOLERANCE
from tests.scalpel_graph.channels.random_network.network import RandomNetwork
from tests.scalpel_graph.channels.with_bodies import with_body

#: A longer run: ``SCALPEL_RANDOM_BODIES=20000`` in the environment.
NETWORKS = int(os.environ.get("SCALPEL_RANDOM_BODIES", "200"))
CHUNK = 25
#: Older Loops cannot be without a state.
_MIN_OPSET = 13
TURNS = ({"c": True, "times": 1}, {"c": False, "times": 3}, {"c": False, "times": 0})


@pytest.mark.parametrize("chunk", range(-(-NETWORKS // CHUNK)))
def test_answers_stay_and_nothing_is_left(chunk):
    smaller = inside = 0
    for seed in range(chunk * CHUNK, min((chunk + 1) * CHUNK, NETWORKS)):
        network = RandomNetwork(seed, depth=1 + seed % 15)
        if network.opset < _MIN_OPSET:
            continue
        proto = with_body(network.model(), seed)
        graph = ModelGraph(proto)
        graph.infer()
        context = PassContext(replace(EXACT, round_channels_to=4 if seed % 4 == 1 else 1, round_from=0.0))
        result = RemoveChannels().run(graph, context)
        graph.infer()
        turns = [{name: np.array(value) for name, value in turn.items()} for turn in TURNS]
        feeds = [{**given, **turn} for given in network.feeds() for turn in turns]
        tolerance = TOLERANCE[network.dtype.name]
        for before, after in zip(runs(proto, feeds), runs(graph.to_proto(), feeds), strict=True):
            for a, b in zip(before, after, strict=True):
                # What is repeated may grow beyond all bounds: that is no answer to compare.
                counts = np.isfinite(a)
                difference = compare(
                    np.where(counts, a, 0), np.where(counts, b, 0), rtol=tolerance, atol=tolerance / 10
                )
                assert not difference.reason, f"network {seed}: {difference.reason}"
        smaller += result.modified
        inside += any("_branch/" in label or "/body/" in label for label in result.rewritten)
        assert not RemoveChannels().run(graph, context).modified, f"network {seed} was not done"
    assert smaller > CHUNK / 3 and inside > CHUNK / 8
