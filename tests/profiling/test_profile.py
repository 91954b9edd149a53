"""`cifar-lab profile`: each part is the time of what it names, and together they are the step."""

import json
import os
import pty
import subprocess
import time

import pytest
import torch
from support.commands import PYTHON, ROOT, completed, write_recipe
from support.small import small

from cifar_lab.commands import profile as profile_command
from cifar_lab.data.stream import Stream
from cifar_lab.profiling.parts import PARTS, Parts

SLEEP = 0.02


def slowed(real):
    def wrapper(*arguments, **options):
        time.sleep(SLEEP)
        return real(*arguments, **options)

    return wrapper


def parts(rows):
    return {row["part"]: row["ms"] for row in rows}


def ranges(path):
    """How often each of our ranges is in a trace."""
    names = [event.get("name", "") for event in json.loads(path.read_text())["traceEvents"] if event.get("ph") == "X"]
    return {part: names.count(f"cifar_lab:{part}") for part in PARTS}


def test_one_process(tmp_path, monkeypatch, capsys):
    """The data are slowed down: their part alone grows, and the sum stays the step."""
    recipe = write_recipe(tmp_path, small(train__micro_batch=8, train__epochs=2))
    monkeypatch.setattr(Stream, "micro_batch", slowed(Stream.micro_batch))
    out = tmp_path / "out"
    assert profile_command.main([recipe, "--steps", "6", "--out", str(out), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert json.loads((out / "profile.json").read_text()) == found
    ms = parts(found["parts"])
    assert tuple(ms) == PARTS
    assert sum(ms.values()) == pytest.approx(found["step_ms"])
    assert sum(row["percent"] for row in found["parts"]) == pytest.approx(100)
    assert min(ms.values()) >= 0
    assert ms["data"] >= 2 * 1000 * SLEEP
    assert ms["forward"] > 0 and ms["backward"] > 0 and ms["optimizer"] > 0 and ms["logging"] > 0
    assert found["images_per_second"] == pytest.approx(16 / found["step_ms"] * 1000)
    assert (found["steps"], found["accumulation_steps"], found["world_size"]) == (6, 2, 1)
    assert all(row["processes_ms"] == [row["ms"]] for row in found["parts"])
    assert len(found["operators"]) == 8
    assert all(row["ms"] > 0 and row["calls"] > 0 for row in found["operators"])
    counted = ranges(out / "trace.json")
    assert (counted["data"], counted["forward"], counted["backward"], counted["optimizer"]) == (6, 6, 6, 3)
    assert sorted(path.name for path in out.iterdir()) == ["profile.json", "trace.json"]  # the run itself is gone


def test_a_terminal_gets_our_lines_alone(tmp_path):
    """No progress of a run that ends early, and nothing from the profiler's library, which writes by itself."""
    recipe, out = write_recipe(tmp_path, small(train__epochs=2)), tmp_path / "out"
    master, slave = pty.openpty()
    command = [PYTHON, "-m", "cifar_lab", "profile", recipe, "--steps", "2", "--out", str(out)]
    environment = {name: value for name, value in os.environ.items() if name != "KINETO_LOG_LEVEL"} | {"TERM": "xterm"}
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=slave, env=environment, check=True)
    os.close(slave)
    assert os.read(master, 65536) == b"5 steps to warm up, 2 that are timed, 3 that are traced\r\n"
    os.close(master)
    assert done.stdout.startswith(b"small: vit ") and done.stdout.endswith(f"trace: {out / 'trace.json'}\n".encode())


@pytest.mark.launch
def test_two_processes(tmp_path):
    """Process 1 is slow: its part grows, and process 0 waits for it in the exchange at the end of backward."""
    recipe = write_recipe(tmp_path, small(train__micro_batch=4, train__epochs=2))
    worker, out = str(ROOT / "tests" / "workers" / "profiling.py"), tmp_path / "out"
    command = [PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", worker, recipe]
    done = completed([*command, "--steps", "8", "--out", str(out), "--json"])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["strategy"], found["world_size"], found["accumulation_steps"]) == ("ddp", 2, 2)
    each = {row["part"]: row["processes_ms"] for row in found["parts"]}
    assert sum(sum(part) / 2 for part in each.values()) == pytest.approx(found["step_ms"])
    fast, slow = each["data"]
    assert slow >= 60 and slow > fast
    assert each["backward"][0] > each["backward"][1]
    for rank in range(2):
        counted = ranges(out / f"trace.{rank}.json")
        assert (counted["data"], counted["backward"], counted["optimizer"]) == (6, 6, 3)


def test_a_part_within_a_part_counts_once():
    parts = Parts(torch.device("cpu"))
    with parts.part("backward"), parts.part("forward"):
        time.sleep(SLEEP)
    done = parts.next_step()
    assert done["forward"] >= SLEEP
    assert done["forward"] > done["backward"] >= 0
    assert set(parts.next_step()) == set(PARTS)


def test_mistakes_are_answered(tmp_path, capsys):
    recipe = write_recipe(tmp_path, small())
    assert profile_command.main([recipe, "--out", str(tmp_path / "out")]) == 2
    assert "the recipe trains 20 steps" in (said := capsys.readouterr().err)
    assert "at most --steps 12, or a larger train.epochs" in said
    (tmp_path / "file").touch()
    assert profile_command.main([recipe, "--steps", "2", "--out", str(tmp_path / "file" / "below")]) == 2
    assert "cannot write" in capsys.readouterr().err
    assert profile_command.main([recipe, "optim.lrr=1"]) == 2
    assert "did you mean `lr`?" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        profile_command.main([recipe, "--steps", "0"])
