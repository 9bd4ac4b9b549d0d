"""The inputs of a layer as a matrix: one row for each time that its weights are used."""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import Any

import numpy as np
from onnx import NodeProto, helper

from scalpel_graph.group_csr import Array
from scalpel_graph.pruning.layers import WeightLayer

#: Elements of the matrices that are made at a time.
_CHUNK = 2**24


def input_rows(layer: WeightLayer, node: NodeProto, x: Array) -> Iterator[Array]:
    """The inputs of a layer, in chunks.

    Args:
        layer: the layer.
        node: its node.
        x: the input of the node, floating point.

    Yields:
        ``[groups, rows, K]``: each row is what one row of outputs is computed from.
    """
    attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    if layer.op == "Conv":
        yield from _conv_rows(layer, attributes, x)
        return
    if attributes.get("transA", 0):
        x = x.T
    rows = x.reshape(-1, x.shape[-1])
    step = _rows_at_a_time(layer)
    for start in range(0, len(rows), step):
        yield rows[None, start : start + step]


def output_rows(layer: WeightLayer, y: Array) -> Iterator[Array]:
    """The outputs of a layer, in the chunks of `input_rows`.

    Args:
        layer: the layer.
        y: the output of its node.

    Yields:
        ``[groups, rows, M / groups]``.
    """
    if layer.op == "Conv":
        pixels = prod(y.shape[2:])
        step = _images_at_a_time(layer, pixels)
        for start in range(0, len(y), step):
            part = y[start : start + step].reshape(-1, layer.group, layer.shape[0] // layer.group, pixels)
            yield part.transpose(1, 0, 3, 2).reshape(layer.group, -1, part.shape[2])
        return
    rows = y.reshape(-1, y.shape[-1])
    step = _rows_at_a_time(layer)
    for start in range(0, len(rows), step):
        yield rows[None, start : start + step]


def _conv_rows(layer: WeightLayer, attributes: Mapping[str, Any], x: Array) -> Iterator[Array]:
    kernel = layer.weight_shape[2:]
    spatial = len(kernel)
    strides = list(attributes.get("strides", [1] * spatial))
    dilations = list(attributes.get("dilations", [1] * spatial))
    reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    begins, ends = _pads(attributes, x.shape[2:], reach, strides)
    sizes = zip(x.shape[2:], begins, ends, reach, strides, strict=True)
    out = [(n + before + after - k) // s + 1 for n, before, after, k, s in sizes]
    G = layer.group
    step = _images_at_a_time(layer, prod(out))
    axes = tuple(range(2, 2 + spatial))
    for start in range(0, len(x), step):
        part = np.pad(x[start : start + step], [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
        windows = np.lib.stride_tricks.sliding_window_view(part, reach, axis=axes)
        at = (slice(None), slice(None), *(slice(None, None, s) for s in strides))
        windows = windows[(*at, *(slice(None, None, d) for d in dilations))]
        n, C = windows.shape[:2]
        # [n, G, C / G, out..., kernel...] to [G, n, out..., C / G, kernel...]
        split = windows.reshape(n, G, C // G, *windows.shape[2:])
        outs, kernels = range(3, 3 + spatial), range(3 + spatial, 3 + 2 * spatial)
        yield split.transpose(1, 0, *outs, 2, *kernels).reshape(G, -1, layer.shape[1])


def _rows_at_a_time(layer: WeightLayer) -> int:
    return max(1, _CHUNK // max(layer.shape))


def _images_at_a_time(layer: WeightLayer, pixels: int) -> int:
    return max(1, _CHUNK // max(layer.shape[1] * layer.group * pixels, 1))


def _pads(
    attributes: Mapping[str, Any], size: Sequence[int], reach: Sequence[int], strides: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Zeros before and after, for each spatial axis."""
    mode = attributes.get("auto_pad", b"NOTSET").decode()
    spatial = len(reach)
    if mode in ("NOTSET", "VALID"):
        pads = attributes.get("pads", [0] * 2 * spatial) if mode == "NOTSET" else [0] * 2 * spatial
        return list(pads[:spatial]), list(pads[spatial:])
    totals = [max((-(-n // s) - 1) * s + k - n, 0) for n, k, s in zip(size, reach, strides, strict=True)]
    less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
    return (less, more) if mode == "SAME_UPPER" else (more, less)
