"""Which values of a network must be stored in the same way: those that a layer hands on without computing."""

from collections.abc import Callable

from scalpel_graph.mcu.network import FloatLayer, FloatNetwork


def classes(network: FloatNetwork, hands_on: Callable[[FloatLayer], bool]) -> dict[str, str]:
    """For each value the name that stands for all that are stored alike.

    Args:
        network: its layers.
        hands_on: whether the inputs and the output of a layer are stored alike.
    """
    parent = {name: name for name in network.shapes}

    def root(name: str) -> str:
        while parent[name] != name:
            name = parent[name]
        return name

    for layer in network.layers:
        if hands_on(layer):
            for name in layer.inputs:
                parent[root(name)] = root(layer.output)
    return {name: root(name) for name in parent}
