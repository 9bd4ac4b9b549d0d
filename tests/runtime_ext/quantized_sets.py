"""The kernels of quantized layers that are tested: this machine's, and AArch64's in QEMU.

Names and calls are those of `scalpel_graph._kernels`. A set of an emulated processor is named
``neon@cortex-a72``, its scalar reference ``scalar@cortex-a72``.
"""

from typing import Any

from scalpel_graph import _kernels
from tests.runtime_ext import emulated_kernels
from tests.runtime_ext.emulated_kernels import QuantizedOutput
from tests.runtime_ext.instruction_sets import EMULATED_CPUS, FULLY_TESTED

#: By processor: the sets it can run, best last.
EMULATED_SETS = {
    cpu: ("neon", "neon_dotprod") if cpu in ("cortex-a76", "max") else ("neon",) for cpu in EMULATED_CPUS
}
#: Those that every test runs on: of the emulated ones each set once, or with SCALPEL_EVERY_CPU all there are.
SETS = [
    *dict.fromkeys(kernel["set"] for kernel in _kernels.quantized_kernels()),
    *(
        f"{name}@{cpu}"
        for cpu, names in EMULATED_SETS.items()
        for name in names
        if cpu in FULLY_TESTED or (name == "neon_dotprod" and cpu == "cortex-a76")
    ),
]
#: The scalar references beside this machine's.
OTHER_REFERENCES = [f"scalar@{cpu}" for cpu in FULLY_TESTED]


def quantized_kernels(name: str) -> list[Any]:
    """The rows of the kernel table of a set."""
    plain, _, cpu = name.partition("@")
    table = emulated_kernels.quantized_kernels(cpu) if cpu else _kernels.quantized_kernels()
    return [kernel for kernel in table if kernel["set"] == plain]


class _HostPlan:
    """A plan of this machine, for outputs as emulated ones take them."""

    def __init__(self, plan: Any) -> None:
        self._plan = plan

    def run(self, X: Any, output: QuantizedOutput, **arguments: Any) -> Any:
        return self._plan.run(X, _kernels.QuantizedOutput(**vars(output)), **arguments)


def QuantizedGemm(*arguments: Any) -> Any:  # noqa: N802
    """`scalpel_graph._kernels.QuantizedGemm`."""
    *others, name = arguments
    plain, _, cpu = name.partition("@")
    if cpu:
        return emulated_kernels.QuantizedGemm(cpu, *others, plain)
    return _HostPlan(_kernels.QuantizedGemm(*arguments))


def QuantizedConv(*arguments: Any) -> Any:  # noqa: N802
    """`scalpel_graph._kernels.QuantizedConv`."""
    *others, name = arguments
    plain, _, cpu = name.partition("@")
    if cpu:
        return emulated_kernels.QuantizedConv(cpu, *others, plain)
    return _HostPlan(_kernels.QuantizedConv(*arguments))
