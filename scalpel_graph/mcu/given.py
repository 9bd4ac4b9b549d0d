"""A network whose formats a quantized model gives: every value gets one, with rescaling where they differ."""

from dataclasses import replace
from math import prod

import numpy as np

from scalpel_graph.errors import InputError
from scalpel_graph.mcu.network import PROBABILITIES, FloatLayer, FloatNetwork, Format


def with_all_formats(network: FloatNetwork, hand_on: tuple[str, ...]) -> FloatNetwork:
    """The same with a format for every value.

    Args:
        network: some of its values have formats.
        hand_on: operators whose inputs and output are stored alike. Where they have different formats,
            averages become convolutions, and other inputs are brought to the format of the output.

    Raises:
        InputError: the model does not say how something is stored.
    """
    return _Completion(network, hand_on).run()


class _Completion:
    def __init__(self, network: FloatNetwork, hand_on: tuple[str, ...]) -> None:
        self.network, self.hand_on = network, hand_on
        self.formats, self.shapes = dict(network.formats), dict(network.shapes)
        self.layers: list[FloatLayer] = []

    def run(self) -> FloatNetwork:
        network = self.network
        # What these store, whatever a model says.
        own = {"Softmax": PROBABILITIES[network.dtype], "ArgMax": Format(1.0)}
        if network.input not in self.formats:
            raise InputError(f"input {network.input!r} is not quantized: no QuantizeLinear reads it")
        for layer in network.layers:
            if layer.op in own:
                self.with_own(layer, own[layer.op])
            elif layer.op in self.hand_on:
                self.handing_on(layer)
            elif layer.output in self.formats:
                self.layers.append(layer)
            else:
                raise InputError(
                    f"node {layer.name!r} ({layer.op}): the model does not say how its output is stored: no"
                    " QuantizeLinear reads it"
                )
        return replace(network, layers=self.layers, shapes=self.shapes, formats=self.formats)

    def with_own(self, layer: FloatLayer, own: Format) -> None:
        """A layer that stores its output in one way alone."""
        if self.formats.setdefault(layer.output, own) == own:
            self.layers.append(layer)
            return
        inner = self.value(f"{layer.output}_of_{layer.op}", layer.output, own)
        self.layers.append(replace(layer, output=inner))
        self.rescale(layer, inner, layer.output)

    def handing_on(self, layer: FloatLayer) -> None:
        form = self.formats.setdefault(layer.output, self.formats[layer.inputs[0]])
        if layer.op == "AveragePool" and self.formats[layer.inputs[0]] != form:
            self.average(layer)
            return
        inputs = list(layer.inputs)
        for number, name in enumerate(inputs):
            if layer.op != "Clip" and self.formats[name] != form:
                inputs[number] = self.value(f"{layer.output}_input_{number}", name, form)
                self.rescale(layer, name, inputs[number])
        self.layers.append(replace(layer, inputs=inputs))

    def average(self, layer: FloatLayer) -> None:
        """A mean in another format: a convolution, which rounds once; where windows differ, rounded twice."""
        x, n = layer.inputs[0], prod(layer.window.kernel)
        if any(layer.window.pads) and not layer.attributes["count_pads"]:
            inner = self.value(f"{layer.output}_of_{layer.op}", layer.output, self.formats[x])
            self.layers.append(replace(layer, output=inner))
            self.rescale(layer, inner, layer.output)
            return
        channels = self.shapes[x][0]
        self.layers.append(
            replace(
                layer,
                op="Conv",
                weights=np.full((channels, n), 1 / n),
                window=replace(layer.window, group=channels),
                scales=np.array([1 / n]),
            )
        )

    def value(self, name: str, like: str, form: Format) -> str:
        self.shapes[name], self.formats[name] = self.shapes[like], form
        return name

    def rescale(self, layer: FloatLayer, old: str, new: str) -> None:
        self.layers.append(FloatLayer("Clip", f"{layer.name}_rescaled", [old], new))
