"""Where the ONNX Runtime libraries with our operators are installed."""

import sys
from pathlib import Path

import scalpel_graph
from scalpel_graph.errors import ScalpelError

_CUDA_FILE_NAME = "libscalpel_ort_cuda.so"
_FILE_NAME = {"darwin": "libscalpel_ort.dylib", "win32": "scalpel_ort.dll"}.get(
    sys.platform, "libscalpel_ort.so"
)


def custom_op_library() -> str:
    """Path of the operator library, for ``SessionOptions.register_custom_ops_library``.

    The library has no Python in it: programs in other languages can load the same file.

    Raises:
        ScalpelError: this installation was made without it.
    """
    return _installed(_FILE_NAME, "a C++ compiler")


def cuda_op_library() -> str:
    """Path of the library that has the operators for ONNX Runtime's CUDA provider too.

    A session registers it in place of `custom_op_library`: it has everything that is in that one.

    Raises:
        ScalpelError: this installation was made without nvcc.
    """
    return _installed(_CUDA_FILE_NAME, "nvcc")


def _installed(name: str, builder: str) -> str:
    # In an editable installation the package has a second folder, for what was built.
    folders = [Path(folder) / "lib" for folder in scalpel_graph.__path__]
    for folder in folders:
        library = folder / name
        if library.is_file():
            return str(library)
    raise ScalpelError(
        f"{name} is not in {' or '.join(map(str, folders))}: "
        f"install scalpel-graph with {builder} on the PATH, which builds it"
    )
