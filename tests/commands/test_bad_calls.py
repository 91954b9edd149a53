"""Bad recipes and calls as a user meets them: exit 2, what to mend, without torch, and nothing left behind."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from recipe.test_bad_recipes import BAD_LINES, LINES
from support.commands import PYTHON, TRAIN, completed

# Every third mistake of the table; the neighbours of mistakes that are none are left out.
MISTAKES = [entry for entry in BAD_LINES if entry[2] is not None][::3]

ANSWER_ALL = """\
import io, json, sys
from contextlib import redirect_stderr, redirect_stdout
from cifar_lab.train import main
answers = []
for words in json.loads(sys.argv[1]):
    with redirect_stdout(io.StringIO()) as out, redirect_stderr(io.StringIO()) as err:
        try:
            status = main(words)
        except SystemExit as end:
            status = end.code
    answers.append([status, out.getvalue(), err.getvalue()])
print(json.dumps(answers))
"""

# (content of the file, or what makes it; more arguments; a part of the first line on stderr)
CALLS: dict[str, tuple[bytes | Callable[[Path], None] | None, list[str], str]] = {
    "empty": (b"", [], ":1: the file is empty"),
    "binary": (b"name: x\n\x00\x01\x02", [], ":2: an unprintable character"),
    "a list": (b"- name: x\n", [], ":1: a list at the top"),
    "latin": (b"name: x\nseed: 0\n# caf\xe9\n", [], ":3: not UTF-8 text"),
    "huge": (b"# filler\n" * 10000, [], "is larger than 64 KiB"),
    "a folder": (Path.mkdir, [], "is a directory; name a recipe file"),
    "missing": (None, [], "no such file"),
    "override": ("\n".join(LINES).encode(), ["optim.lrr=1"], "override: optim.lrr: unknown key (did you mean `lr`?)"),
    "no override": ("\n".join(LINES).encode(), ["optim.lr"], '"optim.lr" is not of the form dotted.key=value'),
    "dry": (
        "\n".join(LINES).encode(),
        ["--dry-run", "train.epochs=-1"],
        "override: train.epochs: Input should be greater than 0",
    ),
    "world": ("\n".join(LINES).encode(), ["--dry-run", "--world-size", "5"], "does not divide over 5 processes"),
    "no world": (
        "\n".join(LINES).encode(),
        ["--dry-run", "--world-size", "0"],
        "'0' is not a whole number of at least 1",
    ),
    "option": ("\n".join(LINES).encode(), ["--freshh"], "unrecognized arguments: --freshh"),
}


@pytest.fixture(scope="module")
def without_torch(tmp_path_factory) -> dict[str, str]:
    """What an environment needs so that importing torch, or what takes as long, ends the command."""
    folder = tmp_path_factory.mktemp("without")
    for name in ("torch", "timm", "accelerate", "datasets"):
        (folder / f"{name}.py").write_text(f"raise SystemExit('{name} was imported')\n")
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(scope="module")
def answers(without_torch, tmp_path_factory) -> dict[str, tuple[Path, int, str, str]]:
    """File, status, output and errors of every bad call, by its name, all from one process that cannot import torch."""
    folder = tmp_path_factory.mktemp("answers")
    calls: dict[str, list[str]] = {}
    for number, (line, text, *_) in enumerate(MISTAKES):
        calls[text] = [str(folder / f"{number}.yaml")]
        recipe = [*LINES[: line - 1], text, *LINES[line:]]
        Path(calls[text][0]).write_text("\n".join(recipe), encoding="utf-8")
    for name, (content, arguments, _) in CALLS.items():
        path = folder / f"{name}.yaml"
        calls[name] = [str(path), *arguments]
        if callable(content):
            content(path)
        elif content is not None:
            path.write_bytes(content)
    before = sorted(folder.rglob("*"))
    listing = json.dumps([[*words, "--runs", str(folder / "runs")] for words in calls.values()])
    done = completed([PYTHON, "-c", ANSWER_ALL, listing], cwd=folder, **without_torch)
    assert done.returncode == 0, done.stderr
    assert sorted(folder.rglob("*")) == before
    told = json.loads(done.stdout)
    return {name: (Path(words[0]), *answer) for (name, words), answer in zip(calls.items(), told, strict=True)}


def refusal(answers, name: str) -> tuple[Path, str]:
    """The file and the errors of a call, after all that holds for every bad call was checked."""
    path, status, output, errors = answers[name]
    assert (status, output) == (2, ""), errors
    assert "Traceback" not in errors
    return path, errors


@pytest.mark.parametrize(("line", "text", "where", "fix"), MISTAKES, ids=[f"{n}-{t}"[:40] for n, t, *_ in MISTAKES])
def test_a_bad_recipe(answers, line, text, where, fix):
    path, said = refusal(answers, text)
    assert said.startswith(f"{path}:{where}: ")
    assert fix in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("name", CALLS)
def test_a_bad_call(answers, name):
    said = refusal(answers, name)[1].strip().splitlines()
    assert CALLS[name][2] in said[-1], said
    assert len(said) == 1 or "usage" in said[0]


def test_the_command_itself_answers_so(without_torch, tmp_path):
    done = completed([*TRAIN, "missing.yaml", "--runs", "runs"], cwd=tmp_path, **without_torch)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("missing.yaml") and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


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
