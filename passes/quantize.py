"""Makes a network of float32 one of integers, layer by layer sparse where the cost model says that it pays.

Ranges come from running the float network on the calibration inputs; a model that is quantized already keeps
its own scales. What the network computes changes by the rounding, which is why only targets without floating
point have this pass.
"""

from scalpel_graph.errors import InputError
from scalpel_graph.graph import ModelGraph
from scalpel_graph.mcu import onnx_form, ranges
from scalpel_graph.mcu.choose import choose
from scalpel_graph.mcu.program import Program, Unsupported, build
from scalpel_graph.mcu.quantize import quantize
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.lower_network import lower
from scalpel_graph.target import McuTarget


class Quantize(Pass):
    """Replaces the graph by its quantized form."""

    name = "quantize"
    summary = "compute in integers, with sparse layers where the cost model says that it pays"

    def run(self, graph: ModelGraph, context: PassContext) -> PassResult:
        """See the module's docstring."""
        settings = context.quantization
        assert settings is not None  # the API gives it to every target that has this pass
        network = lower(graph, context)
        if settings.samples is None:
            raise InputError(
                "target mcu needs inputs to find the ranges of activations: give --calibration X.npz with"
                " some hundred of them"
            )
        model = graph.to_proto()
        reached: ranges.Ranges = {}
        if not network.formats:
            reached = ranges.measure(model, network.shapes, settings.samples.batches())
        target = context.target
        assert isinstance(target, McuTarget)  # no other pipeline has this pass
        try:
            chosen, decisions = choose(quantize(network, reached, graph.name), target)
            program = build(chosen)
        except Unsupported as error:
            raise InputError(str(error)) from error
        _check_fit(program, target)
        context.layers += decisions
        context.program = program
        graph.reset(onnx_form.build(chosen, model))
        result = PassResult()
        result.rewritten.append(graph.name)
        return result


def _check_fit(program: Program, target: McuTarget) -> None:
    """Raises InputError if the network is too large for the target: says by how much."""
    flash = program.flash_bytes + target.code_bytes
    ram = program.arena_bytes + program.input.nbytes + program.output.nbytes
    for what, needed, there in (
        ("flash (constants and code)", flash, target.flash_bytes),
        ("RAM (arena, input and output)", ram, target.ram_bytes),
    ):
        if needed > there:
            raise InputError(
                f"{program.network.name}: needs {needed:,} bytes of {what}, but target {target.name} has"
                f" {there:,}: {needed - there:,} too many; prune more, or give the profile of a larger device"
            )
