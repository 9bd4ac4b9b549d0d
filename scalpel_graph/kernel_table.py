"""What the table of compiled kernels says: instruction sets, and group shapes with kernels of their own."""

import re

from scalpel_graph import _kernels
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape

_NAME = re.compile(r"(gemv|spmm)_(\d+)x(\d+)_")


def chosen_isa() -> str:
    """The instruction set that the operators use here.

    Raises:
        InputError: ``SCALPEL_ISA`` asks for one that this machine does not have.
    """
    try:
        return _kernels.chosen_isa()
    except ValueError as error:
        raise InputError(str(error)) from error


def group_shapes() -> list[GroupShape]:
    """Every group shape that some instruction set has a kernel for, those of any one machine alike.

    A GEMV kernel is named by its group shape, an SpMM kernel by its rows and the vectors of its tile.
    """
    shapes: set[GroupShape] = set()
    for kernel in _kernels.kernels():
        found = _NAME.match(kernel["name"])
        if found is not None:
            operation, r, c = found[1], int(found[2]), int(found[3])
            shapes.add((r, c if operation == "gemv" else 1))
    widest = max((max(shape) for shape in shapes), default=1)
    # Twice the widest vector halves the indices again.
    shapes |= {(2 * widest, 1), (1, 2 * widest)} if widest < 16 else set()
    return sorted(shapes)


def quantized_group_shapes() -> list[GroupShape]:
    """Every group shape that the kernels of 8-bit layers know, those of any one machine alike.

    They go by columns: other shapes run as row blocks of as many rows.
    """
    return [(16, 1), (8, 1), (4, 1), (1, 1)]


def lanes(isa: str) -> int:
    """Floats in a vector of the kernels for an instruction set; 1 for the scalar ones."""
    return _kernels.lanes(isa)
