"""Whether runs will show up at W&B, and where. None of it stops training, which falls back to offline."""

import importlib.util
import os

from cifar_lab.doctor.check import Check
from cifar_lab.doctor.child import ask
from cifar_lab.files.shipped import install
from cifar_lab.recipe import Recipe
from cifar_lab.tracking.record import trackers

SECONDS = 30.0
LATER = "nothing to do if you want that; `cifar-lab sync` sends the run later"


def wandb_check(recipe: Recipe | None) -> Check:
    """What a run of the recipe, or any with a project, will do; W&B itself tells its mode and its server."""
    if recipe is not None and "wandb" not in trackers(recipe):
        return Check("W&B", "ok", "off: the recipe names no tracking.wandb_project, or other trackers in tracking.to")
    if os.environ.get("WANDB_MODE") == "disabled":
        return Check("W&B", "ok", "off: WANDB_MODE=disabled")
    spec = importlib.util.find_spec("wandb")
    if spec is None or spec.origin is None:  # a folder named wandb has a spec without an origin
        return Check("W&B", "warning", "off: wandb is not installed", install("wandb"))
    found = ask({"wandb": True}, SECONDS)
    if found.get("offline"):
        return Check("W&B", "ok", "offline, by WANDB_MODE or W&B's settings; `cifar-lab sync` sends runs later")
    url = found.get("server", "")
    if found.get("key") is False:
        says = f"offline: no key for {url} in WANDB_API_KEY or netrc"
        return Check("W&B", "warning", says, "wandb login, or WANDB_MODE=offline; runs can be sent later")
    problem = found.get("problem") or found.get("error")
    if problem:
        return Check("W&B", "warning", f"offline: {problem}", LATER)
    project = f" (project {recipe.tracking.wandb_project or recipe.name})" if recipe else ""
    return Check("W&B", "ok", f"online: {url}{project}")
