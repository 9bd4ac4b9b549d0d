"""A machine's profile: prices from measured layers, and what is known of the machine."""

import datetime
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnxruntime

from scalpel_graph import cost
from scalpel_graph.calibration.fit import KNOTS, Equation, fit
from scalpel_graph.calibration.measure import Sample, resident_bytes
from scalpel_graph.cost import Amount, LayerWork
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.host import model_name, processor
from scalpel_graph.target import (
    DEPTHWISE_KERNEL,
    OPERATIONS,
    QUANTIZED_DENSE_OPERATIONS,
    QUANTIZED_DEPTHWISE_KERNEL,
    QUANTIZED_SPARSE_OPERATIONS,
    SPARSE_OPERATIONS,
    CpuTarget,
    Kernel,
    Prices,
    QuantizedPrices,
    dense_operations,
)
from scalpel_graph.version import __version__

_REORDERS = ("ReorderInput", "ReorderOutput", "Transpose")
#: A Conv with fewer multiply-adds per output has too little to skip. Below the smallest that is measured.
_MIN_COLUMNS = 16
#: A Conv of 17 channels takes less time than one of 32, one of 24 hardly.
_ROUND_FROM = 0.7
#: The gain that a prediction must promise, in typical errors, and its bounds. As it grows, fewer held-out
#: layers get slower than dense, while what is given up with the others hardly counts before 10 %.
_MARGIN_PER_ERROR = 1.5
_MARGIN = (0.02, 0.15)


@dataclass(frozen=True)
class Quality:
    """How far the fitted model and the measurement are apart.

    Attributes:
        typical: median relative error of all predictions.
        bad: the relative error that nine in ten stay below.
        steadiness: median relative difference of the two times that each dense layer was measured.
    """

    typical: float
    bad: float
    steadiness: float


def build(
    samples: Sequence[Sample],
    *,
    name: str,
    description: str,
    isa: str,
    lanes: int,
    block: int,
    host: dict[str, str],
) -> tuple[CpuTarget, Quality]:
    """Fits a profile.

    Args:
        samples: of all operations.
        name, description, isa, host: for the profile.
        lanes: floats in a vector of its kernels.
        block: channels in a block of ONNX Runtime's layout.
    """
    floats = [sample for sample in samples if not sample.job.layer.work.quantized]
    dense = {operation: _dense(floats, operation, block) for operation in dense_operations(block)}
    target = CpuTarget(
        name=name,
        kind="cpu",
        description=description,
        round_channels_to=block,
        round_from=_ROUND_FROM,
        isa=isa,
        lanes=lanes,
        block=block,
        min_columns=_MIN_COLUMNS,
        margin=_MARGIN[1],
        host=host,
        dense=dense,
        kernels=_kernels(floats, SPARSE_OPERATIONS, lanes),
        depthwise_kernel=_depthwise_kernel(floats, DEPTHWISE_KERNEL, lanes),
        quantized=quantized_prices(samples, lanes),
    )
    errors = np.array([_predicted(sample, target) / _time(sample) - 1 for sample in samples])
    typical, bad = (float(np.quantile(np.abs(errors), q)) for q in (0.5, 0.9))
    margin = round(min(max(_MARGIN_PER_ERROR * typical, _MARGIN[0]), _MARGIN[1]), 3)
    host = {**host, "typical_error": f"{typical:.1%}", "error_of_nine_in_ten": f"{bad:.1%}"}
    return replace(target, margin=margin, host=host), Quality(typical, bad, _steadiness(samples))


def quantized_prices(samples: Sequence[Sample], lanes: int) -> QuantizedPrices | None:
    """Fits the prices of layers of 8-bit integers; None if no such layer was measured.

    Args:
        samples: others among them.
        lanes: floats in a vector of the kernels.
    """
    samples = [sample for sample in samples if sample.job.layer.work.quantized]
    if not samples:
        return None
    return QuantizedPrices(
        dense={operation: _dense(samples, operation, 1) for operation in QUANTIZED_DENSE_OPERATIONS},
        kernels=_kernels(samples, QUANTIZED_SPARSE_OPERATIONS, lanes),
        depthwise_kernel=_depthwise_kernel(samples, QUANTIZED_DEPTHWISE_KERNEL, lanes),
    )


