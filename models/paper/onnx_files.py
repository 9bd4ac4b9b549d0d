"""From trained arrays to ONNX: the network of `models` with other weights.

PyTorch's exporter would write the same function in other words (local response normalisation as seven
operators, layers under other names); what is measured here are the networks as they are deployed.
"""

from collections.abc import Mapping
from itertools import pairwise

import numpy as np
import onnx
from onnx import numpy_helper

from models import NETWORKS
from models.paper.data import Images, Labels
from models.paper.plans import Plan
from scalpel_graph.errors import InputError
from scalpel_graph.group_csr import Array
from scalpel_graph.library import custom_op_library
from scalpel_graph.pruning import WeightLayer, weight_layers
from scalpel_graph.session import session

_BATCH = 250


def with_weights(network: str, arrays: Mapping[str, Array]) -> onnx.ModelProto:
    """A network with these weights and biases.

    Args:
        network: name in `models.NETWORKS`.
        arrays: by the names of its initializers; all of them.

    Raises:
        InputError: one is missing or of another shape.
    """
    model = NETWORKS[network].build()
    for tensor in model.graph.initializer:
        if tensor.name not in arrays:
            raise InputError(f"{network}: no weights for {tensor.name!r}")
        array = np.ascontiguousarray(arrays[tensor.name], dtype=np.float32)
        if array.shape != tuple(tensor.dims):
            raise InputError(
                f"{network}: {tensor.name!r} has shape {list(tensor.dims)}, the weights have"
                f" {list(array.shape)}"
            )
        tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return model


def arrays_of(model: onnx.ModelProto) -> dict[str, Array]:
    """Its initializers, by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def pruned_by_magnitude(network: str, plan: Plan) -> onnx.ModelProto:
    """A network with seeded weights, pruned without training: for speed and size.

    Nodes go by the root mean square of their weights, groups after them by that of their own, each layer at
    the plan's rate.
    """
    model = NETWORKS[network].build()
    arrays = arrays_of(model)
    layers = weights_of(model)
    groups = {layer.name: layer.group for layer in layers}
    readers = {layer.name: reader for layer, reader in pairwise(layers)}
    for name, share in plan.nodes.items():
        weight = arrays[f"{name}.weight"].copy()
        per_group = np.split(np.arange(len(weight)), groups[name])
        scores = np.sqrt(np.square(weight.reshape(len(weight), -1)).mean(axis=1))
        # The same number from each group of a convolution, so that they can be cut out.
        count = round(share * len(weight) / groups[name])
        gone = np.concatenate([rows[np.argsort(scores[rows])[:count]] for rows in per_group])
        weight[gone] = 0
        bias = arrays[f"{name}.bias"].copy()
        bias[gone] = 0
        arrays |= {f"{name}.weight": weight, f"{name}.bias": bias}
        reader = readers[name]
        if reader.group == 1:  # what reads nothing is the first to go
            read = arrays[reader.weight].copy()
            read.reshape(len(read), len(weight), -1)[:, gone] = 0
            arrays[reader.weight] = read
    for layer in layers:
        if layer.name in plan.shapes:
            rate = plan.rate if isinstance(plan.rate, float) else plan.rate[layer.name]
            matrix = layer.matrix(arrays[layer.weight])
            drop = plan.groups(layer.name).drop(matrix, rate)
            arrays[layer.weight] = layer.tensor(np.where(drop, np.float32(0), matrix))
    return with_weights(network, arrays)


def weights_of(model: onnx.ModelProto) -> list[WeightLayer]:
    """The layers with weights, in graph order."""
    return [layer for layer in weight_layers(model) if isinstance(layer, WeightLayer)]


def accuracy(model: onnx.ModelProto, images: Images, labels: Labels) -> float:
    """The part of the images whose class a model in ONNX Runtime gets right, with our operators."""
    run = session(model, library=custom_op_library())
    name = model.graph.input[0].name
    right = 0
    for start in range(0, len(labels), _BATCH):
        (answers,) = run.run(None, {name: images[start : start + _BATCH]})
        right += int((answers.argmax(axis=1) == labels[start : start + _BATCH]).sum())
    return right / len(labels)
