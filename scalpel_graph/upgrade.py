"""Converts a model to a later opset by ONNX's version converter, and keeps what that drops."""

from collections.abc import Iterable

from onnx import AttributeProto, ModelProto, NodeProto, ValueInfoProto, version_converter

from scalpel_graph import ops
from scalpel_graph.errors import GraphError
from scalpel_graph.graph import LightModel


def upgrade(light: LightModel, opset: int) -> ModelProto:
    """The whole model in a later opset.

    Args:
        light: the model; its large weights do not pass through the converter.
        opset: the version of the standard operator set to convert to.

    Raises:
        GraphError: the model cannot be converted, or not without losing something: one clause that says why.
    """
    source = light.model
    what = f"cannot be brought to opset {opset}"
    if source.functions or source.training_info or source.graph.sparse_initializer:
        raise GraphError(f"{what}: it has local functions, training information or sparse initializers")
    if any(_has_subgraph(node) for node in source.graph.node):
        raise GraphError(f"{what}: it has subgraphs")
    try:
        model = version_converter.convert_version(source, opset)
    except Exception as error:
        raise GraphError(f"{what}: {' '.join(str(error).split())[:200]}") from error
    if _names(model.graph.output) != _names(source.graph.output):
        raise GraphError(f"{what}: the converter changed its outputs")
    _restore(source, model)
    model = light.full(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    if source.ir_version < 4:
        # Initializers were no inputs that callers can set; from IR version 4 on they would become that.
        inputs = [value for value in source.graph.input if value.name not in weights]
    else:
        inputs = [value for value in source.graph.input if value.name not in light.declared]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = max(source.ir_version, ops.MIN_IR_VERSION)
    return model


def _restore(source: ModelProto, model: ModelProto) -> None:
    """Puts back what the converter has no place for."""
    for entry in source.opset_import:
        if all(entry.domain != other.domain for other in model.opset_import) and entry.domain != "ai.onnx":
            model.opset_import.append(entry)
    for field in ("producer_name", "producer_version", "domain", "model_version", "doc_string"):
        setattr(model, field, getattr(source, field))
    graph = model.graph
    for place, kept in (
        (model.metadata_props, source.metadata_props),
        (graph.metadata_props, source.graph.metadata_props),
        (graph.quantization_annotation, source.graph.quantization_annotation),
        (graph.value_info, source.graph.value_info),
        (graph.output, source.graph.output),
    ):
        del place[:]
        place.extend(kept)
    graph.name, graph.doc_string = source.graph.name, source.graph.doc_string
    before = {tuple(node.output): node for node in source.graph.node}
    for node in graph.node:
        old = before.get(tuple(node.output))
        if old is not None:
            node.name, node.doc_string = old.name, old.doc_string
            del node.metadata_props[:]
            node.metadata_props.extend(old.metadata_props)


def _has_subgraph(node: NodeProto) -> bool:
    return any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute)


def _names(values: Iterable[ValueInfoProto]) -> list[str]:
    return [value.name for value in values]
