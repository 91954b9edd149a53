"""What a run directory is said to do, from what lies in it."""

from __future__ import annotations

import json
import os
import subprocess
import time

import pytest
from support.commands import ROOT, TRAIN, environment, write_recipe
from support.run_dirs import held_and_left, held_elsewhere, record, run_dir
from support.small import small

from cifar_lab.rundir.attempt import claim
from cifar_lab.rundir.heartbeat import Heartbeat
from cifar_lab.rundir.placement import SIGNS_OF_A_JOB, runs_below
from cifar_lab.status.slurm_queue import Job, Queue
from cifar_lab.status.state import read_run

PENDING = Queue({"17": Job("17", "PENDING", "Priority", None)}, known=True)
RUNNING = Queue({"17": Job("17", "RUNNING", None, "node1")}, known=True)
EMPTY = Queue(known=True)


@pytest.mark.launch
def test_a_real_run_runs_and_is_lost_when_it_is_killed(tmp_path):
    recipe = write_recipe(tmp_path, small(train__epochs=5000, checkpoint__every_steps=10))
    path = tmp_path / "run"
    command = [*TRAIN, recipe, "--run-dir", str(path)]
    with subprocess.Popen(command, cwd=ROOT, env=environment(), stderr=subprocess.PIPE) as training:
        seen = []
        deadline = time.monotonic() + 120
        # The heartbeat, which tells the phase, may be older than the step of status.json.
        while (run := read_run(path)).step < 50 or run.checkpoint_step is None or run.message == "start":
            assert training.poll() is None, training.stderr.read().decode()
            assert time.monotonic() < deadline, run
            seen.append(run.effective_state)
            time.sleep(0.05)
        training.kill()
    assert list(dict.fromkeys(seen)) == ["new", "starting", "running"]
    assert (run.effective_state, run.state, run.reason, run.active) == ("running", "running", None, True)
    assert run.message.startswith("epoch ") or run.message in ("save", "validation")
    assert 0 <= run.val_error <= 1
    assert run.images_per_second > 10
    assert run.seconds_left > 60
    lost = read_run(path)
    assert (lost.effective_state, lost.state, lost.active) == ("lost", "running", False)
    assert lost.reason == f"process {training.pid} on {os.uname().nodename} is gone"
    assert lost.seconds_left is None
    assert lost.step >= run.step - 10
    assert lost.checkpoint_step % 10 == 0


@pytest.mark.parametrize("state", ["completed", "stopped", "interrupted", "failed"])
def test_ended_runs(tmp_path, state):
    run_dir(tmp_path, state, reason=None if state == "completed" else "why it did")
    run = read_run(tmp_path, EMPTY)
    assert (run.effective_state, run.state, run.step, run.total_steps) == (state, state, 40, 100)
    assert run.val_error == pytest.approx(0.1)
    assert run.images_per_second == 1234.5
    assert run.seconds_left is None
    assert (run.reason, run.message) == ((None, "") if state == "completed" else ("why it did", "why it did"))


def test_test_error_is_the_message_of_a_completed_run(tmp_path):
    run_dir(tmp_path, "completed").append_metrics(split="test", step=100, epoch=9, loss=1.0, accuracy=0.9375)
    assert read_run(tmp_path).message == "test error 6.25 %"


@pytest.mark.parametrize(
    ("age", "state"), [(0, "running"), (80, "running"), (-3600, "running"), (100, "lost"), (9000, "lost")]
)
def test_a_run_elsewhere_is_judged_by_its_silence(tmp_path, age, state):
    run_dir(tmp_path, "running")
    held_elsewhere(tmp_path, age=age, step=47)
    run = read_run(tmp_path)
    assert run.effective_state == state
    assert run.step == (47 if state == "running" else 40)  # newer than status.json
    if age == 9000:
        assert run.reason == "no heartbeat from process 1234 on node7 for 2:30:00"


