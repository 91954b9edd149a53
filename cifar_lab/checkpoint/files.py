"""The files of a checkpoint: their names, the manifest and its verification.

A checkpoint is `checkpoints/step_00001234/` with `{weights,optimizer,ema}-00000-of-00002.safetensors`, `state.json` and
`manifest.json` (size and sha256 of each). It is written as `step_00001234.partial` and renamed when it is whole.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from cifar_lab.errors import UserError
from cifar_lab.files.atomic import sync, write_text
from cifar_lab.files.direct_file import CHUNK

FORMAT_VERSION = 1
STEP_DIR = re.compile(r"step_(\d{8,})")
STATE_FILE, MANIFEST_FILE = "state.json", "manifest.json"


class CheckpointError(UserError):
    """A checkpoint that cannot be written, or none that can be read."""


def step_name(step: int) -> str:
    """Name of the folder of the checkpoint of `step`."""
    return f"step_{step:08d}"


def commit(partial: Path, entries: Mapping[str, Any]) -> Path:
    """Write the manifest of a complete `.partial` folder and rename it to its final name."""
    final = partial.with_suffix("")
    manifest = {"version": FORMAT_VERSION, "files": dict(sorted(entries.items()))}
    # Compact and without a last newline: there is no byte whose loss would go unnoticed.
    # It also flushes the names in the folder, which must be there before the folder has its own.
    write_text(partial / MANIFEST_FILE, json.dumps(manifest, separators=(",", ":")))
    if final.exists():  # an older attempt's checkpoint of this step, which did not verify or was resumed past
        shutil.rmtree(final)
    os.replace(partial, final)
    sync(final.parent)
    return final


def verify(checkpoint: Path, *, contents: bool = True) -> list[str]:
    """What is wrong with a checkpoint, one line a file; empty when it is whole. `contents` are hashed."""
    try:
        manifest = _read_object(checkpoint / MANIFEST_FILE)
    except CheckpointError as error:
        return [str(error)]
    files = manifest.get("files")
    if manifest.get("version") != FORMAT_VERSION or not isinstance(files, dict) or STATE_FILE not in files:
        return [f"{MANIFEST_FILE}: not a manifest of version {FORMAT_VERSION}"]
    present = set(os.listdir(checkpoint)) - {MANIFEST_FILE}  # so that no name points out of the checkpoint
    problems = []
    for name, entry in files.items():
        problem = _verify_file(checkpoint / name, entry, contents) if name in present else "missing"
        if problem:
            problems.append(f"{name}: {problem}")
    return problems + [f"{name}: not in the manifest" for name in sorted(present - set(files))]


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Contents of state.json; raises CheckpointError."""
    return _read_object(checkpoint / STATE_FILE)


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in `folder`, oldest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    steps = {int(match[1]): name for name in names if (match := STEP_DIR.fullmatch(name))}
    return [folder / steps[step] for step in sorted(steps)]


def tensor_files(checkpoint: Path, kind: str) -> list[Path]:
    """The safetensors files of `kind` of a verified checkpoint."""
    return sorted(checkpoint.glob(f"{kind}-*.safetensors"))


def read_header(path: Path) -> dict[str, tuple[str, list[int]]]:
    """Type and shape of every tensor of a safetensors file. Raises SafetensorError for any other, a pickle say."""
    with safe_open(path, framework="numpy") as file:
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        return {name: (part.get_dtype(), part.get_shape()) for name, part in slices.items()}


def _verify_file(path: Path, entry: dict[str, Any], contents: bool) -> str | None:
    size = path.stat().st_size
    if size != entry.get("size"):
        return f"{size} bytes, the manifest says {entry.get('size')}"
    if not contents:
        return None
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    if digest.hexdigest() != entry.get("sha256"):
        return "its sha256 is not the manifest's"
    if path.suffix == ".safetensors":
        try:
            read_header(path)
        except SafetensorError:
            return "not a safetensors file"
    return None


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name}: not a JSON object")
    return value
