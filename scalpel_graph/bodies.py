"""The bodies of If, Loop and Scan as part of the graph around them, for passes that look into them.

`open_bodies` puts the nodes of every body among those of the main graph, right before the node that holds
it, which has the body's outputs as further inputs. In front of the nodes of each body stands a marker, which
makes the body's inputs:

    [marker of then_branch] … nodes … [marker of else_branch] … nodes … If(condition, then's, else's outputs)

A name that a body reads from outside is the same tensor as there. Tensors have names of their own: where two
bodies use one name for two things, one of them has another name while the bodies are open. `close_bodies`
puts everything back.
"""

import contextlib
from collections import ChainMap
from collections.abc import Iterator, MutableMapping
from dataclasses import dataclass, field

import onnx_graphsurgeon as gs
from onnx import (
    AttributeProto,
    GraphProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
)
from onnx_graphsurgeon.ir.tensor import LazyValues
from onnx_graphsurgeon.logger import G_LOGGER

from scalpel_graph.body_shapes import infer_shapes
from scalpel_graph.graph import (
    ModelGraph,
    Shape,
    attributes_of,
    constant_of_node,
    constant_value,
    copy_fields,
    node_label,
    tensor_proto,
)

#: Of markers, and of nodes whose bodies are open.
DOMAIN = "ai.scalpel.open"
MARKER = "Body"
_OPERATORS = ("If", "Loop", "Scan")

_Scope = MutableMapping[str, gs.Tensor]


@dataclass(eq=False)
class Body:
    """One body of a node.

    Attributes:
        owner: the node that holds it.
        attribute: the owner's attribute that it is.
        proto: the body as it came.
        marker: the node that makes its inputs.
        outputs: which inputs of the owner are its outputs.
        constants: by name, its initializers and what its Constant nodes hold, each with what it came as.
        tensors: what it came with, by the names it has for them: they may have others while open.
    """

    owner: gs.Node
    attribute: str
    proto: GraphProto
    marker: gs.Node
    outputs: range = range(0)
    constants: dict[str, tuple[gs.Constant, TensorProto | NodeProto]] = field(default_factory=dict)
    tensors: dict[str, gs.Tensor] = field(default_factory=dict)


@dataclass(eq=False)
class Owner:
    """A node whose bodies are open.

    Attributes:
        node: the node.
        proto: the node as it came.
        arity: how many inputs it has itself; the outputs of its bodies follow.
        bodies: in the order of its attributes.
    """

    node: gs.Node
    proto: NodeProto
    arity: int
    bodies: list[Body]


