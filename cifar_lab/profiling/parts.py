"""Seconds of a step by part, from marks put on a session's objects from outside: a normal run has none."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.profiler import record_function

from cifar_lab.runtime.device import synchronize
from cifar_lab.training.session import Session

PARTS = ("data", "forward", "backward", "optimizer", "logging", "saving", "other")
PREFIX = "cifar_lab:"


class Parts:
    """Counts the present step's seconds; a part within a part counts once, and what is in none is `other`."""

    def __init__(self, device: torch.device) -> None:
        self.waits = True  # at every mark, for what the device was given
        self._device = device
        self._open = ["other"]
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._since = time.perf_counter()

    def next_step(self) -> dict[str, float]:
        """The seconds of the step that ends here."""
        self._count()
        done, self._seconds = self._seconds, dict.fromkeys(PARTS, 0.0)
        return done

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count the block as `name`, and name it in a trace."""
        self._count()
        self._open.append(name)
        try:
            with record_function(PREFIX + name):
                yield
        finally:
            self._count()
            self._open.pop()

    def _count(self) -> None:
        if self.waits:
            synchronize(self._device)
        now = time.perf_counter()
        self._seconds[self._open[-1]] += now - self._since
        self._since = now


def attach(session: Session, parts: Parts, at_step: Callable[[int], None]) -> None:
    """Mark the loop of a session that ends with its profile; `at_step(step)` is called before each step."""
    first = session.schedule.micro_batches(session.world.rank)[0]

    def mark(owner: Any, name: str, part: str) -> None:
        function = getattr(owner, name)

        @functools.wraps(function)
        def marked(*args: Any, **kwargs: Any) -> Any:
            with parts.part(part):
                return function(*args, **kwargs)

        setattr(owner, name, marked)

    mark(session.stream, "micro_batch", "data")
    mark(session.engine, "forward_backward", "backward")
    mark(session.engine, "loss", "forward")
    mark(session.engine, "step", "optimizer")
    mark(session.engine, "health", "logging")
    mark(session.tracker, "log", "logging")
    mark(session.saver, "save", "saving")
    read = session.stream.micro_batch

    def micro_batch(step: int, m: int) -> Any:
        if m == first:
            at_step(step)
        return read(step, m)

    session.stream.micro_batch = micro_batch  # type: ignore[method-assign]
