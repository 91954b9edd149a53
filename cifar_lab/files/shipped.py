"""Where recipes, accelerate configs and scripts are: in the checkout, or in the wheel (setup.py)."""

import os
import shlex
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
_BUNDLED = _PACKAGE / "_bundled"
CHECKOUT = None if _BUNDLED.is_dir() else _PACKAGE.parent  # None: installed from a wheel


def shipped(*names: str) -> Path:
    """A file or folder by its path in the checkout, such as `shipped("launch", "node.sh")`."""
    return (CHECKOUT or _BUNDLED).joinpath(*names)


def config_file(name: str) -> str:
    """accelerate_configs/NAME.yaml, as a command names it that is started in this folder."""
    near = f"accelerate_configs/{name}.yaml"
    return near if os.path.isfile(near) else str(shipped(near))


def install(extra: str) -> str:
    """The command that adds an extra, such as `onnx`, to this installation, from where that came from."""
    if CHECKOUT:
        here = "." if os.path.samefile(".", CHECKOUT) else CHECKOUT
        return f"pip install -e {shlex.quote(f'{here}[{extra}]')}"
    import importlib.metadata
    import json

    origin = json.loads(importlib.metadata.distribution("cifar-lab").read_text("direct_url.json") or "{}")
    source = origin.get("url", "")  # none where an index had it
    if "vcs_info" in origin:
        source = f"{origin['vcs_info']['vcs']}+{source}@{origin['vcs_info']['commit_id']}"
    return f"pip install {shlex.quote(f'cifar-lab[{extra}]' + (f' @ {source}' if source else ''))}"
