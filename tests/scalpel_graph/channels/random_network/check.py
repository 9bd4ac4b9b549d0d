"""Removes the channels of a random network, and holds what is left against what it was."""

import numpy as np

from scalpel_graph.compare import compare
from scalpel_graph.graph import ModelGraph
from scalpel_graph.passes.base import PassContext
from scalpel_graph.passes.remove_channels import RemoveChannels
from scalpel_graph.target import Target
from tests.pass_runner import runs
from tests.scalpel_graph.channels.random_network.network import RandomNetwork

#: How far apart answers may be, of their size.
TOLERANCE = {"float16": 3e-2, "float32": 1e-3, "float64": 1e-9}


def check(seed: int, target: Target) -> bool:
    """Answers stay, for inputs of both sizes, and a second run changes nothing; whether channels went."""
    network = RandomNetwork(seed)
    proto = network.model()
    graph = ModelGraph(proto)
    graph.infer()
    result = RemoveChannels().run(graph, PassContext(target))
    graph.infer()
    feeds = network.feeds()
    tolerance = TOLERANCE[network.dtype.name]
    answers = zip(runs(proto, feeds), runs(graph.to_proto(), feeds), strict=True)
    for number, (before, after) in enumerate(answers):
        for value, a, b in zip(network.outputs.values(), before, after, strict=True):
            assert a.shape == value.shapes[number], f"network {seed} is not what it should be"
            assert np.isfinite(a).all(), f"network {seed} overflows"
            difference = compare(a, b, rtol=tolerance, atol=tolerance / 10)
            assert not difference.reason, f"network {seed}: {value.name} {difference.reason}"
    assert not RemoveChannels().run(graph, PassContext(target)).modified, f"network {seed} was not done"
    return result.modified
