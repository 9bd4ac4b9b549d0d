"""Quantizing a float network to 8-bit integers, by ONNX Runtime's own quantizer.

Static quantization in QDQ form: activations are uint8, with ranges that are found on calibration inputs;
weights are int8, with a scale for each output channel, and what is zero stays zero.
"""

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import onnx
from onnx import ModelProto
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
from onnxruntime.quantization.shape_inference import quant_pre_process

from scalpel_graph import io
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array
from scalpel_graph.pruning.samples import Samples
from scalpel_graph.session import SessionError, run, session
from scalpel_graph.tally import Tally

QuantizedType = Literal["int8"]
QUANTIZED_TYPES: tuple[QuantizedType, ...] = ("int8",)

_QUANTIZED_OPERATORS = {
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul",
    "MatMulInteger", "ConvInteger", "QGemm",
}  # fmt: skip


@dataclass(frozen=True)
class Quantized:
    """A quantized network.

    Attributes:
        model: it.
        relative_error: of its answers on the calibration inputs: norm of the difference over the norm of the
            float network's; the largest of all outputs.
        same_class: fraction of calibration inputs whose largest output is at the same place; None where the
            first output is no vector.
        samples: calibration inputs.
    """

    model: ModelProto
    relative_error: float
    same_class: float | None
    samples: int


def quantize(source: io.LoadedModel, samples: Samples) -> Quantized:
    """Quantizes a float network.

    Args:
        source: the network.
        samples: calibration inputs.

    Raises:
        InputError: it is quantized already, or ONNX Runtime's quantizer or ONNX Runtime cannot take it.
    """
    name = source.path or "the model"
    for node in source.proto.graph.node:
        if node.op_type in _QUANTIZED_OPERATORS:
            raise InputError(
                f"{name}: is quantized already ({node.op_type} {node.name!r}); leave out --quantize"
            )
    with tempfile.TemporaryDirectory(prefix="scalpel-quantize-") as folder:
        model = _quantized(source, samples, Path(folder))
    return _compared(source, model, samples)


def _quantized(source: io.LoadedModel, samples: Samples, folder: Path) -> ModelProto:
    given, prepared, result = (folder / name for name in ("given.onnx", "prepared.onnx", "quantized.onnx"))
    is_large = source.size_bytes > io.PROTOBUF_LIMIT
    large: dict[str, Any] = {"save_as_external_data": True} if is_large else {}
    onnx.save(source.proto, str(given), **large)
    try:
        with _quiet():
            quant_pre_process(given, prepared, skip_symbolic_shape=True, **large)
            quantize_static(
                prepared,
                result,
                _Reader(samples),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                use_external_data_format=is_large,
            )
        return onnx.load(result)
    except Exception as error:
        raise InputError(
            f"{source.path or 'the model'}: ONNX Runtime's quantizer cannot take it ({_one_line(error)});"
            " quantize it otherwise, and leave out --quantize"
        ) from error


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, samples: Samples) -> None:
        self._batches: Iterator[Mapping[str, Array]] = iter(samples.batches())

    def get_next(self) -> Mapping[str, Array] | None:
        return next(self._batches, None)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without advice about files that nobody will see."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _compared(source: io.LoadedModel, model: ModelProto, samples: Samples) -> Quantized:
    try:
        original, quantized = session(source.proto), session(model)
        tallies: dict[str, Tally] = {}
        for batch in samples.batches():
            wanted, got = run(original, batch), run(quantized, batch)
            for name, value in wanted.items():
                tallies.setdefault(name, Tally()).add(value, got[name])
    except SessionError as error:
        raise InputError(
            f"{source.path or 'the model'}: ONNX Runtime cannot run it quantized ({error})"
        ) from error
    first = next(iter(tallies.values()))
    largest = max(tally.relative_error for tally in tallies.values())
    return Quantized(model, largest, first.same_class, samples.count)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()).rstrip(". ") or type(error).__name__
