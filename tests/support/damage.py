"""What can happen to a file."""

import hashlib
import json
import os
from pathlib import Path


def cut(path: Path) -> None:
    """Lose the last byte."""
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def empty(path: Path) -> None:
    """Lose everything but the name."""
    os.truncate(path, 0)


def rewrite(path: Path, data: bytes) -> None:
    """Put `data` into a file of a checkpoint as if it had been written so: the manifest agrees."""
    path.write_bytes(data)
    place = path.with_name("manifest.json")
    manifest = json.loads(place.read_text())
    manifest["files"][path.name] = {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    place.write_text(json.dumps(manifest))
