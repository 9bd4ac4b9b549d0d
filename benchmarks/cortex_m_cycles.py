"""A model of the Cortex-M4's cycles, applied to every instruction that QEMU executes.

After the timing tables of the Cortex-M4 Technical Reference Manual (r0p1, section 3.3), without wait states:
a load takes 2 cycles, and 1 behind another load whose result is not its address; loads and stores of n
registers 1 + n; stores, multiplications and all else 1; a division 7 (2 to 12); whatever changes the program
counter 2 more.
"""

import os
import re
import subprocess
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.kernel_cases import Board, Case, qemu_command, write_cases
from scalpel_graph.errors import InputError

_DISASSEMBLER = "arm-none-eabi-objdump"
_NM = "arm-none-eabi-nm"
_LINE = re.compile(r"^\s+([0-9a-f]+):\t([0-9a-f]{4}(?: [0-9a-f]{4})?)\s+(\S+)(?:\t(.*))?$")
_TRACE = re.compile(rb"\[[0-9a-f]+/([0-9a-f]+)/")
_LOADS = re.compile(r"ldr(b|h|sb|sh)?$")
_BRANCH = 2
_DIVISION = 7


@dataclass(frozen=True)
class _Instruction:
    size: int
    cycles: int
    is_load: bool
    loads: str
    address: tuple[str, ...]


def modelled_cycles(board: Board, firmware: Path, cases: Sequence[Case], folder: Path) -> list[int]:
    """Of each case. They have to fit in one file.

    Raises:
        InputError: QEMU or the binutils failed.
    """
    code = _disassembled(firmware)
    start, stop = _bounds(firmware)
    write_cases(cases, folder)
    counted: list[int] = []
    total, is_counting, before, previous = 0, False, False, None
    for at in _addresses(qemu_command(board, firmware), folder):
        if before and not start[0] <= at < start[1]:
            is_counting, total, previous = True, 0, None
        before = start[0] <= at < start[1]
        if is_counting and stop[0] <= at < stop[1]:
            counted.append(total)
            is_counting = False
        if is_counting:
            instruction = code[at]
            total += instruction.cycles
            if previous is not None:
                last_at, last = previous
                total += _BRANCH if at != last_at + last.size else 0
                if instruction.is_load and last.is_load and last.loads not in instruction.address:
                    total -= 1
            previous = (at, instruction)
    return counted


def _addresses(command: Sequence[str], folder: Path) -> Iterator[int]:
    """Of every instruction that the program executes; the trace, some 90 bytes each, never becomes a file."""
    pipe = folder / "trace"
    os.mkfifo(pipe)
    trace = ("-singlestep", "-d", "exec,nochain", "-D", str(pipe))
    try:
        with subprocess.Popen([*command, *trace], cwd=folder, stderr=subprocess.PIPE) as running:
            with pipe.open("rb") as lines:
                for line in lines:
                    found = _TRACE.search(line)
                    if found:
                        yield int(found[1], 16)
            if running.wait() != 0:
                assert running.stderr is not None
                raise InputError(f"{command[0]}: {running.stderr.read().decode()}")
    finally:
        pipe.unlink()


def _disassembled(firmware: Path) -> dict[int, _Instruction]:
    code = {}
    for line in _output(_DISASSEMBLER, "-d", str(firmware)).splitlines():
        found = _LINE.match(line)
        if found:
            at, encoding, mnemonic, operands = found.groups()
            size = 2 * len(encoding.split())
            code[int(at, 16)] = _instruction(
                size, mnemonic.removesuffix(".w").removesuffix(".n"), operands or ""
            )
    return code


def _instruction(size: int, mnemonic: str, operands: str) -> _Instruction:
    registers = re.findall(r"\b(?:r\d+|s[bl]|fp|ip|sp|lr|pc)\b", operands)
    if _LOADS.match(mnemonic):
        return _Instruction(size, 2, True, registers[0], tuple(registers[1:]))
    if mnemonic in ("ldrd", "strd"):
        return _Instruction(size, 3, False, "", ())
    if mnemonic.startswith(("ldm", "stm", "push", "pop")):
        return _Instruction(size, 1 + _listed(operands), False, "", ())
    return _Instruction(size, _DIVISION if mnemonic in ("udiv", "sdiv") else 1, False, "", ())


def _listed(operands: str) -> int:
    """Registers between braces, where objdump writes each by its name."""
    return operands[operands.index("{") :].count(",") + 1


def _bounds(firmware: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Addresses of the functions between which a case is counted."""
    symbols = [line.split() for line in _output(_NM, str(firmware)).splitlines()]
    functions = sorted((int(at, 16) & ~1, name) for at, kind, name in symbols if kind in "tT")
    ends = [at for at, _ in functions]
    found = []
    for wanted in ("instructions_start", "instructions"):
        at = next(at for at, name in functions if name == wanted)
        found.append((at, ends[bisect_right(ends, at)]))
    return found[0], found[1]


def _output(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError as error:
        raise InputError(f"{command[0]} is missing") from error
    if done.returncode != 0:
        raise InputError(f"{command[0]}: exit code {done.returncode}: {done.stderr}")
    return done.stdout
