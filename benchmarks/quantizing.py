"""What ONNX Runtime's quantizer makes of networks: what one would use instead of pruning, or beside it."""

import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_dynamic,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

Feeds = Mapping[str, npt.NDArray[Any]]


def quantize(model: onnx.ModelProto, feeds: Sequence[Feeds] | None) -> onnx.ModelProto:
    """A network of 8-bit integers: weights int8, with a scale for each output, activations uint8.

    Args:
        model: of float32.
        feeds: inputs to find the ranges of activations with; None to find them while it runs.
    """
    logging.disable(logging.WARNING)  # advice about files that it has been followed for
    with tempfile.TemporaryDirectory() as name:
        given, prepared, result = (Path(name) / part for part in ("given", "prepared", "result"))
        onnx.save(model, given)
        if feeds is None:
            quantize_dynamic(given, result, per_channel=True, weight_type=QuantType.QInt8)
        else:
            quant_pre_process(given, prepared, skip_symbolic_shape=True)
            quantize_static(
                prepared,
                result,
                _Inputs(feeds),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )
        return onnx.load(result)


class _Inputs(CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, feeds: Sequence[Feeds]) -> None:
        self._feeds: Iterator[Feeds] = iter(feeds)

    def get_next(self) -> Feeds | None:
        return next(self._feeds, None)
