"""The order in which tests run."""

from pathlib import Path

import pytest

_WHOLE = Path(__file__).parent / "whole"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest first: at the end all others would wait for whoever got them."""
    items.sort(key=lambda item: not item.path.is_relative_to(_WHOLE))
