"""Programs that tests of other machines' code need."""

import os
import shutil

import pytest

from benchmarks.kernel_cases import CROSS_COMPILER, PACKAGES, QEMU


def require_cross_tools() -> None:
    """Skips the test where they are missing; in CI that is a failure."""
    missing = [program for program in (CROSS_COMPILER, QEMU) if shutil.which(program) is None]
    if missing:
        text = f"{' and '.join(missing)} not found; on Debian: apt-get install {PACKAGES}"
        if os.environ.get("CI") == "true":
            pytest.fail(text)
        pytest.skip(text)
