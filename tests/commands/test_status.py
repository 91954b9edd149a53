"""`cifar-lab status`: the table, for people and for machines."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import time
from pathlib import Path

import pytest
from support.commands import PYTHON, ROOT, environment, write_recipe
from support.run_dirs import held_elsewhere, run_dir
from support.small import small
from support.status_command import ask, isolate

from cifar_lab.cli.printable import duration
from cifar_lab.status.slurm_queue import Queue
from cifar_lab.status.state import RunState
from cifar_lab.status.table import text_of

STATUS = [PYTHON, "-m", "cifar_lab", "status"]


@pytest.fixture(autouse=True)
def folder_of_its_own(monkeypatch, tmp_path):
    isolate(monkeypatch, tmp_path)


@pytest.fixture
def recipe(tmp_path) -> str:
    return write_recipe(tmp_path, small())


def test_table(tmp_path, capsys):
    held_elsewhere(tmp_path / "runs/demo/0-aa", job_id="17", step=41)
    run_dir(tmp_path / "runs/demo/0-aa", "running")
    run_dir(tmp_path / "runs/demo/1-aa", "failed", reason="step 7: not\nfinite \x1b[31m" + "x" * 300)
    run_dir(tmp_path / "runs/demo/2-aa", "completed", step=100)
    (tmp_path / "runs/demo/3-aa").mkdir()
    (tmp_path / "runs/demo/3-aa/job.json").write_text('{"job_id": "20_1", "submitted": 1}')
    (tmp_path / "runs/demo/4-aa").mkdir()
    (tmp_path / "runs/demo/4-aa/status.json").write_text("{")
    (tmp_path / "queue").write_text("17|17|RUNNING|node[1-2]|None\n20_1|20|PENDING||Resources\n")
    code, out, err = ask(capsys)
    assert (code, err) == (0, "")
    lines = [line.split("  ") for line in out.splitlines()]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells[0] == ["run", "state", "job", "step", "val error", "images/s", "left", "last message"]
    assert cells[1][:4] == ["demo/0-aa", "running", "17 RUNNING node[1-2]", "41/100 41%"]
    assert cells[1][4:-1] == ["10.00 %", "1,234", "0:00"]
    assert cells[1][-1] == "epoch 4.0, loss 1.5000"
    assert cells[2] == ["demo/3-aa", "queued", "20_1 PENDING Resources"]
    assert cells[3][:2] == ["demo/1-aa", "failed"]
    assert cells[3][-1] == r"step 7: not finite \x1b[31m" + "x" * 300
    assert cells[4][1] == "corrupt"
    assert "status.json cannot be read" in cells[4][-1]
    assert cells[5][:2] == ["demo/2-aa", "completed"]
    assert "\x1b" not in out


def test_old_ends_are_hidden_but_counted(tmp_path, capsys):
    run_dir(tmp_path / "runs/a/0-1", "completed")
    old = run_dir(tmp_path / "runs/a/1-1", "stopped", reason="STOP").path / "status.json"
    old.write_text(json.dumps(json.loads(old.read_text()) | {"updated": time.time() - 90000}))
    code, out, _ = ask(capsys, "runs")
    assert code == 0
    assert "a/1-1" not in out
    assert out.splitlines()[-1] == "1 run that ended more than a day ago: show with --all"
    assert "a/1-1" in ask(capsys, "runs", "--all")[1]
    assert "STOP" in ask(capsys, "runs/a/1-1")[1]  # who names a run sees it
    assert "STOP" in ask(capsys, "runs/a/1-1", "runs/a/0-1")[1]
    assert len(json.loads(ask(capsys, "runs", "--json")[1])["runs"]) == 2


def test_no_runs_and_wrong_places(tmp_path, capsys):
    assert ask(capsys) == (0, f"no runs in {tmp_path / 'runs'}\n", "")
    assert json.loads(ask(capsys, "--json")[1]) == {"runs": []}
    code, out, err = ask(capsys, "nowhere")
    assert (code, out) == (2, "")
    assert "nowhere: no such file; `cifar-lab recipes` lists the recipes" in err
    assert ask(capsys, "nowhere.yaml")[0] == 2
    assert ask(capsys, "--decide", "start")[0] == 2


def test_a_recipe_is_asked_by_what_it_says(tmp_path, capsys, recipe):
    code, out, _ = ask(capsys, recipe, "seed=3", "--json", "--nproc", "2", "--with", "torchrun", "--strategy", "ddp")
    new = json.loads(out)
    assert code == 0
    assert Path(new["run_dir"]).parent == tmp_path / "runs/small"
    assert (new["state"], new["effective_state"], new["job"], new["active"]) == (None, "new", None, False)
    run = run_dir(Path(new["run_dir"]), "stopped", reason="STOP")
    (run.path / "recipe.yaml").write_text(Path(recipe).read_text().replace("name: small", "name: small\nseed: 3", 1))
    found = json.loads(ask(capsys, recipe, "seed=3", "--json")[1])
    assert (found["state"], found["step"], found["total_steps"], found["reason"]) == ("stopped", 40, 100, "STOP")
    assert found["val_error"] == pytest.approx(0.1)
    assert ask(capsys, recipe, "seed=3", "--where")[1] == f"{run.path}\n"
    assert json.loads(ask(capsys, recipe, "--json", "--run-dir", "here")[1])["run_dir"] == str(tmp_path / "here")


def test_fast_without_torch_for_fifty_runs(tmp_path):
    for index in range(50):
        run_dir(tmp_path / f"runs/a/{index}-1", "stopped", reason="STOP")
    metrics = tmp_path / "runs/a/0-1/metrics.jsonl"
    metrics.write_bytes(metrics.read_bytes() * 3000)
    code = (
        "import sys\n"
        "from cifar_lab.commands.dispatch import main\nassert main(['status', 'runs']) == 0\n"
        "assert not {'torch', 'numpy', 'timm', 'accelerate'} & set(sys.modules)\n"
    )
    done = subprocess.run([PYTHON, "-c", code], env=environment(PYTHONPATH=str(ROOT)), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 51


def test_watch_in_a_pipe_ends_with_the_runs(tmp_path):
    run = run_dir(tmp_path / "runs/a/0-1", "running")
    held_elsewhere(run.path)
    command = [*STATUS, "runs", "--watch"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment(PYTHONPATH=str(ROOT))) as watch:
        assert watch.stdout.readline().startswith("run ")
        run.write_status("completed", 100, 100)
        out, _ = watch.communicate(timeout=30)
    assert watch.returncode == 0
    assert out.splitlines()[-3].startswith("run ")
    assert "completed" in out.splitlines()[-2]
    assert "\x1b" not in out


def test_watch_redraws_a_terminal_and_ends_quietly(tmp_path):
    for index in range(30):
        run = run_dir(tmp_path / f"runs/a/{index}-1", "running", step=1)
        held_elsewhere(run.path)
    leader, follower = pty.openpty()
    environ = environment(PYTHONPATH=str(ROOT), TERM="xterm", COLUMNS="60", LINES="12")
    # A shell starts commands in the background with the signal ignored.
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code += "from cifar_lab.commands.dispatch import main; sys.exit(main())"
    command = [PYTHON, "-c", code, "status", "runs", "--watch"]
    with subprocess.Popen(command, stdout=follower, stderr=follower, env=environ) as watch:
        os.close(follower)
        text = b""
        while text.count(b"images/s") < 3:
            assert select.select([leader], [], [], 30)[0]
            text += os.read(leader, 65536)
        watch.send_signal(signal.SIGINT)
        assert watch.wait(timeout=20) == 130
    os.close(leader)
    block = text.decode().split("images/s")[1].replace("\r", "").splitlines()
    assert any("..." in line for line in block), "the table is higher than the terminal"
    assert len(block) <= 12
    assert b"\x1b[1A" in text
    assert b"Traceback" not in text


def test_a_narrow_terminal_cuts_nothing(capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    run = RunState(Path("/r/a_name/0-1a2b3c4d"), "failed", "failed", step=1, total_steps=9, message="word " * 30)
    text = text_of([run], Queue(), [Path("/r")], everything=True)
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("word") == 30
    assert "a_name/0-1a2b3c4d" in text


def test_order_and_words():
    runs = [RunState(Path(f"/r/{state}"), None, state) for state in ("completed", "failed", "queued", "running")]
    lines = text_of(runs, Queue(), [Path("/r")], everything=True).splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["running", "queued", "failed", "completed"]
    assert [duration(s) for s in (7, 754, 3723, 90000 + 60)] == ["0:07", "12:34", "1:02:03", "1d 01:01"]
