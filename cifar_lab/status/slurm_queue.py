"""What Slurm's queue says of this user's jobs: empty without Slurm, and not waited for when it is slow."""

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

TIMEOUT_SECONDS = 5.0
EARLY_SECONDS = 60
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


def too_short(job_id: str) -> str | None:
    """Why a job cannot train: the signal that its script asks for before the end comes at once. Never raises."""
    try:
        end = _ask(["squeue", "--noheader", f"--jobs={job_id}", "--format=%e"]).stdout.strip()
        script = _ask(["scontrol", "write", "batch_script", job_id, "-"]).stdout
        left = (datetime.fromisoformat(end) - datetime.now()).total_seconds()
    except (OSError, ValueError, subprocess.SubprocessError):  # no Slurm, no limit, no answer
        return None
    lead = re.search(r"^#SBATCH +--signal[= ]\S*@(\d+)", script, re.MULTILINE)
    if lead is None or left > int(lead[1]) + EARLY_SECONDS:
        return None
    return (
        f"the job ends in {left:.0f} s, and its script asks for the signal to save {lead[1]} s before the end, which "
        "Slurm sends up to a minute early: give the job more --time, or change --signal in its script"
    )


def _ask(command: list[str], timeout: float = TIMEOUT_SECONDS) -> subprocess.CompletedProcess[str]:
    # SQUEUE_STATES and the like would filter or reorder what we read.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SQUEUE_")}
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, text=True
    )


def read_queue(timeout: float = TIMEOUT_SECONDS) -> Queue:
    """Ask squeue; never raises."""
    try:
        done = _ask([*COMMAND, f"--user={os.getuid()}"], timeout)
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
