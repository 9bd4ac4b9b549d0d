"""How far a quantized network is from the float network, and whether all its forms give the same bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort
from onnx import ModelProto

from scalpel_graph import io, quantized_ops
from scalpel_graph.errors import CheckError
from scalpel_graph.group_csr import Array
from scalpel_graph.mcu import reference
from scalpel_graph.mcu.emit_c import edge_inputs
from scalpel_graph.mcu.network import ArgMax, Dtype, Network
from scalpel_graph.pruning.samples import Samples
from scalpel_graph.session import SessionError, run, session
from scalpel_graph.tally import Tally
from scalpel_graph.verify import Verification

#: The relative error from which on a quantized network is refused.
MOST_ERROR: Mapping[Dtype, float] = {"q15": 0.05, "int8": 0.3, "int8x16": 0.1}

#: Calibration inputs whose bytes are compared with those of the reference, which is slow.
_COMPARED = 32


@dataclass(frozen=True)
class Agreement:
    """What the comparison found.

    Attributes:
        verified: the outcome.
        relative_error, same_class, samples: as in `scalpel_graph.report.McuReport`.
    """

    verified: Verification
    relative_error: float
    same_class: float | None
    samples: int


def compare(
    before: io.LoadedModel,
    after: ModelProto,
    network: Network,
    samples: Samples,
    *,
    most_error: float,
    library: str | Path,
) -> Agreement:
    """Runs the float model and the quantized one on the calibration inputs.

    The quantized one runs with the operator library and without, on the edges of what can be stored too, and
    must give the same bytes as the reference.

    Args:
        before: the float model.
        after: the quantized one.
        network: it as well.
        samples: calibration inputs.
        most_error: the relative error that is allowed.
        library: of the operators.

    Raises:
        CheckError: the quantized one cannot be loaded.
    """
    original = session(before.proto)
    try:
        ways = [session(after, library=library), session(after)]
    except SessionError as error:
        raise CheckError(f"ONNX Runtime cannot load the result: {error}") from error
    form = network.values[network.input].format
    edges = ((edge_inputs(network) - form.zero_point) * form.scale).astype(np.float32)
    inexact = _bytes_differ(ways, {network.input: edges}, network, samples, with_reference=True)
    tally = Tally()
    for batch in samples.batches():
        inexact = inexact or _bytes_differ(ways, batch, network, samples, tally.total < _COMPARED)
        tally.add(run(original, batch)[network.output], run(ways[1], batch)[network.output])
    relative = tally.relative_error
    reason = inexact
    if not reason and relative > most_error:
        reason = (
            f"the answers of the integers are {relative:.1%} off, more than {most_error:.1%}; calibrate with"
            " inputs like those that the network will see, or allow more with --max-error"
        )
    verified = Verification(
        ok=not reason,
        max_abs_diff=tally.largest,
        max_rel_diff=tally.largest / tally.highest if tally.highest else tally.largest,
        runs=tally.total,
        custom_ops=not inexact and any(node.op_type in quantized_ops.SPARSE for node in after.graph.node),
        fallback=not inexact,
        reason=reason,
    )
    return Agreement(verified, relative, tally.same_class, tally.total)


def _bytes_differ(
    ways: Sequence[ort.InferenceSession],
    inputs: Mapping[str, Array],
    network: Network,
    samples: Samples,
    with_reference: bool,
) -> str:
    """Which two forms of the network give different bytes; empty if none."""
    answers = [
        np.concatenate([run(way, part)[network.output] for part in _parts(inputs, samples)]) for way in ways
    ]
    if answers[0].tobytes() != answers[1].tobytes():
        return "the operators and their functions give different bytes"
    if with_reference and _reference(network, inputs[network.input]).tobytes() != answers[1].tobytes():
        return "ONNX Runtime gives other bytes than the reference arithmetic"
    return ""


def _parts(inputs: Mapping[str, Array], samples: Samples) -> list[Mapping[str, Array]]:
    """One by one where the model takes one at a time."""
    if not samples.fixed:
        return [inputs]
    count = len(next(iter(inputs.values())))
    return [
        {name: array[start : start + samples.batch] for name, array in inputs.items()}
        for start in range(0, count, samples.batch)
    ]


def _reference(network: Network, x: Array) -> Array:
    form = network.values[network.output].format
    stored = reference.run(network, reference.quantize_input(network, x))
    if isinstance(network.layers[-1], ArgMax):
        return stored
    return (stored.astype(np.float32) - np.float32(form.zero_point)) * np.float32(form.scale)
