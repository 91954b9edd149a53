"""Reading squeue: what it says, and what happens when it does not."""

from __future__ import annotations

import os

import pytest

from cifar_lab.status.slurm_queue import Job, Queue, parse, read_queue


@pytest.fixture
def squeue(tmp_path, monkeypatch):
    """A program `squeue` with the body that is given."""
    monkeypatch.setenv("PATH", str(tmp_path) + os.pathsep + os.environ["PATH"])

    def write(body):
        program = tmp_path / "squeue"
        program.write_text(f"#!/bin/sh\n{body}\n")
        program.chmod(0o755)

    return write


def test_lines():
    jobs = parse("17|17|RUNNING|node[1-2]|None\n18|18|PENDING||Priority\nnonsense\n19|19|COMPLETING|node1|a|b\n")
    assert jobs["17"] == Job("17", "RUNNING", None, "node[1-2]")
    assert jobs["18"] == Job("18", "PENDING", "Priority", None)
    assert (jobs["18"].waits, jobs["17"].waits) == (True, False)
    assert jobs["19"].reason == "a|b"
    assert len(jobs) == 3


def test_members_of_an_array_have_two_ids():
    """Those that have not started share the number of the array, which the last of them will get."""
    text = "20_0|21|RUNNING|node1|None\n20_1|20|PENDING||Resources\n20_2|20|PENDING||Resources\n"
    jobs = parse(text)
    assert jobs["21"] is jobs["20_0"]
    assert jobs["20_1"].waits
    assert "20" not in jobs
    assert parse("20_2|20|RUNNING|node1|None")["20"].id == "20_2"


def test_no_slurm_is_an_empty_queue(monkeypatch, tmp_path, squeue):
    squeue("echo 'squeue: fatal: Could not establish a configuration source' >&2; exit 1")
    assert read_queue() == Queue()
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert read_queue() == Queue({}, known=False, problem=None)


def test_a_silent_controller_is_not_waited_for(squeue):
    squeue("exec sleep 30")
    queue = read_queue(timeout=0.3)
    assert queue.problem == "squeue did not answer within 0.3 s: what Slurm does is not shown"
    assert not queue.known


def test_what_squeue_complains_of_is_said(squeue):
    squeue("echo 'slurm_load_jobs error: Unable to contact slurm controller' >&2; exit 1")
    queue = read_queue()
    assert queue.problem == "squeue failed: slurm_load_jobs error: Unable to contact slurm controller"
    assert not queue.jobs


def test_the_users_own_format_does_not_matter(squeue, monkeypatch):
    monkeypatch.setenv("SQUEUE_STATES", "completed")
    squeue("""[ -z "$SQUEUE_STATES" ] && echo '3|3|RUNNING|node1|None'""")
    queue = read_queue()
    assert (queue.known, list(queue.jobs)) == (True, ["3"])
