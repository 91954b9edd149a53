"""What a start of training does not do: decode again, or import what it does not need."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import PYTHON, completed
from support.runs import closed, opened, train
from support.small import small

from cifar_lab.data import cache
from cifar_lab.data.images import find_source
from cifar_lab.training.loop import fit

# Each is seconds or tens of megabytes, and none is for a run on one process without W&B.
HEAVY = (
    "datasets",
    "deepspeed",
    "lightning",
    "matplotlib",
    "pandas",
    "sklearn",
    "torchvision",
    "transformers",
    "wandb",
)
FIRST_STEPS = """\
import json, sys
from support.runs import opened
from cifar_lab.training.loop import fit
session = opened(json.loads(sys.argv[1]), sys.argv[2])
assert fit(session)
print(json.dumps([name for name in json.loads(sys.argv[3]) if name in sys.modules]))
"""


def test_a_second_start_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CIFAR_LAB_CACHE", str(tmp_path / "cache"))
    recipe = small(train__epochs=1, log__every_steps=1)
    decoded = []
    decode_split, source = cache.decode_split, find_source("shapes")
    load = source.load

    def counting(*args, **named):
        decoded.append("decoded")
        return decode_split(*args, **named)

    def reading(*args, **named):
        decoded.append("read")
        return load(*args, **named)

    monkeypatch.setattr(cache, "decode_split", counting)
    monkeypatch.setattr(source, "load", reading)
    stopped = train(recipe, tmp_path / "run", stop_at=3, monkeypatch=monkeypatch)
    assert sorted(decoded) == ["decoded", "decoded", "read", "read", "read"]  # of three, one there is not

    decoded.clear()
    again = opened(recipe, tmp_path / "run")
    assert again.state.step == stopped.state.step == 3
    assert fit(again)
    closed(again)
    assert decoded == []


def test_a_start_imports_nothing_that_it_does_not_need(tmp_path: Path) -> None:
    command = [PYTHON, "-c", FIRST_STEPS, json.dumps(small(train__epochs=0.5)), str(tmp_path / "run")]
    tests = str(Path(__file__).parents[1])
    done = completed([*command, json.dumps(HEAVY)], PYTHONPATH=tests, CIFAR_LAB_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads(done.stdout.splitlines()[-1]) == []
