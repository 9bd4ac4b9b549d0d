"""How far a quantized network is from the float network, and whether all its forms give the same bytes."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from onnx import ModelProto

from scalpel_graph import io, quantized_ops
from scalpel_graph.group_csr import Array
from scalpel_graph.mcu import reference
from scalpel_graph.mcu.emit_c import edge_inputs
from scalpel_graph.mcu.network import Dtype, Network
from scalpel_graph.pruning.samples import Samples
from scalpel_graph.session import run, session
from scalpel_graph.verify import Verification

#: The relative error from which on a quantized network is refused.
MOST_ERROR: Mapping[Dtype, float] = {"q15": 0.05, "int8": 0.3}

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
    """
    original = session(before.proto)
    ways = {"with the operator library": session(after, library=library), "without it": session(after)}
    reason = ""
    form = network.values[network.input].format
    edges = ((edge_inputs(network) - form.zero_point) * form.scale).astype(np.float32)
    error = norm = largest = highest = 0.0
    same = total = 0
    for number, batch in enumerate((None, *samples.batches())):
        inputs = {network.input: edges} if batch is None else batch
        answers = [run(way, part)[network.output] for way in ways.values() for part in _parts(inputs, samples)]
        half = len(answers) // 2
        with_library, without = np.concatenate(answers[:half]), np.concatenate(answers[half:])
        if with_library.tobytes() != without.tobytes():
            reason = reason or "the operators and their functions give different bytes"
        if number * samples.batch < _COMPARED:
            expected = _reference(network, inputs[network.input])
            if expected.tobytes() != without.tobytes():
                reason = reason or "ONNX Runtime gives other bytes than the reference arithmetic"
        if batch is None:
            continue
        wanted = run(original, batch)[network.output]
        error += float(np.square(wanted.astype(np.float64) - without).sum())
        norm += float(np.square(wanted.astype(np.float64)).sum())
        largest = max(largest, float(np.abs(wanted - without).max()))
        highest = max(highest, float(np.abs(wanted).max()))
        if wanted.ndim == 2:
            same += int((wanted.argmax(axis=1) == without.argmax(axis=1)).sum())
        total += len(wanted)
    relative = float(np.sqrt(error / norm)) if norm else float(np.sqrt(error))
    if relative > most_error:
        reason = reason or (
            f"the answers of the integers are {relative:.1%} off, more than {most_error:.1%}; calibrate with"
            " inputs like those that the network will see"
        )
    exact = not reason or relative > most_error
    has_sparse = any(node.op_type in quantized_ops.SPARSE for node in after.graph.node)
    verified = Verification(
        ok=not reason,
        max_abs_diff=largest,
        max_rel_diff=largest / highest if highest else largest,
        runs=total,
        custom_ops=exact and has_sparse,
        fallback=exact,
        reason=reason,
    )
    is_vector = len(network.values[network.output].shape) == 1
    return Agreement(verified, relative, same / total if is_vector else None, total)


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
    return (stored.astype(np.float32) - np.float32(form.zero_point)) * np.float32(form.scale)
