"""A model while it is being rewritten.

The nodes and tensors are graphsurgeon's (`gs.Node`, `gs.Variable`, `gs.Constant`), which keep producers and
consumers in step. Import and export are our own, because a round trip through graphsurgeon's loses what it
has no place for: metadata, doc strings, quantization annotations, overloads, graph inputs with a default,
optional and map types, attributes that hold types or several tensors. Here a node, an initializer or a type
that no pass touched leaves byte for byte as it came.

Rules for passes:
- Subgraphs (If, Loop, Scan) are opaque: what they read by name is reported by `is_pinned` and stays. A pass
  that looks into them opens them for the time it runs (`bodies`).
- Change a node's attribute by assigning a new value, never by editing a list in place.
- `gs.Graph.cleanup`, `fold_constants` and `toposort` are not used: they do not know what subgraphs read.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    TypeProto,
    ValueInfoProto,
    helper,
    numpy_helper,
    shape_inference,
)
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

from scalpel_graph import ops
from scalpel_graph.assumed_sizes import shapes_with
from scalpel_graph.errors import GraphError
from scalpel_graph.external_data import payload_bytes
from scalpel_graph.group_csr import Array
from scalpel_graph.stand_ins import replace_by_stand_ins

if TYPE_CHECKING:
    from scalpel_graph.bodies import Bodies

Shape = tuple[int | str | None, ...]

#: Initializers above this many bytes are left out of the model that checks and inference work on.
_WEIGHT_BYTES = 4096

_SIMPLE_ATTRIBUTES = {
    AttributeProto.FLOAT,
    AttributeProto.INT,
    AttributeProto.STRING,
    AttributeProto.TENSOR,
    AttributeProto.FLOATS,
    AttributeProto.INTS,
    AttributeProto.STRINGS,
}
_CONSTANT_ARRAYS = {
    "value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64,
}  # fmt: skip
_SUBGRAPH_ATTRIBUTES = {AttributeProto.GRAPH, AttributeProto.GRAPHS}


@dataclass(frozen=True)
class LightModel:
    """A model whose large initializers stand outside: what checks, shape inference and converters work on.

    Attributes:
        model: the model; each initializer left out is declared as a graph input.
        weights: what was left out, by name: as it came or as a pass made it. Referred to, not copied.
        declared: names of those that are no graph inputs of the whole model.
    """

    model: ModelProto
    weights: Mapping[str, TensorProto | Array]
    declared: frozenset[str]

    def full(self, model: ModelProto | None = None) -> ModelProto:
        """Puts the weights back, into a copy of `model` or into one that was made from it (in place)."""
        if model is None:
            model = ModelProto()
            model.CopyFrom(self.model)
        inputs = [value for value in model.graph.input if value.name not in self.declared]
        del model.graph.input[:]
        model.graph.input.extend(inputs)
        model.graph.initializer.extend(tensor_proto(name, value) for name, value in self.weights.items())
        return model


class ModelGraph:
    """A model's main graph as graphsurgeon nodes, and everything else of the model beside it.

    Args:
        proto: the model. It is read, never written to, and must outlive this object: weights stay in it.

    Attributes:
        bodies: the bodies of If, Loop and Scan while their nodes are among `nodes`; None while they are not.

    Raises:
        GraphError: it has a tensor of a type, or an operator of our domain, that is not known here.
    """

    def __init__(self, proto: ModelProto) -> None:
        self.reset(proto)

    def reset(self, proto: ModelProto) -> None:
        """Starts again from another model, for a pass that rewrites the model as a whole."""
        _check_representable(proto)
        self._proto = proto
        self._initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.bodies: Bodies | None = None
        self._kept: dict[str, gs.Constant] = {}
        self._origin: dict[int, tuple[gs.Node, NodeProto, dict[str, Any]]] = {}
        self._types: dict[str, TypeProto] = {}
        for value in (*proto.graph.input, *proto.graph.value_info, *proto.graph.output):
            self._types[value.name] = value.type
        self._resized: set[str] = set()
        self._names = {name for name in _all_names(proto.graph) if name}
        self._outputs = {value.name for value in proto.graph.output}
        self._read_by_subgraphs = set(_names_read_by_subgraphs(proto.graph.node))
        # From IR version 4 on, an initializer that is also a graph input is a default for callers.
        inputs = {value.name for value in proto.graph.input}
        self._overridable = inputs & set(self._initializers) if proto.ir_version >= 4 else set()
        self.gs = self._import()
        self._edited: bool
        self.arrange(list(self.gs.nodes))
        read = {name for node in proto.graph.node for name in node.input}
        self._unused = set(self._initializers) - read - self._outputs - self._read_by_subgraphs

    # -- looking --------------------------------------------------------------------------------------------

    @property
    def nodes(self) -> list[gs.Node]:
        """The nodes of the main graph, in topological order. Not to be edited: see the methods below."""
        if self._edited:
            self.gs.nodes[:] = chain.from_iterable(self._places)
            self._edited = False
        return self.gs.nodes  # type: ignore[no-any-return]

    @property
    def name(self) -> str:
        """The name of the main graph, for messages."""
        return self._proto.graph.name or "the graph"

    @property
    def opset(self) -> int:
        """Version of the standard operator set; 1 where the model does not import it."""
        return max((o.version for o in self._proto.opset_import if o.domain in ("", "ai.onnx")), default=1)

    @property
    def inputs(self) -> list[ValueInfoProto]:
        """The graph inputs that a caller must give (those without a default)."""
        return [value for value in self._proto.graph.input if value.name not in self._initializers]

    def constant(self, tensor: gs.Tensor) -> Array | None:
        """The value of an initializer that no caller can override; None for anything else.

        The array is read-only where it shares memory with the model.
        """
        if not isinstance(tensor, gs.Constant):
            return None
        lazy = tensor._values
        if not isinstance(lazy, LazyValues):
            return np.asarray(lazy)
        raw = lazy.tensor
        if raw.data_type == TensorProto.FLOAT and raw.HasField("raw_data"):
            return np.frombuffer(raw.raw_data, dtype="<f4").reshape(tuple(raw.dims))
        return numpy_helper.to_array(raw)

    def type(self, tensor: gs.Tensor) -> int | None:
        """The element type (`onnx.TensorProto` enum) of a tensor, if known and if it is a dense tensor."""
        if isinstance(tensor, gs.Constant):
            lazy = tensor._values
            if isinstance(lazy, LazyValues):
                return int(lazy.tensor.data_type)
            return int(helper.np_dtype_to_tensor_dtype(lazy.dtype))
        proto = self._types.get(tensor.name)
        if proto is None or not proto.HasField("tensor_type"):
            return None
        return proto.tensor_type.elem_type or None

    def shape(self, tensor: gs.Tensor) -> Shape | None:
        """The dimensions of a tensor: int, symbol or None (unknown) each; None if the rank is unknown."""
        if isinstance(tensor, gs.Constant):
            return tuple(int(d) for d in tensor._values.shape)
        proto = self._types.get(tensor.name)
        return None if proto is None else shape_of_type(proto)

    def assumed_shapes(self, dimensions: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
        """The shapes of all tensors that are known once sizes are assumed for symbolic input dimensions.

        Args:
            dimensions: a size for each symbol; 1 for those missing and for dimensions without a name.
        """
        model = self.to_proto(weights=False)
        # What the model states of other tensors is symbolic; inference must not keep it in the way.
        del model.graph.value_info[:]
        made = {name for node in model.graph.node for name in node.output}
        for value in model.graph.output:
            if value.name in made:
                value.type.tensor_type.ClearField("shape")
        replace_by_stand_ins(model.graph)
        return shapes_with(model, dimensions)

    def tensors(self) -> dict[str, gs.Tensor]:
        """Every tensor of the main graph by its name, also those that only subgraphs read."""
        found: dict[str, gs.Tensor] = {}
        with G_LOGGER.suppress():
            for name, initializer in self._initializers.items():
                found[name] = gs.Constant(name, LazyValues(initializer))
        found.update(self._kept)
        found.update((tensor.name, tensor) for tensor in self.gs.inputs)
        for node in self.nodes:
            found.update((tensor.name, tensor) for tensor in (*node.inputs, *node.outputs) if tensor.name)
        return found

    def belongs_to_main(self, name: str) -> bool:
        """Whether a constant came with the main graph, or was made to stand there for subgraphs."""
        return name in self._initializers or name in self._kept

    def is_output(self, tensor: gs.Tensor) -> bool:
        """Whether a tensor is an output of the model."""
        return tensor.name in self._outputs

    def is_pinned(self, tensor: gs.Tensor) -> bool:
        """Whether a tensor's name must go on existing: it is a graph output or a subgraph reads it."""
        return tensor.name in self._outputs or tensor.name in self._read_by_subgraphs

    def is_overridable(self, tensor: gs.Tensor) -> bool:
        """Whether a tensor is an initializer that callers may replace: it is a graph input as well."""
        return tensor.name in self._overridable

    def has_subgraph(self, node: gs.Node) -> bool:
        """Whether a node holds a graph (If, Loop, Scan and their like)."""
        return id(node) in self._origin and _has_subgraph(self._origin[id(node)][1])

    def sole_consumer(self, tensor: gs.Tensor) -> gs.Node | None:
        """The only node that reads ``tensor`` (once), if nothing else in or outside the graph sees it."""
        if self.is_pinned(tensor) or len(tensor.outputs) != 1:
            return None
        return tensor.outputs[0]

    # -- changing -------------------------------------------------------------------------------------------

    def unique_name(self, hint: str) -> str:
        """A tensor or node name nobody has: ``hint``, or ``hint`` with a number. It is reserved."""
        name, number = hint, 1
        while name in self._names:
            name, number = f"{hint}_{number}", number + 1
        self._names.add(name)
        return name

    def add_constant(self, hint: str, values: Array) -> gs.Constant:
        """A new initializer named after ``hint``."""
        return gs.Constant(self.unique_name(hint), np.ascontiguousarray(values).reshape(np.shape(values)))

    def set_constant(self, node: gs.Node, index: int, values: Array) -> None:
        """Makes input ``index`` of ``node``, now a constant, read ``values`` instead.

        The name stays where nothing else reads the constant; where something does, that goes on as it was.
        A constant of another shape gets a new name: the model may state the shape under the old one.
        """
        old = node.inputs[index]
        alone = len(old.outputs) == 1 and not self.is_pinned(old) and self.shape(old) == np.shape(values)
        name = old.name if alone else self.unique_name(f"{old.name}_of_{node_label(node)}")
        node.inputs[index] = gs.Constant(name, np.ascontiguousarray(values).reshape(np.shape(values)))
        if not old.outputs and not self.is_pinned(old) and not isinstance(old._values, LazyValues):
            # Tensors refer to themselves, and the collector, which would free this one, counts no bytes.
            old._values = np.zeros(0, dtype=old._values.dtype)

    def keep(self, constant: gs.Constant) -> None:
        """Has a new constant written even if only subgraphs read it."""
        self._kept[constant.name] = constant

    def state_type(self, tensor: gs.Tensor, proto: TypeProto) -> None:
        """Notes the type and shape of a variable."""
        self._types[tensor.name] = proto

    def forget_types(self, names: Iterable[str]) -> None:
        """Undoes `state_type` and `resize`."""
        for name in names:
            self._types.pop(name, None)
            self._resized.discard(name)

    def add_variable(self, hint: str, like: gs.Tensor | None = None) -> gs.Variable:
        """A new tensor named after ``hint``, of the type and shape of ``like`` if given."""
        tensor = gs.Variable(self.unique_name(hint))
        if isinstance(like, gs.Constant):
            self._types[tensor.name] = helper.make_tensor_type_proto(self.type(like) or 0, self.shape(like))
        elif like is not None and like.name in self._types:
            self._types[tensor.name] = self._types[like.name]
        return tensor

    def resize(self, tensor: gs.Tensor, axis: int, size: int) -> None:
        """Notes that an axis of a variable, of known size so far, has another one."""
        changed = TypeProto()
        changed.CopyFrom(self._types[tensor.name])
        changed.tensor_type.shape.dim[axis].dim_value = size
        self._types[tensor.name] = changed
        self._resized.add(tensor.name)

    def insert_before(self, node: gs.Node, new: gs.Node) -> None:
        """Puts ``new`` right before ``node``; its inputs must be there by then."""
        self._put(node, [new, node])

    def insert_after(self, node: gs.Node, new: gs.Node) -> None:
        """Puts ``new`` right after ``node``."""
        self._put(node, [node, new])

    def replace(self, node: gs.Node, new: gs.Node) -> None:
        """Puts ``new`` in the place of ``node`` and hands it ``node``'s outputs."""
        outputs = list(node.outputs)
        node.outputs.clear()
        node.inputs.clear()
        new.outputs.extend(outputs)
        self._put(node, [new])

    def remove(self, *nodes: gs.Node) -> None:
        """Takes out nodes whose outputs nobody reads."""
        for node in nodes:
            self._put(node, [])
            node.outputs.clear()
            node.inputs.clear()
        if any(self.has_subgraph(node) for node in nodes):
            self.look_into_subgraphs()

    def look_into_subgraphs(self) -> None:
        """Finds out anew what subgraphs read."""
        kept = (self._origin[id(node)][1] for node in self.nodes if id(node) in self._origin)
        self._read_by_subgraphs = set(_names_read_by_subgraphs(kept))

    def arrange(self, nodes: Sequence[gs.Node]) -> None:
        """Makes these the nodes of the graph, in this order; takes time in proportion to their number."""
        # Those that stand in the place of one of these are in one list each: so an edit takes the same time
        # however large the graph.
        self._places: list[list[gs.Node]] = [[node] for node in nodes]
        self._place = {id(node): place for node, place in zip(nodes, self._places, strict=True)}
        self._edited = True

    def remove_unused_initializers(self) -> list[str]:
        """Drops the initializers that nothing read when the model came; returns their names.

        Those that passes leave without a reader are never written in the first place.
        """
        names = sorted(self._unused - self._overridable)
        self._unused -= set(names)
        return names

    def redirect(self, old: gs.Tensor, new: gs.Tensor) -> None:
        """Makes every node that reads ``old`` read ``new``. ``old`` must not be pinned."""
        for consumer in list(old.outputs):
            for i, tensor in enumerate(consumer.inputs):
                if tensor is old:
                    consumer.inputs[i] = new

    def _put(self, node: gs.Node, instead: Sequence[gs.Node]) -> None:
        """Puts nodes in the place of one."""
        place = self._place.pop(id(node))
        # By identity: graphsurgeon compares nodes by content.
        index = next(i for i, other in enumerate(place) if other is node)
        place[index : index + 1] = instead
        self._place.update((id(other), place) for other in instead)
        self._edited = True

    # -- checking -------------------------------------------------------------------------------------------

    def infer(self, strict: bool = True) -> None:
        """Checks the graph and refreshes the types and shapes of all tensors.

        Args:
            strict: raise where shape inference finds a contradiction, instead of passing over it.

        Raises:
            onnx.checker.ValidationError, onnx.shape_inference.InferenceError: the graph is invalid.
        """
        light = self.to_proto(weights=False)
        ours = [tensor for node in self.nodes if node.domain == ops.DOMAIN for tensor in node.outputs]
        if all(self.shape(tensor) is not None for tensor in ours):
            # What our operators compute has a known shape. Inference through their bodies takes seconds.
            others = [function for function in light.functions if function.domain != ops.DOMAIN]
            del light.functions[:]
            light.functions.extend(others)
        if strict:
            onnx.checker.check_model(light)
        replace_by_stand_ins(light.graph)
        inferred = shape_inference.infer_shapes(light, check_type=strict, strict_mode=strict, data_prop=True)
        for value in inferred.graph.value_info:
            self._types[value.name] = value.type

    # -- import and export ----------------------------------------------------------------------------------

    def to_proto(self, *, weights: bool = True) -> ModelProto:
        """The model as it is now.

        Args:
            weights: False leaves large initializers out and declares them as graph inputs instead: enough for
                checks and shape inference, and quick however large the model.
        """
        return self._export(weights).model

    def to_light(self) -> LightModel:
        """The model as it is now, with large initializers beside it."""
        return self._export(weights=False)

    def model_of(self, nodes: Iterable[gs.Node], outputs: Iterable[str]) -> ModelProto:
        """A model of some of the nodes, for another runtime to compute; it has no inputs or types yet."""
        model = ModelProto(ir_version=max(self._proto.ir_version, 4))
        model.opset_import.extend(self._proto.opset_import)
        model.graph.name = "part"
        model.graph.node.extend(self.export_node(node) for node in nodes)
        model.graph.output.extend(ValueInfoProto(name=name) for name in outputs)
        return model

    def _export(self, weights: bool) -> LightModel:
        model = ModelProto()
        copy_fields(self._proto, model, skip={"graph", "opset_import"})
        model.opset_import.extend(self._proto.opset_import)
        used = {node.op for node in self.nodes if node.domain == ops.DOMAIN}
        if used:
            ops.add_functions(model, sorted(used & set(ops.OPERATORS)))

        graph = model.graph
        copy_fields(
            self._proto.graph,
            graph,
            skip={"node", "initializer", "sparse_initializer", "input", "output", "value_info",
                  "quantization_annotation"},
        )  # fmt: skip
        if self.bodies is None:
            graph.node.extend(self.export_node(node) for node in self.nodes)
        else:
            graph.node.extend(self.bodies.nested())
        graph.output.extend(self._proto.graph.output)
        left_out: dict[str, TensorProto | Array] = {}
        for name, value in self._live_initializers():
            if weights or _nbytes(value) <= _WEIGHT_BYTES:
                graph.initializer.append(tensor_proto(name, value))
            else:
                left_out[name] = value
        declared = self._export_inputs(model, left_out)
        self._export_types(graph)
        return LightModel(model, left_out, frozenset(declared))

    def _import(self) -> gs.Graph:
        graph = self._proto.graph
        tensors: dict[str, gs.Tensor] = {}
        with G_LOGGER.suppress():  # it prints what it thinks of types that numpy does not have
            for name, initializer in self._initializers.items():
                if name not in self._overridable:
                    tensors[name] = gs.Constant(name, LazyValues(initializer))

        def tensor(name: str) -> gs.Tensor:
            if not name:
                return gs.Variable.empty()
            return tensors.setdefault(name, gs.Variable(name))

        nodes = [self.import_node(proto, tensor, tensor) for proto in graph.node]
        inputs = [tensor(v.name) for v in graph.input if not isinstance(tensors.get(v.name), gs.Constant)]
        outputs = [tensor(v.name) for v in graph.output]
        return gs.Graph(nodes=nodes, inputs=inputs, outputs=outputs, name=graph.name, opset=self.opset)

    def import_node(
        self, proto: NodeProto, given: Callable[[str], gs.Tensor], made: Callable[[str], gs.Tensor]
    ) -> gs.Node:
        """A node as a part of this graph.

        Args:
            proto: the node, which stays where it is.
            given: the tensor of an input's name.
            made: the tensor of an output's name.
        """
        attributes = attributes_of(proto)
        node = gs.Node(
            op=proto.op_type,
            name=proto.name,
            attrs=dict(attributes),
            inputs=[given(name) for name in proto.input],
            outputs=[made(name) for name in proto.output],
            domain=proto.domain or None,
        )
        self._origin[id(node)] = (node, proto, attributes)
        return node

    def set_origin(self, node: gs.Node, proto: NodeProto) -> None:
        """Has a node that came with the model written as if it had come as ``proto``, of equal attributes."""
        self._origin[id(node)] = (node, proto, self._origin[id(node)][2])

    def origin(self, node: gs.Node) -> NodeProto | None:
        """What a node came as; None for one that a pass made."""
        return self._origin[id(node)][1] if id(node) in self._origin else None

    def export_node(self, node: gs.Node) -> NodeProto:
        """A node as it is now."""
        proto = NodeProto()
        before: dict[str, Any] = {}
        if id(node) in self._origin:
            _, origin, before = self._origin[id(node)]
            proto.CopyFrom(origin)
        for field, value in (("op_type", node.op), ("name", node.name), ("domain", node.domain or "")):
            if getattr(proto, field) != value:
                setattr(proto, field, value)
        if [t.name for t in node.inputs] != list(proto.input):
            proto.input[:] = [t.name for t in node.inputs]
        if [t.name for t in node.outputs] != list(proto.output):
            proto.output[:] = [t.name for t in node.outputs]
        changed = {name for name in before if name not in node.attrs or node.attrs[name] is not before[name]}
        if changed:
            kept = [a for a in proto.attribute if a.name not in changed]
            del proto.attribute[:]
            proto.attribute.extend(kept)
        for name, value in node.attrs.items():
            if name not in before or name in changed:
                proto.attribute.append(_make_attribute(name, value))
        return proto

    def _live_initializers(self) -> Iterator[tuple[str, TensorProto | Array]]:
        """Name and value of every initializer to write: those that came first, in their order."""
        live: dict[str, gs.Tensor] = {}
        inside = set() if self.bodies is None else self.bodies.constants_inside()
        for tensor in (*(t for node in self.nodes for t in node.inputs), *self.gs.outputs):
            if tensor.name not in inside:
                live[tensor.name] = tensor
        for name, constant in self._kept.items():
            if name in self._read_by_subgraphs:
                live.setdefault(name, constant)
        kept_for_others = self._read_by_subgraphs | self._overridable | self._unused
        for name, proto in self._initializers.items():
            tensor = live.pop(name, None)
            if isinstance(tensor, gs.Constant):
                yield name, constant_value(tensor)
            elif tensor is not None or name in kept_for_others:
                yield name, proto
        for name, tensor in live.items():
            if isinstance(tensor, gs.Constant):
                yield name, constant_value(tensor)

    def _export_inputs(self, model: ModelProto, left_out: Mapping[str, TensorProto | Array]) -> set[str]:
        """Writes the graph inputs; returns the names of those that stand for initializers left out."""
        graph = model.graph
        constants = {tensor.name for tensor in graph.initializer} | set(left_out)
        for value in self._proto.graph.input:
            # IR version 3 lists every initializer as an input; later ones would read that as a default.
            is_listed = value.name in self._initializers and value.name not in self._overridable
            if not is_listed or (model.ir_version < 4 and value.name in constants):
                graph.input.append(value)
        present = {value.name for value in graph.input}
        declared = set(left_out) - present
        if model.ir_version < 4:
            graph.input.extend(_type_of(t.name, t) for t in graph.initializer if t.name not in present)
            declared = set()
        graph.input.extend(_type_of(name, value) for name, value in left_out.items() if name not in present)
        return declared

    def _export_types(self, graph: GraphProto) -> None:
        """Keeps the types the model came with, and states those of our operators' outputs."""
        there = {tensor.name for tensor in graph.initializer}
        there |= {value.name for value in (*graph.input, *graph.output)}
        there |= {tensor.name for node in self.nodes for tensor in node.outputs}
        was = {name for node in self._proto.graph.node for name in node.output} | set(self._initializers)
        gone = was - there
        for value in self._proto.graph.value_info:
            if value.name in self._resized and value.name not in gone:
                graph.value_info.append(ValueInfoProto(name=value.name, type=self._types[value.name]))
            elif value.name not in gone:
                graph.value_info.append(value)
        stated = {value.name for value in (*graph.value_info, *graph.input, *graph.output)}
        for node in self.nodes:
            for tensor in node.outputs if node.domain == ops.DOMAIN else ():
                if tensor.name not in stated and tensor.name in self._types:
                    graph.value_info.append(ValueInfoProto(name=tensor.name, type=self._types[tensor.name]))
        graph.quantization_annotation.extend(
            a for a in self._proto.graph.quantization_annotation if a.tensor_name not in gone
        )
        graph.sparse_initializer.extend(self._proto.graph.sparse_initializer)


