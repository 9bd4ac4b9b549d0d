"""One engine with one model, in a process of its own: ``python engine_process.py ENGINE MODEL INPUTS ...``.

Runs in whatever environment the engine is installed in, so it needs nothing but numpy and the engine. It
answers commands on stdin with one line of JSON each: ``turn SECONDS`` times one turn as
`scalpel_graph.timed_turn` does, ``outputs FILE`` writes what the model gives to an ``.npz`` file.
"""

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

_Run = Callable[[dict[str, Any]], list[Any]]


def _onnxruntime(options: argparse.Namespace) -> tuple[str, _Run]:
    import onnxruntime  # noqa: PLC0415

    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = options.threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 4
    if options.library:
        settings.register_custom_ops_library(options.library)
    session = onnxruntime.InferenceSession(options.model, settings, providers=["CPUExecutionProvider"])
    return onnxruntime.__version__, lambda inputs: session.run(None, inputs)


def _openvino(options: argparse.Namespace) -> tuple[str, _Run]:
    import openvino  # noqa: PLC0415

    settings = {
        "INFERENCE_NUM_THREADS": options.threads,
        "INFERENCE_PRECISION_HINT": "f32",
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
    }
    compiled = openvino.Core().compile_model(options.model, "CPU", settings)
    request = compiled.create_infer_request()

    def run(inputs: dict[str, Any]) -> list[Any]:
        results = request.infer(inputs, share_inputs=True)
        return [results[output] for output in compiled.outputs]

    return openvino.__version__.partition("-")[0], run


def _deepsparse(options: argparse.Namespace) -> tuple[str, _Run]:
    import deepsparse  # noqa: PLC0415

    engine = deepsparse.Engine(options.model, batch_size=options.batch, num_cores=options.threads)
    return deepsparse.__version__, lambda inputs: engine.run(list(inputs.values()), val_inp=False)


ENGINES: dict[str, Callable[[argparse.Namespace], tuple[str, _Run]]] = {
    "onnxruntime": _onnxruntime,
    "openvino": _openvino,
    "deepsparse": _deepsparse,
}


def _timed_turn() -> Any:
    """The project's module of that name, without the package around it, which this environment may lack."""
    path = Path(__file__).parents[1] / "scalpel_graph" / "timed_turn.py"
    spec = importlib.util.spec_from_file_location("timed_turn", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def main() -> None:
    """Loads the engine, then obeys commands until stdin ends."""
    # Engines write banners to stdout, which is ours.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    parser = argparse.ArgumentParser(description="One engine with one model.")
    parser.add_argument("engine", choices=ENGINES)
    parser.add_argument("model")
    parser.add_argument("inputs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--library")
    options = parser.parse_args()
    timed_turn = _timed_turn()
    with np.load(options.inputs) as arrays:
        inputs = dict(arrays)
    version, run = ENGINES[options.engine](options)
    print(json.dumps({"version": version}), file=answers)
    for line in sys.stdin:
        command, argument = line.split(maxsplit=1)
        if command == "turn":
            seconds = timed_turn.time_turn(partial(run, inputs), float(argument))
            # The threads of this engine must not go on spinning in the turn of the next.
            timed_turn.wait_until_quiet()
            print(json.dumps({"seconds": seconds}), file=answers)
        else:
            np.savez(argument.strip(), *run(inputs))
            print(json.dumps({}), file=answers)


if __name__ == "__main__":
    main()
