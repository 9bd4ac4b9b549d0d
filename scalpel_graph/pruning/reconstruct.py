"""Prunes a network layer by layer on its own activations, each layer making up for those before it.

The original runs beside the network as it is pruned so far. Of each layer the sums that a fit needs are
taken: what goes into it in the pruned network, and what it gives in the original. Then its weights and its
bias are replaced, and the next layer sees what that makes of the inputs.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from onnx import ModelProto, NodeProto

from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array
from scalpel_graph.pruning.fit import Fitted, prune_by_cost
from scalpel_graph.pruning.layers import WeightLayer
from scalpel_graph.pruning.moments import Moments
from scalpel_graph.pruning.patches import input_rows, output_rows
from scalpel_graph.pruning.samples import Samples
from scalpel_graph.pruning.stream import Stream
from scalpel_graph.pruning.structure import Mask, Structure
from scalpel_graph.pruning.weights import Weights
from scalpel_graph.session import SessionError

#: Bytes of activations of one network that stay in memory; more goes to temporary files.
_ACTIVATION_BYTES = 2**30


@dataclass(frozen=True)
class Job:
    """What to do to one layer.

    Attributes:
        sharers: all layers that get its weights, it first.
        structure: the shape of the zeros; None where only dead weights go.
        sparsity: fraction of what has that shape.
        dead: ``[M, K]``: weights of nodes that go; None for none.
        dead_rows: ``[M]``: outputs that nobody will read.
    """

    sharers: Sequence[WeightLayer]
    structure: Structure | None
    sparsity: float
    dead: Mask | None
    dead_rows: Mask

    @property
    def layer(self) -> WeightLayer:
        """The layer."""
        return self.sharers[0]


def reconstruct(
    original: ModelProto,
    weights: Weights,
    jobs: Sequence[Job],
    samples: Samples,
    *,
    threads: int,
    done: Callable[[str], None],
) -> dict[str, float]:
    """Prunes layers in their order.

    Args:
        original: the model that the answers are to be like.
        weights: what is pruned; nodes that go are zero already.
        jobs: what to do, in graph order.
        samples: inputs.
        threads: of ONNX Runtime.
        done: is told the name of each layer that is finished.

    Returns:
        by layer, the part of its output (by squares) that it does not give any more.

    Raises:
        InputError: ONNX Runtime cannot run the model on the samples, or what goes into a layer is not finite.
    """
    errors: dict[str, float] = {}
    batches = samples.batches()
    with (
        Stream(original, batches, threads=threads, memory=_ACTIVATION_BYTES) as reference,
        Stream(weights.model, batches, threads=threads, memory=_ACTIVATION_BYTES) as pruned,
    ):
        for job in jobs:
            layer = job.layer
            node = weights.model.graph.node[layer.node]
            try:
                pruned.advance(layer.node)
                reference.advance(layer.node + 1, keep=node.output[0])
            except SessionError as error:
                raise _cannot_run(error) from error
            bias = weights.bias(layer)
            before = weights.matrix(layer).astype(np.float32)
            factor = _factor(node)
            moments = new_moments(layer, centred=bias is not None)
            alive = ~job.dead_rows.reshape(layer.group, 1, -1)
            given = _is_plain(node, bias)
            for number in range(reference.batches):
                x = _float(pruned.value(node.input[0], number))
                y = _float(reference.value(node.output[0], number))
                for rows, made in zip(input_rows(layer, node, x), output_rows(layer, y), strict=True):
                    # Where something is added that is no bias: what the original makes of the same inputs.
                    wanted = made if given else rows @ by_group(layer, factor * before).transpose(0, 2, 1)
                    moments.add(rows, wanted * alive)
            fitted, new_bias = fit(job, moments, factor * before, layer.name)
            if factor:  # else its weights make no difference
                weights.write(job.sharers, fitted.weights / factor)
            if bias is not None:
                if node.op_type == "MatMul":  # its bias is another node's, which its output is without
                    new_bias = bias + new_bias
                weights.set_bias(layer, np.where(job.dead_rows, 0, new_bias))
            errors.update((sharer.name, fitted.error) for sharer in job.sharers)
            done(layer.name)
    return errors


def fit(job: Job, moments: Moments, before: Array, name: str) -> tuple[Fitted, Array]:
    """The new weights and bias of a layer.

    Raises:
        InputError: what goes into it is not finite.
    """
    layer = job.layer
    groups = by_group(layer, before)
    cost = moments.cost(groups)
    if not (np.isfinite(cost.energy) and np.isfinite(cost.A).all() and np.isfinite(cost.B).all()):
        raise InputError(
            f"layer {name!r}: its inputs or outputs are not finite on the calibration inputs; leave it out"
            " (--exclude) or correct the inputs"
        )
    fitted = prune_by_cost(cost, job.structure, job.sparsity, job.dead)
    return fitted, moments.bias(fitted.weights.reshape(groups.shape))


def new_moments(layer: WeightLayer, *, centred: bool) -> Moments:
    """Empty sums for a layer."""
    M, K = layer.shape
    return Moments(layer.group, M // layer.group, K, centred=centred)


def moments_of_original(
    model: ModelProto,
    layers: Sequence[WeightLayer],
    matrices: Callable[[WeightLayer], Array],
    samples: Samples,
    *,
    threads: int,
) -> Iterator[tuple[WeightLayer, Moments]]:
    """The sums of layers in a network as it is, one layer at a time.

    Args:
        model: the network.
        layers: in graph order.
        matrices: gives ``W[M, K]`` of a layer.
        samples: inputs.
        threads: of ONNX Runtime.

    Raises:
        InputError: ONNX Runtime cannot run the model on the samples.
    """
    with Stream(model, samples.batches(), threads=threads, memory=_ACTIVATION_BYTES) as stream:
        for layer in layers:
            node = model.graph.node[layer.node]
            try:
                stream.advance(layer.node)
            except SessionError as error:
                raise _cannot_run(error) from error
            moments = new_moments(layer, centred=True)
            matrix = by_group(layer, matrices(layer)).transpose(0, 2, 1)
            for number in range(stream.batches):
                for rows in input_rows(layer, node, _float(stream.value(node.input[0], number))):
                    moments.add(rows, rows @ matrix)
            yield layer, moments


def _cannot_run(error: SessionError) -> InputError:
    return InputError(f"ONNX Runtime cannot run the model on the calibration inputs ({error})")


def by_group(layer: WeightLayer, matrix: Array) -> Array:
    """``W[M, K]`` as ``[groups, M / groups, K]``, in a type to compute in."""
    if matrix.dtype not in (np.float32, np.float64):
        matrix = matrix.astype(np.float32)
    return matrix.reshape(layer.group, -1, layer.shape[1])


def _factor(node: NodeProto) -> float:
    """What a Gemm multiplies its product by."""
    if node.op_type != "Gemm":
        return 1.0
    return next((float(a.f) for a in node.attribute if a.name == "alpha"), 1.0)


def _is_plain(node: NodeProto, bias: Array | None) -> bool:
    """Whether the output of a node is its product, plus a bias at most."""
    if node.op_type == "MatMul":
        return True
    return bias is not None or len(node.input) < 3 or not node.input[2]


def _float(values: Array) -> Array:
    return values if values.dtype in (np.float32, np.float64) else values.astype(np.float32)
