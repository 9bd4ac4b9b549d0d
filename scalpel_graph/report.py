"""What a run did, as data: the JSON report is an interface that other tools read."""

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from scalpel_graph.group_csr import GroupShape
from scalpel_graph.value_types import Storage, ValueType

if TYPE_CHECKING:
    from scalpel_graph.verify import Verification

Decision = Literal["dense", "group_csr"]


@dataclass(frozen=True)
class Candidate:
    """One way to run a layer, and how long the cost model thinks it takes.

    Attributes:
        decision: dense in ONNX Runtime, or one of our operators.
        group_shape: ``(r, c)`` of the format; None for dense.
        density: fraction of weights that this way stores (1.0 for dense).
        predicted_us: microseconds, layout changes at its borders included.
    """

    decision: Decision
    group_shape: GroupShape | None
    density: float
    predicted_us: float


@dataclass(frozen=True)
class LayerDecision:
    """What was chosen for one layer, from which candidates, and why.

    Attributes:
        name: label of the node.
        op: its operator before the rewrite (``Conv``, ``Gemm``, ``MatMul``).
        chosen: the candidate taken.
        weight_density: fraction of the layer's weights that are not zero.
        candidates: all that were compared, the chosen one among them.
        reason: one clause for a person.
        values: what the values of the sparse form are stored as; of a dense layer float32.
    """

    name: str
    op: str
    chosen: Candidate
    weight_density: float
    candidates: list[Candidate] = field(default_factory=list)
    reason: str = ""
    values: Storage = field(default_factory=Storage)

    @property
    def dense_us(self) -> float | None:
        """Predicted microseconds of the layer left as it is; None if that was no candidate."""
        return next((c.predicted_us for c in self.candidates if c.decision == "dense"), None)


@dataclass(frozen=True)
class BeforeAfter:
    """One figure of the model that came in and of the one that goes out."""

    before: int
    after: int


@dataclass(frozen=True)
class SkippedNode:
    """A node that a pass could have rewritten but left alone, and why."""

    node: str
    reason: str


@dataclass(frozen=True)
class PassRun:
    """One run of one pass: whether it changed the graph, its wall-clock time, what it refused."""

    name: str
    modified: bool
    seconds: float
    skipped: list[SkippedNode] = field(default_factory=list)


@dataclass(frozen=True)
class RemovedNodes:
    """A layer that lost output channels (neurons, hidden units) or inputs, or could have.

    Attributes:
        name: label of the node.
        before, after: how many output channels it has; 0 if it is gone.
        possible: how many it could do with; fewer than ``after`` where the target rounds widths up.
        parameters: floating-point weights of the layer.
        macs: its multiply-accumulates in one run.
    """

    name: str
    before: int
    after: int
    possible: int
    parameters: BeforeAfter
    macs: BeforeAfter


@dataclass(frozen=True)
class IntegerLayerReport:
    """What one layer takes on a microcontroller.

    Attributes:
        name: label of the node.
        op: the layer.
        stored: ``dense``, a group shape, or empty for a layer without weights.
        accumulator_bits: 32 or 64; None for a layer without weights.
        instructions: predicted.
        flash_bytes: of its constants.
        ram_bytes: of the buffers that it reads and writes.
    """

    name: str
    op: str
    stored: str
    accumulator_bits: int | None
    instructions: int
    flash_bytes: int
    ram_bytes: int


@dataclass(frozen=True)
class McuReport:
    """What a network takes on a microcontroller, and how far its integers are from the float network.

    Attributes:
        dtype: ``q15``, ``int8`` or ``int8x16``.
        instructions: of one run, predicted.
        dense_instructions: if every layer were dense.
        flash_bytes: of all constants.
        ram_bytes: of the arena.
        relative_error: norm of the difference over the norm of the float outputs, on the calibration inputs.
        same_class: fraction of calibration inputs whose largest output is at the same place; None where the
            output is no vector.
        samples: calibration inputs.
        layers: in the order that they run.
    """

    dtype: str
    instructions: int
    dense_instructions: int
    flash_bytes: int
    ram_bytes: int
    relative_error: float
    same_class: float | None
    samples: int
    layers: list[IntegerLayerReport]

    def to_json(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self)


@dataclass(frozen=True)
class QuantizationReport:
    """What quantizing a float network did, before anything was optimized.

    Attributes:
        type: what it was quantized to: ``int8``.
        relative_error: of the answers on the calibration inputs: norm of the difference over the norm of the
            float network's.
        same_class: fraction of calibration inputs whose largest output is at the same place; None where the
            output is no vector.
        samples: calibration inputs.
    """

    type: str
    relative_error: float
    same_class: float | None
    samples: int


