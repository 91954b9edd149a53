"""A recipe to begin with, each line with what it means."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from cifar_lab.cli.printable import shown
from cifar_lab.files import atomic
from cifar_lab.recipe import Recipe, RecipeError, load_recipe
from cifar_lab.recipe.book import SUFFIXES, RecipeBookError, recipes_folder
from cifar_lab.recipe.schema import Section

VALUES: dict[str, Any] = {
    "name": None,
    "seed": "0",
    "data": {
        "name": "cifar10",
        "val_size": "5000",
        "image_size": "null",
        "augment": {"crop_padding": "4", "flip": "true", "cutout": "0"},
    },
    "model": {"name": "resnet", "args": "{depth: 18}", "pretrained": "false"},
    "optim": {
        "name": "sgd",
        "lr": "0.1",
        "momentum": "0.9",
        "nesterov": "true",
        "weight_decay": "5.0e-4",
        "warmup_epochs": "1",
        "schedule": "cosine",
    },
    "train": {"epochs": "30", "global_batch": "256", "precision": "fp32", "label_smoothing": "0.0"},
    "eval": {"tta": "false"},
}
COLUMN, WIDTH = 28, 120


def write_template(path: Path) -> None:
    """Write a recipe of the file's name, which loads, where nothing is yet. Raises RecipeBookError."""
    if path.suffix not in SUFFIXES:
        raise RecipeBookError(f"{path}: name a file that ends with .yaml, such as {path.name or 'mine'}.yaml")
    if not str(path).isprintable():
        raise RecipeBookError(f"{shown(path)}: choose a name of plain characters")
    if os.path.lexists(path):
        raise RecipeBookError(f"{path} exists already: name another file, or edit that one")
    try:
        with atomic.replacing(path) as temporary:
            temporary.write_text(template(path), encoding="utf-8")
            try:
                load_recipe(temporary)
            except RecipeError as error:
                said = error.problems[0].replace(str(temporary), str(path))
                raise RecipeBookError(f"{said}; choose another file name") from None
    except OSError as error:
        raise RecipeBookError(f"cannot write {path}: {error.strerror}") from None


def template(path: Path) -> str:
    """The text of the recipe that would be at `path`."""
    lines = [
        *_editor_line(path),
        "# Say here what this experiment is, and what it is compared with.",
        f"#   cifar-lab train {path} --dry-run      # what it resolves to",
        f"#   cifar-lab train {path}",
        "# Expect: not measured.",
        f"# Every other key and its default: `cifar-lab recipes show {path}`.",
        *_lines(Recipe, VALUES | {"name": path.stem}, 0),
    ]
    return "\n".join(lines) + "\n"


def _editor_line(path: Path) -> list[str]:
    """Where editors find the schema, relative to the recipe."""
    try:
        schema = recipes_folder() / "schema.json"
    except RecipeBookError:
        return []
    if not schema.is_file():
        return []
    return [f"# yaml-language-server: $schema={os.path.relpath(schema.absolute(), path.absolute().parent)}"]


def _lines(section: type[Section], values: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in values.items():
        field, indent = section.model_fields[key], "  " * depth
        if isinstance(value, dict):
            assert isinstance(field.annotation, type) and issubclass(field.annotation, Section)
            lines += [f"{indent}{key}:", *_lines(field.annotation, value, depth + 1)]
            continue
        line = f"{indent}{key}: {value}".ljust(COLUMN) + f"  # {field.description}"
        lines.append(line if len(line) <= WIDTH else line[: WIDTH - 3].rsplit(" ", 1)[0] + " ...")
    return lines
