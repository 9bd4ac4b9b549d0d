"""How far the answers of a pruned network are from the original's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import ModelProto

from scalpel_graph.compare import is_float
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array
from scalpel_graph.pruning.samples import Samples
from scalpel_graph.session import SessionError, run, session


@dataclass(frozen=True)
class OutputAgreement:
    """How one output of the pruned network compares with the original's.

    Attributes:
        name: of the output.
        top1: how often the largest number along the last axis stands in the same place; None where that axis
            has one number only.
        cosine: mean over samples of the cosine between the two outputs.
        max_abs_diff: largest difference of any element.
    """

    name: str
    top1: float | None
    cosine: float
    max_abs_diff: float


@dataclass(frozen=True)
class Agreement:
    """How the pruned network compares with the original.

    Attributes:
        samples: on how many inputs.
        inputs: what these were: ``held back`` from calibration, ``given``, or ``random``.
        outputs: each output of floating-point numbers.
        accuracy_before, accuracy_after: part of the labels that the first output gets right; None without
            labels.
    """

    samples: int
    inputs: str
    outputs: Sequence[OutputAgreement]
    accuracy_before: float | None = None
    accuracy_after: float | None = None


def agreement(
    before: ModelProto, after: ModelProto, samples: Samples, *, inputs: str, threads: int
) -> Agreement:
    """Runs two models on the same inputs.

    Args:
        before, after: the original and the pruned model.
        samples: what to run them on.
        inputs: where these come from, for the report.
        threads: of ONNX Runtime.

    Raises:
        InputError: ONNX Runtime cannot run the original on them, or the labels do not suit its output.
    """
    totals: dict[str, _Total] = {}
    right_before = right_after = labels = 0
    try:
        original, pruned = session(before, threads=threads), session(after, threads=threads)
        for number, batch in enumerate(samples.batches()):
            expected, actual = run(original, batch), run(pruned, batch)
            floats = [name for name, value in expected.items() if _is_comparable(value)]
            for name in floats:
                totals.setdefault(name, _Total()).add(expected[name], actual[name])
            if samples.labels is not None and floats:
                start = number * samples.batch
                wanted = samples.labels[start : start + samples.batch]
                right_before += _right(expected[floats[0]], wanted)
                right_after += _right(actual[floats[0]], wanted)
                labels += wanted.size
    except SessionError as error:
        raise InputError(f"ONNX Runtime cannot run the model on the {inputs} inputs ({error})") from error
    return Agreement(
        samples.count,
        inputs,
        [total.result(name) for name, total in totals.items()],
        right_before / labels if labels else None,
        right_after / labels if labels else None,
    )


def _is_comparable(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.ndim > 0 and is_float(value.dtype)


class _Total:
    def __init__(self) -> None:
        self.same = self.places = self.samples = 0
        self.cosines = 0.0
        self.largest = 0.0

    def add(self, a: Array, b: Array) -> None:
        a, b = a.astype(np.float64), b.astype(np.float64)
        if a.shape[-1] > 1 and a.ndim > 1:
            hits = a.argmax(axis=-1) == b.argmax(axis=-1)
            self.same += int(hits.sum())
            self.places += hits.size
        rows_a, rows_b = a.reshape(len(a), -1), b.reshape(len(b), -1)
        norms = np.linalg.norm(rows_a, axis=1) * np.linalg.norm(rows_b, axis=1)
        both_zero = ~rows_a.any(axis=1) & ~rows_b.any(axis=1)
        cosines = (rows_a * rows_b).sum(axis=1) / np.where(norms > 0, norms, 1)
        self.cosines += float(np.where(both_zero, 1, cosines).sum())
        self.samples += len(a)
        self.largest = max(self.largest, float(np.abs(a - b).max(initial=0)))

    def result(self, name: str) -> OutputAgreement:
        top1 = self.same / self.places if self.places else None
        return OutputAgreement(name, top1, self.cosines / max(self.samples, 1), self.largest)


def _right(output: Array, labels: Array) -> int:
    if output.ndim < 2 or output.shape[:-1] != labels.shape:
        raise InputError(
            f"labels of shape {list(labels.shape)} do not suit an output of shape {list(output.shape)}: there"
            " must be one for each row of the first output"
        )
    return int((output.argmax(axis=-1) == labels).sum())
