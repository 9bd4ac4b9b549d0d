"""No kernel reads outside its input."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_no_kernel_reads_outside_its_input():
    done = subprocess.run(
        [sys.executable, "-m", "tests.runtime_ext.guarded_input"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode} (negative: killed by a signal)\n{done.stderr}"
