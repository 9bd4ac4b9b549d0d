"""A GPU's profile: matrix products of few rows dense and sparse, and layers of neighbouring widths.

Times are those of ONNX Runtime's CUDA provider, inputs and outputs on the card, the queue kept full: what a
layer takes among others, without the time to start it from Python.
"""

import datetime
import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnxruntime as ort

from scalpel_graph import gpu_cost, group_csr
from scalpel_graph.calibration.fit import Equation, fit
from scalpel_graph.calibration.layers import LayerShape, conv, gemm
from scalpel_graph.calibration.profile import Quality
from scalpel_graph.cost import LayerWork
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import GroupShape
from scalpel_graph.one_layer import INPUT, one_layer
from scalpel_graph.target import GPU_AMOUNTS, GpuKernel, GpuPrices, GpuTarget
from scalpel_graph.version import __version__

PROVIDER = "CUDAExecutionProvider"

#: Matrix products: of few weights and of more than a card's cache holds, of 1 to `gpu_cost.MOST_ROWS` rows.
LAYERS: tuple[LayerShape, ...] = tuple(
    gemm(inputs, outputs, rows)
    for inputs, outputs in (
        (512, 512), (768, 3072), (1500, 700), (2048, 1000), (3000, 3000), (4096, 2048), (6000, 4000),
    )
    for rows in (1, 4, 8, 16, 32)
)  # fmt: skip
DENSITIES = (0.05, 0.1, 0.2, 0.35, 0.5)
#: Sizes between which prices are interpolated: KiB of weights, and rows of X.
_KNOTS = {
    "byte": (256.0, 4096.0, 16384.0, 65536.0),
    "multiply_add": (1.0, 4.0, 8.0, 16.0, 32.0),
}

#: Convs and matrix products of these widths say which multiples are fast.
WIDTHS = range(33, 65)
_MULTIPLES = (1, 2, 4, 8, 16, 32)
#: A smaller multiple is taken if the layers take no more than this share longer.
_WIDTH_TOLERANCE = 0.01

#: The gain that a prediction must promise, in typical errors, and its bounds.
_MARGIN_PER_ERROR = 1.5
_MARGIN = (0.02, 0.25)

_WARM_UP_S = 0.02
_TURN_S = 0.05
_TURNS = 5


@dataclass(frozen=True)
class GpuJob:
    """One thing to measure.

    Attributes:
        layer: what runs.
        group_shape: of the sparse operator; None for dense.
        density: share of groups that are stored.
    """

    layer: LayerShape
    group_shape: GroupShape | None = None
    density: float = 1.0


@dataclass(frozen=True)
class GpuSample:
    """What was measured.

    Attributes:
        job: what ran.
        density: share of groups that were really stored.
        us: microseconds of a run.
    """

    job: GpuJob
    density: float
    us: float

    @property
    def work(self) -> LayerWork:
        """What the layer computes."""
        return self.job.layer.work


#: Microseconds of a job; the second argument is its weights.
GpuMeasure = Callable[[GpuJob, Any], float]


def jobs(group_shapes: Sequence[GroupShape]) -> list[GpuJob]:
    """Everything to measure, in random order; dense layers twice, which says how steady the card is."""
    rng = random.Random(0)
    found = [GpuJob(layer) for layer in (*LAYERS, *LAYERS, *width_layers(conv_of_width))]
    found += [GpuJob(layer) for layer in width_layers(gemm_of_width)]
    found += [GpuJob(layer, shape, rng.choice(DENSITIES)) for layer in LAYERS for shape in group_shapes]
    rng.shuffle(found)
    return found


def conv_of_width(width: int) -> LayerShape:
    """A 3×3 Conv of so many channels, in and out."""
    return conv(width, width, 3, 112)


def gemm_of_width(width: int) -> LayerShape:
    """A matrix product of so many features, in and out, for many rows."""
    return gemm(width, width, 100_000)


def width_layers(layer_of: Callable[[int], LayerShape]) -> list[LayerShape]:
    """A layer of each of `WIDTHS`."""
    return [layer_of(width) for width in WIDTHS]


def run(work: Sequence[GpuJob], measure: GpuMeasure) -> Iterator[GpuSample]:
    """Measures one job after the other."""
    rng = np.random.default_rng(0)
    for job in work:
        shape = job.group_shape or (1, 1)
        weights = job.layer.weights(rng, shape, job.density)
        yield GpuSample(job, group_csr.density(weights, shape), measure(job, weights))


