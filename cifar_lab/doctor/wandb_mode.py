"""Whether runs will show up at W&B, and where. None of it stops training, which falls back to offline."""

from __future__ import annotations

import configparser
import contextlib
import importlib.util
import netrc
import os
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

from cifar_lab.cluster.interfaces import within
from cifar_lab.doctor.check import Check
from cifar_lab.recipe import Recipe

SECONDS = 5.0
LATER = "nothing if that is meant; `cifar-lab sync` sends the run later"


def wandb_check(recipe: Recipe | None) -> Check:
    """What a run of the recipe, or any with a project, will do."""
    if recipe is not None and not recipe.tracking.wandb_project:
        return Check("W&B", "ok", "off: the recipe names no tracking.wandb_project")
    mode, told = _told("mode", "online")
    if os.environ.get("WANDB_MODE") == "disabled":
        return Check("W&B", "ok", "off: WANDB_MODE=disabled")
    spec = importlib.util.find_spec("wandb")
    if spec is None or spec.origin is None:  # a folder named wandb has a spec without an origin
        return Check("W&B", "warning", "off: wandb is not installed", "pip install 'cifar-lab[wandb]'")
    if mode not in ("online", "shared"):
        return Check("W&B", "ok", f"offline: {told}; `cifar-lab sync` sends runs later")
    url = _told("base_url", "https://api.wandb.ai")[0].rstrip("/")
    if not os.environ.get("WANDB_API_KEY") and not _in_netrc(urlsplit(url).hostname or ""):
        says = f"offline: no key for {url} in WANDB_API_KEY or netrc"
        return Check("W&B", "warning", says, "wandb login, or WANDB_MODE=offline; runs can be sent later")
    problem = _unreachable(url)
    if problem:
        return Check("W&B", "warning", f"offline: {url} {problem}", LATER)
    project = f" (project {recipe.tracking.wandb_project})" if recipe else ""
    return Check("W&B", "ok", f"online: {url}{project}")


def _told(key: str, default: str) -> tuple[str, str]:
    """A setting as W&B finds it, in its variable or the user's settings file, and where that says so."""
    variable = f"WANDB_{key.upper()}"
    if variable in os.environ:
        return os.environ[variable], f"{variable}={os.environ[variable]}"
    file = Path(os.environ.get("WANDB_CONFIG_DIR") or "~/.config/wandb", "settings").expanduser()
    settings = configparser.ConfigParser()
    with contextlib.suppress(OSError, UnicodeDecodeError, configparser.Error):
        settings.read(file)
        default = settings.get("default", key, fallback=default)
    return default, f"{key} = {default} in {file}"


def _in_netrc(host: str) -> bool:
    path = os.path.expanduser(os.environ.get("NETRC") or "~/.netrc")
    try:
        return netrc.netrc(path).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _unreachable(url: str) -> str | None:
    """Why nothing answers at `url` within SECONDS."""

    def ask() -> None:
        with contextlib.suppress(urllib.error.HTTPError):  # an answer, whatever it says
            urllib.request.urlopen(url, timeout=SECONDS).close()

    try:
        within(SECONDS + 0.5, ask)  # looking a name up has no time limit
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        silent = isinstance(reason, TimeoutError)
        return f"does not answer within {SECONDS:.0f} s" if silent else f"cannot be reached: {reason}"
    return None
