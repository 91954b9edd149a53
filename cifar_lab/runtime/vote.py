"""The vote: all processes agree on stopping and on finished saves, by one small all-reduce each half second."""

import time
from enum import IntEnum

import torch
import torch.distributed as dist

from cifar_lab.runtime.world import World

SECONDS_BETWEEN_VOTES = 0.5


class Save(IntEnum):
    """Where a process's part of a save stands; the largest of all processes counts."""

    WRITTEN = 0
    WRITING = 1
    FAILED = 2


class Vote:
    """Counts tell when the next vote is due, so that all processes come to it at the same step without talking.

    It has a gloo group of its own: host memory, no stream to wait for, and no other collective to get mixed up with.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self._group = dist.new_group(backend="gloo", timeout=world.timeout) if world.world_size > 1 else None
        self._next = self._count = self._last_count = 0
        self._last_time = time.monotonic()

    def due(self) -> bool:
        """Whether this call is one at which everybody votes; called once a step (or evaluation batch) by every rank."""
        self._count += 1
        if self._group is not None:
            return self._count >= self._next
        return time.monotonic() - self._last_time >= SECONDS_BETWEEN_VOTES

    def restart(self) -> None:
        """Vote at the next call: what is counted from now on has another pace. Called alike by every rank."""
        if self._group is not None:  # one process goes by the clock, which must not begin anew each time
            self._next, self._last_count, self._last_time = 0, self._count, time.monotonic()

    def cast(self, *, stop: bool, save: Save) -> tuple[bool, Save]:
        """Vote; what all agreed on. Blocks until all have."""
        if self._group is None:
            self._last_time = time.monotonic()
            return stop, save
        ballot = torch.tensor([stop, int(save), self._proposal() if self.world.is_main else 0])
        dist.all_reduce(ballot, dist.ReduceOp.MAX, group=self._group)
        agreed_stop, agreed_save, self._next = ballot.tolist()
        return bool(agreed_stop), Save(agreed_save)

    def _proposal(self) -> int:
        """Rank 0 alone looks at the clock and spaces the votes."""
        now = time.monotonic()
        pace = (self._count - self._last_count) / max(now - self._last_time, 1e-6)
        self._last_count, self._last_time = self._count, now
        return self._count + max(1, round(pace * SECONDS_BETWEEN_VOTES))
