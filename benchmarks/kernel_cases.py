"""Calls of the Cortex-M kernels as data, and the programs that run them: on the host and in QEMU.

runtime_ext/cortex_m/cases/ has those programs; kernel_cases.h there specifies the file, kernel_cases.c which
numbers and arrays each kernel takes.
"""

import shutil
import struct
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from scalpel_graph.errors import InputError

Array = npt.NDArray[Any]

FOLDER = Path(__file__).parents[1] / "runtime_ext" / "cortex_m"
PLATFORM = FOLDER / "platform" / "mps2_an386"
CROSS_COMPILER = "arm-none-eabi-gcc"
QEMU = "qemu-system-arm"
#: Of a Debian system.
PACKAGES = "gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-system-arm"
WARNINGS = (
    *("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Wsign-conversion", "-Wshadow"),
    *("-Wcast-qual", "-Wvla", "-Werror"),
)

_FILE_BYTES = 3 << 20
_RUN_S = 120


@dataclass(frozen=True)
class Board:
    """A machine that QEMU emulates.

    Attributes:
        name: of its core.
        machine: its name in QEMU.
        flags: of the compiler.
    """

    name: str
    machine: str
    flags: tuple[str, ...]


M3 = Board("cortex-m3", "mps2-an385", ("-mcpu=cortex-m3", "-mthumb"))
M4 = Board("cortex-m4", "mps2-an386", ("-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"))
M7 = Board("cortex-m7", "mps2-an500", ("-mcpu=cortex-m7", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv5-sp-d16"))


@dataclass(frozen=True)
class Case:
    """One call.

    Attributes:
        kernel: its name without ``scalpel_``.
        numbers: what it takes, int32.
        arrays: what it takes, the input first.
        output_bytes: what it writes.
    """

    kernel: str
    numbers: Sequence[int]
    arrays: Sequence[Array]
    output_bytes: int


@dataclass(frozen=True)
class Outcome:
    """What a call gave.

    Attributes:
        output: its bytes.
        instructions: exact in QEMU, 0 on the host.
    """

    output: bytes
    instructions: int


def encode(cases: Sequence[Case]) -> bytes:
    """The file of the cases."""
    parts = []
    for case in cases:
        arrays = [np.ascontiguousarray(array).tobytes() for array in case.arrays]
        parts += [
            case.kernel.encode().ljust(40, b"\0"),
            struct.pack("<4I", len(case.numbers), len(arrays), case.output_bytes, 0),
            struct.pack(f"<{len(case.numbers)}i", *case.numbers),
            struct.pack(f"<{len(arrays)}I", *map(len, arrays)),
            *arrays,
        ]
    return b"".join(part + bytes(-len(part) % 8) for part in parts)


def write_cases(cases: Sequence[Case], folder: Path) -> None:
    """To where the programs look for them."""
    (folder / "cases.bin").write_bytes(encode(cases))


def decode(outputs: bytes, cases: Sequence[Case]) -> list[Outcome]:
    """What a program wrote for these cases."""
    outcomes, at = [], 0
    for case in cases:
        (instructions,) = struct.unpack_from("<I", outputs, at)
        at += 8
        outcomes.append(Outcome(outputs[at : at + case.output_bytes], instructions))
        at += case.output_bytes + -case.output_bytes % 8
    return outcomes


def build_firmware(board: Board, target: Path, extra: Sequence[str] = ()) -> Path:
    """Compiles and links the program of a board.

    Raises:
        InputError: the compiler is missing, or it says what is wrong.
    """
    sources = [*_sources("main_qemu.c"), *map(str, sorted(PLATFORM.glob("*.c")))]
    flags = ["-O2", "-ffunction-sections", "-nostartfiles", "--specs=nano.specs", "-Wl,--gc-sections"]
    script = f"-T{PLATFORM / 'link.ld'}"
    _compile(CROSS_COMPILER, [*board.flags, *WARNINGS, *flags, *extra, script, *sources], target)
    return target


def build_host(compiler: str, target: Path, flags: Sequence[str]) -> Path:
    """Compiles and links the program of this machine.

    Raises:
        InputError: the compiler says what is wrong.
    """
    _compile(compiler, [*WARNINGS, *flags, *_sources("main_host.c")], target)
    return target


def qemu_command(board: Board, firmware: Path) -> list[str]:
    """Runs a program, each instruction in 64 ns.

    Raises:
        InputError: QEMU is missing.
    """
    command = [_found(QEMU), "-M", board.machine, "-display", "none", "-serial", "none", "-monitor", "none"]
    command += ["-icount", "shift=6,sleep=off", "-semihosting-config", "enable=on,target=native"]
    return [*command, "-kernel", str(firmware)]


def run_in_qemu(board: Board, firmware: Path, cases: Sequence[Case], folder: Path) -> list[Outcome]:
    """Runs the cases, in as many files as they need.

    Raises:
        InputError: QEMU is missing, or the program failed.
    """
    return _run(qemu_command(board, firmware), cases, folder)


def run_on_host(program: Path, cases: Sequence[Case], folder: Path) -> list[Outcome]:
    """Runs the cases.

    Raises:
        InputError: the program failed.
    """
    return _run([str(program)], cases, folder)


def _run(command: Sequence[str], cases: Sequence[Case], folder: Path) -> list[Outcome]:
    outcomes: list[Outcome] = []
    for some in _files(cases):
        write_cases(some, folder)
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=_RUN_S, check=False
        )
        if done.returncode != 0:
            raise InputError(f"{command[0]}: exit code {done.returncode}: {done.stdout}{done.stderr}")
        outcomes += decode((folder / "outputs.bin").read_bytes(), some)
    return outcomes


def _files(cases: Sequence[Case]) -> list[list[Case]]:
    files: list[list[Case]] = [[]]
    size = 0
    for case in cases:
        own = len(encode([case])) + 8 + case.output_bytes
        if size + own > _FILE_BYTES:
            files.append([])
            size = 0
        files[-1].append(case)
        size += own
    return files


def _sources(main: str) -> list[str]:
    cases = FOLDER / "cases"
    return list(map(str, [*sorted(FOLDER.glob("*.c")), cases / "kernel_cases.c", cases / main]))


def _compile(compiler: str, arguments: Sequence[str], target: Path) -> None:
    command = [_found(compiler), *arguments, "-o", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise InputError(f"{compiler}: {done.stderr}")


def _found(program: str) -> str:
    path = shutil.which(program)
    if path is None:
        raise InputError(f"{program} is missing; on Debian: apt-get install {PACKAGES}")
    return path
