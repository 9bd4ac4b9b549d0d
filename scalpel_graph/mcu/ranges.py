"""What the values of a network reach on the calibration inputs."""

from collections.abc import Iterable, Mapping

import numpy as np
from onnx import ModelProto, ValueInfoProto

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array
from scalpel_graph.session import SessionError, run, session

#: Smallest and largest number, by value.
Ranges = Mapping[str, tuple[float, float]]


def measure(model: ModelProto, names: Iterable[str], batches: Iterable[Mapping[str, Array]]) -> Ranges:
    """Runs the float network on the calibration inputs.

    Args:
        model: the network; not changed.
        names: of the values to look at.
        batches: the inputs of each run. Nothing of a run is kept but its extremes.

    Raises:
        InputError: ONNX Runtime cannot run the network, or it computes something that is not finite.
    """
    wanted = list(dict.fromkeys(names))
    watched = ModelProto()
    watched.CopyFrom(model)
    there = {value.name for value in watched.graph.output}
    given = {value.name for value in watched.graph.input}
    watched.graph.output.extend(ValueInfoProto(name=name) for name in wanted if name not in there | given)
    ranges: dict[str, tuple[float, float]] = {}
    try:
        network = session(watched)
        for inputs in batches:
            values = {**inputs, **run(network, inputs)}
            for name in wanted:
                low, high = float(np.min(values[name])), float(np.max(values[name]))
                if not np.isfinite(low + high):
                    raise InputError(f"value {name!r} is not finite on the calibration inputs")
                before = ranges.get(name, (low, high))
                ranges[name] = min(before[0], low), max(before[1], high)
    except SessionError as error:
        raise InputError(f"the network cannot be run on the calibration inputs: {error}") from error
    return ranges
