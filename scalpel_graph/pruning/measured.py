"""How much faster a pruned model is on this machine, once it is optimized."""

from onnx import ModelProto

from scalpel_graph.api import optimize
from scalpel_graph.group_csr import Array
from scalpel_graph.library import custom_op_library
from scalpel_graph.session import session
from scalpel_graph.target import Target
from scalpel_graph.timing import time_interleaved

#: Seconds to time two models for.
_SECONDS = 4.0


def measured_speed_up(
    original: ModelProto, inputs: dict[str, Array], target: Target, threads: int, pruned: ModelProto
) -> float:
    """Times a model, optimized for a target, against the original in ONNX Runtime.

    Args:
        original: as it was.
        inputs: of one run.
        target: a profile of this machine.
        threads: intra-op threads.
        pruned: with zeros.
    """
    fast = optimize(pruned, target, threads=threads, check=False).model
    before = session(original, threads=threads)
    after = session(fast, library=custom_op_library(), threads=threads)
    times = time_interleaved(
        [lambda: before.run(None, inputs), lambda: after.run(None, inputs)], budget_s=_SECONDS
    )
    return times.ratio(1).median
