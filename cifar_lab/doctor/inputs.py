"""What training reads: the data set, and published weights where the recipe starts from them."""

from __future__ import annotations

import hashlib
import importlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cifar_lab.data import cache
from cifar_lab.data.raw import DataError
from cifar_lab.data.sources import cifar10
from cifar_lab.doctor.check import Check, State
from cifar_lab.files.cache import CacheRootError, cache_root
from cifar_lab.recipe import Recipe

FETCH = "fetch it on a machine with network (HF_HOME on a shared disk), or set CIFAR_LAB_DATA or data.root to a copy"


class Hub:
    """Whether the Hugging Face hub answers, asked once and only if somebody wants to know."""

    def __init__(self) -> None:
        self._reachable: bool | None = None

    @property
    def reachable(self) -> bool:
        if self._reachable is None:
            try:
                from cifar_lab.data.hub_access import hub_is_reachable

                self._reachable = not offline() and hub_is_reachable()
            except ImportError:  # a finding of the packages' check
                self._reachable = False
        return self._reachable

    def why_not(self) -> str:
        return "HF_HUB_OFFLINE is set" if offline() else "the hub cannot be reached"


def offline() -> bool:
    """Whether the user keeps the hub's libraries off the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def data_check(recipe: Recipe | None, hub: Hub) -> Check:
    """Where the data of the recipe, or CIFAR-10, would come from."""
    name, root, args = (recipe.data.name, recipe.data.root, recipe.data.args) if recipe else ("cifar10", None, {})
    try:
        key = importlib.import_module(f"cifar_lab.data.sources.{name}").cache_key(root=root, **args)
        place = cifar10.find(root) if name == "cifar10" else root
    except (DataError, OSError) as error:
        return Check("data", "FAIL", str(error), "correct data.root or CIFAR_LAB_DATA")
    except ImportError as error:
        return Check("data", "FAIL", f"cannot be read: {error}", "scripts/setup")
    identifier = cifar10.HUB_ID if name == "cifar10" else args.get("id")
    if place is not None:
        return Check("data", "ok", f"{name} in {place}")
    if identifier is None:
        return Check("data", "ok", f"{name} needs no files")
    if _decoded(name, key):
        return Check("data", "ok", f"{name}, decoded before, in the cache")
    if _cached(identifier):
        return Check("data", "ok", f"{identifier} in the cache of `datasets`")
    if hub.reachable:
        return Check("data", "ok", f"{identifier} will be fetched from the hub")
    state: State = "FAIL" if recipe else "warning"
    return Check("data", state, f"{identifier} is not on this machine and {hub.why_not()}", FETCH)


def _decoded(name: str, key: str) -> bool:
    digest = hashlib.sha256(f"{cache.FORMAT}\n{name}\n{key}".encode()).hexdigest()
    try:
        return (cache_root() / "data" / f"{name}-{digest[:8]}" / "meta.json").is_file()
    except CacheRootError:
        return False


def _cached(identifier: str) -> bool:
    """Whether `datasets` has prepared the data set here before; its layout, read without importing it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    folder = Path(os.environ.get("HF_DATASETS_CACHE") or Path(home, "datasets")).expanduser()
    return any((folder / identifier.replace("/", "___")).glob("*/*/*/dataset_info.json"))


def weights_check(recipe: Recipe, found: dict[str, Any], hub: Hub) -> Iterator[Check]:
    """`found` is what the program of devices.py said of the architecture; load_recipe checked model.weights."""
    if recipe.model.weights is not None:
        yield Check("weights", "ok", recipe.model.weights)
    elif recipe.model.pretrained:
        arch = recipe.model.args.get("arch", recipe.model.name)
        fix = "on a machine with network: python scripts/fetch_weights.py RECIPE; or set model.weights to a copy"
        if "weights" in found:
            yield Check("weights", "ok", f"{arch} in {Path(found['weights']).parent}")
        elif "no_weights" not in found:
            yield Check("weights", "FAIL", f"{arch}: {found.get('error', 'timm did not answer')}", "scripts/setup")
        elif hub.reachable:
            yield Check("weights", "ok", f"{arch} will be fetched from the hub")
        else:
            yield Check("weights", "FAIL", f"{arch} is not on this machine and {hub.why_not()}", fix)
