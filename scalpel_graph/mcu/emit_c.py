"""A quantized network as a C99 bundle: kernels, weights, calls, a self-test, and what builds and runs it.

The same network gives the same bytes. The folder is written whole or not at all.
"""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

import scalpel_graph
from scalpel_graph.errors import InputError, ScalpelError
from scalpel_graph.group_csr import Array
from scalpel_graph.mcu import reference
from scalpel_graph.mcu.network import LIMITS, STORED, Network
from scalpel_graph.mcu.program import Buffer, Call, Constant, Program, Struct, identifier
from scalpel_graph.pruning.samples import Samples
from scalpel_graph.report import McuReport

#: Of the first line of a bundle's README, by which one is known.
_MARK = "<!-- scalpel-graph bundle -->"
_COLUMNS = 110
_CTYPES = {
    "int8": "int8_t", "uint8": "uint8_t", "int16": "int16_t", "uint16": "uint16_t", "int32": "int32_t",
    "uint32": "uint32_t", "int64": "int64_t",
}  # fmt: skip
_KEYWORDS = {
    "auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern",
    "float", "for", "goto", "if", "inline", "int", "long", "main", "register", "restrict", "return", "short",
    "signed", "sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile",
    "while",
}  # fmt: skip

#: Random vectors of the self-test, and calibration inputs, beside the extremes.
_RANDOM_VECTORS = 3
_SAMPLES = 3


@dataclass(frozen=True)
class Vectors:
    """Inputs of the self-test and what they give, as the device stores them (channels last).

    Attributes:
        inputs, outputs: ``[n, length]``.
    """

    inputs: Array
    outputs: Array


