"""Where the ONNX Runtime library with our operators is installed."""

import sys
from pathlib import Path

import scalpel_graph
from scalpel_graph.errors import ScalpelError

_FILE_NAME = {"darwin": "libscalpel_ort.dylib", "win32": "scalpel_ort.dll"}.get(
    sys.platform, "libscalpel_ort.so"
)


def custom_op_library() -> str:
    """Path of the operator library, for ``SessionOptions.register_custom_ops_library``.

    The library has no Python in it: programs in other languages can load the same file.

    Raises:
        ScalpelError: this installation was made without it.
    """
    # In an editable installation the package has a second folder, for what was built.
    folders = [Path(folder) / "lib" for folder in scalpel_graph.__path__]
    for folder in folders:
        library = folder / _FILE_NAME
        if library.is_file():
            return str(library)
    raise ScalpelError(
        f"{_FILE_NAME} is not in {' or '.join(map(str, folders))}: "
        "install scalpel-graph with a C++ compiler on the PATH, which builds it"
    )
