"""The run directory: where a run lives and the files through which trainer, launchers and report talk."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import TypeAdapter

from cifar_lab.errors import UsageError
from cifar_lab.files import atomic
from cifar_lab.files.jsonl import parse_object
from cifar_lab.recipe import Recipe, load_recipe, outside, to_yaml
from cifar_lab.recipe.schema import SCHEMA_VERSION
from cifar_lab.rundir.placement import check_identity, default_path, find_run

State = Literal["running", "completed", "stopped", "interrupted", "failed"]
STOP_CHARACTERS = 200


@dataclass(frozen=True)
class Status:
    """Contents of status.json; `updated` is in Unix seconds."""

    state: State
    step: int
    total_steps: int
    reason: str | None
    world_size: int
    attempt: int
    updated: float


STATUS = TypeAdapter(Status)


class RunDir:
    """Paths and files of one run; see section 5 of the design. `RunDir(path)` itself touches nothing."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).absolute()
        self._metrics: int | None = None  # descriptor of metrics.jsonl

    @classmethod
    def locate(cls, recipe: Recipe, *, runs: str = "runs", run_dir: str | None = None, fresh: bool = False) -> RunDir:
        """The directory that `recipe` continues or starts; writes nothing.

        That is the latest of `runs/<name>/<seed>-<experiment id>`, `.2`, `.3`, ..., with `fresh` the one after it, or
        `run_dir` itself. Several processes ask once and share the answer: `fresh` differs after `create`.
        Raises UsageError where another experiment lives, or an unfinished run of another schema version.
        """
        if run_dir is not None and fresh:
            raise UsageError("--fresh and --run-dir cannot be used together: name an empty directory with --run-dir")
        located = cls(run_dir if run_dir is not None else default_path(recipe, Path(runs), fresh=fresh))
        check_identity(located.path, recipe, named=run_dir is not None)
        located._check_version()
        return located

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> RunDir:
        """The run of `find_run`; raises UsageError where it has no recipe."""
        run = cls(find_run(path))
        if not (run.path / "recipe.yaml").is_file():
            raise UsageError(f"{run.path} has no recipe.yaml, so it is no run that can be read")
        return run

    def create(self, recipe: Recipe) -> None:
        """Make the directory; write recipe.yaml, resolved, with this start's operational fields, and files it names."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            for name in filter(outside.is_outside, (recipe.data.name, recipe.model.name)):
                with atomic.replacing(self.path / outside.place(name).name) as path:
                    path.write_bytes(outside.content(name))
            atomic.write_text(self.path / "recipe.yaml", to_yaml(recipe))
        except OSError as error:
            raise UsageError(
                f"cannot write the run directory {self.path}: {error.strerror}; choose another place with --runs DIR"
            ) from error

    def recipe(self) -> Recipe:
        """The recipe that the run was last started with; raises RecipeError."""
        return load_recipe(self.path / "recipe.yaml", check_files=False)

    def write_env(self, env: Mapping[str, Any]) -> None:
        """Versions, host, git revision, device and topology of this start."""
        atomic.write_json(self.path / "env.json", env)

    def env(self) -> dict[str, Any]:
        """Contents of env.json, empty when there is none."""
        return self._read_json("env.json") or {}

    def _check_version(self) -> None:
        """Refuse to go on from a checkpoint of another version's arithmetic: one result would come from both."""
        env = self.env() if self.checkpoints.is_dir() else {"schema_version": SCHEMA_VERSION}
        version = env.get("schema_version", 1)  # 1 did not say so
        if version == SCHEMA_VERSION or ((status := self.status()) is not None and status.state == "completed"):
            return
        raise UsageError(
            f"{self.path} was trained by schema version {version}, and this release computes by version "
            f"{SCHEMA_VERSION}, which gives different results: start a new run with --fresh instead of --run-dir, or "
            f"continue it with its own release (revision {env.get('revision')})"
        )

    def write_status(
        self,
        state: State,
        step: int,
        total_steps: int,
        *,
        reason: str | None = None,
        world_size: int = 1,
        attempt: int = 1,
    ) -> None:
        """Say where the run stands; wrappers decide on a requeue by `state`."""
        status = Status(state, step, total_steps, reason, world_size, attempt, round(time.time(), 3))
        atomic.write_json(self.path / "status.json", asdict(status))

    def write_end(self, state: State, reason: str, world_size: int, attempt: int, step: int = 0) -> None:
        """Say why a run ended, at `step` or where status.json says that it had been."""
        last = self.status()
        done, total = (last.step, last.total_steps) if last else (0, 0)
        self.write_status(state, max(step, done), total, reason=reason, world_size=world_size, attempt=attempt)

    def status(self) -> Status | None:
        """Where the run stands, None before its start; raises UsageError when status.json is damaged."""
        fields = self._read_json("status.json")
        if fields is None:
            return None
        try:
            return STATUS.validate_python(fields)
        except ValueError as error:
            problem = f"{self.path / 'status.json'} is damaged; delete it, and the next start writes a new one"
            raise UsageError(problem) from error

    def append_metrics(self, **fields: Any) -> None:
        """Append one line to metrics.jsonl with the time in Unix seconds; NaN and infinities become null.

        With one system call, so that a reader or a crash sees all of it or a torn last line, dropped by the next start.
        """
        line = json.dumps(atomic.finite({"time": round(time.time(), 3), **fields}), allow_nan=False) + "\n"
        if self._metrics is None:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            self._metrics = os.open(self.path / "metrics.jsonl", flags, 0o666)
        data = memoryview(line.encode())
        while data:
            data = data[os.write(self._metrics, data) :]

    def metrics(self) -> list[dict[str, Any]]:
        """All complete lines of metrics.jsonl; raises UsageError for an unreadable one that is not the last."""
        records = []
        for number, line in enumerate(self._metrics_lines(), start=1):
            record = parse_object(line)
            if record is None:
                raise UsageError(f"{self.path / 'metrics.jsonl'}:{number}: not a JSON object; delete that line")
            records.append(record)
        return records

    def truncate_metrics(self, after_step: int) -> int:
        """Drop lines past `after_step` and torn ones, by rename; return the number of unreadable lines dropped."""
        self.close()
        if not (self.path / "metrics.jsonl").exists():
            return 0
        records = [(line, parse_object(line)) for line in self._metrics_lines()]
        kept = [line + b"\n" for line, record in records if record is not None and record.get("step", 0) <= after_step]
        atomic.write_text(self.path / "metrics.jsonl", b"".join(kept).decode())
        return sum(record is None for _, record in records)

    def _metrics_lines(self) -> list[bytes]:
        """A line counts once its newline is there."""
        try:
            return (self.path / "metrics.jsonl").read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        """Final numbers of a completed run."""
        atomic.write_json(self.path / "summary.json", summary)

    def summary(self) -> dict[str, Any] | None:
        """Final numbers, None before the end; raises UsageError when summary.json is damaged."""
        return self._read_json("summary.json")

    @property
    def checkpoints(self) -> Path:
        """Folder of checkpoints; may not exist yet."""
        return self.path / "checkpoints"

    def stop_request(self) -> str | None:
        """What the file STOP says, "STOP" when it is empty, None without one; wrappers write why they ask."""
        try:
            with open(self.path / "STOP", encoding="utf-8", errors="replace") as file:
                return " ".join(file.read(STOP_CHARACTERS).split()) or "STOP"
        except FileNotFoundError:
            return None
        except OSError:
            return "STOP"

    def clear_stop(self) -> None:
        """Remove STOP once it was obeyed, or the next start would stop at once."""
        (self.path / "STOP").unlink(missing_ok=True)

    def close(self) -> None:
        """Close metrics.jsonl; the next append opens it again."""
        if self._metrics is not None:
            os.close(self._metrics)
            self._metrics = None

    def _read_json(self, name: str) -> dict[str, Any] | None:
        path = self.path / name
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise UsageError(f"{path} cannot be read: {error}") from error
        if not isinstance(value, dict):
            raise UsageError(f"{path} is damaged: it holds no JSON object")
        return value


@dataclass(frozen=True)
class Outcome:
    """How a start of a run ended: its directory, and whether it completed or was stopped and can be continued."""

    run_dir: RunDir
    completed: bool
