"""Less dropout for a network that has become thinner, and so overfits less."""

import math
from collections.abc import Iterable, Mapping
from typing import Literal

from torch import nn

from scalpel_graph.errors import InputError
from scalpel_graph.pruning.selection import check_pattern, matches
from scalpel_graph.torch.per_layer import check_fractions, per_layer

_KINDS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, nn.FeatureAlphaDropout)
_WHAT = "Dropout"


class DropoutScaler:
    """Scales the dropout of a model, always from the probabilities that it had when this was made.

    Attributes:
        original: those probabilities, by the name of the layer.
    """

    def __init__(self, model: nn.Module, layers: Iterable[str] = ("*",)) -> None:
        """Changes nothing yet.

        Args:
            model: any module; one without dropout is fine, nothing will change.
            layers: names or patterns of Dropout layers.

        Raises:
            InputError: a pattern other than ``*`` names no Dropout layer.
        """
        layers = tuple(layers)
        known = {name: module for name, module in model.named_modules() if isinstance(module, _KINDS)}
        for pattern in layers:
            if pattern != "*":
                check_pattern(pattern, list(known), _WHAT)
        self._layers = {name: module for name, module in known.items() if matches(name, layers)}
        self.original = {name: module.p for name, module in self._layers.items()}

    def scale(self, kept: float | Mapping[str, float], of: Literal["nodes", "weights"]) -> None:
        """Sets every probability ``p`` to ``p · kept`` of nodes, or to ``p · √kept`` of weights.

        Sources: of nodes, Scalpel (Yu et al., ISCA 2017); of weights, Han et al., "Learning both weights and
        connections for efficient neural networks" (NIPS 2015), section 3.2, equation 2: the weights of a
        layer go with the square of its nodes.

        Args:
            kept: the part that is left, in [0, 1]: one for all, or one for each pattern of Dropout layers.
            of: what it is a part of.

        Raises:
            InputError: a part is out of range, or a pattern names no Dropout layer.
        """
        if of not in ("nodes", "weights"):
            raise InputError(f"dropout is scaled by what is kept of 'nodes' or 'weights', got {of!r}")
        chosen = per_layer(kept, list(self._layers), _WHAT)
        check_fractions(chosen.values(), "the part that is kept")
        for name, part in chosen.items():
            self._layers[name].p = self.original[name] * (part if of == "nodes" else math.sqrt(part))

    def restore(self) -> None:
        """Sets every probability to what it was."""
        for name, module in self._layers.items():
            module.p = self.original[name]
