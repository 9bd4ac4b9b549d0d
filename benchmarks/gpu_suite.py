"""All about target gpu that needs a card, in one command: tests, sanitizers, benchmarks, one JSON file.

``python -m benchmarks.gpu_suite`` builds the CUDA library for the card that is there and runs the sections
below, each once: what the JSON file has already is not run again, so that a run that was cut off goes on
where it stopped. It stops by itself when ``--minutes`` are over. Ratios are above 1 where ours is faster.

It needs a C++ compiler, CMake, ninja, pybind11, nvcc, PyTorch, and what the package needs; ONNX Runtime's
CUDA provider is used where it is there, and PyTorch (cuDNN, cuBLAS) in its place where it is not.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np
import onnxruntime

import scalpel_graph
from benchmarks.gpu_timing import Repeated, copies, copy_bytes_per_us, in_turns, torch
from scalpel_graph import cuda, group_csr

ROOT = Path(__file__).parents[1]
_BUILD = ROOT / "build" / "gpu"
_PACKAGE = _BUILD / "python" / "scalpel_graph"
_LIBRARY = _PACKAGE / "lib" / "libscalpel_ort_cuda.so"
_RESULTS = ROOT / "benchmarks" / "results" / "gpu.json"
_CUDA_PROVIDER = "CUDAExecutionProvider"
#: Shapes, group shapes and value types of the matrix products that are compared.
_MATRICES = ((4096, 9216), (4096, 4096))
_SHAPES = ((1, 8), (8, 1), (4, 1), (16, 1), (1, 1))
_DENSITY = 0.1


class NotRunError(Exception):
    """Why a section cannot run on this machine."""


class OutOfTimeError(Exception):
    """The time is over; what a section has found so far is lost, and it runs again next time."""


@dataclass(frozen=True)
class Clock:
    """How much time is left.

    Attributes:
        end: of the run, as `time.monotonic` counts.
    """

    end: float

    def left(self) -> float:
        """Seconds.

        Raises:
            OutOfTimeError: none.
        """
        seconds = self.end - time.monotonic()
        if seconds <= 0:
            raise OutOfTimeError
        return seconds


Section = Callable[[Clock], dict[str, Any]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the suite; 0 if each section is done or cannot run here, 1 if one failed, 2 without a card."""
    options = _parser().parse_args(arguments)
    try:
        card, driver = cuda.installed_card()
    except cuda.CudaError as error:
        print(f"gpu_suite: {error}; run it on a machine with one", file=sys.stderr)
        return 2
    return run_sections(
        SECTIONS,
        options.json,
        {"card": card, "driver": driver},
        Clock(time.monotonic() + 60 * options.minutes),
        again=options.again,
    )


def run_sections(
    sections: Mapping[str, Section],
    path: Path,
    machine: Mapping[str, str],
    clock: Clock,
    again: Sequence[str] = (),
) -> int:
    """Runs what the file does not have yet, and writes it after each section.

    Args:
        sections: by name, in order.
        path: of the JSON file.
        machine: what the results are of; results of another machine in the file are dropped.
        clock: when to stop.
        again: sections to run though the file has them.
    """
    results: dict[str, Any] = {"machine": dict(machine), "sections": {}}
    if path.exists():
        earlier = json.loads(path.read_text(encoding="utf-8"))
        if earlier["machine"] == results["machine"]:
            results = earlier
    path.parent.mkdir(parents=True, exist_ok=True)
    _find_build()
    for name, section in sections.items():
        known = results["sections"].get(name)
        if known is not None and known["status"] == "done" and name not in again:
            continue
        start = time.monotonic()
        try:
            clock.left()
            found: dict[str, Any] = {"status": "done", **section(clock)}
        except (OutOfTimeError, subprocess.TimeoutExpired):
            print(f"gpu_suite: the time is over before {name} is done; run it again to go on")
            return 1
        except NotRunError as reason:
            found = {"status": "not run", "reason": str(reason)}
        except Exception as error:
            found = {"status": "failed", "reason": f"{type(error).__name__}: {error}"}
        found["date"] = datetime.datetime.now(tz=datetime.UTC).isoformat(timespec="seconds")
        found["seconds"] = round(time.monotonic() - start, 1)
        results["sections"][name] = found
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {found['status']} {found.get('reason', '')}", flush=True)
        if name == "build" and found["status"] != "done":
            return 1
    return int(any(found["status"] == "failed" for found in results["sections"].values()))


