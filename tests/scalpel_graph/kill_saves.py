"""Kills processes in the middle of `save` and looks at what they leave. Run by test_io.py in its own process.

Each child saves a new model over an old one and is killed: once before each system call that changes the
folder, then at random moments. Prints one line of JSON: how often which model was found, or what was wrong.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from scalpel_graph import io

CALLS = ("fsync", "replace", "rename", "unlink")


def model(number: int) -> onnx.ModelProto:
    weights = np.full((40, 1000), number, np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        f"model {number}",
        [helper.make_tensor_value_info("x", 1, [1, 40])],
        [helper.make_tensor_value_info("y", 1, [1, 1000])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def number_at(path: Path) -> int:
    """The number of the model at ``path``, which must be complete."""
    proto = io.load(path).proto
    weights = numpy_helper.to_array(proto.graph.initializer[0])
    number = int(proto.graph.name.split()[1])
    assert weights.shape == (40, 1000) and (weights == number).all(), (
        f"weights of model {number} are mixed up"
    )
    return number


def die_at_call(count: int) -> None:
    """Makes this process kill itself right before its ``count``-th call that changes a folder."""
    left = count

    def counting(function):
        def wrapper(*args, **kwargs):
            nonlocal left
            left -= 1
            if left < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapper

    for name in CALLS:
        setattr(os, name, counting(getattr(os, name)))


def killed_save(path: Path, number: int, external: bool, calls: int | None, delay: float) -> bool:
    """Saves in a child that gets killed; says whether the save was over before that."""
    child = os.fork()
    if child == 0:
        if calls is not None:
            die_at_call(calls)
        io.save(model(number), path, external_data=external)
        os._exit(0)
    if calls is None:
        time.sleep(delay)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0


def main(folder: Path) -> dict[str, int]:
    path = folder / "out.onnx"
    rng = random.Random(0)
    old = 1
    io.save(model(old), path, external_data=True)
    found = {"old": 0, "new": 0, "calls": 0}
    attempts: list[tuple[bool, int | None]] = []
    for external in (True, False):
        calls = 0
        while not killed_save(path, 1, external, calls, 0):
            calls += 1
        found["calls"] += calls
        attempts += [(external, n) for n in range(calls)] + [(external, None)] * 100
    rng.shuffle(attempts)
    old = number_at(path)
    for new, (external, calls) in enumerate(attempts, 2):
        killed_save(path, new, external, calls, rng.uniform(0, 0.008))
        number = number_at(path)
        assert number in (old, new), f"found model {number} instead of {old} or {new}"
        found["new" if number == new else "old"] += 1
        old = number
    for external, files in ((True, 2), (False, 1)):
        io.save(model(0), path, external_data=external)
        assert number_at(path) == 0
        names = sorted(path.name for path in folder.iterdir())
        assert len(names) == files, f"the next save leaves {names}"
    return found


if __name__ == "__main__":
    print(json.dumps(main(Path(sys.argv[1]))))
