"""Who trains: one process in one attempt at a run."""

from __future__ import annotations

from dataclasses import dataclass

from cifar_lab.rundir.attempt import Attempt
from cifar_lab.rundir.directory import RunDir
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.runtime.signals import StopFlag


@dataclass(frozen=True)
class Presence:
    """The run's directory, the right to it, this process's sign of life, and what its user wishes."""

    run_dir: RunDir
    attempt: Attempt
    heartbeat: Heartbeat
    flag: StopFlag
    accept_micro_batch: bool = False
