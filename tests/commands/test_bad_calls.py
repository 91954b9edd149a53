"""Bad recipes and calls as a user meets them: exit 2, what to mend, quickly, without torch, and nothing left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from recipe.test_bad_recipes import BAD_LINES, LINES
from support.commands import TRAIN, completed, processor_seconds

LIMIT = 0.7  # seconds of processor time of a whole command
# Every third mistake of the table; the neighbours of mistakes that are none are left out.
MISTAKES = [entry for entry in BAD_LINES if entry[2] is not None][::3]

# (content of the file, or what makes it; more arguments; a part of the first line on stderr)
CALLS: dict[str, tuple[bytes | Callable[[Path], None] | None, list[str], str]] = {
    "empty": (b"", [], ":1: the file is empty"),
    "binary": (b"name: x\n\x00\x01\x02", [], ":2: a binary file"),
    "a list": (b"- name: x\n", [], ":1: a list at the top"),
    "latin": (b"name: x\nseed: 0\n# caf\xe9\n", [], ":3: not UTF-8 text"),
    "huge": (b"# filler\n" * 10000, [], "is larger than 64 KiB"),
    "a folder": (Path.mkdir, [], "is a directory; name a recipe file"),
    "missing": (None, [], "no such file"),
    "override": ("\n".join(LINES).encode(), ["optim.lrr=1"], "override: optim.lrr: unknown key (did you mean `lr`?)"),
    "no override": ("\n".join(LINES).encode(), ["optim.lr"], '"optim.lr" is not of the form dotted.key=value'),
    "dry": ("\n".join(LINES).encode(), ["--dry-run", "train.epochs=-1"], "override: train.epochs: expected a number"),
    "world": ("\n".join(LINES).encode(), ["--dry-run", "--world-size", "5"], "does not divide over 5 processes"),
    "no world": ("\n".join(LINES).encode(), ["--dry-run", "--world-size", "0"], "--world-size is 0: it must be at"),
    "option": ("\n".join(LINES).encode(), ["--freshh"], "unrecognized arguments: --freshh"),
}


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory) -> dict[str, str]:
    """What an environment needs so that importing torch, or what takes as long, ends the command."""
    folder = tmp_path_factory.mktemp("without")
    for name in ("torch", "timm", "accelerate", "datasets"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')\n")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture
def answer(without_torch, tmp_path) -> Callable[..., str]:
    """Run `train` on a file in an empty folder; what it says, after all that holds for every bad call was checked."""

    def call(path: Path, *arguments: str) -> str:
        runs = tmp_path / "runs"
        before = sorted(tmp_path.rglob("*"))
        command = [*TRAIN, str(path), "--runs", str(runs), *arguments]
        done, seconds = processor_seconds(lambda: completed(command, cwd=tmp_path, timeout=30, **without_torch))
        assert done.returncode == 2, done.stderr
        assert done.stdout == ""
        assert "Traceback" not in done.stderr
        assert "was imported" not in done.stderr
        assert seconds < LIMIT
        assert sorted(tmp_path.rglob("*")) == before
        return done.stderr

    return call


@pytest.mark.parametrize(("line", "text", "where", "fix"), MISTAKES, ids=[f"{n}-{t}"[:40] for n, t, *_ in MISTAKES])
def test_a_bad_recipe(answer, tmp_path, line, text, where, fix):
    path = tmp_path / "sample.yaml"
    path.write_text("\n".join([*LINES[: line - 1], text, *LINES[line:]]), encoding="utf-8")
    said = answer(path)
    assert said.startswith(f"{path}:{where}: ")
    assert fix in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_call(answer, tmp_path, name):
    content, arguments, expected = CALLS[name]
    path = tmp_path / "sample.yaml"
    if callable(content):
        content(path)
    elif content is not None:
        path.write_bytes(content)
    said = answer(path, *arguments).strip().splitlines()
    assert expected in said[-1], said
    assert len(said) == 1 or "usage" in said[0]


def test_there_are_at_least_forty_mistakes():
    assert len(MISTAKES) + len(CALLS) >= 40
    assert len({(line, text) for line, text, *_ in MISTAKES}) == len(MISTAKES)


def test_the_hook_sees_an_import_of_torch(without_torch, tmp_path):
    """A good recipe needs torch, so the stand-in must answer: else the tests above would prove nothing."""
    path = tmp_path / "sample.yaml"
    path.write_text("\n".join(LINES), encoding="utf-8")
    command = [*TRAIN, str(path), "--runs", str(tmp_path / "runs")]
    done = completed(command, cwd=tmp_path, **without_torch)
    assert done.returncode == 1
    assert "was imported" in done.stderr
