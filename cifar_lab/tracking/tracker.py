"""Metrics into the run directory, always, and from there to Weights & Biases, when a project is set.

W&B lives in a process of its own, cifar_lab/tracking/wandb, that follows metrics.jsonl. Inside the trainer it would
install exit hooks that wait for uploads, replace `sys.exit` and raise KeyboardInterrupt in the main thread; a process
can always be ended.
"""

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

from cifar_lab.errors import UserError
from cifar_lab.files.cache import cache_root
from cifar_lab.files.shipped import install
from cifar_lab.recipe import Recipe
from cifar_lab.rundir.directory import RunDir
from cifar_lab.tracking.wandb.record import EXIT_NOT_SENT, identify, not_sent

END_SECONDS = 10.0
# What the end of a completed run waits for its weights to be sent, at the least.
BYTES_PER_SECOND = 4e6


class Tracker:
    """Appends metrics.jsonl and lets a process mirror it to W&B; other ranks than the main one do nothing.

    Create it after `RunDir.truncate_metrics` and `RunDir.write_env`. `message` receives single lines for the user.
    """

    def __init__(self, run_dir: RunDir, recipe: Recipe, is_main: bool, message: Callable[[str], None]) -> None:
        self._run = run_dir
        self._is_main = is_main
        self._message = message
        self._process: subprocess.Popen[bytes] | None = None
        self.wandb_id: str | None = None
        if is_main and recipe.tracking.wandb_project and os.environ.get("WANDB_MODE") != "disabled":
            self._start(recipe.tracking.wandb_project, recipe.tracking.wandb_entity)

    def log(self, split: str, step: int, epoch: float, **values: Any) -> None:
        """Append one line; `split` is train, val or test. Never waits for W&B."""
        if not self._is_main:
            return
        self._run.append_metrics(split=split, step=step, epoch=epoch, **values)
        if self._process is not None:
            self._relay(self._process)
            if self._process.poll() is not None:
                self.finish()

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
            weights = self._run.path / "model.safetensors"
            timeout = END_SECONDS + (weights.stat().st_size / BYTES_PER_SECOND if weights.exists() else 0)
        # Where it has ended already, its exit status tells.
        with contextlib.suppress(OSError), process.stdin:
            process.stdin.write(b"finish\n")
        problem = None
        try:
            if process.wait(timeout) not in (0, EXIT_NOT_SENT):
                problem = f"its process ended with status {process.returncode}, see {self._run.path / 'wandb.log'}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            problem = f"not everything was sent within {timeout:.3g} s"
        self._relay(process)
        process.stdout.close()
        if problem:
            self._message(not_sent(self._run.path, problem))
        for folder in Path(tempfile.gettempdir()).glob(f"cifar_lab-wandb-{process.pid}-*"):  # it was killed
            shutil.rmtree(folder, ignore_errors=True)

    def _start(self, project: str, entity: str | None) -> None:
        try:
            self.wandb_id = identify(self._run.path, project, entity).id
            command, environment = sender(self._run.path)
            with open(self._run.path / "wandb.log", "ab") as log:
                self._process = subprocess.Popen(
                    [*command, str(os.getpid())],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the trainer, which says `finish` afterwards.
                )
            assert self._process.stdout is not None
            os.set_blocking(self._process.stdout.fileno(), False)
        except (OSError, UserError) as error:
            self._message(not_sent(self._run.path, error))

    def _relay(self, process: subprocess.Popen[bytes]) -> None:
        """Print what the W&B process has to say."""
        assert process.stdout is not None
        for line in (process.stdout.read() or b"").decode(errors="replace").splitlines():
            self._message(line)


def sender(run_dir: Path) -> tuple[list[str], dict[str, str]]:
    """Command and environment of the process that sends a run, until its standard input says `finish`.

    W&B's folders lie below the run and the cache, unless the user set them. Raises UserErrors.
    """
    package = importlib.util.find_spec("wandb")
    if package is None or package.origin is None:  # a folder `wandb` in the working directory also has a spec
        raise UserError(f"the package wandb is not installed: {install('wandb')}")
    defaults = {"WANDB_DIR": str(run_dir)}
    for name in ("WANDB_CACHE_DIR", "WANDB_DATA_DIR", "WANDB_ARTIFACT_DIR"):
        defaults[name] = str(cache_root(run_dir) / name.lower())
    if os.path.expanduser("~") == "~":  # a user without HOME and passwd entry: W&B would end
        defaults |= {"HOME": defaults["WANDB_CACHE_DIR"], "USER": str(os.getuid())}
    return [sys.executable, "-m", "cifar_lab.tracking.wandb", str(run_dir)], {**defaults, **os.environ}