@dataclass(frozen=True)
class Report:
    """What one run of the tool did to one model.

    Attributes:
        version: of this package.
        input: path of the model; None if it was given in memory.
        output: path it was written to; None if it was not written.
        target: name of the hardware profile.
        times: whether the times of candidates were predicted from the profile or measured on this machine.
        weights: what the values of sparse layers were to be stored as.
        verified: outcome of running the model before and after on the same inputs.
        size_bytes: of the file, external data included.
        parameters: floating-point weights stored in the model.
        macs: multiply-accumulate operations of one run, a stored group counted whole.
        layers: the layers that a choice was made about.
        removed_nodes: the layers that lost channels or inputs, or could have.
        passes: in the order they ran.
        microcontroller: what the integer network takes; None for other targets.
        quantization: what quantizing it did; None for a model that was not quantized here. What is before is
            then the float model, but what ``verified`` compares with is the quantized one.
    """

    version: str
    input: str | None
    output: str | None
    target: str
    times: Literal["predicted", "measured"]
    weights: ValueType
    verified: "Verification"
    size_bytes: BeforeAfter
    parameters: BeforeAfter
    macs: BeforeAfter
    layers: list[LayerDecision] = field(default_factory=list)
    removed_nodes: list[RemovedNodes] = field(default_factory=list)
    passes: list[PassRun] = field(default_factory=list)
    microcontroller: McuReport | None = None
    quantization: QuantizationReport | None = None

    @property
    def modified(self) -> bool:
        """Whether the model that goes out differs from the one that came in."""
        return self.quantization is not None or any(run.modified for run in self.passes)

    @property
    def narrower(self) -> list[RemovedNodes]:
        """The layers that lost output channels."""
        return [node for node in self.removed_nodes if node.after < node.before]

    @property
    def rounded(self) -> list[LayerDecision]:
        """The layers whose values are stored in 16 bits."""
        return [layer for layer in self.layers if layer.values.type != "fp32"]

    @property
    def predicted_us(self) -> tuple[float, float] | None:
        """Predicted microseconds of all `layers` together, before and after; None where there are none."""
        compared = [(layer.dense_us, layer.chosen.predicted_us) for layer in self.layers]
        pairs = [(before, after) for before, after in compared if before is not None]
        if not pairs:
            return None
        return math.fsum(before for before, _ in pairs), math.fsum(after for _, after in pairs)

    def to_json(self) -> dict[str, Any]:
        """The report as JSON types, keys in the documented order; a number that is not finite is None."""
        verified = self.verified
        return {
            "scalpel_graph": self.version,
            "input": self.input,
            "output": self.output,
            "target": self.target,
            "times": self.times,
            "weights": self.weights,
            "verified": {
                "ok": verified.ok,
                "max_abs_diff": _finite(verified.max_abs_diff),
                "max_rel_diff": _finite(verified.max_rel_diff),
                "runs": verified.runs,
                "custom_ops": verified.custom_ops,
                "fallback": verified.fallback,
                "reason": verified.reason,
            },
            "size_bytes": _before_after(self.size_bytes),
            "parameters": _before_after(self.parameters),
            "macs": _before_after(self.macs),
            "layers": [_layer(layer) for layer in self.layers],
            "removed_nodes": [
                {
                    "name": node.name,
                    "before": node.before,
                    "after": node.after,
                    "possible": node.possible,
                    "parameters": _before_after(node.parameters),
                    "macs": _before_after(node.macs),
                }
                for node in self.removed_nodes
            ],
            "passes": [
                {
                    "name": run.name,
                    "modified": run.modified,
                    "seconds": round(run.seconds, 6),
                    "skipped": [{"node": skip.node, "reason": skip.reason} for skip in run.skipped],
                }
                for run in self.passes
            ],
            "microcontroller": None if self.microcontroller is None else self.microcontroller.to_json(),
            "quantization": None if self.quantization is None else asdict(self.quantization),
        }


def _before_after(figure: BeforeAfter) -> dict[str, int]:
    return {"before": figure.before, "after": figure.after}


def _layer(layer: LayerDecision) -> dict[str, Any]:
    return {
        "name": layer.name,
        "op": layer.op,
        "decision": layer.chosen.decision,
        "group_shape": _group_shape(layer.chosen),
        "density": _finite(layer.chosen.density),
        "weight_density": _finite(layer.weight_density),
        "values": layer.values.type,
        "rounding_error": _finite(layer.values.error),
        "candidates": [
            {
                "decision": candidate.decision,
                "group_shape": _group_shape(candidate),
                "density": _finite(candidate.density),
                "predicted_us": _finite(candidate.predicted_us),
            }
            for candidate in layer.candidates
        ],
        "predicted_us": _finite(layer.chosen.predicted_us),
        "reason": layer.reason,
    }


def _group_shape(candidate: Candidate) -> list[int] | None:
    return None if candidate.group_shape is None else [int(n) for n in candidate.group_shape]


def _finite(number: float | None) -> float | None:
    """JSON has no infinity and no NaN."""
    return float(number) if number is not None and math.isfinite(number) else None
