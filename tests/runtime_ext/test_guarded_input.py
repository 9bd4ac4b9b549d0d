"""No kernel reads outside its input."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime_ext import emulated_kernels, instruction_sets

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("isa", instruction_sets.isas())
def test_no_kernel_reads_outside_its_input(isa):
    if "@" in isa:
        emulated_kernels.require_tools()
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime_ext.guarded_input", isa],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode} (negative: killed by a signal)\n{done.stderr}"
