"""A model flows one way: passes use facts about models, and only the API uses passes."""

import ast
import re
import sys
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = sorted(
    path for path in (ROOT / "scalpel_graph").rglob("*.py") if "passes" not in path.relative_to(ROOT).parts
)
#: An optional extra with dependencies of its own.
TORCH = sorted((ROOT / "scalpel_graph/torch").rglob("*.py"))
PASSES = sorted((ROOT / "passes").rglob("*.py"))


def imported(path: Path) -> set[str]:
    """Full names of everything a file imports, wherever in the file."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def within(names: set[str], *packages: str) -> set[str]:
    return {name for name in names if any(f"{name}.".startswith(f"{package}.") for package in packages)}


def label(path: Path) -> str:
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", PACKAGE, ids=label)
def test_only_the_api_imports_passes(path):
    found = within(imported(path), "scalpel_graph.passes", "passes")
    assert not found or path == ROOT / "scalpel_graph/api.py"


@pytest.mark.parametrize("path", PACKAGE, ids=label)
def test_the_package_imports_nothing_that_is_not_installed_with_it(path):
    assert not within(imported(path), "models", "benchmarks", "tests")


@pytest.mark.parametrize("path", PASSES, ids=label)
def test_passes_import_neither_the_api_nor_the_commands(path):
    assert not within(
        imported(path),
        "scalpel_graph.api",
        "scalpel_graph.cli",
        "scalpel_graph.optimize",
        "models",
        "benchmarks",
    )


@pytest.mark.parametrize("path", PACKAGE, ids=label)
def test_only_the_commands_import_the_commands(path):
    found = within(imported(path), "scalpel_graph.cli")
    assert not found or "cli" in path.parts or path.name == "__main__.py"


@pytest.mark.parametrize("path", sorted({*PACKAGE, *PASSES} - set(TORCH)), ids=label)
def test_only_the_pytorch_toolkit_imports_itself_and_pytorch(path):
    assert not within(imported(path), "scalpel_graph.torch", "torch")


@pytest.mark.parametrize("path", TORCH, ids=label)
def test_the_pytorch_toolkit_optimizes_nothing(path):
    assert not within(imported(path), "scalpel_graph.api", "scalpel_graph.cli", "scalpel_graph.passes")


def declared(entries: list[str]) -> set[str]:
    return {re.split("[^A-Za-z0-9_-]", entry)[0] for entry in entries}


def used(paths: Iterable[Path]) -> set[str]:
    names = {name.split(".")[0] for path in paths for name in imported(path)}
    own_names = {"google": "protobuf", "onnx_graphsurgeon": "onnx-graphsurgeon", "yaml": "pyyaml"}
    return {own_names.get(name, name) for name in names - sys.stdlib_module_names - {"scalpel_graph"}}


def test_the_declared_dependencies_are_those_that_are_imported():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = declared(project["dependencies"])
    assert used({*PACKAGE, *PASSES} - set(TORCH)) == needed
    # torch.onnx.export imports onnxscript and does not say so to pip.
    assert (used(TORCH) - needed) | {"onnxscript"} == declared(project["optional-dependencies"]["torch"])


def test_there_is_something_to_look_at():
    assert len(PACKAGE) > 10
    assert len(PASSES) > 2
    assert "torch" in used(TORCH)
    assert within(imported(ROOT / "scalpel_graph/api.py"), "scalpel_graph.passes")


def test_no_python_in_the_runtime():
    assert not list((ROOT / "runtime_ext").rglob("*.py"))
