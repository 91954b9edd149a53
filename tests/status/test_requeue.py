"""The rule by which a batch job starts and comes back."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from cifar_lab.files.process import ProcessId
from cifar_lab.rundir.attempt import Attempt
from cifar_lab.rundir.directory import Status
from cifar_lab.status.requeue import Asking, Decision, write_record
from cifar_lab.status.requeue import decide as rule
from cifar_lab.status.standing import Standing, read_standing


@dataclass(frozen=True)
class Situation:
    """A directory, and the job that asks; `ours`: the newest attempt is that job's."""

    job_id: str = "17"
    restart: int = 0
    state: str | None = None
    reason: str | None = None
    checkpoint_step: int | None = None
    save_every: int = 1
    attempt: int = 0
    ours: bool = False
    other: str | None = None
    problem: str | None = None
    exit_status: int = 0

    def standing(self, records=()) -> Standing:
        status = Status(self.state, 5, 9, self.reason, 1, self.attempt, 0.0) if self.state else None
        holder = Attempt(Path("run"), self.attempt, ProcessId.here(), self.job_id if self.ours else "3", 0.0, None)
        return Standing(
            status=status,
            problem=self.problem,
            checkpoint_step=self.checkpoint_step,
            save_every=self.save_every,
            holder=holder if self.attempt else None,
            records=list(records),
        )

    def asking(self, when) -> Asking:
        return Asking(when, self.job_id, self.restart, self.exit_status)


NEW = Situation()
OURS = replace(NEW, attempt=1, ours=True)


def decide(when, now, records) -> Decision:
    return rule(now.asking(when), now.standing(records), now.other)


def record(when, decision, *, job_id="17", restart=0, step=None, attempt=0):
    fields = {"job_id": job_id, "restart": restart, "checkpoint_step": step, "attempt": attempt, "time": 1.0}
    return {"when": when, "decision": decision, "text": "", **fields}


STARTED = [record("start", "go")]


@pytest.mark.parametrize(
    ("now", "verdict", "status"),
    [
        (NEW, "go", 0),
        (replace(OURS, state="completed"), "completed", 3),
        (replace(OURS, state="failed", reason="diverged"), "go", 0),  # somebody submitted it again
        (replace(OURS, state="stopped", reason="STOP"), "go", 0),
        (replace(OURS, state="running", other="job 3"), "busy", 1),
        (replace(OURS, problem="status.json is damaged"), "failed", 1),
    ],
)
def test_start(now, verdict, status):
    decision = decide("start", now, [])
    assert (decision.verdict, decision.exit_status) == (verdict, status)


@pytest.mark.parametrize(
    ("now", "verdict", "status"),
    [
        (replace(OURS, state="completed"), "completed", 0),
        (replace(OURS, state="failed", reason="diverged at step 5", exit_status=1), "failed", 1),
        (replace(OURS, state="stopped", reason="STOP", exit_status=75), "stopped", 0),
        (replace(OURS, state="stopped", reason="job 17: the time limit is near", exit_status=75), "requeue", 75),
        (replace(OURS, state="interrupted", reason="a peer was lost", exit_status=1), "requeue", 75),
        (replace(OURS, state="running", exit_status=137), "requeue", 75),
        (replace(OURS, state="running", ours=False, other="job 3", exit_status=1), "busy", 1),
        (replace(NEW, problem="status.json is damaged", exit_status=75), "failed", 1),
        (replace(NEW, exit_status=75), "requeue", 75),
        (replace(NEW, exit_status=1), "failed", 1),
        (replace(NEW, exit_status=2), "failed", 1),
    ],
)
def test_end(now, verdict, status):
    decision = decide("end", now, STARTED)
    assert (decision.verdict, decision.exit_status) == (verdict, status)
    if now.state == "failed":
        assert str(decision) == "failed: diverged at step 5"


@pytest.mark.parametrize(("exit_status", "verdict"), [(2, "failed"), (75, "requeue"), (1, "requeue")])
@pytest.mark.parametrize("state", ["stopped", "failed", "running", "interrupted"])
def test_status_of_an_earlier_attempt_is_not_this_steps_word(state, exit_status, verdict):
    """The same job came back, and its step ended before the trainer took the directory: attempt 1 is the old one."""
    began = [*STARTED, record("end", "requeue", attempt=1), record("start", "go", restart=1, attempt=1)]
    now = replace(OURS, restart=1, state=state, reason="STOP", exit_status=exit_status)
    assert decide("end", now, began).verdict == verdict
    # Another job's, after which this one never got so far.
    stranger = replace(now, restart=0, ours=False)
    assert decide("end", stranger, [record("start", "go", attempt=1)]).verdict == verdict


