"""Instructions and time of a network on a microcontroller, predicted from its profile.

Each call of a kernel does things that can be counted (`program.Call.amounts`); the profile says how many
instructions each takes. QEMU executes the kernels, so the counts that profiles are fitted to are exact.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import fsum

from scalpel_graph.errors import InputError
from scalpel_graph.mcu.network import Multiply
from scalpel_graph.mcu.program import Call, LayerCode, Program, layer_code
from scalpel_graph.target import McuTarget


def instructions(code: LayerCode, target: McuTarget) -> float:
    """Of all calls of a layer.

    Raises:
        InputError: the profile has no numbers for a kernel.
    """
    return fsum(_call(call, target) for call in code.calls)


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


def microseconds(count: float, target: McuTarget) -> float:
    """How long so many instructions take."""
    return count * target.cycles_per_instruction / target.clock_mhz


def _call(call: Call, target: McuTarget) -> float:
    prices = _prices(call.function.removeprefix("scalpel_"), target)
    return fsum(
        [prices.get("call", 0.0), *(amount * prices.get(name, 0.0) for name, amount in call.amounts.items())]
    )


def _prices(function: str, target: McuTarget) -> Mapping[str, float]:
    """Of the longest beginning of the kernel's name that the profile has."""
    name = function
    while name not in target.instructions:
        name, _, rest = name.rpartition("_")
        if not rest or not name:
            raise InputError(
                f"target {target.source or target.name}: instructions has no entry for the kernel {function}"
            )
    return target.instructions[name]
