"""Metrics into the run directory, always, and from there to the trackers that the recipe names.

Each tracker has a process of its own, `python -m cifar_lab.tracking`, that follows metrics.jsonl. Inside the trainer
W&B would install exit hooks that wait for uploads, replace `sys.exit` and raise KeyboardInterrupt in the main thread,
and any library may wait for its server; a process can always be ended.
"""

import contextlib
import importlib.util
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cifar_lab.errors import UserError
from cifar_lab.files.cache import cache_root
from cifar_lab.files.shipped import install
from cifar_lab.recipe import Recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.record import EXIT_NOT_SENT, identify, not_sent, trackers

END_SECONDS = 10.0
# What the end of a completed run waits for its weights to be sent to W&B, at the least.
BYTES_PER_SECOND = 4e6


class Mirror:
    """The process of one tracker; `message` receives its lines. Raises UserErrors and OSError.

    `trainer` is the process whose use of the machine is recorded. W&B's folders lie below the run and the cache, unless
    the user set them.
    """

    def __init__(self, name: str, run_dir: Path, trainer: int | None, message: Callable[[str], None]) -> None:
        self._name, self._run, self._message = name, run_dir, message
        package = importlib.util.find_spec(name)
        if package is None or package.origin is None:  # a folder `wandb` in the working directory also has a spec
            raise UserError(f"the package {name} is not installed: {install(name)}")
        defaults = {"WANDB_DIR": str(run_dir)}
        for folder in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
            defaults[folder] = str(cache_root(run_dir) / folder.lower())
        if os.path.expanduser("~") == "~":  # a user without HOME and passwd entry: W&B would end
            defaults |= {"HOME": defaults["WANDB_CACHE_DIR"], "USER": str(os.getuid())}
        command = [sys.executable, "-m", "cifar_lab.tracking", name, str(run_dir)]
        with open(run_dir / f"{name}.log", "ab") as log:
            self.process = subprocess.Popen(
                [*command, *([str(trainer)] if trainer else [])],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**defaults, **os.environ},
                start_new_session=True,  # Ctrl-C is for the trainer, which says `finish` afterwards.
            )
        assert self.process.stdout is not None
        os.set_blocking(self.process.stdout.fileno(), False)

    def relay(self) -> None:
        """Print what the process has to say."""
        assert self.process.stdout is not None
        for line in (self.process.stdout.read() or b"").decode(errors="replace").splitlines():
            self._message(line)

    def ask(self) -> None:
        """Let it send what is left and end; where it has ended already, its exit status tells."""
        assert self.process.stdin is not None
        with contextlib.suppress(OSError), self.process.stdin:
            self.process.stdin.write(b"finish\n")

    def end(self, seconds: float, spent: float = 0.0) -> int:
        """Wait for its end, `seconds` less those already `spent`, or kill it; its exit status."""
        assert self.process.stdout is not None
        problem = None
        try:
            if self.process.wait(max(seconds - spent, 0) if seconds < math.inf else None) not in (0, EXIT_NOT_SENT):
                log = self._run / f"{self._name}.log"
                problem = f"its process ended with status {self.process.returncode}, see {log}"
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            problem = f"not everything was sent within {seconds:.3g} s"
        self.relay()
        self.process.stdout.close()
        if problem:
            self._message(not_sent(self._run, problem, self._name))
        for folder in Path(tempfile.gettempdir()).glob(f"cifar_lab-{self._name}-{self.process.pid}-*"):  # it was killed
            shutil.rmtree(folder, ignore_errors=True)
        return self.process.returncode


class Tracker:
    """Appends metrics.jsonl and lets processes mirror it to trackers; other ranks than the main one do nothing.

    Create it after `RunDir.truncate_metrics` and `RunDir.write_env`. `message` receives single lines for the user.
    """

    def __init__(self, run_dir: RunDir, recipe: Recipe, is_main: bool, message: Callable[[str], None]) -> None:
        self._run = run_dir
        self._is_main = is_main
        self.mirrors: dict[str, Mirror] = {}
        self.wandb_id: str | None = None
        named = recipe.tracking
        for name in trackers(recipe) if is_main else ():
            if name == "wandb" and os.environ.get("WANDB_MODE") == "disabled":
                continue
            try:
                identity = identify(run_dir.path, named.wandb_project or recipe.name, named.wandb_entity)
                self.wandb_id = identity.id if name == "wandb" else self.wandb_id
                self.mirrors[name] = Mirror(name, run_dir.path, os.getpid(), message)
            except (OSError, UserError) as error:
                message(not_sent(run_dir.path, error, name))

    def log(self, split: str, step: int, epoch: float, **values: Any) -> None:
        """Append one line; `split` is train, val or test. Never waits for a tracker."""
        if not self._is_main:
            return
        self._run.append_metrics(split=split, step=step, epoch=epoch, **values)
        for name, mirror in list(self.mirrors.items()):
            mirror.relay()
            if mirror.process.poll() is not None:
                self.mirrors.pop(name).ask()
                mirror.end(0)

    def finish(self, timeout: float | None = None) -> None:
        """Send what is left to all trackers and end, within `timeout` seconds; may be called twice.

        The default is 10, and for the final weights of a completed run, which W&B gets, what they take at 4 MB/s.
        """
        self._run.close()
        if timeout is None:
            weights = self._run.path / "model.safetensors"
            size = weights.stat().st_size if "wandb" in self.mirrors and weights.exists() else 0
            timeout = END_SECONDS + size / BYTES_PER_SECOND
        begun = time.monotonic()
        mirrors, self.mirrors = self.mirrors, {}
        for mirror in mirrors.values():
            mirror.ask()
        for mirror in mirrors.values():
            mirror.end(timeout, time.monotonic() - begun)
