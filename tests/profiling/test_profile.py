"""`cifar-lab profile`: each part is the time of what it names, and together they are the step."""

import json
import time

import pytest
from support.commands import PYTHON, ROOT, completed, write_recipe
from support.runs import closed, opened
from support.small import small

from cifar_lab.commands import profile as profile_command
from cifar_lab.data.stream import Stream
from cifar_lab.profiling.breakdown import PARTS, Breakdown, StepTime, advise, break_down
from cifar_lab.profiling.marks import Marks, attached

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
    assert max(ms["forward"], ms["backward"], ms["optimizer"]) < 1000 * SLEEP
    assert ms["communication"] == ms["waiting"] == 0
    assert found["images_per_second"] == pytest.approx(16 / found["step_ms"] * 1000)
    assert (found["steps"], found["accumulation_steps"], found["world_size"]) == (6, 2, 1)
    assert found["advice"].startswith("data takes ")
    assert len(found["operators"]) == 8
    assert all(row["ms"] > 0 and row["calls"] > 0 for row in found["operators"])
    counted = ranges(out / "trace.json")
    assert (counted["data"], counted["forward"], counted["backward"], counted["optimizer"]) == (6, 6, 6, 3)
    assert sorted(path.name for path in out.iterdir()) == ["profile.json", "trace.json"]  # the run itself is gone


@pytest.mark.launch
def test_two_processes(tmp_path):
    """Process 1 is slow: process 0 waits for it, and says so."""
    recipe = write_recipe(tmp_path, small(train__micro_batch=4, train__epochs=2))
    worker, out = str(ROOT / "tests" / "workers" / "profiling.py"), tmp_path / "out"
    command = [PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", worker, recipe]
    done = completed([*command, "--steps", "8", "--out", str(out), "--json"])
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["strategy"], found["world_size"], found["accumulation_steps"]) == ("ddp", 2, 2)
    for process in found["processes"]:
        assert sum(parts(process["parts"]).values()) == pytest.approx(process["step_ms"])
        assert min(parts(process["parts"]).values()) >= 0
        assert parts(process["parts"])["communication"] > 0
    fast, slow = (parts(process["parts"]) for process in found["processes"])
    assert fast["waiting"] > 40 > slow["waiting"]
    assert slow["data"] >= 60 > fast["data"]
    for rank in range(2):
        counted = ranges(out / f"trace.{rank}.json")
        assert (counted["data"], counted["backward"], counted["optimizer"]) == (6, 6, 3)


def test_the_shortest_exchange_is_communication_and_the_rest_waiting():
    quick = StepTime(10.0, {"backward": 3.0, "communication": 5.0}, [4.0, 1.0])
    late = StepTime(10.0, {"backward": 6.0, "communication": 2.5}, [0.5, 2.0])
    first, second = break_down([[quick], [late]])
    assert (first.parts["communication"], first.parts["waiting"]) == (1.5, 3.5)
    assert (second.parts["communication"], second.parts["waiting"]) == (1.5, 1.0)
    assert (first.parts["other"], second.parts["other"]) == (2.0, 1.5)


def test_advice_names_what_most_exceeds_its_due():
    def step(**shares):
        return Breakdown(2.0, {part: 2 * shares.get(part, 0.0) for part in PARTS})

    assert advise(step(forward=0.4, backward=0.55)).startswith("95% is the network itself")
    assert advise(step(forward=0.6, data=0.3, waiting=0.1)).startswith("data takes 30% of the step: ")
    assert advise(step(forward=0.5, data=0.1, waiting=0.4)).startswith("waiting takes 40% of the step: ")


def test_nothing_is_left_on_the_session(tmp_path):
    session = opened(small(), tmp_path / "run")
    owners = [session.stream, session.engine, session.tracker, session.saver]
    before = [dict(vars(owner)) for owner in owners]
    with attached(session, Marks(session.world.device, 0, 1), lambda step: None):
        assert [dict(vars(owner)) for owner in owners] != before
    assert [dict(vars(owner)) for owner in owners] == before
    closed(session)


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
