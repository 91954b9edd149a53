"""The files of a checkpoint: which tensor lies where, the safetensors header, the manifest and its verification.

A checkpoint is `checkpoints/step_00001234/` with `{weights,optimizer,ema}-00000-of-00002.safetensors`, `state.json` and
`manifest.json` (size and sha256 of each). It is written as `step_00001234.partial` and renamed when it is whole.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cifar_lab.errors import UserError
from cifar_lab.files.atomic import sync, write_text
from cifar_lab.files.direct_file import ALIGNMENT, CHUNK

FORMAT_VERSION = 1
FILE_BYTES = 256 * 2**20
ITEM_BYTES = {"F32": 4, "I64": 8, "I32": 4, "BOOL": 1, "U8": 1}
STEP_DIR = re.compile(r"step_(\d{8,})")
STATE_FILE, MANIFEST_FILE = "state.json", "manifest.json"


class CheckpointError(UserError):
    """A checkpoint that cannot be written, or none that can be read."""


@dataclass(frozen=True)
class TensorSpec:
    """Type (a safetensors name) and shape of one tensor."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


@dataclass(frozen=True)
class FilePlan:
    """One safetensors file: its name, its tensors and where each starts in the data section."""

    name: str
    specs: dict[str, TensorSpec]
    offsets: dict[str, int]
    nbytes: int

    @property
    def file_bytes(self) -> int:
        """Size of the file: header and data."""
        return len(self.header()) + self.nbytes

    def header(self) -> bytes:
        """Everything in front of the data section (format: github.com/huggingface/safetensors)."""
        entries: dict[str, Any] = {
            name: {
                "dtype": spec.dtype,
                "shape": list(spec.shape),
                "data_offsets": [self.offsets[name], self.offsets[name] + spec.nbytes],
            }
            for name, spec in self.specs.items()
        }
        text = json.dumps(entries, separators=(",", ":")).encode()
        text += b" " * (-(8 + len(text)) % ALIGNMENT)  # so that the data section can be written with direct I/O
        return len(text).to_bytes(8, "little") + text


def plan_files(kind: str, specs: Mapping[str, TensorSpec], limit: int = FILE_BYTES) -> list[FilePlan]:
    """Spread tensors over files of at most `limit` bytes; names and sizes alone decide, whatever the world.

    Wide types come first in a file, which keeps every tensor aligned.
    """
    groups: list[list[str]] = []
    room = -1
    for name in sorted(specs):
        if specs[name].nbytes > room:
            groups.append([])
            room = limit
        groups[-1].append(name)
        room -= specs[name].nbytes
    plans = []
    for index, names in enumerate(groups):
        offsets, position = {}, 0
        for name in sorted(names, key=lambda n: (-ITEM_BYTES[specs[n].dtype], n)):
            offsets[name] = position
            position += specs[name].nbytes
        file = f"{kind}-{index:05d}-of-{len(groups):05d}.safetensors"
        plans.append(FilePlan(file, {name: specs[name] for name in offsets}, offsets, position))
    return plans


def step_name(step: int) -> str:
    """Name of the folder of the checkpoint of `step`."""
    return f"step_{step:08d}"


def commit(partial: Path, entries: Mapping[str, Any]) -> Path:
    """Write the manifest of a complete `.partial` folder and rename it to its final name."""
    final = partial.with_suffix("")
    manifest = {"version": FORMAT_VERSION, "files": dict(sorted(entries.items()))}
    # Compact and without a last newline: there is no byte whose loss would go unnoticed.
    write_text(partial / MANIFEST_FILE, json.dumps(manifest, separators=(",", ":")))
    sync(partial)
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
    problems = []
    for name, entry in files.items():
        problem = _verify_file(checkpoint, name, entry, contents)
        if problem:
            problems.append(f"{name}: {problem}")
    unlisted = sorted(set(os.listdir(checkpoint)) - set(files) - {MANIFEST_FILE})
    return problems + [f"{name}: not in the manifest" for name in unlisted]


def read_state(checkpoint: Path) -> dict[str, Any]:
    """Contents of state.json; raises CheckpointError."""
    return _read_object(checkpoint / STATE_FILE)


def list_checkpoints(folder: Path) -> list[Path]:
    """Complete checkpoints in `folder`, oldest first."""
    names = os.listdir(folder) if folder.is_dir() else []
    steps = {int(match[1]): name for name in names if (match := STEP_DIR.fullmatch(name))}
    return [folder / steps[step] for step in sorted(steps)]


def tensor_files(checkpoint: Path, kind: str) -> list[Path]:
    """The safetensors files of `kind` that the manifest of a verified checkpoint names."""
    names = _read_object(checkpoint / MANIFEST_FILE)["files"]
    return [checkpoint / name for name in sorted(names) if name.startswith(f"{kind}-")]


def _verify_file(checkpoint: Path, name: str, entry: Any, contents: bool) -> str | None:
    if os.path.basename(name) != name or name in {"", ".", ".."}:
        return "a name that points out of the checkpoint is refused"
    if not name.endswith((".safetensors", ".json")):
        return "only .safetensors and .json files are read"
    path = checkpoint / name
    if path.is_symlink():
        return "a symbolic link is refused"
    if not isinstance(entry, dict) or not path.is_file():
        return "missing"
    size = path.stat().st_size
    if size != entry.get("size"):
        return f"{size} bytes, the manifest says {entry.get('size')}"
    if not contents:
        return None
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256") if hasattr(hashlib, "file_digest") else _digest(file)
    if digest.hexdigest() != entry.get("sha256"):
        return "its sha256 is not the manifest's"
    return _verify_header(path) if path.suffix == ".safetensors" else None


def _verify_header(path: Path) -> str | None:
    """Why a file is no safetensors file, whatever its name: a pickle, say."""
    try:
        tensors = read_header(path)
    except CheckpointError:
        return "not a safetensors file"
    unknown = sorted({spec.dtype for spec in tensors.values()} - ITEM_BYTES.keys())
    return f"tensors of type {', '.join(unknown)} are not ours" if unknown else None


def _digest(file: Any) -> Any:
    digest = hashlib.sha256()
    while chunk := file.read(CHUNK):
        digest.update(chunk)
    return digest


def _read_object(path: Path) -> dict[str, Any]:
    try:
        if path.is_symlink():
            raise CheckpointError(f"{path.name}: a symbolic link is refused")
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path.name}: missing") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path.name}: {error}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path.name}: not a JSON object")
    return value


def read_header(path: Path) -> dict[str, TensorSpec]:
    """Type and shape of every tensor of a safetensors file. Raises CheckpointError."""
    try:
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            if size > path.stat().st_size:
                raise ValueError("not a safetensors file")
            entries = json.loads(file.read(size))
        return {
            name: TensorSpec(entry["dtype"], tuple(entry["shape"]))
            for name, entry in entries.items()
            if name != "__metadata__"
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path.name}: {error}") from error
