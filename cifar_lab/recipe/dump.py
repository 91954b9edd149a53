"""A recipe as YAML text that loads again."""

from __future__ import annotations

from typing import Any

import yaml

from cifar_lab.recipe.schema import Recipe
from cifar_lab.recipe.yaml_text import scalar


class _Dumper(yaml.SafeDumper):
    """Lists in one line, no anchors, and quotes wherever a reader of YAML 1.1 or 1.2 would not see text."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = None if isinstance(scalar(text), str) else '"'
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _represent_list(dumper: yaml.SafeDumper, values: list[Any] | tuple[Any, ...]) -> yaml.SequenceNode:
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=True)


_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(tuple, _represent_list)


def to_yaml(recipe: Recipe) -> str:
    """Every field with its value, defaults included, in the order of the schema."""
    text: str = yaml.dump(recipe.model_dump(), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    return text
