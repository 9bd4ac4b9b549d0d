"""What a run did, as data: the JSON report is an interface that other tools read."""

from dataclasses import dataclass, field
from typing import Literal

from scalpel_graph.group_csr import GroupShape

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
    """

    name: str
    op: str
    chosen: Candidate
    weight_density: float
    candidates: list[Candidate] = field(default_factory=list)
    reason: str = ""
