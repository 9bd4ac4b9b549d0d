"""What pruning did, as data: the JSON report is an interface that other tools read."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from scalpel_graph.pruning.agreement import Agreement
from scalpel_graph.report import BeforeAfter


@dataclass(frozen=True)
class LayerReport:
    """What became of one Conv, Gemm or MatMul.

    Attributes:
        name: the node's name, or its first output where it has none.
        op: ``Conv``, ``Gemm`` or ``MatMul``.
        technique: ``group``, ``node``, ``n:m`` with its numbers, or ``none``.
        group_shape: ``(r, c)`` of the groups; None for other techniques.
        sparsity: what part of the groups was to go; of nodes, what part of them.
        weight_density: part of its weights that are not zero.
        group_density: part of its groups that hold a weight that is not zero; None without groups.
        nodes: its outputs before, and those of them that were not removed.
        error: part of what the layer should give that it does not, by squares: on the calibration inputs, or
            else of its weights; None for a layer that is as it was.
        dense_us, sparse_us: predicted time of the layer as it was and as it is; None where there is no cost
            model.
        reason: why this technique, or why none.
    """

    name: str
    op: str
    technique: str
    group_shape: tuple[int, int] | None
    sparsity: float
    weight_density: float
    group_density: float | None
    nodes: BeforeAfter
    error: float | None
    dense_us: float | None
    sparse_us: float | None
    reason: str


@dataclass(frozen=True)
class PruneReport:
    """What one run of pruning did to one model.

    Attributes:
        version: of this package.
        input: path of the model; None if it was given in memory.
        output: path it was written to; None if it was not written.
        target: what it was pruned for.
        method: what was asked for.
        calibration: how many inputs weights were fitted on; 0 if importance is by magnitude.
        asked_speed_up, asked_size: what was to be reached; None if sparsity was given.
        weights: of the layers, those that are not zero.
        size_bytes: of these layers' weights: dense, and in the form that suits their zeros.
        layers: every Conv, Gemm and MatMul, in graph order.
        agreement: how the answers compare; None if that was not looked at.
        warnings: what a person should know.
        seconds: it took.
    """

    version: str
    input: str | None
    output: str | None
    target: str
    method: str
    calibration: int
    asked_speed_up: float | None
    asked_size: float | None
    weights: BeforeAfter
    size_bytes: BeforeAfter
    layers: Sequence[LayerReport]
    agreement: Agreement | None
    warnings: Sequence[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def pruned(self) -> list[LayerReport]:
        """The layers that lost weights."""
        return [layer for layer in self.layers if layer.error is not None]

    @property
    def predicted_us(self) -> tuple[float, float] | None:
        """Predicted microseconds of all layers whose time is known, before and after; None without any."""
        pairs = [(x.dense_us, x.sparse_us) for x in self.layers if x.dense_us is not None]
        if not pairs:
            return None
        return math.fsum(a or 0 for a, _ in pairs), math.fsum(b or 0 for _, b in pairs)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types; a number that is not finite is None."""
        return {
            "scalpel_graph": self.version,
            "input": self.input,
            "output": self.output,
            "target": self.target,
            "method": self.method,
            "calibration": self.calibration,
            "asked": {"speed_up": self.asked_speed_up, "size": self.asked_size},
            "weights": {"before": self.weights.before, "after": self.weights.after},
            "size_bytes": {"before": self.size_bytes.before, "after": self.size_bytes.after},
            "predicted_us": None
            if self.predicted_us is None
            else {"before": self.predicted_us[0], "after": self.predicted_us[1]},
            "layers": [_layer(layer) for layer in self.layers],
            "agreement": None if self.agreement is None else _agreement(self.agreement),
            "warnings": list(self.warnings),
            "seconds": round(self.seconds, 3),
        }


def _layer(layer: LayerReport) -> dict[str, Any]:
    return {
        "name": layer.name,
        "op": layer.op,
        "technique": layer.technique,
        "group_shape": None if layer.group_shape is None else list(layer.group_shape),
        "sparsity": layer.sparsity,
        "weight_density": layer.weight_density,
        "group_density": layer.group_density,
        "nodes": {"before": layer.nodes.before, "after": layer.nodes.after},
        "error": _finite(layer.error),
        "dense_us": _finite(layer.dense_us),
        "sparse_us": _finite(layer.sparse_us),
        "reason": layer.reason,
    }


def _agreement(found: Agreement) -> dict[str, Any]:
    return {
        "samples": found.samples,
        "inputs": found.inputs,
        "outputs": [
            {
                "name": output.name,
                "top1": output.top1,
                "cosine": _finite(output.cosine),
                "max_abs_diff": _finite(output.max_abs_diff),
            }
            for output in found.outputs
        ],
        "accuracy": None
        if found.accuracy_before is None
        else {"before": found.accuracy_before, "after": found.accuracy_after},
    }


def _finite(number: float | None) -> float | None:
    return float(number) if number is not None and math.isfinite(number) else None
