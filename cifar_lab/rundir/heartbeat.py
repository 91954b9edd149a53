"""Heartbeats: what each process of a run is doing, in one small file a process that its peers and the next start read.

`count` grows as long as the process runs at all (a thread writes it twice a second); `progress` grows when the main
thread reaches a new step, batch or phase. A stopped process stands still in both, one whose main thread hangs in the
second.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from cifar_lab.files.process import ProcessId

Phase = Literal["start", "compile", "train", "validation", "save", "test", "end"]
INTERVAL = 0.5
FOLDER = "heartbeat"
SIZE = 512

log = logging.getLogger("cifar_lab")


@dataclass(frozen=True)
class Beat:
    """What one heartbeat file says; `ended` once the process left the run in order or by an error."""

    rank: int
    attempt: int
    process: ProcessId
    phase: Phase
    step: int
    progress: int
    count: int
    ended: bool


BEAT = TypeAdapter(Beat)


class Heartbeat:
    """This process's heartbeat. Every rank calls `step`, `advance` and `phase` alike, so that progress compares."""

    def __init__(self, run_dir: Path, rank: int, attempt: int = 1, *, interval: float = INTERVAL) -> None:
        self.rank, self.attempt, self.interval = rank, attempt, interval
        self._path = run_dir / FOLDER / f"{rank}.json"
        self._process = ProcessId.here()
        self._phase: Phase = "start"
        self._step = self._progress = self._count = 0
        self._written = time.monotonic()
        self._complained = False
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def step(self, step: int) -> None:
        """Note that optimizer step `step` is done; the first one ends the phase before training."""
        self._step = step
        self._phase = "train"
        self._progress += 1

    def advance(self) -> None:
        """Note that the main thread came on: a micro-batch, a batch of an evaluation."""
        self._progress += 1

    def phase(self, phase: Phase) -> None:
        """Note what the main thread does from now on."""
        self._phase = phase
        self._progress += 1

    @contextmanager
    def during(self, phase: Phase) -> Iterator[None]:
        """`phase` within the block, what was before it afterwards."""
        before = self._phase
        self.phase(phase)
        try:
            yield
        finally:
            self.phase(before)

    def now(self, *, ended: bool = False) -> Beat:
        """What the file would say at this moment."""
        return Beat(self.rank, self.attempt, self._process, self._phase, self._step, self._progress, self._count, ended)

    @property
    def healthy(self) -> bool:
        """Whether the own heartbeat reached the file system lately; otherwise silence of others proves nothing."""
        return time.monotonic() - self._written < 5 * self.interval

    def close(self) -> None:
        """Say that the process left the run, and write no more."""
        if not self._closed.is_set():
            self._closed.set()
            self._thread.join(timeout=5 * self.interval)
            self._write(ended=True)

    def __enter__(self) -> Heartbeat:
        """Begin to write; never raises: a run does not end because of its heartbeat."""
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._closed.wait(self.interval):
            self._write()

    def _write(self, *, ended: bool = False) -> None:
        self._count += 1
        # Overwritten in place, always SIZE bytes: a rename over an old file makes ext4 flush (3 ms against 0.05), NFS
        # shows it late, and it needs room on a full disk. Readers pass over what they cannot parse.
        text = BEAT.dump_json(self.now(ended=ended)).ljust(SIZE)
        try:
            self._path.parent.mkdir(exist_ok=True)
            descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT, 0o644)
            try:
                os.write(descriptor, text)
            finally:
                os.close(descriptor)
            self._written = time.monotonic()
        except OSError as error:
            if not self._complained:
                self._complained = True
                log.warning("cannot write %s: %s; the watchdog waits until it can", self._path, error.strerror)


def read_beat(run_dir: Path, rank: int) -> Beat | None:
    """The heartbeat of `rank`; None if there is none or it is unreadable, torn or foreign."""
    try:
        beat = BEAT.validate_json((run_dir / FOLDER / f"{rank}.json").read_bytes(), strict=True)
    except (OSError, ValueError):
        return None
    return beat if beat.rank == rank else None


def read_beats(run_dir: Path) -> list[Beat]:
    """All readable heartbeats in the run directory, of whatever attempt."""
    try:
        names = os.listdir(run_dir / FOLDER)
    except OSError:
        return []
    ranks = sorted(int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal())
    return [beat for rank in ranks if (beat := read_beat(run_dir, rank)) is not None]