class Bodies:
    """All open bodies of a graph. Opens what can be opened."""

    def __init__(self, graph: ModelGraph) -> None:
        self._graph = graph
        self._owners: dict[int, Owner] = {}
        self._by_marker: dict[int, Body] = {}
        inferred = _inferred(graph)
        scope = graph.tensors()
        for value in inferred.value_info:
            tensor = scope.get(value.name)
            if isinstance(tensor, gs.Variable) and graph.shape(tensor) is None:
                graph.state_type(tensor, value.type)
        self._seen = set(scope)
        nodes: list[gs.Node] = []
        for node, proto in zip(list(graph.nodes), inferred.node, strict=True):
            origin = graph.origin(node)
            if origin is not None and _can_be_opened(origin):
                self._open_node(node, origin, proto, scope, nodes)
            nodes.append(node)
        graph.arrange(nodes)
        graph.look_into_subgraphs()

    def owner(self, node: gs.Node) -> Owner:
        """What is known of a node whose bodies are open, or of the one that a marker's body belongs to."""
        body = self._by_marker.get(id(node))
        return self._owners[id(node if body is None else body.owner)]

    def is_output(self, tensor: gs.Tensor) -> bool:
        """Whether a tensor is an output of a body."""
        return any(
            any(tensor is given for given in list(reader.inputs)[self._owners[id(reader)].arity :])
            for reader in tensor.outputs
            if id(reader) in self._owners
        )

    def constants_inside(self) -> set[str]:
        """Names of the constants that belong to a body."""
        return {name for name, (path, _) in self._homes().items() if path}

    # -- opening --------------------------------------------------------------------------------------------

    def _open_node(
        self, node: gs.Node, origin: NodeProto, inferred: NodeProto, scope: _Scope, nodes: list[gs.Node]
    ) -> None:
        """Appends the bodies of a node to ``nodes``."""
        owner = Owner(node, origin, len(node.inputs), [])
        self._owners[id(node)] = owner
        types = {attribute.name: attribute.g for attribute in inferred.attribute}
        for attribute in origin.attribute:
            if attribute.type == AttributeProto.GRAPH:
                owner.bodies.append(self._open_body(node, attribute, types[attribute.name], scope, nodes))
        self._graph.set_origin(node, _without_bodies(origin))
        node.domain = DOMAIN

    def _open_body(
        self,
        node: gs.Node,
        attribute: AttributeProto,
        inferred: GraphProto,
        outer: _Scope,
        nodes: list[gs.Node],
    ) -> Body:
        graph, proto = self._graph, attribute.g
        body = Body(node, attribute.name, proto, gs.Node(MARKER, name=attribute.name, domain=DOMAIN))
        own = body.tensors
        scope: _Scope = ChainMap(own, outer)
        body.marker.body = node_label(node)
        self._by_marker[id(body.marker)] = body

        def made(name: str) -> gs.Tensor:
            if not name:
                return gs.Variable.empty()
            if name not in own:
                own[name] = gs.Variable(self._name(name))
            return own[name]

        def given(name: str) -> gs.Tensor:
            # What nobody makes is a sparse initializer: a variable of which nothing is known.
            return scope[name] if name in scope else made(name)

        for initializer in proto.initializer:
            constant = gs.Constant(self._name(initializer.name), LazyValues(initializer))
            own[initializer.name] = constant
            body.constants[constant.name] = (constant, initializer)
        body.marker.outputs.extend([made(value.name) for value in proto.input])
        nodes.append(body.marker)
        for inner, inner_inferred in zip(proto.node, inferred.node, strict=True):
            if inner.op_type == "Constant" and inner.domain in ("", "ai.onnx"):
                name = inner.output[0]
                constant = constant_of_node(self._name(name), attributes_of(inner))
                if constant is not None:
                    own[name] = constant
                    body.constants[constant.name] = (constant, inner)
                    continue
            new = graph.import_node(inner, given, made)
            new.body = node_label(body.marker)
            if _can_be_opened(inner):
                self._open_node(new, inner, inner_inferred, scope, nodes)
            nodes.append(new)
        for value in (*inferred.input, *inferred.value_info, *inferred.output):
            if value.name in own and value.HasField("type"):
                graph.state_type(own[value.name], value.type)
        start = len(node.inputs)
        node.inputs.extend([given(value.name) for value in proto.output])
        body.outputs = range(start, len(node.inputs))
        return body

    def _name(self, name: str) -> str:
        """The name of a body's tensor while it is open."""
        open_name = self._graph.unique_name(name) if name in self._seen else name
        self._seen.add(open_name)
        return open_name

    # -- putting together -----------------------------------------------------------------------------------

    def nested(self) -> list[NodeProto]:
        """The nodes of the main graph, with bodies as they are now."""
        inside: dict[int, dict[str, gs.Constant]] = {}
        for name, (path, constant) in self._homes().items():
            if path:
                inside.setdefault(id(path[-1]), {})[name] = constant
        names: dict[str, str] = {}
        for body in self._by_marker.values():
            names.update((tensor.name, name) for name, tensor in body.tensors.items())
        main: list[NodeProto] = []
        nodes_of: dict[int, list[NodeProto]] = {id(body): [] for body in self._by_marker.values()}
        for node, path in self._walk():
            if id(node) in self._by_marker:
                continue
            proto = self._graph.export_node(node)
            owner = self._owners.get(id(node))
            if owner is not None:
                del proto.input[owner.arity :]
                proto.domain = owner.proto.domain
                self._put_back(owner, proto, nodes_of, inside, names)
            proto.input[:] = [names.get(name, name) for name in proto.input]
            proto.output[:] = [names.get(name, name) for name in proto.output]
            (nodes_of[id(path[-1])] if path else main).append(proto)
        return main

    def close(self, changed: bool) -> None:
        """Puts the bodies back: as they are now, or, if nothing was changed, as they came."""
        graph = self._graph
        main = [node for node, path in self._walk() if not path]
        if changed:
            for node, proto in zip(main, self.nested(), strict=True):
                if id(node) in self._owners:
                    graph.set_origin(node, proto)
            read_inside = {tensor.name for node, path in self._walk() if path for tensor in node.inputs}
            for path, constant in self._homes().values():
                if not path and constant.name in read_inside:
                    graph.keep(constant)
        inner = [node for node, path in self._walk() if path]
        graph.forget_types(tensor.name for node in inner for tensor in node.outputs)
        for node in inner:
            node.inputs.clear()
            node.outputs.clear()
        for node in main:
            owner = self._owners.get(id(node))
            if owner is not None:
                while len(node.inputs) > owner.arity:
                    node.inputs.pop()
                node.domain = owner.proto.domain or None
                if not changed:
                    graph.set_origin(node, owner.proto)
        graph.arrange(main)
        graph.bodies = None
        graph.look_into_subgraphs()

    def _put_back(
        self,
        owner: Owner,
        proto: NodeProto,
        nodes_of: dict[int, list[NodeProto]],
        inside: dict[int, dict[str, gs.Constant]],
        names: dict[str, str],
    ) -> None:
        """Gives a node its bodies back, among its attributes in the order in which they came."""
        bodies = {body.attribute: body for body in owner.bodies}
        plain = {attribute.name: attribute for attribute in proto.attribute}
        ordered = NodeProto()
        for attribute in owner.proto.attribute:
            if attribute.name in bodies:
                body = bodies[attribute.name]
                new = ordered.attribute.add(name=attribute.name, type=AttributeProto.GRAPH)
                self._write(body, new.g, nodes_of[id(body)], inside.get(id(body), {}), names)
            elif attribute.name in plain:
                ordered.attribute.append(plain[attribute.name])
        del proto.attribute[:]
        proto.attribute.extend(ordered.attribute)

    def _write(
        self,
        body: Body,
        target: GraphProto,
        nodes: list[NodeProto],
        constants: dict[str, gs.Constant],
        names: dict[str, str],
    ) -> None:
        """Writes a body: Constant nodes that are still what they were, then the other nodes."""
        graph = self._graph
        copy_fields(body.proto, target, skip={"node", "initializer", "input", "output", "value_info"})
        for name in [*(name for name in body.constants if name in constants), *constants]:
            constant = constants.pop(name, None)
            original = body.constants.get(name)
            if constant is None:
                continue
            if original is not None and isinstance(original[1], NodeProto) and original[0] is constant:
                target.node.append(original[1])
            else:
                own_name = names.get(name, name)
                target.initializer.append(tensor_proto(own_name, constant_value(constant)))
        target.node.extend(nodes)
        there = {tensor.name for tensor in target.initializer}
        there |= {name for node in target.node for name in node.output}
        there |= {value.name for value in body.proto.input}
        for value in body.proto.input:
            target.input.append(_resized(value, value.name, graph.shape(body.tensors[value.name])))
        for value in body.proto.value_info:
            if value.name in there:
                tensor = body.tensors.get(value.name)
                shape = None if tensor is None else graph.shape(tensor)
                target.value_info.append(_resized(value, value.name, shape))
        for value, index in zip(body.proto.output, body.outputs, strict=True):
            tensor = body.owner.inputs[index]
            name = names.get(tensor.name, tensor.name)
            target.output.append(_resized(value, name, graph.shape(tensor)))

    def _walk(self) -> Iterator[tuple[gs.Node, tuple[Body, ...]]]:
        """Every node with the bodies that it is in, outermost first; a marker is in its own body."""
        path: list[Body] = []
        for node in self._graph.nodes:
            body, owner = self._by_marker.get(id(node)), self._owners.get(id(node))
            if body is not None:
                if path and path[-1].owner is body.owner:
                    path.pop()
                path.append(body)
            elif owner is not None and owner.bodies:
                path.pop()
            yield node, tuple(path)

    def _homes(self) -> dict[str, tuple[tuple[Body, ...], gs.Constant]]:
        """By the name of every constant, the bodies that it is in, outermost first: none in the main graph.

        What came with the model stays where it was; the rest goes where all its readers see it.
        """
        first: dict[str, tuple[Body, ...]] = {}
        homes: dict[str, tuple[tuple[Body, ...], gs.Constant]] = {}
        for node, path in self._walk():
            if id(node) in self._by_marker:
                first.update(dict.fromkeys(self._by_marker[id(node)].constants, path))
            owner = self._owners.get(id(node))
            for index, tensor in enumerate(node.inputs):
                if not isinstance(tensor, gs.Constant):
                    continue
                name, place = tensor.name, path
                if owner is not None and index >= owner.arity:
                    place = (*path, next(body for body in owner.bodies if index in body.outputs))
                if name in first:
                    place = first[name]
                elif self._graph.belongs_to_main(name):
                    place = ()
                elif name in homes:
                    place = _common(homes[name][0], place)
                homes[name] = (place, tensor)
        return homes


