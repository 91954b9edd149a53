"""Metrics into the run directory, always, and from there to Weights & Biases, when a project is set.

W&B lives in a process of its own, cifar_lab/tracking/wandb, that follows metrics.jsonl. Inside the trainer it would
install exit hooks that wait for uploads, replace `sys.exit` and raise KeyboardInterrupt in the main thread; a process
can always be ended.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cifar_lab.files.cache import cache_root
from cifar_lab.recipe import Recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.wandb.record import identify

END_SECONDS = 10.0
# What the end of a completed run waits for its weights to be sent, at the least.
BYTES_PER_SECOND = 4e6


def _to_stderr(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # A closed terminal must not end a run.
        print(line, file=sys.stderr, flush=True)


class Tracker:
    """Appends metrics.jsonl and lets a process mirror it to W&B; other ranks than the main one do nothing.

    Create it after `RunDir.truncate_metrics` and `RunDir.write_env`. `message` receives single lines for the user.
    """

    def __init__(
        self, run_dir: RunDir, recipe: Recipe, is_main: bool, message: Callable[[str], None] = _to_stderr
    ) -> None:
        self._run = run_dir
        self._is_main = is_main
        self._message = message
        self._process: subprocess.Popen[bytes] | None = None
        if is_main and recipe.tracking.wandb_project and os.environ.get("WANDB_MODE") != "disabled":
            self._start(recipe.tracking.wandb_project, recipe.tracking.wandb_entity)

    def log(self, split: str, step: int, epoch: float, **values: Any) -> None:
        """Append one line; `split` is train, val or test. Never waits for W&B."""
        if not self._is_main:
            return
        self._run.append_metrics(split=split, step=step, epoch=epoch, **values)
        self._relay()

    def finish(self, timeout: float | None = None) -> None:
        """Send what is left to W&B and end, within `timeout` seconds; may be called twice.

        The default is 10, and for the final weights of a completed run what they take at 4 MB/s.
        """
        self._run.close()
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stdout is not None
        if timeout is None:
            timeout = END_SECONDS + self._weight_bytes() / BYTES_PER_SECOND
        try:
            with process.stdin:
                process.stdin.write(b"finish\n")
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
            self._message(self._off(f"not everything was sent within {timeout:.3g} s"))
        process.stdout.close()
        for folder in Path(tempfile.gettempdir()).glob(f"cifar_lab-wandb-{process.pid}-*"):  # it was killed
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def _log_path(self) -> Path:
        return self._run.path / "wandb.log"

    def _weight_bytes(self) -> int:
        path = self._run.path / "model.safetensors"
        return path.stat().st_size if path.exists() else 0

    def _off(self, reason: str) -> str:
        return f"W&B: {reason}; metrics.jsonl has everything, `cifar-lab sync {self._run.path}` sends it"

    def _start(self, project: str, entity: str | None) -> None:
        if not wandb_is_there():
            self._message(self._off("the package wandb is not installed (pip install 'cifar-lab[wandb]')"))
            return
        try:
            identify(self._run.path, project, entity, os.environ)
            with open(self._log_path, "ab") as log:
                self._process = subprocess.Popen(
                    mirror_command(self._run.path, project, entity, follow=os.getpid()),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=mirror_environment(self._run.path),
                    start_new_session=True,  # Ctrl-C is for the trainer, which says `finish` afterwards.
                )
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)
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


def wandb_is_there() -> bool:
    """Whether W&B can be imported; a folder `wandb` in the working directory also has a spec, but without an origin."""
    spec = importlib.util.find_spec("wandb")
    return spec is not None and spec.origin is not None


def mirror_command(run_dir: Path, project: str | None, entity: str | None, follow: int | None = None) -> list[str]:
    """The command of the process that sends a run directory; with `follow` while that trainer goes on."""
    named = {"--project": project, "--entity": entity, "--follow": follow}
    options = [f"{name}={value}" for name, value in named.items() if value is not None]
    return [sys.executable, "-m", "cifar_lab.tracking.wandb", str(run_dir), *options]


def mirror_environment(run_dir: Path) -> dict[str, str]:
    """This process's environment with W&B's folders below the run and the cache, unless the user set them."""
    package_parent = str(Path(__file__).resolve().parents[2])
    defaults = {"WANDB_DIR": str(run_dir)}
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        defaults[name] = str(cache_root(run_dir) / name.lower())
    path = os.pathsep.join(filter(None, (package_parent, os.environ.get("PYTHONPATH"))))
    return {**defaults, **os.environ, "PYTHONPATH": path}
