"""What Slurm's queue says of this user's jobs: empty without Slurm, and not waited for when it is slow."""

import os
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field

TIMEOUT_SECONDS = 5.0
# Array members get a line each; %i is 17_3 there, and %A the number that the job itself finds in SLURM_JOB_ID.
COMMAND = ("squeue", "--noheader", "--array", "--format=%i|%A|%T|%N|%r")
NO_CLUSTER = "Could not establish a configuration source"  # the programs are there, but no slurm.conf
WAITING = {"PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"}


@dataclass(frozen=True)
class Job:
    """One job in the queue; `state` and `reason` are Slurm's words, `nodes` its list, each None where it is empty."""

    id: str
    state: str
    reason: str | None
    nodes: str | None

    @property
    def waits(self) -> bool:
        """Whether it has yet to start, for the first time or again."""
        return self.state in WAITING


@dataclass(frozen=True)
class Queue:
    """Jobs by both of their ids. `known` is False where nobody answered; `problem` says why if there is Slurm."""

    jobs: Mapping[str, Job] = field(default_factory=dict)
    known: bool = False
    problem: str | None = None


def read_queue(timeout: float = TIMEOUT_SECONDS) -> Queue:
    """Ask squeue; never raises."""
    # SQUEUE_STATES and the like would filter or reorder what we read.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    command = [*COMMAND, f"--user={os.getuid()}"]
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, text=True
        )
    except OSError:
        return Queue()
    except subprocess.TimeoutExpired:
        return Queue(problem=f"squeue did not answer within {timeout:g} s: what Slurm does is not shown")
    if done.returncode == 0:
        return Queue(parse(done.stdout), known=True)
    return Queue() if NO_CLUSTER in done.stderr else Queue(problem=f"squeue failed: {done.stderr.strip()}")


def parse(text: str) -> dict[str, Job]:
    """Jobs in squeue's answer to COMMAND."""
    jobs: dict[str, Job] = {}
    numbers: dict[str, list[Job]] = {}
    for line in text.splitlines():
        fields = [part.strip() for part in line.split("|", 4)]
        if len(fields) != 5 or not fields[0]:
            continue
        shown, number, state, nodes, reason = fields
        job = Job(shown, state, None if reason in ("", "None", "(null)") else reason, nodes or None)
        jobs[shown] = job
        numbers.setdefault(number, []).append(job)
    for number, found in numbers.items():
        if len(found) == 1:  # members of an array that have not started share the number of the last one
            jobs.setdefault(number, found[0])
    return jobs
