"""Every command with every kind of thing where it expects a file: one line, a status that means something, no mess."""

# ruff: noqa: F811 (fixtures are imported)
from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from support.fork_server import Done, ForkServer
from support.hostile_place import good, place, server  # noqa: F401
from support.materials import MATERIALS, WORDS, snapshot

from cifar_lab.commands.dispatch import COMMANDS, SCRIPTS

STATUSES = {0, 1, 2, 3, 75, 130, 141}
# X is the hostile thing; good.yaml, run and picture.png are as they should be.
CALLS = [
    *("train X", "train X --dry-run", "train good.yaml --runs X/Y", "train good.yaml model.weights=X"),
    *("plan X", "status X.yaml", "status --run-dir X", "status X --json", "status --runs X --all"),
    *("status X --decide end --runs out", "sync X", "checkpoint ls X", "checkpoint verify X", "checkpoint show X"),
    *(
        "verify-resume X",
        "verify-resume good.yaml --out file/X",
        "doctor X",
        "profile X",
        "evaluate X",
        "evaluate run data.root=X",
    ),
    *("predict X picture.png", "predict run X", "predict run picture.png --sheet X/sheet.png", "predict X X"),
    *("export X --format timm", "export X --format onnx", "export run --format onnx --out X/Y"),
    *("recipes show X", "recipes diff good.yaml X", "recipes ls --recipes X", "recipes new X", "recipes new X/Y.yaml"),
    *("report X", "report X --terminal", "report run --out X/Y"),
    "data rm X",
]
# N is no number, or none that makes sense.
NUMBERS = [
    *("doctor good.yaml --nproc N", "profile good.yaml --steps N", "evaluate run --batch N"),
    *("verify-resume good.yaml --kills N", "verify-resume good.yaml --processes N", "predict run picture.png --top N"),
    *("plan good.yaml --gpus N", "plan good.yaml --nodes N"),
    *(
        "plan good.yaml --mfu N",
        "recipes ls --gpus N",
        "checkpoint show run --step N",
        "train good.yaml --dry-run --world-size N",
    ),
]
HUGE = "9" * 30
NO_NUMBERS = ["abc", "-3", "0", "nan", "1e999", HUGE]
# Where it is no mistake: a folder may be empty, and a place may be made.
# Nothing as a path is the folder that one is in.
MAY_WORK = ("--runs", "--out", "--sheet", "recipes new", "status", "data.root=", "recipes ls", "--run-dir")


def check(done: Done, *, may_work: bool) -> None:
    """What holds for every call."""
    said = f"{done.status}\n{done.err[-3000:]}"
    assert done.status is not None, f"took too long: {said}"
    assert done.status in STATUSES, said
    assert "Traceback" not in done.err + done.out and "Exception ignored" not in done.err, said
    if done.status in (0, 75):
        assert may_work, f"must fail: {done.out[-500:]}"
        return
    lines = done.err.strip().splitlines()
    usage = [line for line in lines if line.startswith(("usage: ", "   "))]
    assert len(lines) - len(usage) >= 1 or "FAIL" in done.out, said
    # A recipe's mistakes are told at once, a line each.
    assert len(lines) - len(usage) <= 3 or all(line.split(":")[0] in lines[0] for line in lines), said
    assert "\x1b" not in done.err and len(done.err) < 20_000, said


def run_case(server: ForkServer, good: Path, folder: Path, call: str, word: str) -> tuple[Done, set[str]]:
    """Run a call in a copy; what it did, and what it left behind or changed."""
    shutil.copytree(good, folder, symlinks=True, dirs_exist_ok=True)
    before = snapshot(folder)
    argv = [part.replace("X", word) for part in call.split(" ")]
    done = server(argv, cwd=folder)
    after = snapshot(folder)
    return done, {path for path in {*before, *after} if before.get(path) != after.get(path)}


def verify(done: Done, changed: set[str], call: str, word: str = "X") -> None:
    """What holds for every call, and that one that failed has left nothing."""
    check(done, may_work=any(part in call for part in MAY_WORK) or not word)
    left = [path for path in changed if ".tmp-" in path or path.endswith(".partial")]
    assert not left, left
    if done.status not in (0, 75) and "--decide" not in call:
        assert not changed, (changed, done.err)


@pytest.mark.parametrize(
    ("call", "material"), [(c, m) for i, c in enumerate(CALLS) for j, m in enumerate(MATERIALS) if (i + j) % 3 == 0]
)
def test_a_hostile_file(server, good, place, call, material):
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        MATERIALS[material](folder / "X")
        if "X.yaml" in call and os.path.lexists(folder / "X"):
            (folder / "X").rename(folder / "X.yaml")
        verify(*run_case(server, good, folder, call, "X"), call)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("call", "word"), [(c, w) for i, c in enumerate(CALLS) for j, w in enumerate(WORDS) if (i + j) % 4 == 0]
)
def test_a_hostile_name(server, good, place, call, word):
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        verify(*run_case(server, good, folder, call, WORDS[word]), call, WORDS[word])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize(
    ("call", "number"),
    # So many kills or processes may be tried; it takes for ever.
    [(c, n) for c in NUMBERS for n in NO_NUMBERS if not (c.startswith("verify-resume") and n == HUGE)],
)
def test_a_number_that_is_none(server, good, place, call, number):
    folder = Path(tempfile.mkdtemp(dir=place))
    try:
        done, changed = run_case(server, good, folder, call.replace("N", number), "")
        if call.startswith(("predict", "evaluate", "recipes")) and number == HUGE:  # no more than there are
            assert done.status == 0, done.err
        else:
            verify(done, changed, call)
            assert done.status in (1, 2)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def test_every_command_is_there_and_there_are_hundreds():
    assert {call.split()[0] for call in CALLS} == COMMANDS.keys() - SCRIPTS.keys()  # those have tests/launch
    assert len(CALLS) * len(MATERIALS) / 3 >= 200