def build(
    samples: Sequence[GpuSample], *, name: str, description: str, host: Mapping[str, str]
) -> tuple[GpuTarget, Quality]:
    """Fits a profile.

    Args:
        samples: of all `jobs`.
        name, description, host: for the profile.
    """
    products = [sample for sample in samples if sample.job.layer in LAYERS]
    dense = [sample for sample in products if sample.job.group_shape is None]
    shapes = dict.fromkeys(s.job.group_shape for s in products if s.job.group_shape is not None)
    target = GpuTarget(
        name=name,
        kind="gpu",
        description=description,
        round_channels_to=best_multiple(_times_by_width(samples, conv_of_width)),
        round_features_to=best_multiple(_times_by_width(samples, gemm_of_width)),
        host=host,
        margin=_MARGIN[1],
        dense=_prices(Equation(gpu_cost.dense_amounts(s.work), s.us) for s in dense),
        kernels=tuple(
            GpuKernel(
                shape,
                _prices(
                    Equation(gpu_cost.sparse_amounts(s.work, shape, s.density), s.us)
                    for s in products
                    if s.job.group_shape == shape
                ),
            )
            for shape in shapes
        ),
    )
    errors = np.abs([_predicted(sample, target) / sample.us - 1 for sample in products])
    typical, bad = (float(np.quantile(errors, q)) for q in (0.5, 0.9))
    margin = round(min(max(_MARGIN_PER_ERROR * typical, _MARGIN[0]), _MARGIN[1]), 3)
    host = {**host, "typical_error": f"{typical:.1%}", "error_of_nine_in_ten": f"{bad:.1%}"}
    return replace(target, margin=margin, host=host), Quality(typical, bad, _steadiness(dense))


def best_multiple(times: Mapping[int, float]) -> int:
    """The multiple to round widths up to: with it, layers of all measured widths take least together.

    Args:
        times: of a layer of each width; widths are consecutive and end with the largest multiple's.
    """
    most = max(times)
    total = {
        multiple: sum(times[min(-(-width // multiple) * multiple, most)] for width in times)
        for multiple in _MULTIPLES
    }
    least = min(total.values())
    return next(m for m in _MULTIPLES if total[m] <= (1 + _WIDTH_TOLERANCE) * least)


def describe_host(card: str, driver: str) -> dict[str, str]:
    """The table ``host`` of a profile.

    Args:
        card, driver: as nvidia-smi names them.
    """
    return {
        "card": card,
        "driver": driver,
        "onnxruntime": ort.__version__,
        "scalpel_graph": __version__,
        "date": datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
    }


class SessionMeasure:
    """Measures in ONNX Runtime.

    Args:
        library: that has the operators.
        provider: execution provider.

    Raises:
        InputError: this ONNX Runtime does not have the provider.
    """

    def __init__(self, library: str, provider: str = PROVIDER) -> None:
        if provider not in ort.get_available_providers():
            raise InputError(
                f"this ONNX Runtime has no {provider}: install onnxruntime-gpu in place of onnxruntime, on a"
                " machine with a CUDA device"
            )
        self._library, self._provider = library, provider
        self._device = "cuda" if provider == PROVIDER else "cpu"
        self._rng = np.random.default_rng(0)

    def __call__(self, job: GpuJob, weights: Any) -> float:
        """See `GpuMeasure`."""
        model = one_layer(weights, job.layer.attributes, job.layer.x_shape, job.group_shape)
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.register_custom_ops_library(self._library)
        session = ort.InferenceSession(model.SerializeToString(), options, providers=[self._provider])
        x = self._rng.standard_normal(job.layer.x_shape).astype(np.float32)
        binding = session.io_binding()
        binding.bind_ortvalue_input(INPUT, ort.OrtValue.ortvalue_from_numpy(x, self._device, 0))
        binding.bind_output(session.get_outputs()[0].name, self._device, 0)
        without_waiting = ort.RunOptions()
        without_waiting.add_run_config_entry("disable_synchronize_execution_providers", "1")

        def run_for(seconds: float) -> float:
            binding.synchronize_inputs()
            start, runs = time.perf_counter(), 0
            while not runs or time.perf_counter() - start < seconds:
                for _ in range(8):
                    session.run_with_iobinding(binding, without_waiting)
                runs += 8
                binding.synchronize_outputs()
            return (time.perf_counter() - start) / runs * 1e6

        run_for(_WARM_UP_S)
        return float(np.median([run_for(_TURN_S) for _ in range(_TURNS)]))


def _times_by_width(samples: Sequence[GpuSample], layer_of: Callable[[int], LayerShape]) -> dict[int, float]:
    times = {sample.job.layer: sample.us for sample in samples if sample.job.group_shape is None}
    return {width: times[layer_of(width)] for width in WIDTHS}


def _prices(equations: Iterable[Equation]) -> GpuPrices:
    return fit(list(equations), GPU_AMOUNTS, _KNOTS)


def _predicted(sample: GpuSample, target: GpuTarget) -> float:
    shape = sample.job.group_shape
    if shape is None:
        return gpu_cost.dense_us(sample.work, target)
    return gpu_cost.sparse_us(sample.work, shape, sample.density, target)


def _steadiness(dense: Sequence[GpuSample]) -> float:
    times: dict[LayerShape, list[float]] = {}
    for sample in dense:
        times.setdefault(sample.job.layer, []).append(sample.us)
    return float(np.median([max(both) / min(both) - 1 for both in times.values()]))