def test_peers_of_a_dead_main_process_count(tmp_path):
    run_dir(tmp_path, "running")
    held_and_left(tmp_path)
    assert read_run(tmp_path).effective_state == "lost"
    with Heartbeat(tmp_path, 1, 1):
        assert read_run(tmp_path).effective_state == "running"
    assert read_run(tmp_path).effective_state == "lost"
    with Heartbeat(tmp_path, 1, attempt=7):  # of an attempt that lost the directory
        assert read_run(tmp_path).effective_state == "lost"


def test_an_attempt_that_ended_is_over_though_its_process_lives(tmp_path):
    run_dir(tmp_path, "running")
    held = claim(tmp_path)
    assert read_run(tmp_path).effective_state == "running"
    held.release()
    assert read_run(tmp_path).effective_state == "lost"


def test_the_status_of_an_earlier_attempt_is_not_that_of_a_new_one(tmp_path):
    run_dir(tmp_path, "stopped", reason="STOP")
    held_and_left(tmp_path)
    held_elsewhere(tmp_path)
    run = read_run(tmp_path)
    assert (run.effective_state, run.state, run.reason, run.message) == ("starting", "stopped", None, "starts")


def test_a_living_run_is_shown_with_its_own_job(tmp_path):
    run_dir(tmp_path, "running")
    held_elsewhere(tmp_path, job_id="16")
    (tmp_path / "job.json").write_text(json.dumps({"job_id": "17", "submitted": time.time() + 5}))
    both = Queue({**PENDING.jobs, "16": Job("16", "RUNNING", None, "node7")}, known=True)
    run = read_run(tmp_path, both)
    assert (run.effective_state, run.job.id) == ("running", "16")


def test_pace_is_that_of_this_attempt(tmp_path):
    run = run_dir(tmp_path, "running", step=1)
    held = claim(tmp_path)
    (tmp_path / "metrics.jsonl").write_text(
        "".join(
            json.dumps({"split": "train", "step": step, "time": when}) + "\n"
            for step, when in [
                (1, held.started - 9000),
                (2, held.started + 1),
                (12, held.started + 21),
                (22, held.started + 41),
            ]
        )
    )
    run.write_status("running", 22, 100)
    now = held.started + 41
    assert read_run(tmp_path, now=now).seconds_left == pytest.approx(78 * 2)
    assert read_run(tmp_path, now=now + 6).seconds_left == pytest.approx(78 * 2 - 6)
    assert read_run(tmp_path, now=now + 9999).seconds_left == 0
    held.release()


def test_queued_before_the_first_start(tmp_path):
    (tmp_path / "job.json").write_text(json.dumps({"job_id": "17", "submitted": time.time()}))
    run = read_run(tmp_path, PENDING)
    assert (run.effective_state, run.state, run.job.reason, run.active) == ("queued", None, "Priority", True)
    assert read_run(tmp_path, RUNNING).effective_state == "starting"
    gone = read_run(tmp_path, EMPTY)
    assert (gone.effective_state, gone.active, gone.job, gone.job_id) == ("lost", False, None, "17")
    assert gone.reason == "its job ended before training began"
    assert read_run(tmp_path, Queue()).effective_state == "new"  # nobody knows what became of the job


@pytest.mark.parametrize("state", ["stopped", "interrupted", "running"])
def test_queued_to_continue(tmp_path, state):
    run_dir(tmp_path, state, reason="job 17: the time limit is near")
    held_and_left(tmp_path, job_id="17")
    run = read_run(tmp_path, PENDING)
    assert (run.effective_state, run.state, run.job.id) == ("queued", state, "17")
    record(tmp_path, when="start", decision="go", attempt=1, restart=1)
    assert read_run(tmp_path, RUNNING).effective_state == "starting"
    assert read_run(tmp_path, EMPTY).effective_state == ("lost" if state == "running" else state)


def test_completed_stays_completed_whatever_waits(tmp_path):
    run_dir(tmp_path, "completed")
    (tmp_path / "job.json").write_text(json.dumps({"job_id": "17", "submitted": time.time()}))
    assert read_run(tmp_path, PENDING).effective_state == "completed"
    assert not read_run(tmp_path, PENDING).active


