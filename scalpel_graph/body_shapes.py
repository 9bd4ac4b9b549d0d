"""Shapes in bodies and through Loops.

ONNX's inference takes nothing that comes from outside of a body for a constant, so it is told; and it knows
nothing of the shape of a Loop's state, for that might change. A state has one shape where it starts with it
and an iteration gives back what it was given. So the shape at the start is assumed of every iteration; where
inference finds out that an iteration makes another size of it, that size is not known, and all is inferred
again, until what is assumed is what comes out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, TypeProto, shape_inference

from scalpel_graph.graph import Shape, shape_of_type

#: After this many inferences nothing is assumed.
_ROUNDS = 16

#: Where a state is: the places of nodes from the main graph inwards, and its number.
_Key = tuple[int, ...]


@dataclass(frozen=True)
class _State:
    """A loop-carried variable.

    Attributes:
        key: where it is.
        given: the body's input.
        initial: its shape before the first iteration.
        before: the shape that the body states for its input.
        after: its shape at the end of an iteration.
        final: the shape of the Loop's output.
        outside: the graph that the Loop is in, and the name of its output there.
    """

    key: _Key
    given: TypeProto
    initial: Shape | None
    before: Shape | None
    after: Shape | None
    final: Shape | None
    outside: tuple[GraphProto, str]


def infer_shapes(model: ModelProto) -> ModelProto:
    """The model with the types and shapes that can be found out, also in bodies and behind Loops.

    Raises:
        onnx.shape_inference.InferenceError: inference cannot read the model.
    """
    model = _with_parameters_inside(model)
    assumed: dict[_Key, Shape] = {}
    refused: set[_Key] = set()
    for _ in range(_ROUNDS):
        trial = model
        if assumed:
            trial = ModelProto()
            trial.CopyFrom(model)
            _assume(trial, assumed)
        inferred = shape_inference.infer_shapes(trial, data_prop=True)
        states = list(_states(inferred.graph, {}, ()))
        new = {
            state.key: state.initial
            for state in states
            if state.initial is not None
            and state.key not in assumed
            and state.key not in refused
            and (_says_less(state.before, state.initial) or _says_less(state.final, state.initial))
        }
        if new:
            assumed.update(new)
            continue
        changed = False
        for state in states:
            before = assumed.get(state.key)
            if before is None:
                continue
            after = _common(_common(before, state.initial), state.after)
            if state.before is not None and len(state.before) != len(before):
                after = None
            if after is None:
                del assumed[state.key]
                refused.add(state.key)
            else:
                assumed[state.key] = after
            changed |= after != before
        if not changed:
            return inferred
    return shape_inference.infer_shapes(model, data_prop=True)


def _with_parameters_inside(model: ModelProto) -> ModelProto:
    """A copy whose bodies have the vectors they read: inference looks at them, say for a Reshape's shape."""
    copy = ModelProto()
    copy.CopyFrom(model)
    _hand_down(copy.graph, {})
    return copy


def _hand_down(graph: GraphProto, outer: Mapping[str, TensorProto]) -> None:
    read = {name for node in graph.node for name in node.input}
    graph.initializer.extend(tensor for name, tensor in outer.items() if name in read)
    vectors = {**outer, **{tensor.name: tensor for tensor in graph.initializer if len(tensor.dims) <= 1}}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                _hand_down(attribute.g, vectors)


def _common(a: Shape | None, b: Shape | None) -> Shape | None:
    """What two shapes agree on; None if not even on the rank."""
    if a is None or b is None or len(a) != len(b):
        return None
    return tuple(x if x == y else None for x, y in zip(a, b, strict=True))


def _says_less(stated: Shape | None, initial: Shape) -> bool:
    """Whether a stated shape leaves open what is a number at the start."""
    return stated is None or any(
        isinstance(size, int) and not isinstance(other, int)
        for size, other in zip(initial, stated, strict=False)
    )


def _assume(model: ModelProto, assumed: Mapping[_Key, Shape]) -> None:
    for state in list(_states(model.graph, {}, ())):
        shape = assumed.get(state.key)
        if shape is None:
            continue
        _state_shape(state.given, shape)
        graph, name = state.outside
        if not name:
            continue
        stated = next((v for v in (*graph.output, *graph.value_info) if v.name == name), None)
        if stated is None:
            stated = graph.value_info.add(name=name)
            stated.type.tensor_type.elem_type = state.given.tensor_type.elem_type
        _state_shape(stated.type, shape)


def _state_shape(proto: TypeProto, shape: Shape) -> None:
    """Adds what a shape knows to what a type states; numbers that are stated stay."""
    tensor = proto.tensor_type
    if not tensor.HasField("shape"):
        tensor.shape.SetInParent()
        for _ in shape:
            tensor.shape.dim.add()
    for dim, size in zip(tensor.shape.dim, shape, strict=False):
        if isinstance(size, int) and not dim.HasField("dim_value"):
            dim.dim_value = size
        elif isinstance(size, str) and not dim.HasField("dim_value") and not dim.dim_param:
            dim.dim_param = size


def _states(graph: GraphProto, outer: Mapping[str, Shape | None], path: _Key) -> Iterator[_State]:
    """The tensor states of all Loops, also of those in bodies."""
    shapes = {**outer, **{t.name: tuple(t.dims) for t in graph.initializer}}
    shapes |= {v.name: shape_of_type(v.type) for v in (*graph.input, *graph.value_info, *graph.output)}
    for place, node in enumerate(graph.node):
        for number, attribute in enumerate(node.attribute):
            if attribute.type == AttributeProto.GRAPH:
                key = (*path, place, number)
                yield from _states(attribute.g, shapes, key)
                if node.op_type == "Loop" and node.domain in ("", "ai.onnx"):
                    yield from _states_of(graph, node, attribute.g, shapes, key)


def _states_of(
    graph: GraphProto, node: NodeProto, body: GraphProto, shapes: Mapping[str, Shape | None], key: _Key
) -> Iterator[_State]:
    inside = {v.name: shape_of_type(v.type) for v in (*body.input, *body.value_info, *body.output)}
    inside |= {t.name: tuple(t.dims) for t in body.initializer}
    carried = zip(node.input[2:], body.input[2:], body.output[1:], node.output, strict=False)
    for number, (initial, given, made, final) in enumerate(carried):
        if given.type.HasField("tensor_type"):
            yield _State(
                (*key, number),
                given.type,
                shapes.get(initial),
                shape_of_type(given.type),
                inside.get(made.name),
                shapes.get(final),
                (graph, final),
            )
