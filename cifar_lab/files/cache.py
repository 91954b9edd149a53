"""Where caches live."""

import os
from pathlib import Path

from cifar_lab.errors import UsageError


def cache_root(run_dir: Path | None = None) -> Path:
    """Folder of caches, created: $CIFAR_LAB_CACHE, $XDG_CACHE_HOME/cifar_lab, ~/.cache/cifar_lab, else in the run.

    A set but unusable $CIFAR_LAB_CACHE raises UsageError; the others are passed over.
    """
    chosen = os.environ.get("CIFAR_LAB_CACHE")
    if chosen:
        candidates = [Path(chosen).absolute()]
    else:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        candidates = [Path(base) / "cifar_lab"] if os.path.isabs(base) else []
        candidates += [run_dir / "cache"] if run_dir is not None else []
    for candidate in candidates:
        try:
            candidate.mkdir(parents=True, exist_ok=True)
        except OSError:
            continue
        if os.access(candidate, os.W_OK | os.X_OK):
            return candidate
    tried = ", ".join(map(str, candidates)) or "no place is known"
    raise UsageError(f"no folder for caches can be written ({tried}); set CIFAR_LAB_CACHE to one")