def test_giving_up_is_told_until_the_next_attempt(tmp_path):
    run_dir(tmp_path, "running")
    held_and_left(tmp_path)
    record(tmp_path, decision="failed", text="given up after three attempts", attempt=1)
    record(tmp_path, decision="busy", text="another job came by", attempt=1, job_id="99")
    run = read_run(tmp_path, EMPTY)
    assert (run.effective_state, run.job_id) == ("lost", "17")
    assert run.reason.startswith("given up after three attempts (process ")
    held_and_left(tmp_path)
    assert "given up" not in read_run(tmp_path, EMPTY).reason


def test_a_failure_before_any_status_is_told(tmp_path):
    record(tmp_path / "run", decision="failed", text="exit status 2; its log says what")
    run = read_run(tmp_path / "run", EMPTY)
    assert (run.effective_state, run.state, run.reason) == ("failed", None, "exit status 2; its log says what")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"state": "running"}',
        '{"state": ["running"], "step": 1}',
        '{"state": "running", "step": "many", "total_steps": 1, "reason": null, "world_size": 1, "attempt": 1,'
        '"updated": 1}',
        '{"state": "running", "step": 1, "total_steps": 1, "reason": {}, "world_size": 1, "attempt": 1, "updated": 1}',
        "\udcff",
    ],
)
def test_damaged_status_is_corrupt_with_a_reason(tmp_path, text):
    run_dir(tmp_path, "running")
    (tmp_path / "status.json").write_text(text, errors="surrogateescape")
    run = read_run(tmp_path)
    assert (run.effective_state, run.state) == ("corrupt", None)
    assert "status.json" in run.reason
    assert run.message == run.reason


@pytest.mark.parametrize("name", ["metrics.jsonl", "attempt.json", "job.json", "requeues.jsonl"])
@pytest.mark.parametrize(
    "text", ["{", '{"number": 1}\n[[[[\n\udcff\n"x"\n{"split": 3}\n{"split": "val"}\n', "directory"]
)
def test_other_damage_takes_nothing_but_itself(tmp_path, name, text):
    run_dir(tmp_path, "stopped", reason="STOP")
    (tmp_path / name).unlink(missing_ok=True)
    if text == "directory":
        (tmp_path / name).mkdir()
    else:
        (tmp_path / name).write_text(text, errors="surrogateescape")
    run = read_run(tmp_path)
    assert (run.effective_state, run.reason) == ("stopped", "STOP")


def test_a_file_or_nothing_in_the_place_of_a_run(tmp_path):
    (tmp_path / "file").write_text("")
    assert read_run(tmp_path / "file").effective_state == "corrupt"
    assert read_run(tmp_path / "nothing").effective_state == "new"


def test_runs_are_found_but_not_what_is_inside_of_them(tmp_path):
    run_dir(tmp_path / "runs" / "a" / "0-1", "completed")
    (tmp_path / "runs" / "a" / "0-1" / "cache" / "deep").mkdir(parents=True)
    (tmp_path / "runs" / "a" / "0-1" / "cache" / "deep" / "recipe.yaml").write_text("")
    (tmp_path / "runs" / "a" / "1-1").mkdir()
    (tmp_path / "runs" / "a" / "1-1" / "job.json").write_text("{}")
    (tmp_path / "runs" / ".hidden").mkdir()
    (tmp_path / "runs" / ".hidden" / "recipe.yaml").write_text("")
    (tmp_path / "runs" / "b").mkdir()
    (tmp_path / "runs" / "b" / "loop").symlink_to(tmp_path / "runs")
    found = [str(path.relative_to(tmp_path)) for path in runs_below([tmp_path], SIGNS_OF_A_JOB)]
    assert found == ["runs/a/0-1", "runs/a/1-1"]
    assert runs_below([tmp_path / "runs" / "a" / "0-1"]) == [tmp_path / "runs" / "a" / "0-1"]
    assert runs_below([tmp_path / "nowhere"]) == []
