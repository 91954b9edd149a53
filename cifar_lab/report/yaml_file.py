"""YAML of unknown origin, read fast and without harm."""

from __future__ import annotations

from typing import Any

import yaml

# libyaml reads a recipe ten times faster; where it is missing the other reads the same.
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
DEEPEST = 40


def load_yaml(text: str) -> Any:
    """The document in `text`; raises ValueError for what is no YAML, nested deeply, or refers to itself."""
    try:
        depth = 0
        # libyaml's composer ends the process on deep nesting; its parser does not.
        for event in yaml.parse(text, Loader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError("it has aliases")
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > DEEPEST:
                raise ValueError("it is nested too deeply")
        return yaml.load(text, Loader)
    except Exception as error:  # a tag whose value is none (`!!int x`) raises what Python says to it
        raise ValueError(str(error)) from error