def _find_build() -> None:
    """Lets the package find what was built here: kernels, library and passes."""
    if str(_PACKAGE) not in scalpel_graph.__path__:
        scalpel_graph.__path__.append(str(_PACKAGE))


def _build(clock: Clock) -> dict[str, Any]:
    pybind11 = import_module("pybind11").get_cmake_dir()
    commands: list[list[str | Path]] = [
        [
            "cmake", "-S", ROOT, "-B", _BUILD, "-G", "Ninja", "-DSCALPEL_CUDA=ON",
            "-DSCALPEL_CUDA_ARCHITECTURES=native", f"-Dpybind11_DIR={pybind11}",
            f"-DPython_EXECUTABLE={sys.executable}",
        ],
        ["cmake", "--build", _BUILD],
        ["cmake", "--install", _BUILD, "--prefix", _BUILD / "python"],
    ]  # fmt: skip
    for command in commands:
        _run(command, clock)
    passes = _PACKAGE / "passes"
    if not passes.exists():
        passes.symlink_to(ROOT / "passes")
    return {"library_bytes": _LIBRARY.stat().st_size, "devices": cuda.Library(_LIBRARY).devices()}


def _run(command: Sequence[str | Path], clock: Clock, **environment: str) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=clock.left(),
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout


def _all_cases(clock: Clock, *wrapper: str) -> str:
    """Runs tests.runtime_ext.cuda_cases on the card in a process of its own."""
    program = (
        "import sys, scalpel_graph; scalpel_graph.__path__.append(sys.argv[1]);"
        "from scalpel_graph import cuda; from tests.runtime_ext import cuda_cases;"
        "print(cuda_cases.check_all(cuda.Library(sys.argv[2])), 'cases agree')"
    )
    command = [*wrapper, sys.executable, "-c", program, str(_PACKAGE), str(_LIBRARY)]
    return _run(command, clock).strip()[-2000:]


def _kernels(clock: Clock) -> dict[str, Any]:
    return {"output": _all_cases(clock)}


def _sanitizer(tool: str) -> Section:
    def section(clock: Clock) -> dict[str, Any]:
        try:
            subprocess.run(["compute-sanitizer", "--version"], capture_output=True, check=True)
        except OSError as error:
            raise NotRunError("compute-sanitizer is not installed") from error
        wrapper = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "1")
        return {"output": _all_cases(clock, *wrapper)}

    return section


def _provider(clock: Clock) -> dict[str, Any]:
    """The operators in ONNX Runtime's CUDA provider; no other may take a node."""
    _need_provider()
    known = import_module("tests.runtime_ext.test_ort_operators")
    layers = {**known.GEMMS, **known.CONVS}
    for name, layer in layers.items():
        clock.left()
        feeds = layer.feeds()
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(str(_LIBRARY))
        options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
        session = onnxruntime.InferenceSession(
            layer.model().SerializeToString(), options, providers=[_CUDA_PROVIDER]
        )
        (y,) = session.run(None, feeds)
        np.testing.assert_allclose(y, layer.expected(feeds), rtol=1e-4, atol=1e-4, err_msg=name)
    return {"layers": len(layers)}


def _need_provider() -> None:
    if _CUDA_PROVIDER not in onnxruntime.get_available_providers():
        raise NotRunError("onnxruntime-gpu is not installed; the kernels were run through ctypes alone")


def _copy(clock: Clock) -> dict[str, Any]:
    return {"bytes_per_us": copy_bytes_per_us()}


