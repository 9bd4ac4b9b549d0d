"""Makes a network of float32 one of integers, layer by layer sparse where the cost model says that it pays.

Ranges come from running the float network on the calibration inputs. What the network computes changes by
the rounding, which is why only targets without floating point have this pass.
"""

from scalpel_graph.errors import InputError
from scalpel_graph.graph import ModelGraph
from scalpel_graph.mcu import onnx_form, quantize_q15, ranges
from scalpel_graph.passes.base import Pass, PassContext, PassResult
from scalpel_graph.passes.lower_network import lower


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
                "target mcu needs inputs to find the ranges of activations: give --calibration X.npz with some"
                " hundred of them"
            )
        model = graph.to_proto()
        reached = ranges.measure(model, network.shapes, settings.samples.batches())
        context.network = quantize_q15.quantize(network, reached, graph.name)
        graph.reset(onnx_form.build(context.network, model))
        result = PassResult()
        result.rewritten.append(graph.name)
        return result
