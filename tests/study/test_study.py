"""scripts/study: what each scale consists of, what a call lists, queues and refuses."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.study import TABLE

from cifar_lab.commands.study import main
from cifar_lab.errors import UsageError
from cifar_lab.recipe import identity_fields, load_recipe
from cifar_lab.study.collect import keep, kept_path, state_of
from cifar_lab.study.members import Member, arrays, members
from cifar_lab.study.sizing import read_study

ROOT = Path(__file__).resolve().parents[2]
RESIDUAL = ("plain18", "plain34", "resnet18", "resnet34", "resnet18_ms")


@pytest.fixture
def in_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def weights(tmp_path: Path) -> str:
    """A folder with a file of the right name, since a recipe is only accepted when its weights are there."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "tf_efficientnet_lite0.safetensors").touch()
    return str(tmp_path / "weights")


def of_scale(scale: str, weights: str, *only: str) -> list[Member]:
    study = read_study(scale)
    return members(study, study.chosen(only), Path("runs/x"), weights=weights)


def test_seeds_are_no_overrides(in_checkout: None, weights: str) -> None:
    with pytest.raises(UsageError, match="choose them with --seeds"):
        members(read_study("cpu"), ["plain18"], Path("runs/x"), weights=weights, extra=["seed=3"])


@pytest.mark.parametrize(
    ("scale", "hours", "protocol"), [("cpu", (0.7, 1.1), (20_000, 2_000)), ("laptop", (7, 8.5), (None, 5_000))]
)
def test_a_scale_can_test_the_claims(
    scale: str, hours: tuple[float, float], protocol: tuple[int | None, int], in_checkout: None, weights: str
) -> None:
    found = of_scale(scale, weights)
    names = list(dict.fromkeys(member.name for member in found))
    assert {*names} == {*RESIDUAL, "vit_custom", "vit_tiny_scratch", "lite0", "lite0_scratch"}
    assert [member.seed for member in found] == [0, 1, 2] * len(names)
    assert len({member.path for member in found}) == len(found)
    assert hours[0] <= sum(member.minutes or 0.0 for member in found) / 60 <= hours[1]

    by_name = {member.name: member.recipe for member in found if member.seed == 0}
    # One protocol, or the report would not compare them.
    assert {(r.data.name, r.data.limit, r.data.val_size, r.data.test_limit) for r in by_name.values()} == {
        ("cifar10", *protocol, None)
    }
    fields = {name: identity_fields(recipe) for name, recipe in by_name.items()}
    plain = {key: value for key, value in fields["plain18"].items() if not key.startswith("model.")}
    for name in RESIDUAL:
        assert {key: value for key, value in fields[name].items() if not key.startswith("model.")} == plain
        assert fields[name]["model.args.width"] == 16
    keys = {*fields["lite0"], *fields["lite0_scratch"]}
    difference = {key for key in keys if fields["lite0"].get(key) != fields["lite0_scratch"].get(key)}
    assert difference == {"model.weights"}
    assert by_name["lite0"].model.weights == f"{weights}/tf_efficientnet_lite0.safetensors"
    assert {name for name, recipe in by_name.items() if recipe.train.precision == "fp32"} == {
        "vit_custom",
        "lite0",
        "lite0_scratch",
    }
    assert by_name["vit_custom"].data.image_size == by_name["vit_tiny_scratch"].data.image_size == 32


def test_full_scale_is_the_recipes_as_they_are(in_checkout: None, weights: str) -> None:
    found = of_scale("full", weights)
    assert {member.name for member in found} == set(TABLE)
    for member in found:
        assert member.recipe == load_recipe(ROOT / "recipes" / f"{member.name}.yaml", [f"seed={member.seed}"])
        assert member.seed in ([0] if member.name == "eva02_large" else [0, 1, 2])