def _check_representable(proto: ModelProto) -> None:
    for tensor in proto.graph.initializer:
        if tensor.data_type not in TensorProto.DataType.values():
            raise GraphError(
                f"initializer {tensor.name!r} has element type {tensor.data_type}, which this release of onnx"
                " does not know"
            )
    for function in proto.functions:
        if _is_named_like_ours(function.domain, function.name) and tuple(function.input) != ops.inputs(
            function.name
        ):
            raise GraphError(f"it has a function {ops.DOMAIN}.{function.name} of its own, which is not ours")
    for node in proto.graph.node:
        if _is_named_like_ours(node.domain, node.op_type) and not ops.is_ours(node):
            raise GraphError(
                f"{node.op_type} node {node.name!r} lacks inputs or attributes that {ops.DOMAIN} version"
                f" {ops.VERSION} asks for"
            )


def _is_named_like_ours(domain: str, name: str) -> bool:
    return domain == ops.DOMAIN and name in ops.OPERATORS


def node_label(node: gs.Node) -> str:
    """What to call a node to a person: its name, else its first named output, else its operator.

    In front of it comes, for a node of an open body, what the body is called.
    """
    name = str(node.name or next((t.name for t in node.outputs if t.name), None) or node.op)
    body = getattr(node, "body", "")
    return f"{body}/{name}" if body else name


