"""Puts a part of a network into the branches of an If, or into the body of a Loop."""

import numpy as np
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference


def with_body(proto: ModelProto, seed: int) -> ModelProto:
    """The network with some of its neighbouring nodes in bodies; it has inputs ``c`` (bool) and ``times``.

    In an If the other branch has other weights. A Loop has a state where the part has an input and a single
    output of one shape; else it collects what it makes, and the mean of that goes on.
    """
    rng = np.random.default_rng(seed)
    inferred = shape_inference.infer_shapes(proto)
    nodes = list(proto.graph.node)
    while True:
        start = int(rng.integers(len(nodes)))
        stop = int(rng.integers(start + 1, min(start + 12, len(nodes)) + 1))
        part = _Part(inferred, start, stop, rng)
        if part.outputs and part.types.keys() >= set(part.outputs):
            break
    new = part.as_if() if rng.random() < 0.5 else part.as_loop()
    out = ModelProto()
    out.CopyFrom(inferred)
    del out.graph.node[:]
    del out.graph.value_info[:]
    out.graph.value_info.extend(v for v in inferred.graph.value_info if v.name not in part.unstated)
    out.graph.node.extend([*nodes[:start], *new, *nodes[stop:]])
    out.graph.initializer.extend(part.initializers)
    out.graph.input.append(helper.make_tensor_value_info("c", TensorProto.BOOL, []))
    out.graph.input.append(helper.make_tensor_value_info("times", TensorProto.INT64, []))
    return out


class _Part:
    def __init__(self, proto: ModelProto, start: int, stop: int, rng: np.random.Generator) -> None:
        self.rng = rng
        self.opset = proto.opset_import[0].version
        graph = proto.graph
        self.nodes, rest = graph.node[start:stop], [*graph.node[:start], *graph.node[stop:]]
        self.types = {v.name: v.type for v in (*graph.input, *graph.value_info, *graph.output)}
        self.weights = {tensor.name: tensor for tensor in graph.initializer}
        self.initializers: list[TensorProto] = []
        self.unstated: list[str] = []
        self.made = {name for node in self.nodes for name in node.output if name}
        read = {name for node in rest for name in node.input} | {value.name for value in graph.output}
        self.outputs = [name for node in self.nodes for name in node.output if name in read]

    def body(self, name: str, *, other: bool = False, given: dict[str, str] | None = None) -> GraphProto:
        """The nodes with names of their own; some of their weights belong to the body, and may be others."""
        names = {tensor: f"{tensor}_{name}" for tensor in self.made} | (given or {})
        own: list[TensorProto] = []
        for tensor in dict.fromkeys(tensor for node in self.nodes for tensor in node.input):
            if tensor in self.weights and self.rng.random() < 0.5:
                values = numpy_helper.to_array(self.weights[tensor])
                if other and values.dtype == np.float32 and values.ndim > 1:
                    values = values * np.float32(0.7)
                    values[self.rng.random(len(values)) < 0.2] = 0
                names[tensor] = f"{tensor}_{name}"
                own.append(numpy_helper.from_array(values, names[tensor]))
        nodes = []
        for node in self.nodes:
            renamed = NodeProto()
            renamed.CopyFrom(node)
            renamed.input[:] = [names.get(tensor, tensor) for tensor in node.input]
            renamed.output[:] = [names.get(tensor, tensor) for tensor in node.output]
            nodes.append(renamed)
        outputs = [helper.make_value_info(names[tensor], self.types[tensor]) for tensor in self.outputs]
        return helper.make_graph(nodes, name, [], outputs, own)

    def as_if(self) -> list[NodeProto]:
        branches = {"then_branch": self.body("one"), "else_branch": self.body("two", other=True)}
        return [helper.make_node("If", ["c"], self.outputs, **branches)]

    def as_loop(self) -> list[NodeProto]:
        state = self._state()
        body = self.body("body", given={} if state is None else {state: f"{state}_state"})
        keep = helper.make_node("Identity", ["go_body"], ["on_body"])
        body.node.insert(0, keep)
        for name, kind in (("n_body", TensorProto.INT64), ("go_body", TensorProto.BOOL)):
            body.input.append(helper.make_tensor_value_info(name, kind, []))
        body.output.insert(0, helper.make_tensor_value_info("on_body", TensorProto.BOOL, []))
        if state is not None:
            body.input.append(helper.make_value_info(f"{state}_state", self.types[state]))
            if self.rng.random() < 0.5:  # shapes are to be found out
                self.unstated += self.outputs
                for value in (body.input[-1], body.output[-1]):
                    value.type.tensor_type.ClearField("shape")
            return [helper.make_node("Loop", ["times", "", state], self.outputs, body=body)]
        all_of_them = [f"{name}_all" for name in self.outputs]
        self.initializers.append(numpy_helper.from_array(np.array(2), "twice"))
        # The axes of a mean are an attribute up to opset 17, an input from 18 on.
        axes, attributes = ([], {"axes": [0]}) if self.opset < 18 else (["all_of_them"], {})
        if axes:
            self.initializers.append(numpy_helper.from_array(np.array([0]), *axes))
        means = [
            helper.make_node("ReduceMean", [name, *axes], [output], keepdims=0, **attributes)
            for name, output in zip(all_of_them, self.outputs, strict=True)
        ]
        return [helper.make_node("Loop", ["twice", ""], all_of_them, body=body), *means]

    def _state(self) -> str | None:
        if len(self.outputs) != 1:
            return None
        made = self.types[self.outputs[0]]
        given = [name for node in self.nodes for name in node.input]
        fits = [n for n in given if n not in self.made and n in self.types and self.types[n] == made]
        return fits[0] if fits else None
