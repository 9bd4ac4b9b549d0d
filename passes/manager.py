"""Runs passes over a graph; watches each from outside.

Passes hold rewrites and nothing else. What goes on around them (progress, timing, checking the graph, leaving
a reproducer) is an `Instrument` each, so that a pass can be read, tested and replaced without any of it.
"""

import shlex
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path

import onnx

from scalpel_graph.errors import CheckError, InputError
from scalpel_graph.graph import LightModel, ModelGraph
from scalpel_graph.passes.base import Pass, PassContext, PassResult, Skip

#: Serialized models from this size on need their weights in a second file.
_PROTO_BYTES = 2**31 - 2**20


@dataclass(frozen=True)
class PassRecord:
    """What one pass did, for the report.

    Attributes:
        name: the pass.
        modified: whether it changed the graph.
        seconds: wall-clock time of the rewrite itself.
        rewritten: labels of the nodes it changed.
        skipped: nodes it considered and left alone, with reasons.
    """

    name: str
    modified: bool
    seconds: float
    rewritten: list[str] = field(default_factory=list)
    skipped: list[Skip] = field(default_factory=list)


class Instrument:
    """Something that watches every pass. The base class does nothing."""

    def before(self, step: Pass, graph: ModelGraph) -> None:
        """Called right before a pass runs."""

    def after(self, step: Pass, graph: ModelGraph, result: PassResult) -> None:
        """Called when a pass has run. Raising here fails the pass."""


class Timer(Instrument):
    """Measures passes. Attributes: ``seconds`` of the last one."""

    def before(self, step: Pass, graph: ModelGraph) -> None:
        """Starts the clock."""
        self._start = time.perf_counter()

    def after(self, step: Pass, graph: ModelGraph, result: PassResult) -> None:
        """Stops it."""
        self.seconds = time.perf_counter() - self._start


class Progress(Instrument):
    """Tells a callback ``(pass name, its number from 1, number of passes)`` before each pass."""

    def __init__(self, callback: Callable[[str, int, int], None], total: int) -> None:
        self._callback, self._total, self._number = callback, total, 0

    def before(self, step: Pass, graph: ModelGraph) -> None:
        """Counts the pass."""
        self._number += 1
        self._callback(step.name, self._number, self._total)


class Verifier(Instrument):
    """Checks the graph by strict shape inference and ONNX's checker after every pass that changed it.

    A model that does not pass as it came is checked as far as it did: odd models are not refused for what
    they brought along. Attributes: ``problem`` is what the strictest check says, empty for a sound model.
    """

    def __init__(self, graph: ModelGraph) -> None:
        self.problem = ""
        self._levels = [True, False]
        while self._levels:
            try:
                graph.infer(strict=self._levels[0])
                return
            except Exception as error:
                self._levels.pop(0)
                self.problem = self.problem or _one_line(error)

    def after(self, step: Pass, graph: ModelGraph, result: PassResult) -> None:
        """Checks, and refreshes types and shapes for the next pass."""
        if result.modified and self._levels:
            graph.infer(strict=self._levels[0])


class Reproducer(Instrument):
    """Keeps what is needed to run the current pass again on the model before it.

    Args:
        folder: where to write; None for the system's temporary directory.
        context: what the passes were told.
        names: of all passes of the pipeline.
    """

    def __init__(self, folder: Path | None, context: PassContext, names: Sequence[str]) -> None:
        self._folder, self._context, self._names = folder, context, names
        self._model: LightModel | None = None
        self._inputs = ""

    def before(self, step: Pass, graph: ModelGraph) -> None:
        """Remembers the model. Weights are referred to, not copied."""
        self._model = graph.to_light()

    def write(self, step: Pass) -> Path:
        """Writes the model before ``step`` and the command that reruns only that pass; returns the folder."""
        assert self._model is not None
        if self._folder is not None:
            self._folder.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f"scalpel-{step.name}-", dir=self._folder))
        model = self._model.full()
        large = sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _PROTO_BYTES
        onnx.save_model(
            model, str(folder / "before.onnx"), save_as_external_data=large, location="before.onnx.data"
        )
        (folder / "command.txt").write_text(self._command(step, folder, model) + "\n", encoding="utf-8")
        return folder

    def _command(self, step: Pass, folder: Path, model: onnx.ModelProto) -> str:
        words = ["scalpel-opt", str(folder / "before.onnx"), str(folder / "after.onnx")]
        words += ["--target", self._context.target.option, "--threads", str(self._context.threads)]
        if self._context.weights != "fp32":
            words += ["--weights", self._context.weights]
        weights = {tensor.name for tensor in model.graph.initializer}
        for value in model.graph.input:
            shape = self._assumed_shape(value)
            if value.name not in weights and shape:
                words += ["--input-shape", f"{value.name}:{shape}"]
        for name in dict.fromkeys(self._names):
            if name != step.name:
                words += ["--skip-pass", name]
        return shlex.join(words)

    def _assumed_shape(self, value: onnx.ValueInfoProto) -> str:
        """Dimensions with symbols replaced by what was assumed for them; empty if there is nothing to say."""
        dims = value.type.tensor_type.shape.dim
        if not any(dim.dim_param in self._context.dimensions for dim in dims):
            return ""
        return ",".join(
            str(
                dim.dim_value if dim.HasField("dim_value") else self._context.dimensions.get(dim.dim_param, 1)
            )
            for dim in dims
        )


