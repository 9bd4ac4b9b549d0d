"""Makes pruned ONNX networks small and fast on the hardware they run on.

>>> import scalpel_graph as sg
>>> pruned = sg.prune("in.onnx", target="cpu", sparsity=0.9)  # .model (onnx.ModelProto), .report
>>> result = sg.optimize(pruned.model, target="cpu")          # likewise
>>> options = onnxruntime.SessionOptions()
>>> options.register_custom_ops_library(str(sg.custom_op_library()))

What is exported here is imported when it is first used: importing the package alone is quick.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from scalpel_graph.errors import CheckError, GraphError, GroupCsrError, InputError, ScalpelError

if TYPE_CHECKING:
    from scalpel_graph.api import OptimizeResult, optimize
    from scalpel_graph.library import cuda_op_library, custom_op_library
    from scalpel_graph.pruning.api import PruneResult, prune

    __version__: str

__all__ = [
    "CheckError",
    "GraphError",
    "GroupCsrError",
    "InputError",
    "OptimizeResult",
    "PruneResult",
    "ScalpelError",
    "__version__",
    "cuda_op_library",
    "custom_op_library",
    "optimize",
    "prune",
]

_HOMES = {
    "OptimizeResult": "scalpel_graph.api",
    "optimize": "scalpel_graph.api",
    "PruneResult": "scalpel_graph.pruning.api",
    "prune": "scalpel_graph.pruning.api",
    "cuda_op_library": "scalpel_graph.library",
    "custom_op_library": "scalpel_graph.library",
    "__version__": "scalpel_graph.version",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