def open_bodies(graph: ModelGraph) -> None:
    """Puts the nodes of the bodies of If, Loop and Scan among those of the main graph, see the module.

    Bodies that hold another kind of subgraph stay closed, and so does what lists its initializers as inputs.
    """
    if any((proto := graph.origin(node)) is not None and _can_be_opened(proto) for node in graph.nodes):
        with G_LOGGER.suppress():  # it prints what it thinks of types that numpy does not have
            graph.bodies = Bodies(graph)


def close_bodies(graph: ModelGraph, changed: bool) -> None:
    """Undoes `open_bodies`.

    Args:
        graph: the graph.
        changed: whether anything was changed since; if not, all bodies are what they were, byte for byte.
    """
    if graph.bodies is not None:
        graph.bodies.close(changed)


def _can_be_opened(node: NodeProto) -> bool:
    if node.op_type not in _OPERATORS or node.domain not in ("", "ai.onnx"):
        return False
    bodies = [attribute.g for attribute in node.attribute if attribute.type == AttributeProto.GRAPH]
    return bool(bodies) and all(
        not {value.name for value in body.input} & {tensor.name for tensor in body.initializer}
        and all(_can_be_opened(inner) for inner in body.node if _holds_subgraph(inner))
        for body in bodies
    )


def _holds_subgraph(node: NodeProto) -> bool:
    return any(a.type in (AttributeProto.GRAPH, AttributeProto.GRAPHS) for a in node.attribute)


def _inferred(graph: ModelGraph) -> GraphProto:
    """The main graph, with whatever shape inference finds out in it and in bodies."""
    model = graph.to_proto(weights=False)
    with contextlib.suppress(Exception):  # what the bodies state themselves then has to do
        model = infer_shapes(model)
    return model.graph


def _without_bodies(node: NodeProto) -> NodeProto:
    stripped = NodeProto()
    copy_fields(node, stripped, skip={"attribute"})
    stripped.attribute.extend(a for a in node.attribute if a.type != AttributeProto.GRAPH)
    return stripped


def _resized(value: ValueInfoProto, name: str, shape: Shape | None) -> ValueInfoProto:
    """What is stated of a tensor, with its new name and sizes, if it has new ones."""
    stated = ValueInfoProto()
    stated.CopyFrom(value)
    stated.name = name
    for dim, size in zip(stated.type.tensor_type.shape.dim, shape or (), strict=False):
        if dim.HasField("dim_value") and isinstance(size, int):
            dim.dim_value = size
    return stated


def _common(a: tuple[Body, ...], b: tuple[Body, ...]) -> tuple[Body, ...]:
    """The bodies that both places are in."""
    length = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x is not y), min(len(a), len(b)))
    return a[:length]
