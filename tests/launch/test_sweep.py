"""Sweeps: their members, what is left out, and what is refused."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest
from support.commands import ROOT, write_recipe
from support.small import small
from support.submitting import LAUNCH, made, run_recorded, submit

from cifar_lab.recipe import load_recipe
from cifar_lab.rundir.directory import RunDir

assert LAUNCH  # its folder is on the path now
SWEEP = ["--sweep", "optim.lr=1e-3,3e-4", "seed=0,1,2"]
GRID = """
method: grid
metric: {name: val/accuracy, goal: maximize}
parameters:
  optim.lr: {values: [1e-3, 3e-4]}
  seed: {values: [0, 1, 2]}
  train:
    parameters:
      grad_clip: {value: null}
"""


def members(words: list[str], overrides: list[str] | None = None) -> list[list[str]]:
    from sweep import members

    return members(words, overrides or [], sys.executable, ROOT)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            ["--strategy", "ddp", "--sweep", "optim.lr=1e-3,3e-4", "seed=0,1"],
            ["--strategy", "ddp", "optim.lr=1e-3", "seed=1"],
        ),
        (["--sweep=optim.lr=1e-3,3e-4", "train.epochs=2"], ["train.epochs=2", "train.epochs=2", "optim.lr=3e-4"]),
    ],
)
def test_by_hand(words: list[str], expected: list[str], tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small())
    script = f"cd {ROOT}\nset -- {shlex.join([recipe, *words])}\n{(ROOT / 'slurm' / 'sweep.sbatch').read_text()}"
    calls = run_recorded(script, tmp_path, SLURM_ARRAY_TASK_ID="1", SLURM_ARRAY_JOB_ID="17", TMPDIR=str(tmp_path))
    (srun,) = calls["srun"]
    words = [os.fsdecode(word) for word in srun]
    assert words[words.index(f"{ROOT}/launch/node.sh") + 1 :] == [
        recipe,
        *expected,
        "--run-dir",
        str(tmp_path / "records/run"),
    ]
    assert not list(tmp_path.glob("tmp.*"))


def refused(words: list[str], overrides: list[str] | None = None) -> str:
    from submit_options import SubmitError

    with pytest.raises(SubmitError) as error:
        members(words, overrides)
    return str(error.value)


def test_members_are_all_combinations_the_last_key_first() -> None:
    assert members(["a=1,2", "b=x,y,z"], ["c=5"]) == [
        *(["c=5", "a=1", f"b={b}"] for b in "xyz"),
        *(["c=5", "a=2", f"b={b}"] for b in "xyz"),
    ]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1e-3,3e-4", ["1e-3", "3e-4"]),
        ("{a: 1, b: [2, 3]},null", ["{a: 1, b: [2, 3]}", "null"]),
        ("[x,y],[z]", ["[x,y]", "[z]"]),
        ("\"a,b\",'c,d',e", ['"a,b"', "'c,d'", "e"]),
        ("it's,5\" disk", ["it's", '5" disk']),
        ("{a: 'x}, y', b: \"[\"},2", ["{a: 'x}, y', b: \"[\"}", "2"]),
        ("x=1,y=2", ["x=1", "y=2"]),
    ],
)
def test_values_are_split_outside_of_quotes_and_brackets(text: str, values: list[str]) -> None:
    assert members([f"key={text}"]) == [[f"key={value}"] for value in values]


def test_what_is_no_sweep() -> None:
    assert "not of the form key=v1,v2" in refused(["optim.lr"])
    assert "has an empty value" in refused(["seed=0,,1"])
    assert "has an empty value" in refused(["seed="])
    assert "a ] is missing" in refused(["data.mean=[1,2"])
    assert "a ' is missing" in refused(["key='a,b"])
    assert "names seed twice" in refused(["seed=0,1", "seed=2"])
    assert "seed is swept and given as an override too" in refused(["seed=0,1"], ["seed=5"])
    assert "no/such.yaml: cannot be read: No such file" in refused(["no/such.yaml"])


def test_a_file_for_wandb_is_the_same_sweep(tmp_path: Path) -> None:
    file = tmp_path / "grid.yaml"
    file.write_text(GRID)
    assert members([str(file)], ["train.epochs=1"]) == [
        ["train.epochs=1", f"optim.lr={lr}", f"seed={seed}", "train.grad_clip=null"]
        for lr in ("0.001", "0.0003")
        for seed in (0, 1, 2)
    ]
    recipe = write_recipe(tmp_path, small())
    text = made(recipe, "--sweep", file)
    assert "\n#SBATCH --array=0,1,2,3,4,5\n" in text
    assert f"  5) set -- {recipe} --nproc 1 optim.lr=0.0003 seed=2 train.grad_clip=null ;;\n" in text
    texts = ["adamw", "a, b", "true", "1e-3", "null", "it's", "", "x: y"]
    file.write_text(f"parameters: {{key: {{values: {texts!r}}}, flag: {{value: true}}, m: {{value: [0.5, 1]}}}}")
    expected = ["adamw", '"a, b"', '"true"', "1e-3", '"null"', '"it\'s"', '""', '"x: y"']
    assert members([str(file)]) == [[f"key={text}", "flag=true", "m=[0.5, 1]"] for text in expected]
    assert "not both" in refused([str(file), "seed=0"]) and "not both" in refused(["seed=0", str(file)])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("method: random\nparameters: {seed: {values: [1]}}", "method random: .* use `wandb sweep` for that"),
        ("method: bayes\nparameters: {seed: {values: [1]}}", "method bayes: .* use `wandb sweep` for that"),
        ("parameters: {optim.lr: {min: 0.1, max: 1.0}}", "optim.lr: only .* use `wandb sweep` for others"),
        ("parameters: {seed: {values: [1], distribution: categorical}}", "seed: only .* use `wandb sweep`"),
        ("parameters: {seed: {values: [1]}}\nrun_cap: 5", "run_cap: .* use `wandb sweep`"),
        ("parameters: {seed: {values: []}}", "seed has no values"),
        ("parameters: {a.b: {value: 1}, a: {parameters: {b: {value: 2}}}}", "a.b is given twice"),
        ("parameters: {seed: {values: [.inf]}}", "seed: inf is no value"),
        ('parameters: {name: {values: ["a\\0b"]}}', "name: a text with a NUL"),
        ("program: x.py", "has no `parameters:`"),
        ("parameters: [", ":1: "),
        ("a: 1\na: 2", ":2: "),
    ],
)
def test_files_that_are_no_grid(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "sweep.yaml"
    file.write_text(text)
    message = refused([str(file)])
    assert message.startswith(str(file)) and re.search(says, message), message


def test_a_member_prints_its_overrides() -> None:
    done = submit("recipes/demo.yaml", "train.epochs=4", *SWEEP, "--member", "4")
    assert (done.returncode, done.stdout) == (0, b"train.epochs=4\0optim.lr=3e-4\0seed=1\0"), done.stderr
    done = submit("recipes/demo.yaml", *SWEEP, "--member", "6")
    assert done.returncode == 2 and b"there is no member 6: the sweep has 6" in done.stderr and not done.stdout


def test_what_is_completed_is_left_out_and_numbers_stay(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small())
    runs = str(tmp_path / "runs")
    runs_of = [RunDir.locate(load_recipe(recipe, words), runs=runs) for words in members(SWEEP[1:])]
    states = {1: "completed", 2: "completed", 3: "failed", 4: "stopped", 5: "running"}  # 5: with nobody alive
    for number, state in states.items():
        run = runs_of[number]
        run.create(load_recipe(recipe, members(SWEEP[1:])[number]))
        run.write_status(state, 5, 10)
    done = submit(recipe, "--runs", runs, *SWEEP, "--max-parallel", "2", "--dry-run")
    text = done.stdout.decode()
    assert "\n#SBATCH --array=0,3,4,5%2\n" in text and "\n  5) set -- " in text, done.stderr
    left_out = [line for line in done.stderr.decode().splitlines() if line.startswith("left out: ")]
    assert left_out == [f"left out: member {n} (optim.lr=1e-3 seed={n}), completed ({runs_of[n].path})" for n in (1, 2)]
    for number in (0, 3, 4, 5):
        runs_of[number].create(load_recipe(recipe, members(SWEEP[1:])[number]))
        runs_of[number].write_status("completed", 10, 10)
    # Nothing is asked of Slurm, which is not there.
    done = submit(recipe, "--runs", runs, *SWEEP, PATH=f"{tmp_path}:{os.defpath}")
    assert (done.returncode, done.stdout) == (0, b"nothing is missing, so nothing was queued\n"), done.stderr
    done = submit(recipe, "--runs", runs, "optim.lr=1e-3", "seed=1")
    assert (
        done.returncode == 0 and b"left out: the run, completed" in done.stderr and b"nothing is missing" in done.stdout
    )


def test_members_that_would_share_a_run_are_refused(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small())
    done = submit(recipe, "--sweep", "log.every_steps=1,2", "seed=0", "--dry-run")
    said = done.stderr.decode()
    assert done.returncode == 2 and not done.stdout
    assert "members 0 (log.every_steps=1 seed=0) and 1 (log.every_steps=2 seed=0) are the same experiment" in said
    done = submit(recipe, "--sweep", "optim.lr=0.001,1e-3", "--dry-run")
    assert done.returncode == 2 and b"are the same experiment" in done.stderr


def test_every_bad_member_is_named(tmp_path: Path) -> None:
    recipe = write_recipe(tmp_path, small())
    done = submit(recipe, "--sweep", "train.global_batch=16,18,20", "--nproc", "4", "--dry-run")
    assert done.returncode == 2 and b"train.global_batch 18 does not divide over 4 processes" in done.stderr
    done = submit(recipe, "--sweep", "seed=0,x,y", "--dry-run")
    assert done.returncode == 2 and b'found "x"' in done.stderr and b'found "y"' in done.stderr
