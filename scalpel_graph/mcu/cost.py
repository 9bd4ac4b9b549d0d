"""Instructions, clock cycles and time of a network on a microcontroller, predicted from its profile.

Each call of a kernel does things that can be counted (`program.Call.amounts`); the profile says how many
instructions and cycles each takes. QEMU executes the kernels, so the counts that profiles are fitted to are
exact; cycles are those of a model of the core (`benchmarks/cortex_m_cycles.py`).
"""

from collections.abc import Mapping
from dataclasses import replace
from math import fsum

from scalpel_graph.errors import InputError
from scalpel_graph.mcu.network import Multiply
from scalpel_graph.mcu.program import Call, LayerCode, Program, layer_code
from scalpel_graph.target import McuTarget

_Table = Mapping[str, Mapping[str, float]]


def instructions(code: LayerCode, target: McuTarget) -> float:
    """Of all calls of a layer.

    Raises:
        InputError: the profile has no numbers for a kernel.
    """
    return fsum(_call(call, target, target.instructions) for call in code.calls)


def microseconds(code: LayerCode, target: McuTarget) -> float:
    """Of all calls of a layer; see `instructions`."""
    return fsum(_call(call, target, target.cycles) for call in code.calls) / target.clock_mhz


def dense_instructions(program: Program, target: McuTarget) -> float:
    """Of a network whose layers are all dense."""
    total = 0.0
    for code in program.layers:
        layer = code.layer
        if isinstance(layer, Multiply) and layer.group_shape is not None:
            total += instructions(layer_code(program.network, replace(layer, group_shape=None)), target)
        else:
            total += instructions(code, target)
    return total


def _call(call: Call, target: McuTarget, table: _Table) -> float:
    prices = _prices(call.function.removeprefix("scalpel_"), target, table)
    return fsum(
        [prices.get("call", 0.0), *(amount * prices.get(name, 0.0) for name, amount in call.amounts.items())]
    )


def _prices(function: str, target: McuTarget, table: _Table) -> Mapping[str, float]:
    """Of the longest beginning of the kernel's name that the profile has."""
    name = function
    while name not in table:
        name, _, rest = name.rpartition("_")
        if not rest or not name:
            raise InputError(
                f"target {target.source or target.name}: there are no numbers for the kernel {function}"
            )
    return table[name]
