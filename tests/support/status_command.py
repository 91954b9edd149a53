"""`cifar-lab status` in this process, in a folder of its own, beside a queue that the test writes."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import pytest

from cifar_lab.commands import status


def isolate(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Not the job that these tests may run in, nor its cluster: squeue prints the file `queue` in `folder`."""
    for name in [name for name in os.environ if name.startswith("SLURM_")]:
        monkeypatch.delenv(name)
    (folder / "bin").mkdir()
    program = folder / "bin" / "squeue"
    program.write_text(f"#!/bin/sh\ncat {shlex.quote(str(folder / 'queue'))} 2>/dev/null || true\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.chdir(folder)


def ask(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    """Exit status, output and errors of the command."""
    code = status.main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return code, said.out, said.err


def as_job(monkeypatch: pytest.MonkeyPatch, job_id: int, restart: int = 0) -> None:
    """Ask from within this job."""
    monkeypatch.setenv("SLURM_JOB_ID", str(job_id))
    monkeypatch.setenv("SLURM_RESTART_COUNT", str(restart))
