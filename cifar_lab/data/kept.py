"""What a cache holds of decoded data: found and removed; no torch."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from cifar_lab.data.cache import SPLITS
from cifar_lab.data.raw import DataError

# The first one says that all are there.
FILES = ("meta.json", *(f"{split}_{part}" for split in SPLITS for part in ("images.npy", "labels.npy", "names.json")))
NAME = re.compile(r"\.?(?P<place>\w+-[0-9a-f]{8})(\.partial)?")


@dataclass(frozen=True)
class Kept:
    """A folder of decoded data: what it is of, its pictures, bytes, and when they were decoded (seconds)."""

    folder: Path
    about: str
    pictures: str
    num_bytes: int
    decoded: float


def find_kept(folder: Path) -> list[Kept]:
    """The decoded data in CACHE/data, by name: what has such a name and holds no other files."""
    paths = sorted(folder.iterdir()) if folder.is_dir() else []
    named = [path for path in paths if NAME.fullmatch(path.name) and path.is_dir() and not path.is_symlink()]
    return [_read(path) for path in named if {file.name for file in path.iterdir()} <= {*FILES}]


def _read(folder: Path) -> Kept:
    about, pictures = "", "not whole"
    try:
        meta = json.loads((folder / FILES[0]).read_text())
        shapes = [split["shape"] for split in meta["splits"].values()]
        about, pictures = (
            meta.get("about", ""),
            f"{sum(shape[0] for shape in shapes):,} of {shapes[0][3]} x {shapes[0][2]}",
        )
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Kept(folder, about, pictures, sum(file.stat().st_size for file in folder.iterdir()), folder.stat().st_mtime)


def remove(kept: Kept) -> None:
    """Delete its files; who has them mapped keeps them. Raises DataError while a process fills it."""
    from filelock import FileLock, Timeout

    found = NAME.fullmatch(kept.folder.name)
    assert found is not None
    try:
        with FileLock(kept.folder.with_name(f"{found['place']}.lock"), timeout=0):
            for name in FILES:
                (kept.folder / name).unlink(missing_ok=True)
            kept.folder.rmdir()
            kept.folder.with_name(f"{found['place']}.broken.txt").unlink(missing_ok=True)
    except Timeout as error:
        raise DataError(f"{kept.folder} is being filled by another process: remove it later") from error