def check_folder(folder: Path) -> None:
    """Finds out before the work whether a bundle can be written.

    Raises:
        InputError: the folder holds something else, or cannot be written.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--emit-c {folder}: is a file; name a folder")
    if folder.is_dir() and any(folder.iterdir()) and not _is_bundle(folder):
        raise InputError(
            f"--emit-c {folder}: holds files that are not a bundle; name an empty or a new folder"
        )
    parent = folder.resolve().parent
    if not parent.is_dir():
        raise InputError(f"--emit-c {folder}: folder {parent} does not exist; create it first")
    if not os.access(parent, os.W_OK):
        raise InputError(f"--emit-c {folder}: {parent} is not writable")


def kernel_folder() -> Path:
    """Where the C sources of the kernels are installed.

    Raises:
        ScalpelError: this installation has none.
    """
    for folder in scalpel_graph.__path__:
        found = Path(folder) / "cortex_m"
        if (found / "scalpel_kernels.h").is_file():
            return found
    raise ScalpelError("the C kernels are not installed with this package; install scalpel-graph again")


def emit(program: Program, samples: Samples, report: McuReport, model: bytes, folder: Path) -> None:
    """Writes the bundle of a network.

    Args:
        program: the network.
        samples: calibration inputs; some become vectors of the self-test.
        report: of its layers.
        model: the ONNX file of the network, whose SHA-256 the bundle carries.
        folder: where to; replaced if it is a bundle.

    Raises:
        InputError: the folder cannot be written.
    """
    check_folder(folder)
    inputs = samples.arrays[program.network.input]
    bundle = _Bundle(program, hashlib.sha256(model).hexdigest(), inputs, report.to_json())
    parent = folder.resolve().parent
    try:
        temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=parent))
        try:
            temporary.chmod(0o755)
            for name, text in bundle.files():
                path = temporary / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text, encoding="utf-8")
            if folder.is_dir():
                shutil.rmtree(folder)
            temporary.rename(folder.resolve())
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
    except OSError as error:
        raise InputError(f"--emit-c {folder}: cannot be written: {error.strerror}") from error


def self_test(network: Network, samples: Array) -> Vectors:
    """Vectors at the edges of what can be stored, random ones and some of the samples.

    Args:
        network: it.
        samples: float32 inputs ``[n, ...]``.
    """
    inputs = np.concatenate([edge_inputs(network), reference.quantize_input(network, samples[:_SAMPLES])])
    outputs = reference.run(network, inputs)
    return Vectors(channels_last(inputs), channels_last(outputs))


def edge_inputs(network: Network) -> Array:
    """Stored inputs ``[n, ...]`` at the edges of what can be, and random ones."""
    value = network.values[network.input]
    low, high = LIMITS[network.dtype]
    rng = np.random.default_rng(0)
    checkered = np.where(np.arange(value.size) % 2 == 0, low, high)
    vectors = [
        np.zeros(value.size), np.full(value.size, low), np.full(value.size, high), checkered,
        *rng.integers(low, high + 1, (_RANDOM_VECTORS, value.size)),
    ]  # fmt: skip
    return np.stack(vectors).astype(np.int64).reshape(len(vectors), *value.shape)


def channels_last(x: Array) -> Array:
    """``[n, C, ...]`` as the device stores it: ``[n, ... · C]``."""
    return (x if x.ndim < 3 else np.moveaxis(x, 1, -1)).reshape(len(x), -1)


def _is_bundle(folder: Path) -> bool:
    try:
        return (folder / "README.md").read_text(encoding="utf-8").startswith(_MARK)
    except (OSError, UnicodeDecodeError):
        return False


class _Bundle:
    def __init__(self, program: Program, sha256: str, samples: Array, report: Mapping[str, Any]) -> None:
        self.program, self.network = program, program.network
        self.name = identifier(self.network.name, set(_KEYWORDS))
        self.ctype = _CTYPES[STORED[self.network.dtype].name]
        self.sha256, self.report = sha256, report
        self.vectors = self_test(self.network, samples)
        self.environment = jinja2.Environment(
            loader=jinja2.PackageLoader("scalpel_graph", "templates/bundle"),
            trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
            undefined=jinja2.StrictUndefined,
        )  # fmt: skip
        self.environment.filters["comment"] = _comment

    def files(self) -> Iterable[tuple[str, str]]:
        """Name and text of each, in a fixed order."""
        name, kernels = self.name, kernel_folder()
        yield "README.md", self.render("README.md.j2")
        yield "Makefile", self.render("Makefile.j2")
        yield "CMakeLists.txt", self.render("CMakeLists.txt.j2")
        yield "report.json", json.dumps({"model_sha256": self.sha256, **self.report}, indent=2) + "\n"
        yield f"include/{name}.h", self.render("network.h.j2")
        yield f"src/{name}.c", self.render("network.c.j2", calls=self.calls())
        yield (
            f"src/{name}_weights.h",
            self.render("weights.h.j2", structs=self.structs(), arrays=self.shared()),
        )
        yield f"src/{name}_weights.c", self.render("weights.c.j2", layers=self.weights())
        for path in sorted(kernels.glob("*.[chS]")):
            yield f"src/{path.name}", path.read_text(encoding="utf-8")
        yield f"test/{name}_selftest.h", self.render("selftest.h.j2")
        yield f"test/{name}_selftest.c", self.render("selftest.c.j2", **self.arrays_of_test())
        for path in sorted((kernels / "platform" / "mps2_an386").iterdir()):
            yield f"platform/mps2_an386/{path.name}", path.read_text(encoding="utf-8")
        yield "platform/mps2_an386/main.c", self.render("qemu_main.c.j2")
        yield "platform/host/main.c", self.render("host_main.c.j2")

    def render(self, template: str, **values: Any) -> str:
        network, program = self.network, self.program
        sources = [path.name for path in sorted(kernel_folder().glob("*.[cS]"))]
        return self.environment.get_template(template).render(
            title=_comment(self.network.name), name=self.name, NAME=self.name.upper(), mark=_MARK,
            sha256=self.sha256, network=network, program=program, input=network.values[network.input],
            output=network.values[network.output],
            ctype=self.ctype, kernels=sources,
            arena_bytes=max(program.arena_bytes, 8), vectors=len(self.vectors.inputs), report=self.report,
            **values,
        )  # fmt: skip

    # -- C ----------------------------------------------------------------------------------------------

    def calls(self) -> list[tuple[str, list[str]]]:
        """By layer, the statements."""
        return [(code.layer.name, [self.call(call) for call in code.calls]) for code in self.program.layers]

    def call(self, call: Call) -> str:
        arguments = [self.argument(argument) for argument in call.arguments]
        arguments += [self.pointer(buffer, const=True) for buffer in call.reads]
        if "_argmax_" in call.function:
            target = self.pointer(call.writes)
            return f"*({target}) = ({self.ctype}){call.function}({', '.join(arguments)});"
        arguments.append(self.pointer(call.writes, first=call.y_offset))
        return f"{call.function}({', '.join(arguments)});"

    def argument(self, argument: Struct | Constant | int) -> str:
        if isinstance(argument, int):
            return str(argument)
        name = f"{self.name}_{argument.name}"
        return f"&{name}" if isinstance(argument, Struct) else name

    def pointer(self, buffer: Buffer, first: int = 0, const: bool = False) -> str:
        ctype = {1: "int8_t", 2: "int16_t"}[buffer.itemsize]
        plus = f" + {first}" if first else ""
        offset = self.program.offsets.get(buffer.name)
        if offset is None:
            return f"{buffer.name}{plus}"
        qualifier = "const " if const else ""
        return f"({qualifier}{ctype} *)(void *)(memory + {offset}){plus}"

    def structs(self) -> list[Struct]:
        return [struct for code in self.program.layers for struct in code.structs]

    def shared(self) -> list[tuple[str, Constant]]:
        """Arrays that calls name themselves, with their C types."""
        named = [
            argument
            for code in self.program.layers
            for call in code.calls
            for argument in call.arguments
            if isinstance(argument, Constant)
        ]
        return [(_CTYPES[constant.values.dtype.name], constant) for constant in named]

    def weights(self) -> list[dict[str, Any]]:
        """By layer, its arrays and structures as C text."""
        shared = {constant.name for _, constant in self.shared()}
        return [
            {
                "name": code.layer.name,
                "arrays": [
                    self.array(constant, static=constant.name not in shared) for constant in code.constants
                ],
                "structs": [self.struct(struct, code.constants) for struct in code.structs],
            }
            for code in self.program.layers
            if code.constants or code.structs
        ]

    def array(self, constant: Constant, static: bool) -> str:
        ctype = _CTYPES[constant.values.dtype.name]
        head = (
            f"{'static ' if static else ''}const {ctype} {self.name}_{constant.name}[{constant.values.size}]"
        )
        return f"SCALPEL_ALIGNED {head} = {{\n{_numbers(constant.values)}\n}};"

    def struct(self, struct: Struct, constants: Sequence[Constant]) -> str:
        names = {constant.name for constant in constants}
        fields = [
            f"  .{field} = {f'{self.name}_{value}' if value in names else _number(value)},"
            for field, value in struct.fields.items()
        ]
        return "\n".join([f"const {struct.ctype} {self.name}_{struct.name} = {{", *fields, "};"])

    def arrays_of_test(self) -> dict[str, str]:
        return {
            "inputs": ",\n".join(f"    {{\n{_numbers(row)}\n    }}" for row in self.vectors.inputs),
            "outputs": ",\n".join(f"    {{\n{_numbers(row)}\n    }}" for row in self.vectors.outputs),
        }


def _comment(text: str) -> str:
    """Text that may stand in a C comment, in a table or in code of Markdown."""
    return re.sub(r"[^\w .:,+()-]+", "_", text)


def _number(value: str | int | np.integer[Any]) -> str:
    """As a C constant that no compiler warns about."""
    if isinstance(value, str):
        return value
    number = int(value)
    if number == -(2**31):
        return "-2147483647 - 1"
    if not -(2**31) < number < 2**31:
        return f"INT64_C({number})" if number < 0 or number >= 2**32 else f"{number}u"
    return str(number)


def _numbers(values: Array) -> str:
    lines, line = [], " "
    for value in values.reshape(-1):
        text = f" {_number(value)},"
        if len(line) + len(text) > _COLUMNS:
            lines.append(line)
            line = " "
        line += text
    return "\n".join([*lines, line])