class PassManager:
    """Runs passes in order.

    Args:
        passes: the pipeline.
        skip: names of passes to leave out.
        reproducer_dir: where a failing pass leaves its reproducer; None for the system's temporary directory.
        on_pass: called before each pass with its name, its number from 1 and the number of passes.

    Raises:
        InputError: ``skip`` names no pass of the pipeline.
    """

    def __init__(
        self,
        passes: Sequence[Pass],
        *,
        skip: Sequence[str] = (),
        reproducer_dir: Path | None = None,
        on_pass: Callable[[str, int, int], None] | None = None,
    ) -> None:
        names = list(dict.fromkeys(step.name for step in passes))
        for name in skip:
            if name not in names:
                close = get_close_matches(name, names, n=1)
                hint = f"did you mean {close[0]}? " if close else ""
                raise InputError(f"--skip-pass {name}: no such pass; {hint}the passes are {', '.join(names)}")
        self._names = names
        self._passes = [step for step in passes if step.name not in skip]
        self._reproducer_dir = reproducer_dir
        self._on_pass = on_pass

    def run(self, graph: ModelGraph, context: PassContext) -> list[PassRecord]:
        """Rewrites ``graph`` in place.

        Returns:
            one record for each pass that ran, in order.

        Raises:
            CheckError: a pass failed or left an invalid graph; the line names the pass and the reproducer.
            InputError: a pass failed, on a model that was invalid as it came; or a pass refuses the model.
        """
        verifier, timer = Verifier(graph), Timer()
        reproducer = Reproducer(self._reproducer_dir, context, self._names)
        instruments: list[Instrument] = [reproducer, timer, verifier]
        if self._on_pass is not None:
            instruments.insert(0, Progress(self._on_pass, len(self._passes)))
        records: list[PassRecord] = []
        for step in self._passes:
            for instrument in instruments:
                instrument.before(step, graph)
            try:
                result = step.run(graph, context)
                for instrument in instruments:
                    instrument.after(step, graph, result)
            except InputError:
                raise  # the pass says what is wrong with what was given
            except Exception as error:
                if verifier.problem:
                    raise InputError(
                        f"pass {step.name} cannot read the model ({_one_line(error)}), and ONNX's checks"
                        f" refuse it as it came ({verifier.problem}); export it again, or run again with"
                        f" --skip-pass {step.name}"
                    ) from error
                raise CheckError(self._failure(step, error, reproducer)) from error
            records.append(
                PassRecord(step.name, result.modified, timer.seconds, result.rewritten, result.skipped)
            )
        if verifier.problem and records:
            note = f"the model fails strict checks as it came, so checks are looser: {verifier.problem}"
            records[0].skipped.insert(0, Skip(graph.name, note))
        return records

    @staticmethod
    def _failure(step: Pass, error: Exception, reproducer: Reproducer) -> str:
        what = f"pass {step.name} failed: {_one_line(error)}"
        again = f"run again with --skip-pass {step.name}"
        try:
            return f"{what}; {again}, or report {reproducer.write(step)} (before.onnx and command.txt)"
        except Exception as second:
            return f"{what}; {again} (the reproducer could not be written: {_one_line(second)})"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()).rstrip(". ") or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
