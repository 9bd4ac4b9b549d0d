"""Recipes: YAML files that say how to prune, for all layers and for some.

method: group           # these for all layers; options of the command line win over them
sparsity: 0.9
exclude: [conv1]
layers:
  "fc*": {sparsity: 0.95, group_shape: 1x16}
  fc3: {method: none}   # of several patterns that match, later ones win
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from scalpel_graph.errors import InputError
from scalpel_graph.pruning.selection import check_pattern, did_you_mean, matches
from scalpel_graph.pruning.settings import Settings


@dataclass(frozen=True)
class Recipe:
    """What a recipe says.

    Attributes:
        settings: for all layers, by name of the setting.
        exclude: patterns of the names of layers to leave alone.
        layers: patterns, with settings for the layers they match.
        source: the file, for messages.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    exclude: Sequence[str] = ()
    layers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    source: str = "recipe"

    def settings_of(self, name: str, common: Settings) -> Settings:
        """The settings of a layer, where the recipe says something of it in particular."""
        for pattern, values in self.layers.items():
            if matches(name, [pattern]):
                common = common.changed(values, f"{self.source}: layers.{pattern}: ")
        return common

    def check(self, names: Sequence[str]) -> None:
        """Makes sure that every pattern matches a layer.

        Raises:
            InputError: one does not.
        """
        for pattern in (*self.exclude, *self.layers):
            try:
                check_pattern(pattern, names)
            except InputError as error:
                raise InputError(f"{self.source}: {error}") from error


def load_recipe(path: str | Path) -> Recipe:
    """Reads a recipe.

    Raises:
        InputError: the file is missing or not YAML, or a key or value is not known.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" (line {mark.line + 1})" if mark is not None else ""
        problem = getattr(error, "problem", None) or "not YAML"
        raise InputError(f"{path}: not valid YAML: {problem}{line}") from error
    return parse_recipe({} if content is None else content, str(path))


def parse_recipe(content: Any, source: str = "recipe") -> Recipe:
    """A recipe from what YAML makes of it.

    Raises:
        InputError: a key or value is not known.
    """
    values = dict(_mapping(content, source))
    exclude = values.pop("exclude", [])
    if not isinstance(exclude, list) or not all(isinstance(name, str) for name in exclude):
        raise InputError(f"{source}: exclude must be a list of names of layers, got {exclude!r}")
    layers = _mapping(values.pop("layers", {}) or {}, f"{source}: layers")
    for name, value in values.items():
        if isinstance(value, dict) and (hint := did_you_mean(str(name), ["layers"])):
            raise InputError(f"{source}: {name!r} is not a known key: {hint}")
    Settings().changed(values, f"{source}: ")
    for pattern, settings in layers.items():
        place = f"{source}: layers.{pattern}"
        Settings().changed(_mapping(settings, place), f"{place}: ")
    return Recipe(values, tuple(exclude), layers, source)


def _mapping(content: Any, place: str) -> Mapping[str, Any]:
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise InputError(f"{place}: must hold keys and values, such as sparsity: 0.9, got {content!r}")
    return content
