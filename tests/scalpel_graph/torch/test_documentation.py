import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[3]


def test_the_example_of_the_documentation_runs(tmp_path):
    """As it is printed: nodes and groups go, accuracy stays, and the optimizer removes what is masked."""
    (example,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs/training.md").read_text("utf-8"), re.DOTALL)
    (tmp_path / "example.py").write_text(example, "utf-8")
    done = subprocess.run(
        [sys.executable, "example.py"], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    *stages, last = done.stdout.splitlines()
    assert stages[-1].startswith("GroupPruner 50% of nodes")
    assert stages[0].startswith("NodePruner 50% of nodes, 0.0%")
    pruned = float(re.search(r"([\d.]+)% pruned", stages[-1])[1])
    assert pruned > 60
    assert float(re.match(r"accuracy ([\d.]+)%", last)[1]) > 95
    assert "'name': 'conv1', 'before': 16, 'after': 8" in last
