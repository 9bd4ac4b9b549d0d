from pathlib import Path

import pytest

import scalpel_graph
from scalpel_graph.errors import ScalpelError
from scalpel_graph.library import cuda_op_library, custom_op_library


def test_the_library_is_installed_in_lib() -> None:
    path = Path(custom_op_library())
    assert path.is_file()
    assert path.parent.name == "lib"


def test_an_installation_without_the_library_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(scalpel_graph, "__path__", [str(tmp_path)])
    with pytest.raises(ScalpelError, match=r"scalpel_ort\.\w+ is not in .*lib: install .* C\+\+ compiler"):
        custom_op_library()
    with pytest.raises(ScalpelError, match=r"libscalpel_ort_cuda\.so is not in .*lib: install .* nvcc"):
        cuda_op_library()
