"""Metrics into the run directory, always, and from there to Weights & Biases, when a project is set.

W&B lives in a process of its own, cifar_lab/wandb_mirror.py, that follows metrics.jsonl. Inside the trainer it would
install exit hooks that wait for uploads, replace `sys.exit` and raise KeyboardInterrupt in the main thread; a process
can always be ended.
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import secrets
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cifar_lab import atomic
from cifar_lab.recipe import Recipe
from cifar_lab.rundir import RunDir, cache_root


def _to_stderr(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # A closed terminal must not end a run.
        print(line, file=sys.stderr, flush=True)


class Tracker:
    """Appends metrics.jsonl and lets a process mirror it to W&B; other ranks than the main one do nothing.

    Create it after `RunDir.truncate_metrics`: W&B receives what is appended from then on. `config` (topology, revision,
    ...) joins the recipe in W&B's nested config. `message` receives single lines for the user.
    """

    def __init__(
        self,
        run_dir: RunDir,
        recipe: Recipe,
        config: dict[str, Any],
        is_main: bool,
        message: Callable[[str], None] = _to_stderr,
    ) -> None:
        self._run = run_dir
        self._is_main = is_main
        self._message = message
        self._process: subprocess.Popen[bytes] | None = None
        if is_main and recipe.tracking.wandb_project and os.environ.get("WANDB_MODE") != "disabled":
            self._start(recipe, config)

    def log(self, split: str, step: int, epoch: float, **values: Any) -> None:
        """Append one line; `split` is train, val or test. Never waits for W&B."""
        if not self._is_main:
            return
        self._run.append_metrics(split=split, step=step, epoch=epoch, **values)
        self._relay()

    def finish(self, timeout: float = 10.0, exit_code: int = 0) -> None:
        """Send what is left to W&B and end, within `timeout` seconds; may be called twice."""
        self._run.close()
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin:
                process.stdin.write(f"finish {exit_code}\n".encode())
        except OSError:
            pass  # It has ended already; its exit status tells.
        try:
            process.wait(timeout)
            self._print_lines(process.stdout)
            if process.returncode != 0:
                self._message(self._off(f"its process ended with status {process.returncode}, see {self._log_path}"))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self._print_lines(process.stdout)
            self._message(self._off(f"not everything was sent within {timeout:g} s"))
        process.stdout.close()

    @property
    def _log_path(self) -> Path:
        return self._run.path / "wandb.log"

    def _off(self, reason: str) -> str:
        return f"W&B: {reason}; metrics.jsonl has everything, send it with `cifar-lab sync {self._run.path}`"

    def _start(self, recipe: Recipe, config: dict[str, Any]) -> None:
        spec = importlib.util.find_spec("wandb")
        # A folder `wandb` in the working directory also has a spec, but without an origin.
        if spec is None or spec.origin is None:
            self._message(self._off("the package wandb is not installed (pip install 'cifar-lab[wandb]')"))
            return
        metrics = self._run.path / "metrics.jsonl"
        try:
            session = {
                "offset": metrics.stat().st_size if metrics.exists() else 0,
                "argv": sys.argv,
                "trainer_pid": os.getpid(),
                "config": {**recipe.model_dump(mode="json"), **config},
                "init": {
                    "project": recipe.tracking.wandb_project,
                    "entity": recipe.tracking.wandb_entity,
                    "id": wandb_id(self._run),
                    "name": f"{recipe.name}-{self._run.path.name}",
                    "group": recipe.name,
                    "job_type": "train",
                    "tags": list(recipe.tracking.tags),
                },
            }
            with open(self._log_path, "wb") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "cifar_lab.wandb_mirror", str(self._run.path)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=_environment(self._run),
                    start_new_session=True,  # Ctrl-C is for the trainer, which says `finish` afterwards.
                )
            assert self._process.stdin is not None
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)
            self._process.stdin.write(json.dumps(atomic.finite(session), default=str).encode() + b"\n")
            self._process.stdin.flush()
        except (OSError, ValueError) as error:
            self._message(self._off(f"cannot start ({error})"))

    def _relay(self) -> None:
        """Print what the W&B process has to say; let go of it when it has ended."""
        if self._process is None:
            return
        assert self._process.stdout is not None
        self._print_lines(self._process.stdout)
        if self._process.poll() is not None:
            self.finish()

    def _print_lines(self, stream: Any) -> None:
        for line in (stream.read() or b"").decode(errors="replace").splitlines():
            self._message(line)


def wandb_id(run_dir: RunDir) -> str:
    """The run's W&B id: kept in wandb.json for ever; at first $WANDB_RUN_ID (set by `wandb agent`) or a new one."""
    path = run_dir.path / "wandb.json"
    if path.exists():
        return str(json.loads(path.read_text(encoding="utf-8"))["id"])
    identifier = os.environ.get("WANDB_RUN_ID") or secrets.token_hex(8)
    atomic.write_json(path, {"id": identifier})
    return identifier


def _environment(run_dir: RunDir) -> dict[str, str]:
    """The trainer's environment with W&B's folders below the run and the cache, unless the user set them."""
    package_parent = str(Path(__file__).resolve().parents[1])
    defaults = {"WANDB_DIR": str(run_dir.path)}
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        defaults[name] = str(cache_root(run_dir.path) / name.lower())
    path = os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH"))))
    return {**defaults, **os.environ, "PYTHONPATH": path}
