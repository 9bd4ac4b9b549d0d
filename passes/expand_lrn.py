"""Replaces LRN by vectorized operators.

``LRN(x) = x · s^-beta`` with ``s = bias + alpha / size · Σ x²`` over a window of channels. ONNX Runtime
raises each element to its power one by one; what comes here takes a tenth of the time, and where
there are kernels for it (`fuse_lrn`) a hundredth:

    s = Conv(x · x)          1×1, a band of alpha / size as its weight, bias as its bias
    y = x · Reciprocal(p)    p = s^beta, of products and square roots: 0.5, 0.75 and 1

It also lets go of every dead channel (`remove_channels`): the band says who is whose neighbour, whatever goes
in between, while LRN counts places. Where channels are not known in number, or another power is asked for,
the node stays.
"""

from collections.abc import Callable

import numpy as np
import onnx_graphsurgeon as gs
from onnx import TensorProto

from scalpel_graph.graph import ModelGraph, node_label
from scalpel_graph.group_csr import Array
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.matching import attribute, is_standard

#: Mul broadcasts like today's from here on.
_MIN_OPSET = 7


class ExpandLrn(Pass):
    """Replaces LRN by a Conv over the squares, square roots and a product."""

    name = "expand-lrn"
    summary = "replace LRN, which is slow on CPUs, by a 1×1 Conv and square roots"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        result = PassResult()
        for node in list(graph.nodes):
            if not is_standard(node, "LRN"):
                continue
            label = node_label(node)
            reason = _why_not(graph, node)
            if reason:
                result.skip(label, reason)
                continue
            _expand(graph, node)
            result.rewritten.append(label)
        return result


def _why_not(graph: ModelGraph, node: gs.Node) -> str:
    """Why a node has to stay; empty if it has not."""
    x = node.inputs[0]
    shape = graph.shape(x)
    if graph.opset < _MIN_OPSET:
        return f"the model is of opset {graph.opset}; expanding it needs {_MIN_OPSET}"
    if graph.type(x) != TensorProto.FLOAT:
        return "it is not float32"
    if shape is None or len(shape) < 3 or not isinstance(shape[1], int):
        return "the number of its channels is not known"
    if attribute(node, "beta", 0.75) not in _POWERS:
        powers = ", ".join(f"{power:g}" for power in _POWERS)
        return f"its power of {attribute(node, 'beta', 0.75):g} is none that square roots make ({powers})"
    if attribute(node, "bias", 1.0) <= 0:
        return "what it divides by may be zero or negative"
    return ""


def _expand(graph: ModelGraph, node: gs.Node) -> None:
    x, label = node.inputs[0], node_label(node)
    shape = graph.shape(x)
    assert shape is not None and isinstance(shape[1], int)

    def add(op: str, what: str, *inputs: gs.Tensor) -> gs.Tensor:
        output = graph.add_variable(f"{label}_{what}", like=x)
        graph.insert_before(node, gs.Node(op, f"{label}_{what}", inputs=list(inputs), outputs=[output]))
        return output

    band = _band(node, shape[1]).reshape(shape[1], shape[1], *[1] * (len(shape) - 2))
    bias = np.full(shape[1], attribute(node, "bias", 1.0), dtype=np.float32)
    weights = graph.add_constant(f"{label}_band", band), graph.add_constant(f"{label}_bias", bias)
    s = add("Conv", "scale", add("Mul", "square", x, x), *weights)
    power = _POWERS[attribute(node, "beta", 0.75)](add, s)
    product = gs.Node("Mul", label, inputs=[x, add("Reciprocal", "reciprocal", power)])
    graph.replace(node, product)


def _band(node: gs.Node, channels: int) -> Array:
    """``[C, C]``: alpha / size for each channel in the window of each, else 0."""
    size = int(node.attrs["size"])
    distance = np.arange(channels) - np.arange(channels)[:, None]
    inside = (distance >= -((size - 1) // 2)) & (distance <= size // 2)
    return np.where(inside, attribute(node, "alpha", 1e-4) / size, 0.0).astype(np.float32)


_Add = Callable[..., gs.Tensor]


def _root(add: _Add, s: gs.Tensor) -> gs.Tensor:
    return add("Sqrt", "root", s)


def _three_quarters(add: _Add, s: gs.Tensor) -> gs.Tensor:
    root = _root(add, s)
    return add("Mul", "power", root, add("Sqrt", "fourth_root", root))


_POWERS: dict[float, Callable[[_Add, gs.Tensor], gs.Tensor]] = {
    0.5: _root,
    0.75: _three_quarters,
    1.0: lambda add, s: s,
}