def attributes_of(proto: NodeProto) -> dict[str, Any]:
    """The attributes of a node that passes can read and change."""
    return {
        a.name: _attribute_value(a)
        for a in proto.attribute
        if a.type in _SIMPLE_ATTRIBUTES and not a.ref_attr_name
    }


def constant_of_node(name: str, attributes: Mapping[str, Any]) -> gs.Constant | None:
    """What a Constant node of these attributes holds, as an initializer; None if it is sparse or text."""
    value = attributes.get("value")
    if isinstance(value, TensorProto):
        return gs.Constant(name, LazyValues(value))
    for attribute, dtype in _CONSTANT_ARRAYS.items():
        if attribute in attributes:
            return gs.Constant(name, np.array(attributes[attribute], dtype=dtype))
    return None


def _attribute_value(attribute: AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if attribute.type == AttributeProto.STRING:
        return value.decode("utf-8", errors="surrogateescape")
    if attribute.type in (AttributeProto.INTS, AttributeProto.FLOATS, AttributeProto.STRINGS):
        return list(value)
    return value


def _make_attribute(name: str, value: Any) -> AttributeProto:
    if isinstance(value, list | tuple) and not value:
        return AttributeProto(name=name, type=AttributeProto.INTS)
    return helper.make_attribute(name, value)


def constant_value(constant: gs.Constant) -> TensorProto | Array:
    """The tensor as it came, or the array that a pass made."""
    values = constant._values
    return values.tensor if isinstance(values, LazyValues) else np.asarray(values)


def tensor_proto(name: str, value: TensorProto | Array) -> TensorProto:
    """An initializer; not a copy where it came with the model under this name."""
    if isinstance(value, TensorProto):
        if value.name == name:
            return value
        renamed = TensorProto()
        renamed.CopyFrom(value)
        renamed.name = name
        return renamed
    return numpy_helper.from_array(value, name)


def _type_of(name: str, value: TensorProto | Array) -> ValueInfoProto:
    if isinstance(value, TensorProto):
        return helper.make_tensor_value_info(name, value.data_type, list(value.dims))
    return helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)