def test_gives_up_after_three_starts_without_a_newer_checkpoint():
    records = []
    now = replace(NEW, checkpoint_step=10, attempt=0)
    for restart in range(3):
        now = replace(now, restart=restart, attempt=restart)
        assert decide("start", now, records).verdict == "go"
        records.append(record("start", "go", restart=restart, step=10, attempt=restart))
        now = replace(now, state="interrupted", reason="a link was cut", attempt=restart + 1, ours=True)
        end = decide("end", now, records)
        assert end.verdict == ("requeue" if restart < 2 else "failed"), restart
        records.append(record("end", end.verdict, restart=restart, step=10, attempt=restart + 1))
    assert end.exit_status == 1
    assert end.text == (
        "given up: 3 starts together saved 0 steps of the 1 of a save interval or an epoch (checkpoint: step 10); "
        "last: a link was cut"
    )
    # Slurm itself may bring it back, past the end of the script.
    assert decide("start", replace(now, restart=3), records).text == end.text
    assert decide("end", replace(now, checkpoint_step=11), records).verdict == "requeue"
    assert decide("start", replace(now, restart=3, checkpoint_step=11), records).verdict == "go"
    assert decide("start", replace(now, restart=0, job_id="18"), records).verdict == "go"
    # A cluster that counts jobs anew: the same number, but the first start of a job.
    assert decide("start", replace(now, restart=0), records).verdict == "go"
    records.append(record("start", "go", step=10, attempt=3))
    assert decide("start", replace(now, restart=1), records).verdict == "go"


def test_starts_of_other_jobs_do_not_count():
    records = [record("start", "go", job_id="16", restart=i) for i in range(3)]
    assert decide("start", replace(NEW, restart=1), records).verdict == "go"


def test_a_checkpoint_between_the_starts_begins_the_count_again():
    steps = [10, 10, 20, 20]
    records = [record("start", "go", restart=i, step=step) for i, step in enumerate(steps)]
    now = replace(NEW, checkpoint_step=20)
    assert decide("start", replace(now, restart=4), records).verdict == "go"
    records.append(record("start", "go", restart=4, step=20))
    assert decide("start", replace(now, restart=5), records).verdict == "failed"


def test_three_starts_must_save_an_interval_or_an_epoch_together():
    records = [record("start", "go", restart=i, step=step) for i, step in enumerate([0, 100, 116, 132])]
    now = replace(OURS, restart=3, checkpoint_step=148, save_every=49, state="stopped", reason="job 17: the time limit")
    end = decide("end", now, records)
    assert (end.verdict, end.exit_status) == ("failed", 1)
    assert "saved 48 steps of the 49" in end.text and "give the job more time (--time)" in end.text
    assert decide("start", replace(now, restart=4), records).text == end.text
    assert decide("end", replace(now, checkpoint_step=149), records).verdict == "requeue"
    assert decide("end", now, records[1:3]).verdict == "requeue"  # two starts


def test_back_at_an_older_checkpoint_is_no_progress():
    records = [record("start", "go", restart=i, step=20) for i in range(3)]
    now = replace(NEW, checkpoint_step=10)
    # The newest checkpoint was damaged and cleared away: being back at an older one is no progress.
    assert decide("start", replace(now, restart=5, checkpoint_step=10), records).verdict == "failed"


def test_starts_without_any_checkpoint_count():
    records = [record("start", "go", restart=i) for i in range(3)]
    decision = decide("start", replace(NEW, restart=3), records)
    assert decision.text == (
        "given up: 3 starts together saved 0 steps of the 1 of a save interval or an epoch (no checkpoint)"
    )


def test_records_survive_a_torn_line_and_foreign_ones(tmp_path):
    write_record(tmp_path, NEW.asking("start"), NEW.standing(), decide("start", NEW, []))
    path = tmp_path / "requeues.jsonl"
    with open(path, "a") as file:
        file.write('[1]\n\xff\n{"decision": 3}\n{"when": "end", "deci')
    assert [line["decision"] for line in read_standing(tmp_path).records] == ["go"]
    ended = replace(NEW, exit_status=75)
    write_record(tmp_path, ended.asking("end"), ended.standing(), decide("end", ended, []))
    kept = read_standing(tmp_path).records
    assert [(line["when"], line["decision"], line["exit_status"]) for line in kept] == [
        ("start", "go", 0),
        ("end", "requeue", 75),
    ]
    assert json.loads(path.read_text().splitlines()[-1])["job_id"] == "17"
    assert read_standing(tmp_path / "nowhere").records == []


def test_only_the_end_of_a_long_file_is_read(tmp_path):
    line = json.dumps(record("start", "go") | {"filler": "x" * 1000}) + "\n"
    (tmp_path / "requeues.jsonl").write_text(line * 5000 + json.dumps(record("end", "failed")) + "\n")
    records = read_standing(tmp_path).records
    assert 50 < len(records) < 70
    assert records[-1]["decision"] == "failed"
