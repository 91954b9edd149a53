"""A recipe's text: read from a file, changed by overrides, with the place of every key."""

import copy
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cifar_lab.recipe.errors import Problem, RecipeError
from cifar_lab.recipe.named import find_recipe
from cifar_lab.recipe.yaml_text import parse_yaml

MAX_BYTES = 64 * 1024
OVERRIDE = None  # in place of a line number


@dataclass
class Source:
    """Values as given, before defaults; `lines` maps a dotted key to its line or to OVERRIDE."""

    label: str = ""
    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[str, int | None] = field(default_factory=dict)
    located: list[tuple[float, str]] = field(default_factory=list)

    def report(self, problem: Problem) -> None:
        """Note a problem at the first of its keys that was given, else at the section of the first key."""
        key = next((key for key in problem.keys if key in self.lines), problem.keys[0])
        place = key
        while place and place not in self.lines:
            place = re.sub(r"(^|[.\[])[^.\[]*$", "", place)
        self.add(self.lines.get(place, 1), key, problem.message)

    def add(self, line: int | None, key: str, message: str) -> None:
        """Note a problem at a line, or at an override."""
        place = "override" if line is OVERRIDE else f"{self.label}:{line}" if self.label else ""
        text = ": ".join(part for part in (place, key, message) if part)
        if text not in (known for _, known in self.located):
            self.located.append((float("inf") if line is OVERRIDE else line, text))

    def raise_problems(self) -> None:
        """Raise what was noted, in the order of the file, overrides last."""
        if self.located:
            raise RecipeError([text for _, text in sorted(self.located, key=lambda item: item[0])])

    def override(self, text: str) -> None:
        """Apply one `dotted.key=value`; the value is read as YAML."""
        key, equals, value_text = text.partition("=")
        key = key.strip()
        names = key.split(".")
        if not equals or not all(names):
            self.add(OVERRIDE, "", f'"{text}" is not of the form dotted.key=value, such as optim.lr=1e-3')
            return
        if not value_text.strip():
            self.add(OVERRIDE, key, "has no value; write null for none")
            return
        document = parse_yaml(value_text)
        if document.problems:
            for _, inner, message in document.problems:
                self.add(OVERRIDE, f"{key}.{inner}" if inner else key, message)
            return
        if isinstance(document.value, dict) and "args" not in names:
            self.add(OVERRIDE, key, "is a section; override its keys one by one, such as optim.lr=1e-3")
            return
        section = self.values
        for depth, name in enumerate(names[:-1], 1):
            path = ".".join(names[:depth])
            self.lines.setdefault(path, OVERRIDE)
            section = section.setdefault(name, {})
            if not isinstance(section, dict):
                self.add(OVERRIDE, key, f"`{path}` is not a section, so it has no key `{names[depth]}`")
                return
        section[names[-1]] = document.value
        for old in [old for old in self.lines if old.startswith((key + ".", key + "["))]:
            del self.lines[old]
        self.lines[key] = OVERRIDE
        self.lines |= {f"{key}{'' if inner[0] == '[' else '.'}{inner}": OVERRIDE for inner in document.lines}


def read_source(path: str | Path, overrides: Sequence[str] = ()) -> Source:
    """Read a recipe, named as `find_recipe` takes it, and apply overrides. Raises RecipeError where nothing is read."""
    file = find_recipe(path)
    source = Source(label=str(file))
    document = parse_yaml(_read_text(file))
    for line, key, message in document.problems:
        source.add(line, key, message)
    if not isinstance(document.value, dict):
        if not document.problems:
            kinds = {type(None): "the file is empty", list: "a list at the top"}
            found = kinds.get(type(document.value), "plain text at the top")
            source.add(1, "", f"{found}; a recipe is made of `key: value` lines: `name`, `model`, `optim` and `train`")
        source.raise_problems()
    source.values = document.value
    source.lines.update(document.lines)
    for text in overrides:
        source.override(text)
    return source


def mapping_source(mapping: Mapping[str, Any], overrides: Sequence[str] = ()) -> Source:
    """A recipe given from Python. Raises RecipeError when it is no mapping."""
    if not isinstance(mapping, Mapping):
        raise RecipeError([f"a recipe is a mapping of sections, not {type(mapping).__name__}"])
    source = Source(values=copy.deepcopy(dict(mapping)))
    for text in overrides:
        source.override(text)
    return source


def _read_text(path: Path) -> str:
    if os.path.isdir(path):  # unlike Path's, never raises
        inside = sorted(child.name for child in path.glob("*.yaml"))
        example = f", such as {path / inside[0]}" if inside else ""
        raise RecipeError([f"{path}: is a directory; name a recipe file{example}"])
    try:
        if path.is_fifo():  # would wait for a writer; and each process of a run reads the recipe
            raise RecipeError([f"{path}: is a pipe; name a recipe file"])
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError([f"{path}: cannot be read: {error.strerror}"]) from None
    if len(data) > MAX_BYTES:
        raise RecipeError([f"{path}: is larger than {MAX_BYTES // 1024} KiB; is this a recipe?"])
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise RecipeError([f"{path}:{line}: not UTF-8 text; save the file in UTF-8"]) from None
