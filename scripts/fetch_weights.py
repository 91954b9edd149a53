#!/usr/bin/env python3
"""Fetch and check the published weights that a recipe starts from.

    python scripts/fetch_weights.py recipes/eva02_large.yaml [--to weights]

Run it once on a machine with network; nodes without network then read the file.
The weights are compared with the sha256 of the hub and loaded into the model of
the recipe (every tensor must fit) before the file gets its name. So several
processes may run this at the same time. It prints the line for the recipe.
`--file FILE` fetches nothing and checks a file that you have.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import shutil
import sys
from pathlib import Path

from cifar_lab.errors import UserError
from cifar_lab.models.factory import ModelError, build_model, find_family, num_parameters
from cifar_lab.planning.footprint import known_sizes
from cifar_lab.recipe import Recipe, load_recipe
from cifar_lab.recipe.plugins import ZOOS


def fetch(recipe: Recipe) -> Path:
    """The recipe's published weights in the hub's cache, their sha256 verified. Raises ModelError."""
    if recipe.model.name not in ZOOS:
        raise ModelError(f"model.name: {recipe.model.name} has no published weights; only {' and '.join(ZOOS)} have")
    arch = recipe.model.args["arch"]
    try:
        cached: Path = find_family(recipe.model.name).pretrained_file(arch)
    except ModelError as error:
        if error.__cause__ is None:
            raise
        reason = str(error.__cause__).splitlines()[0]
        raise ModelError(
            f"cannot reach the weights of {arch} ({reason}): run this on a machine with network"
        ) from error
    # The hub's cache names a large file by its sha256.
    expected, found = cached.resolve().name, sha256(cached)
    if re.fullmatch("[0-9a-f]{64}", expected) and expected != found:
        raise ModelError(f"{cached} is damaged (sha256 {found}): delete {cached.resolve()} and run this again")
    return cached


def check(recipe: Recipe, file: Path) -> int:
    """Load `file` into the recipe's model, as training would; its number of parameters. Raises ModelError."""
    sizes = known_sizes(recipe)
    section = recipe.model.model_copy(update={"pretrained": False, "weights": str(file)})
    return num_parameters(build_model(section, sizes.num_classes, sizes.image_size, seed=0))


def place(file: Path, folder: Path, name: str) -> Path:
    """Copy `file` to FOLDER/NAME.safetensors by a rename; a file that is there with the same content stays."""
    target = folder / f"{name}.safetensors"
    if target.exists() and sha256(target) == sha256(file):
        return target
    folder.mkdir(parents=True, exist_ok=True)
    partial = target.with_suffix(f".{os.getpid()}.partial")
    try:
        shutil.copyfile(file, partial)
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)
    return target


def sha256(file: Path) -> str:
    """Hexadecimal digest of a file."""
    digest = hashlib.sha256()
    with file.open("rb") as stream:
        while chunk := stream.read(8 * 2**20):
            digest.update(chunk)
    return digest.hexdigest()


def main(argv: list[str] | None = None) -> int:
    """Run the script; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file with `model.pretrained: true`")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="change the recipe")
    parser.add_argument("--to", metavar="DIR", type=Path, default=Path("weights"), help="folder (default: weights)")
    parser.add_argument("--file", metavar="FILE", type=Path, help="check this file instead of fetching one")
    arguments = parser.parse_intermixed_args(argv)
    try:
        recipe = load_recipe(arguments.recipe, arguments.overrides, check_files=False)
        found = arguments.file or fetch(recipe)
        parameters = check(recipe, found)
        target = found if arguments.file else place(found, arguments.to, recipe.model.args["arch"])
    except (UserError, OSError) as error:
        print(error, file=sys.stderr)
        return getattr(error, "exit_status", 1)
    print(f"{target}: {parameters:,} parameters, sha256 {sha256(target)}")
    print("In the recipe's model section, instead of `pretrained: true`:")
    print(f"  weights: {target}")
    print(f"or on the command line: model.pretrained=false model.weights={target}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
