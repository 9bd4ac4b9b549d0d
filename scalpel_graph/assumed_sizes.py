"""The shapes of a model's tensors once sizes are assumed for its symbolic dimensions."""

import contextlib
from collections.abc import Mapping

from onnx import GraphProto, ModelProto, helper, shape_inference

#: The domain of nodes that inference is not to look at.
_HIDDEN = "hidden"


def shapes_with(model: ModelProto, dimensions: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """The shapes of all tensors, as far as they are known then.

    Sizes may turn out too small for the model. A window that does not fit makes a negative size, and on that
    the inference of Slice ends the process: it gets to see a Slice only once its input is known to have a
    shape. Negative sizes do not come out.

    Args:
        model: a model that states no shapes but those of its inputs. It is written to.
        dimensions: a size for each symbol; 1 for those missing and for dimensions without a name.
    """
    is_assumed = False
    for value in model.graph.input:
        for dim in value.type.tensor_type.shape.dim:
            if not dim.HasField("dim_value"):
                dim.dim_value = dimensions.get(dim.dim_param, 1)
                is_assumed = True
    hidden = [node for node in model.graph.node if node.op_type == "Slice" and not node.domain]
    if not is_assumed or not hidden:
        return _inferred(model)
    model.opset_import.append(helper.make_opsetid(_HIDDEN, 1))
    for node in hidden:
        node.domain = _HIDDEN
    while True:
        shapes = _inferred(model)
        shown = [node for node in hidden if node.input[0] in shapes]
        if not shown:
            return shapes
        for node in shown:
            node.domain = ""
        hidden = [node for node in hidden if node.domain]


def _inferred(model: ModelProto) -> dict[str, tuple[int, ...]]:
    graph: GraphProto = model.graph
    with contextlib.suppress(shape_inference.InferenceError, ValueError, RuntimeError):
        graph = shape_inference.infer_shapes(model, data_prop=True).graph
    shapes = {tensor.name: tuple(tensor.dims) for tensor in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        tensor = value.type.tensor_type
        if tensor.HasField("shape") and all(
            dim.HasField("dim_value") and dim.dim_value >= 0 for dim in tensor.shape.dim
        ):
            shapes[value.name] = tuple(dim.dim_value for dim in tensor.shape.dim)
    return shapes
