"""wandb.json: which W&B run a directory is, for ever, and what of it has arrived where."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cifar_lab.files import atomic
from cifar_lab.errors import UserError

NAME = "wandb.json"


class RecordError(UserError):
    """wandb.json cannot be used; the message names the way out."""


@dataclass(frozen=True)
class Identity:
    """The W&B run of a directory; `entity` None is the default one of the key, `sweep` that of `wandb agent`."""

    id: str
    project: str
    entity: str | None = None
    sweep: str | None = None


@dataclass(frozen=True)
class Sent:
    """What one server has: history below `next_place`, the pictures of the end, the weights."""

    next_place: int = 0
    pictures: bool = False
    weights: bool = False


def read_identity(folder: Path, project: str | None = None, entity: str | None = None) -> Identity | None:
    """What wandb.json says, completed by `project` and `entity` of the recipe; None without a file or a project.

    Raises RecordError for a file that is damaged.
    """
    fields = _read(folder)
    if fields is None:
        return None
    project = fields.get("project") or project
    if not project:
        return None
    return Identity(fields["id"], project, fields.get("entity") or entity, fields.get("sweep"))


def identify(folder: Path, project: str, entity: str | None, environ: Mapping[str, str]) -> Identity:
    """The run's identity, kept from the first start on. Raises RecordError and OSError.

    A first start under `wandb agent` takes the run, project and entity that its sweep gave it.
    """
    known = read_identity(folder, project, entity)
    if known is not None:
        return known
    sweep = environ.get("WANDB_SWEEP_ID") or None
    if sweep:
        project = environ.get("WANDB_PROJECT") or project
        entity = environ.get("WANDB_ENTITY") or entity
    made = Identity(environ.get("WANDB_RUN_ID") or secrets.token_hex(8), project, entity, sweep)
    atomic.write_json(folder / NAME, asdict(made))
    return made


def read_id(folder: Path) -> str | None:
    """The run's W&B id, None if there is none or the file is damaged."""
    try:
        fields = _read(folder)
    except RecordError:
        return None
    return fields["id"] if fields else None


def read_all_sent(folder: Path) -> dict[str, Sent]:
    """What is known to have arrived, by destination: server, entity and project."""
    found = {}
    for destination, fields in ((_read(folder) or {}).get("sent") or {}).items():
        match fields:
            case {"next_place": int(place), "pictures": bool(pictures), "weights": bool(weights)}:
                found[destination] = Sent(place, pictures, weights)
    return found


def write_sent(folder: Path, destination: str, sent: Sent) -> None:
    """Note what has arrived. Raises OSError on a full disk."""
    fields = _read(folder) or {}
    fields["sent"] = {**(fields.get("sent") or {}), destination: asdict(sent)}
    atomic.write_json(folder / NAME, fields)


@contextmanager
def sole_sender(folder: Path) -> Iterator[bool]:
    """Whether nobody else sends this run now; while the block runs nobody else can. Ends with the process, too."""
    try:
        descriptor = os.open(folder / "wandb.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError:  # a full or read-only disk must not keep metrics from being sent
        yield True
        return
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        except OSError:  # a file system without locks
            pass
        yield True
    finally:
        os.close(descriptor)


def _read(folder: Path) -> dict[str, Any] | None:
    path = folder / NAME
    try:
        fields = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise RecordError(f"{path} cannot be read ({error}); delete it to send the run as a new one") from error
    if not isinstance(fields, dict) or not isinstance(fields.get("id"), str) or not fields["id"]:
        raise RecordError(f"{path} is damaged: it holds no id; delete it to send the run as a new one")
    return fields
