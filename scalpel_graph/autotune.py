"""Times the candidates of a layer on this machine instead of predicting them.

Every distinct layer is measured once: what it computes and how much of it each group shape stores say which
are alike. The times are kept in a file in the user's cache directory, and serve for as long as neither the
processor, nor ONNX Runtime, nor our kernels change.
"""

import hashlib
import json
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from scalpel_graph.caches import Sweeper, last_cache_bytes
from scalpel_graph.cost import LayerWork, read_bytes
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array, GroupShape
from scalpel_graph.host import model_name
from scalpel_graph.kernel_table import chosen_isa
from scalpel_graph.near_cores import while_near
from scalpel_graph.node_timing import NodeTimer
from scalpel_graph.one_layer import INPUT, one_layer, random_input
from scalpel_graph.report import Candidate
from scalpel_graph.value_types import ValueType
from scalpel_graph.version import __version__

#: A candidate that is predicted to take this many times the best is not timed.
_HOPELESS = 3.0
_ROUNDS = 3
_TURN_S = 0.02
_COLD_RUNS = 8
_REORDERS = ("ReorderInput", "ReorderOutput", "Transpose")
#: What a measurement must show for a layer to become sparse: more than two of them differ by chance.
MARGIN = 0.03


@dataclass(frozen=True)
class Question:
    """What to measure.

    Attributes:
        weights: ``[M, K]``.
        attributes: of the layer's sparse operator.
        x_shape: of its input.
        ways: each way to run it: a group shape, or None for dense.
        cold: of each way, whether its weights come from memory: what it is part of does not fit the caches.
        threads: intra-op threads.
        value_type: what the values of sparse ways are stored as.
    """

    weights: Array
    attributes: Mapping[str, Any]
    x_shape: tuple[int, ...]
    ways: Sequence[GroupShape | None]
    cold: Sequence[bool]
    threads: int
    value_type: ValueType = "fp32"


#: Answers with the microseconds of each way.
Measure = Callable[[Question], list[float]]


@dataclass
class Autotuner:
    """Measures layers, and remembers.

    Attributes:
        measure: what times them.
        path: the file that remembers; None for none.
        tell: is told what is being done.
        measured: layers that were timed.
        remembered: layers whose times were known.
    """

    measure: Measure
    path: Path | None = None
    tell: Callable[[str], None] = lambda step: None
    measured: int = 0
    remembered: int = 0
    _times: dict[str, float] | None = field(default=None, repr=False)

    def retime(
        self,
        ways: Sequence[Candidate],
        work: LayerWork,
        weights: Array,
        *,
        attributes: Mapping[str, Any],
        threads: int,
        name: str,
        value_type: ValueType = "fp32",
    ) -> list[Candidate]:
        """The candidates worth timing, dense first, with measured times instead of predicted ones.

        Args:
            ways: all candidates, dense first.
            work: what the layer computes.
            weights: ``[M, K]``.
            attributes: of its sparse operator.
            threads: intra-op threads.
            name: of the layer, for `tell`.
            value_type: what the values of sparse ways are stored as.
        """
        best = min(way.predicted_us for way in ways)
        ways = [way for way in ways if way.decision == "dense" or way.predicted_us <= _HOPELESS * best]
        if len(ways) == 1:
            return list(ways)
        known = self._load()
        cold = [_is_cold(work, way) for way in ways]
        keys = [
            _key(work, attributes, way, threads, cold=is_cold, value_type=value_type)
            for way, is_cold in zip(ways, cold, strict=True)
        ]
        if all(key in known for key in keys):
            self.remembered += 1
        else:
            self.tell(f"timing {name}")
            x_shape = (work.batch, work.channels, *work.in_size) if work.is_conv else (work.N, work.K)
            shapes = [way.group_shape for way in ways]
            times = self.measure(Question(weights, attributes, x_shape, shapes, cold, threads, value_type))
            known.update(zip(keys, times, strict=True))
            self.measured += 1
        return [replace(way, predicted_us=known[key]) for way, key in zip(ways, keys, strict=True)]

    def save(self) -> None:
        """Writes what was measured, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        if self.path is None or not self.measured:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(self._times, file, indent=0)
            Path(name).replace(self.path)
        except OSError as error:
            raise InputError(
                f"{self.path}: measured times cannot be kept ({error.strerror}); set XDG_CACHE_HOME to a"
                " folder that can be written"
            ) from error

    def _load(self) -> dict[str, float]:
        if self._times is None:
            self._times = {}
            if self.path is not None and self.path.is_file():
                self._times = _read(self.path)
        return self._times


def cache_path() -> Path:
    """The file in the user's cache directory that holds the times of this machine and these versions."""
    facts = (model_name(), chosen_isa(), onnxruntime.__version__, __version__)
    name = hashlib.sha256("\n".join(facts).encode()).hexdigest()[:16]
    return _cache_folder() / "scalpel-graph" / f"autotune-{name}.json"


def measure_on_host(question: Question) -> list[float]:
    """Times a layer in ONNX Runtime on this machine; see `Measure`.

    The ways take turns, each in a session of its own, of which one lives at a time: worker threads wait for
    work for a while after a run, and would take the next one's cores. The least of the turns counts.
    """
    x = random_input(question.x_shape, question.weights, np.random.default_rng(0))
    models = [
        one_layer(question.weights, question.attributes, question.x_shape, way, question.value_type)
        for way in question.ways
    ]
    sweeper = Sweeper()

    def take_turn() -> list[float]:
        turn = []
        for model, cold in zip(models, question.cold, strict=True):
            with NodeTimer(model, {INPUT: x}, question.threads) as timer:
                if cold:
                    timer.run_cold(_COLD_RUNS, sweeper)
                else:
                    timer.run(_TURN_S)
                times = timer.finish()
            turn.append(sum(us for op_type, us in times.items() if op_type not in _REORDERS))
        return turn

    turns = [while_near(question.threads, take_turn) for _ in range(_ROUNDS)]
    return [min(column) for column in zip(*turns, strict=True)]


def _is_cold(work: LayerWork, way: Candidate) -> bool:
    nbytes = work.network_bytes
    if way.group_shape is not None:
        nbytes = nbytes * read_bytes(work, way.group_shape, way.density) // work.weight_bytes
    return nbytes > last_cache_bytes()


def _key(
    work: LayerWork,
    attributes: Mapping[str, Any],
    way: Candidate,
    threads: int,
    *,
    cold: bool,
    value_type: ValueType,
) -> str:
    """Equal for candidates that take the same time; density to two digits."""
    parts = [work.op, work.batch if work.is_conv else work.N, work.in_size]
    parts += [
        f"{name}={list(value) if isinstance(value, Sequence) else value}"
        for name, value in attributes.items()
    ]
    if work.quantized:
        parts.append("int8")
    if way.group_shape is not None and value_type != "fp32":
        parts.append(value_type)
    parts += [way.group_shape, f"{way.density:.2g}", f"threads={threads}", "cold" if cold else "warm"]
    return " ".join(map(str, parts))


def _read(path: Path) -> dict[str, float]:
    """What the file holds; nothing if it is damaged: it can be measured again."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    if not isinstance(found, dict):
        return {}
    return {
        key: float(us)
        for key, us in found.items()
        if isinstance(us, int | float) and not isinstance(us, bool) and 0 < us < float("inf")
    }


def _cache_folder() -> Path:
    """Where the system keeps files that can be made again."""
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches"
    given = os.environ.get("XDG_CACHE_HOME", "")
    return Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
