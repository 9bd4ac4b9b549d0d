"""What is left of a model's weights, by the names they had."""

from typing import Any

import numpy.typing as npt
from onnx import ModelProto

from tests.pass_runner import weights_of


def left_of(proto: ModelProto) -> dict[str, npt.NDArray[Any]]:
    """Weights by name; one that got another shape, and with it the name ``W_of_layer``, is W again."""
    return {name.split("_of_")[0]: values for name, values in weights_of(proto).items()}