def _kernels(samples: Sequence[Sample], operations: Sequence[str], lanes: int) -> tuple[Kernel, ...]:
    shapes = dict.fromkeys(
        sample.job.group_shape
        for sample in samples
        if sample.job.group_shape is not None and not cost.has_depthwise_kernel(sample.job.layer.work)
    )
    return tuple(
        Kernel(shape, {operation: _sparse(samples, operation, shape, lanes) for operation in operations})
        for shape in sorted(shapes, key=lambda shape: (shape[0] == 1, -shape[0] * shape[1]))
    )


def describe_host(isa: str) -> tuple[str, dict[str, str]]:
    """A line about this machine, and the table ``host`` of its profile."""
    model = model_name()
    host = {
        "cpu": model,
        "processor": processor(),
        "system": platform.platform(terse=True),
        "onnxruntime": onnxruntime.__version__,
        "scalpel_graph": __version__,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }
    return f"{model}, {isa} kernels", {key: value for key, value in host.items() if value}


def _work(sample: Sample) -> LayerWork:
    return replace(sample.job.layer.work, network_bytes=resident_bytes(sample))


def _time(sample: Sample) -> float:
    return sum(us for op_type, us in sample.times.items() if op_type not in _REORDERS)


def _predicted(sample: Sample, target: CpuTarget) -> float:
    work, shape, threads = _work(sample), sample.job.group_shape, sample.job.threads
    if shape is None:
        return cost.dense_us(work, target, threads)
    return cost.sparse_us(work, shape, sample.density, target, threads)


def _steadiness(samples: Iterable[Sample]) -> float:
    times: dict[tuple[LayerWork, int], list[float]] = {}
    for sample in samples:
        if sample.job.group_shape is None and not sample.job.cold:
            times.setdefault((sample.job.layer.work, sample.job.threads), []).append(_time(sample))
    return float(np.median([max(both) / min(both) - 1 for both in times.values()]))


def _dense(samples: Sequence[Sample], operation: str, block: int) -> Prices:
    equations: dict[int, list[Equation]] = {}
    for sample in samples:
        if sample.job.group_shape is not None:
            continue
        work, found = _work(sample), equations.setdefault(sample.job.threads, [])
        if operation == "reorder":
            elements = {"ReorderInput": work.inputs, "ReorderOutput": work.M * work.N}
            found += [
                Equation({"input": Amount(count)}, sample.times[op_type])
                for op_type, count in elements.items()
                if op_type in sample.times
            ]
        elif operation == "quantized_reorder":
            # The Transposes before and behind a Conv, which are told apart by nothing but their sizes.
            if "Transpose" in sample.times and work.inputs == work.M * work.N:
                found.append(Equation({"input": Amount(work.inputs)}, sample.times["Transpose"] / 2))
        elif cost.dense_operation(work, block) == operation:
            found.append(Equation(cost.dense_amounts(work, block), _time(sample)))
    return _fitted(equations, operation, "dense")


def _depthwise_kernel(samples: Sequence[Sample], operation: str, lanes: int) -> Prices:
    equations: dict[int, list[Equation]] = {}
    for sample in samples:
        work = _work(sample)
        if sample.job.group_shape is not None and cost.has_depthwise_kernel(work):
            amounts = cost.depthwise_kernel_amounts(work, lanes)
            equations.setdefault(sample.job.threads, []).append(Equation(amounts, _time(sample)))
    return _fitted(equations, operation, "sparse")


def _sparse(samples: Sequence[Sample], operation: str, shape: GroupShape, lanes: int) -> Prices:
    equations: dict[int, list[Equation]] = {}
    for sample in samples:
        work = _work(sample)
        run = cost.runs_as(work, shape)
        if sample.job.group_shape == run and cost.sparse_operation(work) == operation:
            amounts = cost.sparse_amounts(work, run, sample.density, lanes)
            equations.setdefault(sample.job.threads, []).append(Equation(amounts, _time(sample)))
    return _fitted(equations, operation, "sparse")


def _fitted(equations: Mapping[int, Sequence[Equation]], operation: str, knots: str) -> Prices:
    return {threads: fit(found, OPERATIONS[operation], KNOTS[knots]) for threads, found in equations.items()}