def sparse_matrix(M: int, K: int, shape: group_csr.GroupShape, dtype: Any) -> tuple[Any, group_csr.GroupCsr]:
    """A random matrix with a tenth of its groups, dense and encoded."""
    rng = np.random.default_rng(0)
    kept = rng.random((-(-M // shape[0]), -(-K // shape[1]))) < _DENSITY
    mask = np.repeat(np.repeat(kept, shape[0], axis=0), shape[1], axis=1)[:M, :K]
    dense = np.where(mask, rng.standard_normal((M, K)), 0).astype(dtype)
    return dense, group_csr.encode(dense, shape)


def _run_plan(plan: cuda.Gemm, x: Any, y: Any) -> None:
    plan.run(x.data_ptr(), x.shape, y.data_ptr(), stream=torch().cuda.current_stream().cuda_stream)


def _products(rows: int) -> Section:
    """Our SpMV or SpMM against cuBLAS and cuSPARSE (CSR), weights coming from memory each time."""

    def section(clock: Clock) -> dict[str, Any]:
        t, library = torch(), cuda.Library(_LIBRARY)
        t.backends.cuda.matmul.allow_tf32 = False
        bandwidth = copy_bytes_per_us()
        found: list[dict[str, Any]] = []
        for (M, K), shape, dtype in (
            (size, shape, dtype)
            for size in _MATRICES
            for shape in _SHAPES
            for dtype in ("float32", "float16")
        ):
            clock.left()
            dense, matrix = sparse_matrix(M, K, shape, dtype)
            x = t.randn(rows, K, device="cuda")
            y = t.empty(rows, M, device="cuda")
            plans = [cuda.Gemm(library, matrix) for _ in range(copies(matrix.nbytes))]
            wide = t.from_numpy(dense.astype(np.float32)).cuda()
            denses = [wide.clone() for _ in range(copies(dense.astype(np.float32).nbytes))]
            # A vector, or a matrix of as many columns as there are rows of X: W·Xᵀ, as cuSPARSE takes it.
            columns = x[0] if rows == 1 else x.t()
            sparse = wide.to_sparse_csr()
            sparses = [sparse.clone() for _ in range(copies(12 * sparse.values().numel()))]
            ways = {
                "ours": Repeated([partial(_run_plan, plan, x, y) for plan in plans]),
                "cublas": Repeated([partial(t.matmul, w, columns) for w in denses]),
                "cusparse": Repeated([partial(t.matmul, w, columns) for w in sparses]),
            }
            _run_plan(plans[0], x, y)
            expected = x.double() @ wide.double().t()
            error = float((y - expected).abs().max() / expected.abs().max())
            if not error < 1e-4:
                raise RuntimeError(f"{M}×{K} {shape} {dtype}: the largest error is {error}")
            us = in_turns(ways)
            read = matrix.nbytes + 4 * rows * (K + M)
            found.append(
                {
                    "M": M, "K": K, "rows": rows, "group_shape": list(shape), "values": dtype, "us": us,
                    "recorded": {name: way.how for name, way in ways.items()},
                    "over_cublas": us["cublas"] / us["ours"], "over_cusparse": us["cusparse"] / us["ours"],
                    "share_of_copy_bandwidth": read / us["ours"] / bandwidth, "error": error,
                }
            )  # fmt: skip
        return {"copy_bytes_per_us": bandwidth, "products": found}

    return section


def _networks(clock: Clock) -> dict[str, Any]:
    """The paper's networks, dense against node-pruned: at its counts, and at multiples near them."""
    if find_spec("onnx_graphsurgeon") is None:
        raise NotRunError("onnx-graphsurgeon is not installed, which the optimizer needs")
    from benchmarks.gpu_networks import REMOVED, in_onnx_runtime, in_pytorch, node_pruned  # noqa: PLC0415
    from models import NETWORKS  # noqa: PLC0415
    from scalpel_graph.api import optimize  # noqa: PLC0415
    from scalpel_graph.target import Target, load_target  # noqa: PLC0415

    with_provider = _CUDA_PROVIDER in onnxruntime.get_available_providers()
    profile = load_target("h100")
    exact = Target(name="exact", kind="gpu", description="widths as they come")
    found: list[dict[str, Any]] = []
    for name in REMOVED:
        models = {
            "dense": optimize(NETWORKS[name].build(), target=profile).model,
            "papers_counts": optimize(node_pruned(name), target=exact).model,
            "papers_counts_rounded_up": optimize(node_pruned(name), target=profile).model,
            "nearest_multiples": optimize(node_pruned(name, profile.round_channels_to), target=exact).model,
        }
        for batch in (1, 128):
            clock.left()
            x = NETWORKS[name].sample_input(batch)
            if with_provider:
                calls = {way: in_onnx_runtime(model, x) for way, model in models.items()}
                us = _wall_us(calls)
            else:
                us = in_turns({way: Repeated([in_pytorch(model, x)]) for way, model in models.items()})
            found.append(
                {
                    "network": name, "batch": batch, "us": us,
                    "speed_up": {way: us["dense"] / time for way, time in us.items() if way != "dense"},
                }
            )  # fmt: skip
    ways = [way for way in found[0]["us"] if way != "dense"]
    means = {
        f"{way}, batch {batch}": geometric_mean(
            row["speed_up"][way] for row in found if row["batch"] == batch
        )
        for way in ways
        for batch in (1, 128)
    }
    runner = (
        "ONNX Runtime CUDA provider" if with_provider else "PyTorch, in place of ONNX Runtime's CUDA provider"
    )
    return {"run_by": runner, "geometric_means": means, "networks": found}


def _wall_us(calls: Mapping[str, Callable[[], Any]]) -> dict[str, float]:
    """Median microseconds of calls that wait for the card, in turns."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for turn in range(32):
        for name in list(calls) if turn % 2 else list(calls)[::-1]:
            start = time.perf_counter()
            for _ in range(10):
                calls[name]()
            if turn > 1:
                times[name].append((time.perf_counter() - start) / 10 * 1e6)
    return {name: float(np.median(found)) for name, found in times.items()}


#: ResNet-50's different Conv layers: input channels, output channels, kernel, size of the input, stride.
_RESNET_50 = (
    (64, 64, 1, 56, 1), (64, 64, 3, 56, 1), (64, 256, 1, 56, 1), (256, 64, 1, 56, 1), (256, 128, 1, 56, 1),
    (128, 128, 3, 56, 2), (128, 512, 1, 28, 1), (512, 128, 1, 28, 1), (128, 128, 3, 28, 1),
    (512, 256, 1, 28, 1), (256, 256, 3, 28, 2), (256, 1024, 1, 14, 1), (1024, 256, 1, 14, 1),
    (256, 256, 3, 14, 1), (1024, 512, 1, 14, 1), (512, 512, 3, 14, 2), (512, 2048, 1, 7, 1),
    (2048, 512, 1, 7, 1), (512, 512, 3, 7, 1),
)  # fmt: skip


def _widths(clock: Clock) -> dict[str, Any]:
    """ResNet-50's layers at odd widths against the same layers rounded up as the profile says, batch 32."""
    from scalpel_graph.target import load_target  # noqa: PLC0415

    t, multiple = torch(), load_target("h100").round_channels_to
    found: list[dict[str, Any]] = []
    for channels, outputs, kernel, size, stride in _RESNET_50:
        clock.left()
        ways = {}
        for way, step in (("naive", 1), ("rounded", multiple)):
            C, M = (-(-(int(0.7 * width) | 1) // step) * step for width in (channels, outputs))
            x = t.randn(32, C, size, size, device="cuda")
            w = t.randn(M, C, kernel, kernel, device="cuda")
            ways[way] = Repeated([partial(t.conv2d, x, w, stride=stride, padding=kernel // 2)])
        us = in_turns(ways)
        found.append(
            {
                "layer": [channels, outputs, kernel, size, stride],
                "us": us,
                "speed_up": us["naive"] / us["rounded"],
            }
        )
    ratios = [row["speed_up"] for row in found]
    return {
        "run_by": "PyTorch",
        "slowest": min(ratios),
        "faster": sum(r > 1.01 for r in ratios),
        "layers": found,
    }


def _profile(clock: Clock) -> dict[str, Any]:
    """Fits a profile of this card and measures its regret on layers that it was not fitted on."""
    if find_spec("onnx_graphsurgeon") is None:
        raise NotRunError("onnx-graphsurgeon is not installed, which the calibration needs")
    from scalpel_graph import cost, gpu_cost  # noqa: PLC0415
    from scalpel_graph.calibration import gpu  # noqa: PLC0415
    from scalpel_graph.calibration.layers import gemm  # noqa: PLC0415
    from scalpel_graph.target_toml import to_toml  # noqa: PLC0415

    measured_by = "ONNX Runtime CUDA provider"
    measure: gpu.GpuMeasure
    if _CUDA_PROVIDER in onnxruntime.get_available_providers():
        measure = gpu.SessionMeasure(str(_LIBRARY))
    else:
        measured_by, measure = "PyTorch (cuBLAS, cuDNN) and ctypes", _measure_in_pytorch
    samples = []
    for sample in gpu.run(gpu.jobs(gpu_cost.group_shapes()), measure):
        clock.left()
        samples.append(sample)
    card, driver = cuda.installed_card()
    host = {**gpu.describe_host(card, driver), "measured_by": measured_by}
    target, quality = gpu.build(samples, name="measured", description=card, host=host)
    regrets = []
    rng = np.random.default_rng(1)
    for inputs, outputs in ((1024, 1024), (2500, 2500), (4096, 4096), (9216, 4096), (5000, 1000)):
        for rows in (1, 8, 32):
            for shape, density in (((1, 8), 0.1), ((8, 1), 0.1), ((8, 1), 0.3), ((1, 1), 0.1)):
                clock.left()
                layer = gemm(inputs, outputs, rows)
                weights = layer.weights(rng, shape, density)
                ways = gpu_cost.candidates(layer.work, weights, target)
                chosen = cost.choose(ways, target.margin)
                us = [measure(gpu.GpuJob(layer, way.group_shape, density), weights) for way in ways]
                regrets.append(us[ways.index(chosen)] / min(us))
    return {
        "measured_by": measured_by, "typical_error": quality.typical, "error_of_nine_in_ten": quality.bad,
        "steadiness": quality.steadiness, "geometric_mean_regret": geometric_mean(regrets) - 1,
        "worst_regret": max(regrets) - 1, "cases": len(regrets), "toml": to_toml(target),
    }  # fmt: skip


def _measure_in_pytorch(job: Any, weights: Any) -> float:
    """`scalpel_graph.calibration.gpu.GpuMeasure` without ONNX Runtime's CUDA provider."""
    t, layer = torch(), job.layer
    t.backends.cuda.matmul.allow_tf32 = False
    x = t.randn(*layer.x_shape, device="cuda")
    if job.group_shape is not None:
        plan = cuda.Gemm(cuda.Library(_LIBRARY), group_csr.encode(weights, job.group_shape))
        y = t.empty(*plan.output_shape(layer.x_shape), device="cuda")
        return Repeated([partial(_run_plan, plan, x, y)]).us()
    w = t.from_numpy(weights.reshape(layer.attributes["weight_shape"])).cuda()
    if layer.work.is_conv:
        return Repeated([partial(t.conv2d, x, w, padding=layer.work.pads[0])]).us()
    return Repeated([partial(t.mm, x, w.t())]).us()


SECTIONS: Mapping[str, Section] = {
    "build": _build,
    "kernels": _kernels,
    "provider": _provider,
    "copy": _copy,
    "spmv": _products(1),
    "spmm_8": _products(8),
    "spmm_32": _products(32),
    "networks": _networks,
    "widths": _widths,
    "profile": _profile,
    "memcheck": _sanitizer("memcheck"),
    "racecheck": _sanitizer("racecheck"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_suite", description=__doc__)
    parser.add_argument("--json", type=Path, default=_RESULTS, help="the results (default: %(default)s)")
    parser.add_argument(
        "--minutes",
        type=float,
        default=9.0,
        help="stop after so many (default: %(default)s); run it again to go on",
    )
    parser.add_argument(
        "--again", metavar="SECTION", choices=list(SECTIONS), action="append", default=[],
        help=f"run a section though the file has it: {', '.join(SECTIONS)}",
    )  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
