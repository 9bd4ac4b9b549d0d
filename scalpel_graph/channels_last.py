"""The order in which a microcontroller stores activations, channels last, and weights by what they read."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import onnx_graphsurgeon as gs

from scalpel_graph.graph import ModelGraph, node_label

_STANDARD = (None, "", "ai.onnx")
_FLATTENING = ("Flatten", "Reshape", "Squeeze")
#: What the compiler for microcontrollers moves into a layer, or leaves as it is, in whatever order.
_WITHOUT_ORDER = ("BatchNormalization", "Clip", "Dropout", "Identity", "Relu")


@dataclass(frozen=True)
class ChannelsLast:
    """The columns of a weight matrix place by place, and channel by channel within each.

    ONNX and PyTorch have them channel by channel, and place by place within each.

    Attributes:
        places: of one channel: of a kernel, or of the image that was flattened before a fully connected
            layer; 1 where there is but one order.
        lines: equal stretches that no group crosses: lines of a kernel, or its places where they are no
            neighbours in the input.
    """

    places: int = 1
    lines: int = 1

    @staticmethod
    def of_conv(kernel: tuple[int, ...], dilation: int = 1) -> "ChannelsLast":
        """Of a Conv.

        Args:
            kernel: its sizes, the width last.
            dilation: along the width.
        """
        neighbours = dilation == 1 or kernel[-1] == 1
        return ChannelsLast(prod(kernel), prod(kernel[:-1]) if neighbours else prod(kernel))

    def columns(self, K: int, c: int, kept: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """``[L]``: which of ``K`` columns come one after the other; −1 fills each line up to whole groups.

        Args:
            K: columns.
            c: of one group.
            kept: ``[K]``, which columns there are; None for all.
        """
        lines = np.arange(K).reshape(-1, self.places).T.reshape(self.lines, -1)
        present = [line if kept is None else line[kept[line]] for line in lines]
        return np.concatenate([np.pad(line, (0, -len(line) % c), constant_values=-1) for line in present])


#: The order of ONNX and PyTorch.
AS_GIVEN = ChannelsLast()


def column_orders(graph: ModelGraph, dimensions: Mapping[str, int]) -> dict[str, ChannelsLast]:
    """By label, the order of each Conv, Gemm and MatMul on a microcontroller.

    Args:
        graph: the model, constants folded.
        dimensions: sizes of symbolic dimensions; a symbol that is not there counts as 1.
    """
    shapes = graph.assumed_shapes(dimensions)
    found = {}
    for node in graph.nodes:
        if node.domain not in _STANDARD:
            continue
        if node.op == "Conv":
            weights = graph.shape(node.inputs[1])
            if weights is not None and len(weights) > 2 and all(isinstance(n, int) for n in weights):
                kernel = tuple(int(n or 0) for n in weights[2:])
                found[node_label(node)] = ChannelsLast.of_conv(kernel, node.attrs.get("dilations", [1])[-1])
        elif node.op in ("Gemm", "MatMul"):
            found[node_label(node)] = ChannelsLast(_flattened(node.inputs[0], shapes))
    return found


def _flattened(tensor: gs.Tensor, shapes: Mapping[str, tuple[int, ...]]) -> int:
    """The places of each channel of the image that a matrix was; 1 if it was none."""
    while tensor.inputs:
        maker = tensor.inputs[0]
        if maker.domain not in _STANDARD or maker.op not in (*_FLATTENING, *_WITHOUT_ORDER):
            return 1
        x, y = shapes.get(maker.inputs[0].name, ()), shapes.get(tensor.name, ())
        if len(x) > 2:
            is_flattened = maker.op in _FLATTENING and y == (x[0], prod(x[1:]))
            return prod(x[2:]) if is_flattened and x[1] > 1 else 1
        tensor = maker.inputs[0]
    return 1