def test_full_scale_as_arrays(in_checkout: None, weights: str, tmp_path: Path) -> None:
    study = read_study("full")
    found = members(study, ["resnet18", "eva02_large"], tmp_path, weights=weights)
    calls = arrays(study, found, tmp_path, ["--partition=gpu"])
    assert [call[-1] for call in calls] == ["seed=0,1,2", "seed=0"]
    done = subprocess.run([sys.executable, *calls[0], "--dry-run"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    header = [line.removeprefix("#SBATCH --") for line in done.stdout.splitlines() if line.startswith("#SBATCH")]
    assert {"array=0,1,2", "partition=gpu", "job-name=resnet18"} <= set(header)
    assert any("gpus-per-node=1" in line or "gres=gpu:1" in line for line in header)


def test_dry_run_lists_and_starts_nothing(
    in_checkout: None, weights: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = tmp_path / "runs"
    call = ["--scale", "cpu", "--runs", str(runs), "--weights", weights, "--dry-run"]
    assert main([*call, "--only", "transfer", "--only", "plain18", "--seeds", "3,4", "train.epochs=2"]) == 0
    lines = capsys.readouterr().out.splitlines()
    listed = [" ".join(line.split()[1:4]) for line in lines if line.startswith(" ")]
    assert listed == [f"{name} seed {seed}" for name in ("plain18", "lite0", "lite0_scratch") for seed in (3, 4)]
    commands = [shlex.split(line) for line in lines if line.startswith("python ")]
    assert [Path(command[3]).name for command in commands] == ["plain18.yaml", "vit_tiny.yaml", "vit_tiny_scratch.yaml"]
    assert all("train.epochs=2" in command and "seed=3" in command for command in commands)
    assert lines[-1].startswith(f"6 runs in {runs}, about ")
    assert not runs.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("about: x\nruns: {plain18: {overides: a=1}}", ":2: runs.plain18.overides: Extra inputs are not permitted"),
        ("about: x\nruns: {plain18: {group: b}}\ngroups: {a: ''}", ":1: runs.plain18.group: there is no group 'b'"),
        (
            "about: x\noverrides: train.epochs 2\nruns: {plain18: {}}",
            ":2: overrides: 'train.epochs' is not an override",
        ),
        ("about: x\noverrides: seed=2\nruns: {plain18: {}}", ":2: overrides: the seed is the study's"),
        ("about: x\noverrides: a='b\nruns: {plain18: {}}", ":2: overrides: No closing quotation"),
        ("about: x\nseeds: [zero]\nruns: {plain18: {}}", ":2: seeds.0: "),
        ("about: x\nruns: {}", ":2: runs: "),
        ("about: [", ": expected the node content"),
        ("about: x\nruns: {plain19: {}}", "(did you mean `plain18`?)"),
        ("about: x\nruns: {plain18: {overrides: train.epoch=1}}", "plain18: override: train.epoch: unknown"),
        ("- x", ":1: Input should be a valid dictionary"),
    ],
)
def test_a_file_that_is_wrong(
    text: str, message: str, in_checkout: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    assert main(["--scale", str(tmp_path / "mine.yaml"), "--dry-run"]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (["--scale", "cpus"], "there are cpu, laptop, full (did you mean `cpu`?)"),
        (["--scale", "missing.yaml"], "missing.yaml cannot be read"),
        (["--scale", "cpu", "--only", "resnet50"], "--only resnet50 (did you mean `resnet"),
        (["--scale", "cpu", "--only", "lite0", "--weights", "/nowhere"], "--weights DIR"),
        (["--scale", "cpu", "--only", "plain18", "--keep", "x", "--runs", "x"], "--keep x is where the runs are made"),
    ],
)
def test_a_call_that_is_wrong(
    call: list[str], message: str, in_checkout: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(call) == 2
    assert message in capsys.readouterr().err


def test_keeping_takes_small_files_and_never_pictures_or_weights(
    in_checkout: None, weights: str, tmp_path: Path
) -> None:
    study = read_study("cpu")
    found = members(study, ["plain18"], tmp_path / "runs", weights=weights)
    run = found[0].path
    run.mkdir(parents=True)
    status = {"state": "completed", "step": 1, "total_steps": 1, "reason": None, "world_size": 1, "attempt": 1}
    (run / "status.json").write_text(json.dumps({**status, "updated": 1.0}))
    for name in ("recipe.yaml", "metrics.jsonl", "mistakes.png", "augmented.png", "model.safetensors", "wandb.json"):
        (run / name).write_text("x")
    (run / "predictions.npz").write_bytes(bytes(3 * 2**20))
    (run / "checkpoints").mkdir()
    kept = tmp_path / "kept"
    keep(found[0], kept)
    assert kept_path(found[0], kept) == kept / "plain18" / run.name
    assert {path.name for path in (kept / "plain18" / run.name).iterdir()} == {
        "recipe.yaml",
        "metrics.jsonl",
        "status.json",
    }
    shutil.rmtree(tmp_path / "runs")
    assert [state_of(member, kept).effective_state for member in found] == ["completed", "new", "new"]


def test_a_plain_clone_trains_what_needs_no_published_weights(
    in_checkout: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--scale", "cpu", "--runs", str(tmp_path), "--weights", "/nowhere", "--dry-run"]) == 0
    out, said = capsys.readouterr()
    assert "24 runs" in out and " lite0 seed" not in out
    assert said == ("lite0 is left out: there is no /nowhere/tf_efficientnet_lite0.safetensors (--weights DIR)\n")
