"""What a recipe asks of this job: data, published weights, processes that its batch divides over, room on disk."""

import functools
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from cifar_lab.data import cache
from cifar_lab.data.sizes import data_sizes
from cifar_lab.data.sources import find_source
from cifar_lab.doctor.check import Check, State
from cifar_lab.doctor.packages import SET_UP
from cifar_lab.errors import UsageError, UserError
from cifar_lab.files.cache import cache_root
from cifar_lab.planning import kept_answer
from cifar_lab.planning.memory import num_moments
from cifar_lab.recipe import Recipe
from cifar_lab.recipe.schedule import Schedule, layout
from cifar_lab.recipe.support import unsupported

FETCH = "fetch it on a machine with network (HF_HOME on a shared disk), or set CIFAR_LAB_DATA or data.root to a copy"


def data_check(recipe: Recipe | None) -> Check:
    """Where the data of the recipe, or CIFAR-10, would come from."""
    name, root, args = (recipe.data.name, recipe.data.root, recipe.data.args) if recipe else ("cifar10", None, {})
    try:
        source = find_source(name)
        key = source.cache_key(root=root, **args)
        place = source.find(root, **args) if hasattr(source, "find") else root
    except (UserError, OSError) as error:
        return Check("data", "FAIL", str(error), "correct data.root or CIFAR_LAB_DATA")
    except ImportError as error:
        return Check("data", "FAIL", f"cannot be read: {error}", SET_UP)
    identifier = f"uoft-cs/{name}" if name in ("cifar10", "cifar100") else args.get("id")
    if place is not None:
        return Check("data", "ok", f"{name} in {place}")
    if identifier is None:
        return Check("data", "ok", f"{name} needs no files")
    with suppress(UsageError):  # a finding of the disk's check
        if (cache.place(cache_root(), name, key)[0] / "meta.json").is_file():
            return Check("data", "ok", f"{name}, decoded before, in the cache")
    if _cached(identifier):
        return Check("data", "ok", f"{identifier} in the cache of `datasets`")
    problem = hub_problem()
    if problem is None:
        return Check("data", "ok", f"{identifier} will be fetched from the hub")
    state: State = "FAIL" if recipe else "warning"
    return Check("data", state, f"{identifier} is not on this machine and {problem}", FETCH)


def _cached(identifier: str) -> bool:
    """Whether `datasets` has prepared the data set here before; its layout, read without importing it."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    folder = Path(os.environ.get("HF_DATASETS_CACHE") or Path(home, "datasets")).expanduser()
    return any((folder / identifier.replace("/", "___")).glob("*/*/*/dataset_info.json"))


def weights_check(recipe: Recipe, found: dict[str, Any]) -> Iterator[Check]:
    """`found` is what the program of child.py said of the architecture; load_recipe checked model.weights."""
    if recipe.model.weights is not None:
        yield Check("weights", "ok", recipe.model.weights)
    elif recipe.model.pretrained:
        arch = recipe.model.args.get("arch", recipe.model.name)
        fix = "on a machine with network: python scripts/fetch_weights.py RECIPE; or set model.weights to a copy"
        if "weights" in found:
            yield Check("weights", "ok", f"{arch} in {Path(found['weights']).parent}")
        elif "no_weights" not in found:
            yield Check("weights", "FAIL", f"{arch}: {found.get('error', 'torch did not answer')}", SET_UP)
        elif recipe.model.name == "torchvision_zoo":
            yield Check("weights", "warning", f"{arch} will be fetched from download.pytorch.org, if that answers", fix)
        elif (problem := hub_problem()) is None:
            yield Check("weights", "ok", f"{arch} will be fetched from the hub")
        else:
            yield Check("weights", "FAIL", f"{arch} is not on this machine and {problem}", fix)


@functools.cache
def hub_problem() -> str | None:
    """Why the Hugging Face hub gives nothing, None where it answers; asked only if somebody wants to know."""
    try:
        from huggingface_hub import constants

        from cifar_lab.data.hub_access import hub_is_reachable
    except ImportError as error:  # a finding of the packages' check
        return str(error)
    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    return None if hub_is_reachable() else "the hub cannot be reached"


def layout_checks(recipe: Recipe, world_size: int, strategy: str, device: str) -> Iterator[Check]:
    """Whether the recipe can be laid out over the processes, and supports the device and the strategy."""
    used = "single" if world_size == 1 and strategy == "ddp" else strategy
    for line in unsupported(recipe, device=device, strategy=used):
        problem, _, fix = line.rpartition("; ")
        yield Check("options", "FAIL", problem or line, fix)
    try:
        sizes = data_sizes(recipe)
        # The batch is judged on its own where only the data tell how many images there are.
        schedule = Schedule.make(recipe, sizes.num_train if sizes else 2**40, world_size)
    except UserError as error:
        yield Check("batch", "FAIL", str(error), "another --nproc or number of nodes, or another train.global_batch")
        return
    division = layout(world_size, schedule.accumulation_steps, schedule.micro_batch, on=f" ({used}, {device})")
    yield Check("batch", "ok", f"{schedule.global_batch} = {division}")


def checkpoint_bytes(recipe: Recipe) -> int | None:
    """What a run keeps on disk at once: its checkpoints, the next one, and the final weights; None where unknown."""
    try:
        sizes = data_sizes(recipe)
        if sizes is None:
            return None
        parameters: int = kept_answer.ask("models.size", recipe.model, sizes)["num_parameters"]
    except (UserError, ImportError):
        return None  # said by the other checks
    ema = recipe.train.ema_decay is not None
    kept = recipe.checkpoint.keep_last + 1
    return 4 * parameters * ((1 + num_moments(recipe) + ema) * kept + 1)
