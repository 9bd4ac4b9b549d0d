"""What a pass is: a function from a graph to a changed graph, which says what it did and what it refused."""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from scalpel_graph.autotune import Autotuner
from scalpel_graph.graph import ModelGraph
from scalpel_graph.mcu.network import Dtype
from scalpel_graph.mcu.program import Program
from scalpel_graph.pruning.samples import Samples
from scalpel_graph.report import LayerDecision, RemovedNodes
from scalpel_graph.target import Target
from scalpel_graph.value_types import ValueType


@dataclass(frozen=True)
class Skip:
    """A node that a pass could have rewritten but left alone, and why."""

    node: str
    reason: str


class Refusal(Exception):  # noqa: N818 - it is an answer, not an error
    """Why a layer has to stay dense whatever it costs."""


@dataclass
class PassResult:
    """What one run of a pass did.

    Attributes:
        rewritten: labels of the nodes it changed, merged away or replaced.
        skipped: nodes it considered and left alone.
    """

    rewritten: list[str] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)

    @property
    def modified(self) -> bool:
        """Whether the graph changed."""
        return bool(self.rewritten)

    def skip(self, node: str, reason: str) -> None:
        """Notes a refusal."""
        self.skipped.append(Skip(node, reason))


@dataclass(frozen=True)
class Quantization:
    """What a network is quantized to, and by which inputs.

    Attributes:
        dtype: of its integers; None for what a quantized model has, else ``q15``.
        samples: calibration inputs; None where there are none.
    """

    dtype: Dtype | None
    samples: Samples | None


@dataclass
class PassContext:
    """What passes know beside the graph, and what they leave for the report.

    Attributes:
        target: the hardware to rewrite for.
        threads: intra-op threads the model will run on.
        tuner: measures the candidates of layers; None where the cost model's predictions are to count.
        weights: what the values of sparse layers are to be stored as.
        dimensions: sizes to assume for symbolic dimensions (1 where a symbol is missing).
        layers: one entry for each layer that a choice was made about.
        removed_nodes: the layers that lost channels or inputs, or could have.
        quantization: what to quantize for and with; None for targets that compute in floating point.
        program: the quantized network as it runs on the device, once there is one.
    """

    target: Target
    threads: int = 1
    tuner: Autotuner | None = None
    weights: ValueType = "fp32"
    dimensions: dict[str, int] = field(default_factory=dict)
    layers: list[LayerDecision] = field(default_factory=list)
    removed_nodes: list[RemovedNodes] = field(default_factory=list)
    quantization: Quantization | None = None
    program: Program | None = None


class Pass(ABC):
    """One rewrite. Stateless: everything it needs comes as an argument.

    Attributes:
        name: what ``--skip-pass`` and reports call it, in kebab case.
        summary: one line for ``--list-passes``.
    """

    name: str
    summary: str

    @abstractmethod
    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """Rewrites ``graph`` in place. The result must compute the same function."""
