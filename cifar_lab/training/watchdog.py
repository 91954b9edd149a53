"""Ends a run in which a process hangs, and says which one: rank, host, phase, step, and everybody's Python stacks.

A thread in every process watches the heartbeats of all. Ages are counted in the observer's own ticks, each capped, so
neither the clocks of other hosts nor a suspended machine matter. It works while the main thread waits in a
collective. Whoever decides first leaves a notice, and all processes that still answer leave with status 75.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from pydantic import TypeAdapter

from cifar_lab.files import atomic
from cifar_lab.rundir.attempt import Attempt
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import FOLDER, Heartbeat, read_beat
from cifar_lab.runtime.signals import StopFlag
from cifar_lab.training.hang import Hang, Seen, judge

EXIT_INTERRUPTED = 75
INTERVAL = 0.5
# In larger worlds four processes read all heartbeats; the others follow their notice.
ALL_OBSERVE, OBSERVERS = 16, 4
# Time for the others to see the notice and to write their stacks; how long a dead file system may hold us up.
LINGER_SECONDS, LAST_SECONDS = 2.0, 10.0


@dataclass(frozen=True)
class Presence:
    """One process in one attempt: the run's directory, the right to it, its sign of life, and what its user wishes."""

    run_dir: RunDir
    attempt: Attempt
    heartbeat: Heartbeat
    flag: StopFlag
    accept_micro_batch: bool = False


class Watchdog:
    """Watches all ranks of an attempt from one of them; a context manager around everything between start and end."""

    def __init__(
        self, presence: Presence, world_size: int, hang_timeout: float | None, *, interval: float = INTERVAL
    ) -> None:
        self.run_dir, self.heartbeat, self.attempt = presence.run_dir, presence.heartbeat, presence.attempt
        self.world_size, self.hang_timeout, self.interval = world_size, hang_timeout, interval
        self._peers = [Seen(rank) for rank in range(world_size)]
        self._observes = world_size <= ALL_OBSERVE or self.heartbeat.rank % -(-world_size // OBSERVERS) == 0
        self._notice = self.run_dir.path / FOLDER / f"hang-{self.attempt.number}"
        self._closed = threading.Event()
        self._ending = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        if self.hang_timeout is not None:
            self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        """Stop watching; where a hang was found, wait for the end of the process instead.

        An error of the main thread may be the echo of a peer that has left because of a hang: then it is that.
        """
        echo = self._noticed() if error[1] is not None and self.hang_timeout is not None else None
        self._closed.set()
        with self._ending:
            if echo is not None:
                self._end(echo)

    def _run(self) -> None:
        last = time.monotonic()
        while not self._closed.wait(self.interval):
            now = time.monotonic()
            # A stopped process or machine comes back with a jump of the clock that says nothing about its peers.
            seconds, last = min(now - last, 2 * self.interval), now
            hang = self._noticed()
            if hang is None and self._observes and self.heartbeat.healthy:
                hang = self._observe(seconds)
            if hang is not None:
                with self._ending:
                    if not self._closed.is_set():
                        self._end(hang)

    def _observe(self, seconds: float) -> Hang | None:
        assert self.hang_timeout is not None
        for seen in self._peers:
            own = seen.rank == self.heartbeat.rank
            beat = self.heartbeat.now() if own else read_beat(self.run_dir.path, seen.rank)
            seen.update(beat if beat is not None and beat.attempt == self.attempt.number else None, seconds)
        self._peers[self.heartbeat.rank].silent = 0.0  # whoever reads this runs
        return judge(self._peers, self.hang_timeout)

    def _noticed(self) -> Hang | None:
        """What another process decided."""
        try:
            return TypeAdapter(Hang).validate_json(self._notice.read_bytes())
        except (OSError, ValueError):
            return None

    def _end(self, hang: Hang) -> None:
        """Leave notice, stacks, status and one line, and end this process."""
        timer = threading.Timer(LAST_SECONDS, os._exit, [EXIT_INTERRUPTED])
        timer.daemon = True
        timer.start()
        rank, number = self.heartbeat.rank, self.attempt.number
        stacks = self.run_dir.path / f"hang-{number}-rank{rank}.txt"
        for work in (
            partial(self._say, hang, stacks),
            partial(self._leave_notice, hang),
            partial(_write_stacks, stacks, hang),
            partial(self._write_status, hang),
        ):
            with suppress(OSError, ValueError):  # a full disk or a closed screen must not keep us here
                work()
        time.sleep(LINGER_SECONDS)
        os._exit(EXIT_INTERRUPTED)

    def _say(self, hang: Hang, stacks: Path) -> None:
        if self.heartbeat.rank == hang.speaker and sys.stderr is not None:
            clear = "\r\x1b[K" if sys.stderr.isatty() else ""  # the progress bar
            every = stacks.with_name(f"hang-{self.attempt.number}-rank*.txt")
            print(f"{clear}{hang.reason}; stacks: {every}; start again to continue", file=sys.stderr, flush=True)

    def _leave_notice(self, hang: Hang) -> None:
        if not self._notice.exists():
            atomic.write_json(self._notice, vars(hang))

    def _write_status(self, hang: Hang) -> None:
        """status.json: interrupted; not over what another attempt or an end of the run wrote."""
        last = self.run_dir.status()
        ours = self.heartbeat.rank == hang.speaker and self.attempt.still_ours()
        if ours and (last is None or last.state == "running"):
            number, step = self.attempt.number, self.heartbeat.now().step
            self.run_dir.write_end("interrupted", hang.reason, self.world_size, number, step)


def _write_stacks(path: Path, hang: Hang) -> None:
    """Python stacks of all threads of this process."""
    with open(path, "w", encoding="utf-8") as file:
        print(hang.reason, file=file, flush=True)
        faulthandler.dump_traceback(file=file, all_threads=True)