def _nbytes(value: TensorProto | Array) -> int:
    if isinstance(value, TensorProto):
        return payload_bytes(value) or value.ByteSize()
    return int(value.nbytes)


def shape_of_type(proto: TypeProto) -> Shape | None:
    """The dimensions that a type states; None if the rank is unknown, or if it is no tensor."""
    if not proto.HasField("tensor_type") or not proto.tensor_type.HasField("shape"):
        return None
    return tuple(
        dim.dim_value if dim.HasField("dim_value") else (dim.dim_param or None)
        for dim in proto.tensor_type.shape.dim
    )


def copy_fields(source: Any, target: Any, skip: set[str]) -> None:
    """Copies all fields of a protobuf message but some."""
    for field, value in source.ListFields():
        if field.name in skip:
            continue
        if isinstance(value, str | bytes | int | float | bool):
            setattr(target, field.name, value)
        else:
            getattr(target, field.name).MergeFrom(value)


def _subgraphs(node: NodeProto) -> Iterator[GraphProto]:
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def _has_subgraph(node: NodeProto) -> bool:
    return any(attribute.type in _SUBGRAPH_ATTRIBUTES for attribute in node.attribute)


def _names_read_by_subgraphs(nodes: Iterable[NodeProto]) -> Iterator[str]:
    """Every name that a subgraph could be reading from outside (also names it defines itself)."""
    for node in nodes:
        for graph in _subgraphs(node):
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from inner.input
            yield from _names_read_by_subgraphs(graph.node)


def _all_names(graph: GraphProto) -> Iterator[str]:
    """Every tensor and node name in a graph and its subgraphs."""
    for values in (graph.input, graph.output, graph.value_info, graph.initializer):
        yield from (value.name for value in values)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)
    for node in graph.node:
        yield node.name
        yield from node.input
        yield from node.output
        for subgraph in _subgraphs(node):
            yield from _all_names(subgraph)
