"""The members of a sweep: all combinations of values, as overrides."""

from __future__ import annotations

import itertools
import json
import math
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from submit_options import SubmitError

PAIRS = {"(": ")", "[": "]", "{": "}"}
# Text that a recipe reads as that text, not as a number, null or true.
PLAIN = re.compile(r"(?!(?:null|true|false)$)[A-Za-z_/][\w./+-]*", re.ASCII | re.IGNORECASE)
NUMBER = re.compile(r"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?", re.ASCII)
# Of a sweep file: what says nothing about the grid.
IGNORED = {"program", "command", "metric", "name", "description", "project", "entity"}
READ_YAML = """
import json, sys
from cifar_lab.recipe.yaml_text import parse_yaml
document = parse_yaml(sys.stdin.read())
print(json.dumps({"value": document.value, "problems": document.problems}))
"""


def members(sweep: Sequence[str], overrides: Sequence[str], python: str, checkout: Path) -> list[list[str]]:
    """The overrides of each member, those of the call first; the last key of the sweep changes fastest."""
    if _is_file(sweep[0]) or (len(sweep) > 1 and any(map(_is_file, sweep))):
        if len(sweep) > 1:
            raise SubmitError("--sweep takes one FILE.yaml or key=v1,v2 ..., not both")
        grid = read_grid(Path(sweep[0]), python, checkout)
    else:
        grid = parse_grid(sweep)
    fixed = {override.partition("=")[0].strip() for override in overrides}
    both = next((key for key in grid if key in fixed), None)
    if both is not None:
        raise SubmitError(f"{both} is swept and given as an override too: take one of them away")
    products = itertools.product(*([f"{key}={value}" for value in values] for key, values in grid.items()))
    return [[*overrides, *product] for product in products]


def parse_grid(words: Sequence[str]) -> dict[str, list[str]]:
    """Keys and values of `key=v1,v2` words."""
    grid: dict[str, list[str]] = {}
    for word in words:
        key, equals, values = word.partition("=")
        key = key.strip()
        if not equals or not key:
            raise SubmitError(f"--sweep {word!r} is not of the form key=v1,v2, such as optim.lr=1e-3,3e-4")
        if key in grid:
            raise SubmitError(f"--sweep names {key} twice: write all of its values in one word, {key}=v1,v2")
        grid[key] = split_values(values, word)
    return grid


def split_values(text: str, word: str) -> list[str]:
    """Values between commas outside of quotes and brackets; `word` is for the message."""
    values, quote = [""], ""
    depth: list[str] = []
    for previous, character in zip(" " + text, text, strict=False):
        if quote:
            quote = "" if character == quote else quote
        elif character in "'\"" and (not values[-1].strip() or previous in "([{,: "):
            quote = character
        elif character in PAIRS:
            depth.append(PAIRS[character])
        elif depth and character == depth[-1]:
            depth.pop()
        elif character == "," and not depth:
            values.append("")
            continue
        values[-1] += character
    if quote or depth:
        raise SubmitError(f"--sweep {word!r}: a {quote or depth[-1]} is missing")
    if not all(value.strip() for value in values):
        raise SubmitError(f"--sweep {word!r} has an empty value; write null for none, or quote a comma in a text")
    return values


def read_grid(path: Path, python: str, checkout: Path) -> dict[str, list[str]]:
    """Keys and values of a sweep file as Weights & Biases reads it, if it is a grid."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SubmitError(f"{path}: cannot be read: {error.strerror}") from None
    # The checkout's python has a YAML reader; the one of a login node may not.
    answer = subprocess.run([python, "-c", READ_YAML], input=text, capture_output=True, cwd=checkout, check=False)
    if answer.returncode:
        last = answer.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise SubmitError(f"{path} cannot be read as YAML by {python}: {''.join(last)}")
    document = json.loads(answer.stdout)
    if document["problems"]:
        raise SubmitError("\n".join(f"{path}:{line}: {message}" for line, _, message in document["problems"]))
    try:
        return _grid(document["value"])
    except SubmitError as error:
        raise SubmitError(f"{path}: {error}") from None


def _grid(content: Any) -> dict[str, list[str]]:
    if not isinstance(content, dict) or not isinstance(content.get("parameters"), dict) or not content["parameters"]:
        raise SubmitError("has no `parameters:`, such as `parameters: {optim.lr: {values: [1e-3, 3e-4]}}`")
    method = content.get("method", "grid")
    if method != "grid":
        raise SubmitError(f"method {method}: only a grid is known before it runs; use `wandb sweep` for that")
    other = sorted(set(content) - IGNORED - {"method", "parameters"})
    if other:
        raise SubmitError(f"{', '.join(other)}: not for a grid that is queued at once; use `wandb sweep` for that")
    found = _parameters(content["parameters"], "")
    twice = next((key for number, (key, _) in enumerate(found) if key in dict(found[:number])), None)
    if twice is not None:
        raise SubmitError(f"{twice} is given twice")
    return dict(found)


def _parameters(parameters: Mapping[str, Any], prefix: str) -> list[tuple[str, list[str]]]:
    found: list[tuple[str, list[str]]] = []
    for name, parameter in parameters.items():
        key = f"{prefix}{name}"
        if (
            isinstance(parameter, dict)
            and set(parameter) == {"parameters"}
            and isinstance(parameter["parameters"], dict)
        ):
            found += _parameters(parameter["parameters"], f"{key}.")
        elif isinstance(parameter, dict) and set(parameter) == {"value"}:
            found.append((key, [_text(key, parameter["value"])]))
        elif isinstance(parameter, dict) and set(parameter) == {"values"} and isinstance(parameter["values"], list):
            if not parameter["values"]:
                raise SubmitError(f"{key} has no values")
            found.append((key, [_text(key, value) for value in parameter["values"]]))
        else:
            raise SubmitError(f"{key}: only `values: [...]` or `value:` make a grid; use `wandb sweep` for others")
    return found


def _text(key: str, value: Any) -> str:
    """A value as an override writes it."""
    if isinstance(value, str):
        if "\0" in value:
            raise SubmitError(f"{key}: a text with a NUL cannot be an argument")
        return value if PLAIN.fullmatch(value) or NUMBER.fullmatch(value) else json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and not math.isfinite(value):
        raise SubmitError(f"{key}: {value} is no value for a recipe")
    return json.dumps(value, ensure_ascii=False)


def _is_file(word: str) -> bool:
    return word.endswith((".yaml", ".yml")) and ("=" not in word or Path(word).exists())
